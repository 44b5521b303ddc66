"""Triton kernels in Triton's interpreter, on CPU tensors; collected only with TRITON_INTERPRET=1.

``TRITON_INTERPRET=1 python -m pytest tests/kernels/interpreted`` runs them all; an ordinary run does so in a process
of its own (``tests/kernels/test_interpreter.py``), because a process either interprets or compiles.

``CODISTILL_TEST_DEVICE=cuda python -m pytest tests/kernels/interpreted`` runs the same tests on a GPU.
"""

import os

import pytest
import torch

collect_ignore_glob = []
if os.environ.get("CODISTILL_TEST_DEVICE") == "cuda":
    from codistill.tests.kernels.interpreted.on_gpu import everything_on_the_gpu

    everything_on_the_gpu()
    collect_ignore_glob.append("test_repair.py")
elif os.environ.get("TRITON_INTERPRET") == "1":
    from codistill.tests.kernels.interpreted.repair import repair

    repair()
else:
    collect_ignore_glob.append("test_*")


def pytest_configure(config):
    """NumPy warns where the interpreter computes with infinities and NaN, as a GPU does without a word."""
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


MARGIN = 4096
"""Canary elements on either side. A multiple of 16, so that a guarded tensor is aligned as a fresh one is."""


def canary(dtype: torch.dtype) -> float | int | bool:
    """Return a value that spoils any result that it gets into, or that nobody writes by chance."""
    if dtype.is_floating_point:
        return float("nan")
    if dtype == torch.bool:
        return True
    return max(-(2**31), torch.iinfo(dtype).min) + 7


class Guard:
    """``guard(tensor)`` returns an equal, contiguous leaf amid canaries."""

    def __init__(self):
        self.laid = []

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        count = tensor.numel()
        buffer = torch.full((count + 2 * MARGIN,), canary(tensor.dtype), dtype=tensor.dtype)
        inner = buffer[MARGIN : MARGIN + count].view(tensor.shape)
        inner.copy_(tensor.detach())
        self.laid.append((buffer, count))
        return inner.requires_grad_(tensor.requires_grad)

    def check(self) -> None:
        for number, (buffer, count) in enumerate(self.laid):
            margins = torch.cat([buffer[:MARGIN], buffer[MARGIN + count :]]).view(torch.uint8)
            whole = torch.full((2 * MARGIN,), canary(buffer.dtype), dtype=buffer.dtype).view(torch.uint8)
            assert torch.equal(margins, whole), f"something was written beside the guarded tensor number {number}"


@pytest.fixture
def guard():
    """``guard(tensor)`` returns an equal, contiguous leaf amid canaries, which must be whole when the test ends."""
    guard = Guard()
    yield guard
    guard.check()
