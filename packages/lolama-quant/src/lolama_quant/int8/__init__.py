"""Weights of eight bits with a scale for each output channel: made, stored and multiplied with."""
