"""Where fetched models are kept, and who may change them."""
