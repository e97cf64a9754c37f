"""Weights of four bits: what they are made of. `grouped` stores them and multiplies with them."""
