"""Products and whole decoding steps on a CPU, by the C library of ``native/``."""
