"""The workload digits20 as files: codistill reads, cuts and deals out the data; floors read them with NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from codistill.flows.holdings import hold
from codistill.flows.launch import cache_folder
from codistill.specs.load import load_specs
from codistill.tasks.data.prepared import open_prepared

HERE = Path(__file__).resolve().parent
SPEC = HERE / "digits20.yaml"


def write_workload(folder: Path, overrides: Sequence[str] = ()) -> Path:
    """Write samples, and who holds which, as ``.npy`` files into ``folder``, and return it.

    Agent i's train samples are ``x_train[train_ids[train_ends[i] : train_ends[i + 1]]]``; its test cut likewise.
    """
    (loaded,) = load_specs(str(SPEC), overrides)
    holdings = hold(loaded.value, cache_folder(folder))
    dataset = open_prepared(holdings.folder)
    arrays = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    for part, ids in (("train", holdings.partition.train), ("test", holdings.partition.test)):
        arrays[f"{part}_ids"] = np.concatenate(ids)
        arrays[f"{part}_ends"] = np.cumsum([0, *map(len, ids)])
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder
