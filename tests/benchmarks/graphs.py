"""Measures knowledge graph embedding beside the protocol of FedE written plainly in torch, and beside PyKEEN.

    python -m codistill.tests.benchmarks.graphs --quick

One client is all of FB15k-237, three are its split by relation. A step is a batch of 512 triples with 256 negatives
each, dimension 128; a ranking that of test triples among all entities, filtered. Repetitions alternate, so that a
machine that gets slower slows all. Times are processor time of one thread. ``--quick`` measures TransE alone.

The plain protocol is what FedE's code does (github.com/zjukg/FedE), written anew: every triple's negatives are looked
up as [B, n, D], the loss is autograd's, Adam moves all rows; a ranking compares 16 triples with all entities as
[16, E, D] and sorts. Where FedE's own code is slower than need be - negatives drawn and filtered triple by triple in
Python, two sorts a rank - the plain one is not: it draws without a filter and sorts once. Ours filters.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from codistill.graphs.embedding import Embedding
from codistill.graphs.fit import Fit, fit
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import rank
from codistill.graphs.sources import GRAPHS
from codistill.graphs.splits import SPLITS
from codistill.graphs.triples import Triples

DIMENSION, BATCH, NEGATIVES, MARGIN, LR = 128, 512, 256, 10.0, 0.001
SLOW = ("plain", "PyKEEN")
Timed = Callable[[], int]
"""Does something and returns how many steps, or ranks, it did."""


class Plain:
    """FedE's protocol in plain torch for one client."""

    def __init__(self, graph: Triples, score: str) -> None:
        self.graph, self.score = graph, score
        self.made = Embedding(
            len(graph.entities), len(graph.relations), DIMENSION, score, torch.Generator().manual_seed(1), margin=MARGIN
        )
        self.optimizer = torch.optim.Adam(self.made.parameters(), lr=LR)
        self.known: dict[tuple[int, int], list[int]] = {}
        for head, relation, tail in torch.cat([graph.train, graph.valid, graph.test]).tolist():
            self.known.setdefault((head, relation), []).append(tail)

    def distances(self, heads: torch.Tensor, relations: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
        """Return the distances of broadcast rows."""
        if self.score == "transe":
            return (heads + relations - tails).norm(p=1, dim=-1)
        (a, b), (c, d) = heads.chunk(2, -1), tails.chunk(2, -1)
        cosine, sine = relations.cos(), relations.sin()
        return torch.stack([a * cosine - b * sine - c, a * sine + b * cosine - d]).norm(dim=0).sum(-1)

    def loss(self, triples: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return the loss of ``triples`` [B, 3] whose tails ``negatives`` [B, n] replace."""
        entities, relations = self.made.entities, self.made.relations
        heads = entities.index_select(0, triples[:, 0])[:, None]
        relation = relations.index_select(0, triples[:, 1])[:, None]
        tails = entities.index_select(0, triples[:, 2])[:, None]
        others = entities.index_select(0, negatives.view(-1)).view(*negatives.shape, -1)
        positive = MARGIN - self.distances(heads, relation, tails).squeeze(1)
        negative = MARGIN - self.distances(heads, relation, others)
        shares = torch.softmax(negative, 1).detach()
        loss = -torch.nn.functional.logsigmoid(positive).mean()
        return (loss - (shares * torch.nn.functional.logsigmoid(-negative)).sum(1).mean()) / 2

    def steps(self, count: int) -> int:
        """Take steps that replace tails."""
        for chosen in torch.randint(len(self.graph.train), (count, BATCH)):
            loss = self.loss(self.graph.train[chosen], torch.randint(len(self.made.entities), (BATCH, NEGATIVES)))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return count

    @torch.no_grad()
    def ranked(self, triples: torch.Tensor) -> torch.Tensor:
        """Return the ranks of the tails of ``triples`` [B, 3], without a thought of ties."""
        entities, relations = self.made.entities, self.made.relations
        rows, tails = torch.arange(len(triples)), triples[:, 2]
        heads = entities[triples[:, 0]][:, None]
        scores = MARGIN - self.distances(heads, relations[triples[:, 1]][:, None], entities[None])
        own = scores[rows, tails]
        for row, (head, relation, _) in enumerate(triples.tolist()):
            scores[row, self.known[head, relation]] = -1e7
        scores[rows, tails] = own
        return 1 + (torch.argsort(scores, 1, descending=True) == tails[:, None]).nonzero()[:, 1]

    def ranks(self, count: int) -> int:
        """Rank tails, 16 triples at a time."""
        return sum(len(self.ranked(triples)) for triples in self.graph.test[:count].split(16))


class Ours:
    """The same with ``codistill.graphs``."""

    def __init__(self, graph: Triples, score: str, **said: Any) -> None:
        self.graph, self.generator = graph, torch.Generator().manual_seed(1)
        self.made = Embedding(
            len(graph.entities), len(graph.relations), DIMENSION, score, self.generator, margin=MARGIN
        )
        self.settings = Fit(epochs=1, batch=BATCH, negatives=NEGATIVES, lr=LR, **said)
        self.trained = KnownTriples(graph.train, len(graph.entities), len(graph.relations))

    def steps(self, count: int) -> int:
        """Take steps, of a local training each time."""
        some = self.graph.train[torch.randint(len(self.graph.train), (count * BATCH,))]
        return fit(self.made, some, self.settings, self.generator, known=self.trained).steps

    def ranks(self, count: int) -> int:
        """Rank tails and heads; the filter is built anew each time."""
        graph = self.graph
        everything = torch.cat([graph.train, graph.valid, graph.test])
        known = KnownTriples(everything, len(graph.entities), len(graph.relations))
        return 2 * len(rank(self.made, graph.test[:count], known).tails)


class PyKEEN:
    """The same with PyKEEN: its training loop with its own negatives, its evaluator."""

    def __init__(self, graph: Triples, score: str) -> None:
        from pykeen.losses import NSSALoss
        from pykeen.models import RotatE, TransE
        from pykeen.training import SLCWATrainingLoop
        from pykeen.triples import CoreTriplesFactory

        self.graph, sizes = graph, (len(graph.entities), len(graph.relations))
        self.factories = lambda triples: CoreTriplesFactory(triples, *sizes)
        factory, loss = self.factories(graph.train), NSSALoss(margin=MARGIN, adversarial_temperature=1.0)
        kind, said = (TransE, {"scoring_fct_norm": 1}) if score == "transe" else (RotatE, {})
        self.model = kind(triples_factory=factory, embedding_dim=DIMENSION, loss=loss, random_seed=1, **said)
        self.loop = SLCWATrainingLoop(
            model=self.model,
            triples_factory=factory,
            optimizer=torch.optim.Adam(self.model.parameters(), lr=LR),
            negative_sampler_kwargs={"num_negs_per_pos": NEGATIVES},
        )

    def steps(self, count: int) -> int:
        """Take steps."""
        some = self.factories(self.graph.train[torch.randint(len(self.graph.train), (count * BATCH,))])
        self.loop.train(some, num_epochs=1, batch_size=BATCH, use_tqdm=False, use_tqdm_batch=False, pin_memory=False)
        return count

    def ranks(self, count: int) -> int:
        """Rank tails and heads."""
        from pykeen.evaluation import RankBasedEvaluator

        test = self.graph.test[:count]
        RankBasedEvaluator(filtered=True).evaluate(
            self.model,
            test,
            batch_size=32,
            use_tqdm=False,
            additional_filter_triples=[self.graph.train, self.graph.valid, self.graph.test],
        )
        return 2 * len(test)


def alternating(timed: dict[str, Timed], repeat: int) -> dict[str, list[float]]:
    """Return processor milliseconds for one step or rank of each, by repetition; one more comes before."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(repeat + 1):
        for name, call in timed.items():
            since = time.process_time()
            done = call()
            if turn:
                taken[name].append(1000 * (time.process_time() - since) / done)
    return taken


def say(title: str, taken: dict[str, list[float]], base: str) -> None:
    """Print medians with ranges, and how many times faster than ``base`` each is: the median of the ratios."""
    print(title)
    for name, ms in taken.items():
        ratio = statistics.median(theirs / own for theirs, own in zip(taken[base], ms, strict=True))
        print(
            f"  {name:22} {statistics.median(ms):10.3f} ms ({min(ms):.3f} to {max(ms):.3f})   "
            f"{base} / this: {ratio:8.1f}"
        )
    print(flush=True)


def beside(title: str, graphs: Sequence[Triples], score: str, steps: int, ranks: int, repeat: int, rounds: int) -> None:
    """Measure steps and ranks over clients; ``rounds`` steps are what a round of FedE takes."""
    clients: dict[str, list[Any]] = {
        "plain": [Plain(one, score) for one in graphs],
        "own negatives": [Ours(one, score) for one in graphs],
        "shared negatives": [Ours(one, score, shared=True) for one in graphs],
        "shared, lazy": [Ours(one, score, shared=True, optimizer="lazy-adam") for one in graphs],
    }
    if len(graphs) == 1:
        clients["PyKEEN"] = [PyKEEN(graphs[0], score)]

    # So many more of what is fast, that what is done once counts as little as it does in a whole round.
    def all_steps(name: str) -> Timed:
        return lambda: sum(one.steps(steps * (1 if name in SLOW else 10)) for one in clients[name])

    def all_ranks(name: str) -> Timed:
        return lambda: sum(one.ranks(ranks * (1 if name in SLOW else 50)) for one in clients[name])

    taken = alternating({name: all_steps(name) for name in clients}, repeat)
    say(f"{title}, {score}: a step", taken, "plain")
    if rounds:
        for name, ms in taken.items():
            print(f"  a round of {rounds:,} steps, {name}: {statistics.median(ms) * rounds / 60_000:.2f} minutes")
        print()
    ranking = ["plain", "own negatives", *(["PyKEEN"] if len(graphs) == 1 else [])]
    taken = alternating({name if name != "own negatives" else "codistill": all_ranks(name) for name in ranking}, repeat)
    say(f"{title}, {score}: a rank", taken, "plain")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where kg_fb15k237 lies")
    parser.add_argument("--quick", action="store_true", help="TransE alone, in two minutes")
    said = parser.parse_args()
    torch.set_num_threads(1)
    source = GRAPHS["fb15k237"]
    whole = next(iter(source.function(source.parameters(), said.data).clients.values()))
    split = SPLITS["relation"]
    clients = split.function(split.parameters(), whole, 3, np.random.default_rng(1)).clients
    rounds = 3 * sum(-(-len(one.train) // BATCH) for one in clients)
    steps, ranks, repeat = (2, 32, 3) if said.quick else (4, 64, 7)
    for score in ("transe",) if said.quick else ("transe", "rotate"):
        beside("one client", [whole], score, steps, ranks, repeat, 0)
        beside("three clients", clients, score, steps, ranks, repeat, rounds)


if __name__ == "__main__":
    sys.exit(main())
