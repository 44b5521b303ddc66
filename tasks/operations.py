"""The operations by name: the life of knowledge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .absorb import Absorb, absorb
from .aggregate import Aggregate, aggregate
from .extract import Extract, extract
from .forget import Forget, forget
from .remember import Consolidate, Decay, Retrieve, Store, consolidate, decay, retrieve, store
from .share import Share, share
from .train import TrainStep, train

OPERATIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "train": (train, TrainStep),
    "extract": (extract, Extract),
    "store": (store, Store),
    "share": (share, Share),
    "aggregate": (aggregate, Aggregate),
    "retrieve": (retrieve, Retrieve),
    "absorb": (absorb, Absorb),
    "consolidate": (consolidate, Consolidate),
    "decay": (decay, Decay),
    "forget": (forget, Forget),
}
"""Name, function and parameters. ``share`` and ``aggregate`` are done along links, the others by an agent alone."""

NEED_A_MODEL = ("train", "extract", "absorb")
"""What an aggregator can do only with a model of its own; it may remember without."""
