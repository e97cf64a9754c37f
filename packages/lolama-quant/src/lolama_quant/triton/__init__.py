"""Products and whole decoding steps on NVIDIA GPUs. Only `kernels` needs Triton to be imported."""
