"""Named random streams: every draw has an address, and no draw moves another.

A stream is derived from the seed of the run and a path of names (agent, purpose, round). Nothing is carried
from one draw to the next, so a resumed run needs no generator state and adding an agent moves nobody else.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def seed_of(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream at ``names`` under the run's ``seed``."""
    path = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of the stream at ``names``."""
    return np.random.default_rng(seed_of(seed, *names))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """Return the torch CPU generator of the stream at ``names``. It takes in 32 bits of the seed."""
    return torch.Generator().manual_seed(seed_of(seed, *names))


def uniform_of_ids(seed: int, ids: np.ndarray, *names: str | int) -> np.ndarray:
    """Return a number in [0, 1) for each of ``ids`` int64 [N], float64 [N], of the stream at ``names``.

    An id has the same number whatever other ids it comes with, and whenever it comes: the mixing function of SplitMix64
    (Steele, Lea and Flood 2014) of the stream's seed and the id.
    """
    mixed = np.asarray(ids, dtype=np.int64).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(seed_of(seed, *names))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    drawn: np.ndarray = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
    return drawn
