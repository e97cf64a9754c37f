"""Weights as small whole numbers with a scale for each group of inputs: stored, and multiplied with."""
