"""The C library: products and whole decoding steps on a CPU."""
