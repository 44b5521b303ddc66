"""A child process that writes a store in a loop until it is killed.

    python writer.py FOLDER

After each write it says how many rounds are in; ``put_round`` is what a round does, for whoever checks.
"""

import os
import sys
from pathlib import Path

import numpy as np
from codistill.tasks.stores import Declaration, Store, entries


def put_round(store, round):
    """Put what belongs to ``round``: some entries are new, most take the place of older ones."""
    rng = np.random.default_rng(round)
    ids = rng.choice(60, 25, replace=False)
    given = entries(ids, rng.normal(size=(25, 6)), ["a", "b"], round, owners=rng.integers(0, 2, 25))
    store.put(given, round)
    if round % 5 == 4:
        store.forget(contributor="a", older_than=round - 2)


def declaration():
    return Declaration(kind="episodic", holds="logits", encoding="int8", capacity={"items": 70})


def main(folder):
    path = folder / "store.json"
    store = Store.open(path) if path.exists() else Store.create(declaration(), "killed")
    round = 0 if not len(store) else int(store.all().rounds.max()) + 1
    while True:
        put_round(store, round)
        store.write(folder, "store")
        for file in folder.iterdir():
            if file.is_file() and file not in store.files():
                file.unlink()
        os.write(1, f"{round}\n".encode())
        round += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
