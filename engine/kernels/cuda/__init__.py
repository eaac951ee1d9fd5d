"""Kernels on an NVIDIA GPU: CUDA C++ as text, compiled at first use, and libraries of NVIDIA.

A module here has the functions of the module of that name in kernels/cpu, on arrays of the device.
The text of its kernels is in the `.cu` file of its name. `launch` runs one; `host` compiles the
same text for the processor, under `shim.h`, which tests and the strict device do.
"""
