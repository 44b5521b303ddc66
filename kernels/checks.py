"""Refusals: each says which argument of which function, what it is and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def one_of(function: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{function}: {name} is {value!r}; expected one of {', '.join(allowed)}")


def above_zero(function: str, name: str, value: float) -> None:
    """Refuse zero, negative numbers and NaN."""
    if not value > 0:
        raise ValueError(f"{function}: {name} is {value}; expected more than 0")


def logits(function: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse what is not [..., V] of floats with V of at least 1."""
    if not tensor.is_floating_point() or tensor.dim() < 1 or tensor.shape[-1] < 1:
        raise ValueError(
            f"{function}: {name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; "
            "expected floats [..., V], V classes"
        )


def same_logits(function: str, name: str, tensor: torch.Tensor, like: torch.Tensor) -> None:
    """Refuse logits that do not stand beside ``like``: other classes, other rows, another device."""
    logits(function, name, tensor)
    if tensor.shape[-1] != like.shape[-1]:
        raise ValueError(
            f"{function}: {name} has {tensor.shape[-1]} classes and the student {like.shape[-1]}; "
            "map one vocabulary onto the other first, padding with -inf and not with zero"
        )
    if tensor.shape != like.shape:
        raise ValueError(f"{function}: {name} has shape {tuple(tensor.shape)}; expected {tuple(like.shape)}")
    if tensor.device != like.device:
        raise ValueError(f"{function}: {name} is on {tensor.device} and the student on {like.device}")


def rows(function: str, name: str, tensor: torch.Tensor | None, like: torch.Tensor) -> None:
    """Refuse what is not one value for each row of ``like`` [..., V]; None is fine."""
    if tensor is None:
        return
    if tensor.shape != like.shape[:-1]:
        raise ValueError(
            f"{function}: {name} has shape {tuple(tensor.shape)}; expected {tuple(like.shape[:-1])}, one a row"
        )
    if name == "labels" and tensor.dtype != torch.int64:
        raise ValueError(f"{function}: labels are {tensor.dtype}; expected int64")
    if tensor.device != like.device:
        raise ValueError(f"{function}: {name} is on {tensor.device} and the student on {like.device}")
