"""What is generated: settings, sampling, requests, the loops, and what they give out."""
