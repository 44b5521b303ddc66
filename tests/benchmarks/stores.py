"""Measures retrieval from a store beside faiss and beside the loop of FedCache's published code.

    python -m codistill.tests.benchmarks.stores

Repetitions alternate, so that a machine that gets slower slows both. Nothing else should be at work on it; where
something is, ``--threads 1 --clock cpu`` counts this process's own seconds. (Threads of faiss spin while they wait.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from codistill.tasks.stores import Declaration, Store, entries

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def alternating(
    ours: Callable[[], Any], theirs: Callable[[], Any], repeat: int, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Return the seconds of each call; one call of each comes before and is not counted."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeat + 1):
        for seconds, call in zip(taken, (ours, theirs), strict=True):
            since = clock()
            call()
            if turn:
                seconds.append(clock() - since)
    return taken


def say(what: str, theirs_are: str, ours: list[float], theirs: list[float]) -> None:
    """Print both medians with their ranges, and how many times faster ours is."""

    def several(seconds: list[float]) -> str:
        milliseconds = [1000 * one for one in seconds]
        return f"{statistics.median(milliseconds):9.1f} ms ({min(milliseconds):.1f} to {max(milliseconds):.1f})"

    print(f"{what}\n  store    {several(ours)}\n  {theirs_are:8} {several(theirs)}")
    print(
        f"  ratio of medians, {theirs_are} / store: {statistics.median(theirs) / statistics.median(ours):.2f}\n",
        flush=True,
    )


def beside_faiss(
    folder: Path, rows: int, many: int, k: int, threads: int, repeat: int, clock: Callable[[], float]
) -> None:
    """An int8 store of ``rows`` x 128 in its files, beside faiss's flat index over the same numbers in memory."""
    import faiss

    declaration = Declaration.model_validate({"kind": "episodic", "holds": "features", "encoding": "int8"})
    store, rng, step = Store.create(declaration, "million", bound=2**28), np.random.default_rng(1), 100_000
    index = faiss.IndexFlatIP(128)
    for first in range(0, rows, step):
        ids = np.arange(first, min(first + step, rows))
        store.put(entries(ids, rng.standard_normal((len(ids), 128), np.float32), "made-up", 1), 1)
    store = Store.open(store.write(folder, "million"))
    for first in range(0, rows, step):
        index.add(store.at(np.arange(first, min(first + step, rows))).values)
    queries = rng.standard_normal((many, 128), np.float32)
    asked = torch.from_numpy(queries)
    faiss.omp_set_num_threads(threads)
    found, (_, expected) = store.nearest(asked, k, "dot", round=1), index.search(queries, k)
    alike = float((found.ids.numpy() == expected).mean())
    print(f"the same ids at the same places: {100 * alike:.3f} %")
    ours, theirs = alternating(
        lambda: store.nearest(asked, k, "dot", round=1), lambda: index.search(queries, k), repeat, clock
    )
    say(f"{rows:,} int8 entries of 128 numbers, {many:,} queries, k = {k}, {threads} threads", "faiss", ours, theirs)


def beside_a_loop(
    folder: Path, samples: int, classes: int, neighbours: int, repeat: int, clock: Callable[[], float]
) -> None:
    """FedCache's means over known neighbours: one call, beside a loop over samples and their neighbours.

    The loop does what ``fetch_knowledge_single`` and ``knowledge_avg_single`` of github.com/wuzhiyuan2000/FedCache do
    for each sample on a CPU: logits from a dictionary of dictionaries, added one by one, divided, and through NumPy.
    (There, a list of weights as long as there are classes cuts 16 neighbours to 10; here all count, in both.)
    """
    rng = np.random.default_rng(2)
    labels = np.sort(rng.integers(0, classes, samples))
    logits = rng.standard_normal((samples, classes), np.float32)
    first = np.searchsorted(labels, labels)
    size = np.searchsorted(labels, labels, "right") - first
    near = first[:, None] + rng.integers(0, 2**31, (samples, neighbours)) % size[:, None]
    declaration = Declaration.model_validate({"kind": "episodic", "holds": "logits"})
    store = Store.create(declaration, "cache")
    store.put(entries(np.arange(samples), logits, "made-up", 1, classes=labels), 1)
    store = Store.open(store.write(folder, "cache"))
    cache: dict[int, dict[int, torch.Tensor]] = {label: {} for label in range(classes)}
    for one, label in enumerate(labels.tolist()):
        cache[label][one] = torch.from_numpy(logits[one])
    relation = dict(enumerate(near.tolist()))
    owned = labels.tolist()

    def loop() -> torch.Tensor:
        means = []
        for one in range(samples):
            fetched = [cache[owned[one]][other] for other in relation[one]]
            total, many = torch.zeros_like(fetched[0]), 0
            for neighbour in fetched:
                total.add_(neighbour)
                many += 1
            means.append((total / many).numpy())
        return torch.from_numpy(np.array(means))

    torch.testing.assert_close(store.mean_of(near, round=1)[0], loop(), atol=1e-5, rtol=1e-5)
    ours, theirs = alternating(lambda: store.mean_of(near, round=1), loop, repeat, clock)
    say(f"{samples:,} samples, means over {neighbours} known neighbours of {classes} logits", "loop", ours, theirs)


def main() -> None:
    """Measure both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--samples", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    said = parser.parse_args()
    clock = CLOCKS[said.clock]
    torch.set_num_threads(said.threads)
    with tempfile.TemporaryDirectory() as name:
        beside_a_loop(Path(name), said.samples, 10, 16, said.repeat, clock)
        beside_faiss(Path(name), said.rows, said.queries, said.k, said.threads, said.repeat, clock)


if __name__ == "__main__":
    sys.exit(main())
