"""A child process that fills and reads a store of 192 MiB under a limit of memory that holds half of it.

python bigger_than_memory.py FOLDER
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch
from codistill.tasks.stores import Store, consolidated, entries
from codistill.tasks.stores.declaration import Declaration

ROWS, WIDTH, TURNS = 16384, 256, 12
ROOM = 96 * 2**20


def data_in_use():
    """Bytes of private memory that can be written, which is what RLIMIT_DATA limits."""
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(words["VmData"].split()[0]) * 1024


def values_of(turn):
    return np.random.default_rng(turn).standard_normal((ROWS, WIDTH), np.float32)


def main(folder):
    torch.set_num_threads(1)
    declaration = Declaration(kind="episodic", holds="features")
    warm = Store.create(declaration, "warm")
    warm.put(entries(np.arange(9), values_of(0)[:9], "a", 0, classes=np.zeros(9)), 0)
    warm.nearest(torch.ones(2, WIDTH), 3, "dot", round=0)
    # What pyarrow imports at its first table (pandas, where it is installed) is no memory of a store.
    Store.open(warm.write(folder, "warm")).get([0])
    resource.setrlimit(resource.RLIMIT_DATA, (data_in_use() + ROOM, resource.RLIM_INFINITY))
    (folder / "spill").mkdir()
    store = Store.create(declaration, "big", spill=folder / "spill", bound=2**24)
    for turn in range(TURNS):
        ids = np.arange(turn * ROWS, (turn + 1) * ROWS)
        store.put(entries(ids, values_of(turn), "a", turn, classes=ids % 3), turn)
    store = Store.open(store.write(folder, "big"), bound=2**24)
    assert store.statistics.bytes >= 2 * ROOM and len(store) == TURNS * ROWS
    at = 5 * ROWS + 77
    assert np.array_equal(store.get([at]).values[0], values_of(5)[77])
    found = store.nearest(torch.from_numpy(values_of(9)[:4]), 2, "l2", round=TURNS)
    assert found.ids[:, 0].tolist() == [9 * ROWS + one for one in range(4)]
    means = consolidated(store.class_means())
    expected = np.zeros((3, WIDTH))
    for turn in range(TURNS):
        for label in range(3):
            expected[label] += values_of(turn)[(np.arange(ROWS) + turn * ROWS) % 3 == label].sum(0, dtype=np.float64)
    assert np.allclose(means.values, expected / means.weights[:, None], atol=1e-6)
    store.forget(ids=np.arange(0, 8 * ROWS))
    store = Store.open(store.write(folder, "big"), bound=2**24)
    assert len(store) == 4 * ROWS and store.statistics.bytes_on_disk < 1.2 * store.statistics.bytes
    print("fine")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
