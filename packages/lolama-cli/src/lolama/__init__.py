"""The Python face of lolama, and the one place that wires its packages together."""
