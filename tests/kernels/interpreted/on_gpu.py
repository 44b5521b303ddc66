"""Has tests that were written for CPU tensors make all their tensors on a GPU."""

from pathlib import Path

import torch


class GeneratorOnGpu(torch.Generator):
    """A generator for tensors on the GPU where the device is not said."""

    def __new__(cls, device: str = "cuda"):
        return super().__new__(cls, device)


def large_on_gpu(path: str | Path, *, shared: bool, size: int, dtype: torch.dtype) -> torch.Tensor:
    """Return zeros in the GPU's memory for what is a sparse file where memory is small."""
    return torch.zeros(size, dtype=dtype, device="cuda")


def everything_on_the_gpu() -> None:
    """Let tensors be made on the GPU from now on, and float32 products be float32 products."""
    torch.set_default_device("cuda")
    torch.Generator = GeneratorOnGpu
    torch.from_file = large_on_gpu
