"""Central RotatE on FB15k-237, ours and PyKEEN's on the same budget: the filtered MRR of heads and tails by epoch.

Both are ranked by :mod:`codistill.graphs.ranking`, on all test triples; tests/graphs/test_pykeen.py holds it against
PyKEEN's own evaluator.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from codistill.graphs.embedding import Embedding
from codistill.graphs.fit import fit
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import both_sides, rank
from codistill.graphs.settings import Fit
from codistill.graphs.sources import GRAPHS
from codistill.graphs.triples import Triples

from .markers import table

EPOCHS, RANKED_EVERY = 10, 2
DIMENSION, MARGIN, NEGATIVES, BATCH, RATE = 64, 9.0, 32, 1024, 0.005


@dataclass
class Curve:
    """MRR and Hits@10 by epoch, and the CPU seconds of training alone."""

    mrr: dict[str, float] = field(default_factory=dict)
    hits_at_10: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


Trained = Iterator[Embedding]
"""The embedding after every epoch."""


def ours(graph: Triples, score: str) -> Trained:
    """Train ours; ``score`` is a name of :data:`codistill.graphs.scores.SCORES`."""
    one = Embedding(
        len(graph.entities), len(graph.relations), DIMENSION, score, torch.Generator().manual_seed(1), margin=MARGIN
    )
    known = KnownTriples(graph.train, len(graph.entities), len(graph.relations))
    settings = Fit(epochs=1, batch=BATCH, negatives=NEGATIVES, lr=RATE)
    for epoch in range(1, EPOCHS + 1):
        fit(one, graph.train, settings, torch.Generator().manual_seed(epoch), known=known)
        yield one


def pykeens(graph: Triples) -> Trained:
    """Train PyKEEN's with its own loop (sLCWA, NSSA loss, Adam, basic negatives), and take its rows over into ours."""
    from pykeen.losses import NSSALoss
    from pykeen.models import RotatE
    from pykeen.sampling import BasicNegativeSampler
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import TriplesFactory

    factory = TriplesFactory(
        graph.train,
        {name: place for place, name in enumerate(graph.entities)},
        {name: place for place, name in enumerate(graph.relations)},
    )
    loss = NSSALoss(margin=MARGIN, adversarial_temperature=1.0, reduction="mean")
    model = RotatE(triples_factory=factory, embedding_dim=DIMENSION, loss=loss, random_seed=1)
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=torch.optim.Adam(model.parameters(), lr=RATE),
        negative_sampler=BasicNegativeSampler,
        negative_sampler_kwargs={"num_negs_per_pos": NEGATIVES, "filtered": True},
    )
    for epoch in range(1, EPOCHS + 1):
        loop.train(factory, num_epochs=epoch, batch_size=BATCH, use_tqdm=False, continue_training=epoch > 1)
        yield _taken_over(model, graph)


def _taken_over(model: Any, graph: Triples) -> Embedding:
    one = Embedding(len(graph.entities), len(graph.relations), DIMENSION, "rotate-l2", torch.Generator(), margin=MARGIN)
    with torch.no_grad():
        entities, relations = (
            repr_(indices=None) for repr_ in (model.entity_representations[0], model.relation_representations[0])
        )
        one.entities.copy_(torch.cat([entities.real, entities.imag], 1))
        one.relations.copy_(relations.angle())
    return one


WAYS: dict[str, Callable[[Triples], Trained]] = {
    "ours, 2-norm as PyKEEN's": lambda graph: ours(graph, "rotate-l2"),
    "PyKEEN": pykeens,
    "ours, sum of moduli as the authors'": lambda graph: ours(graph, "rotate"),
}


def curve(trained: Trained, graph: Triples, epochs: int, title: str) -> Curve:
    """Follow a training and rank all test triples every other epoch."""
    known = KnownTriples(torch.cat([graph.train, graph.valid, graph.test]), len(graph.entities), len(graph.relations))
    made, spent = Curve(), 0.0
    for epoch in range(1, epochs + 1):
        before = time.process_time()
        one = next(trained)
        spent += time.process_time() - before
        if epoch % RANKED_EVERY == 0 or epoch == epochs:
            quality = both_sides(rank(one, graph.test, known))
            made.mrr[str(epoch)], made.hits_at_10[str(epoch)] = quality.mrr, quality.hits_at_10
            made.seconds[str(epoch)] = spent
            print(f"central, {title}: epoch {epoch}, MRR {quality.mrr:.4f}, {spent:.0f} s", file=sys.stderr, flush=True)
    return made


def measure(runs: Path, epochs: int | None = None) -> str:
    """Train each unless it was trained, and return the table; ``epochs`` shortens it to try out."""
    torch.set_num_threads(1)
    entry = GRAPHS["fb15k237"]
    (graph,) = entry.function(entry.parameters()).clients.values()
    epochs = epochs or EPOCHS
    seen = {}
    for number, (title, way) in enumerate(WAYS.items()):
        kept = runs / f"central-{number}-{epochs}-{DIMENSION}-{NEGATIVES}-{BATCH}-{RATE}.json"
        if not kept.exists():
            runs.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(asdict(curve(way(graph), graph, epochs, title))), encoding="utf-8")
        seen[title] = Curve(**json.loads(kept.read_text(encoding="utf-8")))
    at = list(next(iter(seen.values())).mrr)
    lines = [
        [
            title,
            *(f"{one.mrr[epoch]:.3f}" for epoch in at),
            f"{100 * one.hits_at_10[at[-1]]:.1f}",
            f"{one.seconds[at[-1]]:.0f}",
        ]
        for title, one in seen.items()
    ]
    heads = ["RotatE", *(f"MRR, epoch {epoch}" for epoch in at), f"Hits@10, epoch {at[-1]}", "CPU s of training"]
    said = (
        f"Dimension {DIMENSION} (complex), {NEGATIVES} negatives of each triple's own, batch {BATCH}, Adam with lr "
        f"{RATE}, margin {MARGIN:g}, self-adversarial temperature 1, one thread, one seed."
    )
    return f"{table(heads, lines)}\n\n{said}"
