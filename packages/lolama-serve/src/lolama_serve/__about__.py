"""The version of this distribution, in the one place that every tool reads it from."""

__version__ = "0.1.0"
