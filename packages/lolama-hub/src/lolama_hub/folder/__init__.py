"""Folders in the layout of Hugging Face: configurations, tokenizers and names of weights, and conversions."""
