"""What is measured: an operation at one shape, and those who can do it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch

OPERATIONS = (
    "kd_loss",
    "sparse_kd_loss",
    "aggregate_logits",
    "retrieve",
    "linear_kd_loss",
    "relations",
    "graph_scores",
)
"""Each has a file of its name in ``cases``, with a function ``cases(device, quick)``."""

EAGER = "eager"
OURS = "codistill "

Outputs = tuple[torch.Tensor, ...]
Provider = Callable[[], Outputs]


@dataclass(frozen=True)
class Prepared:
    """Inputs are made: ``providers`` do the operation on them, ``exact`` does it in float64.

    All return the same outputs, gradients included. One provider is called "eager"; ours begin with "codistill".
    """

    providers: Mapping[str, Provider]
    exact: Provider


@dataclass(frozen=True)
class Case:
    """An operation at one shape."""

    operation: str
    shape: str
    dtype: torch.dtype
    bytes_moved: int
    """What must be read and written at least: inputs once, outputs once."""
    tolerance: float
    """Largest relative error of an output, as norms, from which a provider counts as wrong and is not timed."""
    prepare: Callable[[], Prepared]
    peer_tolerance: float | None = None
    """That of the others, where it is another."""

    def allowed(self, provider: str) -> float:
        """Return the largest relative error with which a provider is timed."""
        return self.tolerance if provider.startswith(OURS) or self.peer_tolerance is None else self.peer_tolerance


def all_cases(device: torch.device, quick: bool, only: Sequence[str] = ()) -> Iterator[Case]:
    """Yield the cases for a device; ``quick`` leaves out the largest, ``only`` names operations."""
    for name in OPERATIONS:
        if not only or name in only:
            yield from importlib.import_module(f".cases.{name}", __package__).cases(device, quick)


def back_ends(device: torch.device) -> list[str]:
    """Return the back ends of codistill that are measured on a device, the natural one first."""
    natural = ["triton"] if device.type == "cuda" and find_spec("triton") else []
    return [*natural, "reference"] if device.type == "cuda" else ["cpu", "reference"]


def has_liger(device: torch.device) -> bool:
    """Whether Liger-Kernel can run here."""
    return device.type == "cuda" and find_spec("liger_kernel") is not None


def drawn(device: torch.device, dtype: torch.dtype, *shape: int, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Return normal random numbers, the same in every run on a device of that kind."""
    # On the device itself: a processor would draw the half billion numbers of a head for longer than all is measured.
    generator = torch.Generator(device).manual_seed(seed)
    return (torch.randn(*shape, generator=generator, device=device) * spread).to(dtype)


def short(dtype: torch.dtype) -> str:
    """Return "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
