"""Triton kernels and their launchers. Nothing here is imported unless it is used."""
