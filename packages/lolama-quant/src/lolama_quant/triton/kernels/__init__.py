"""Kernels for NVIDIA GPUs. Their modules are imported only where Triton is installed.

Parameters of kernels have no types but `tl.constexpr`: Triton evaluates an annotation as part of the kernel.
A parameter named after a tensor is the address of its first element, and a tensor is contiguous.
"""
