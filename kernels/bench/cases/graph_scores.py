"""``graph_scores``, forward and backward: TransE and RotatE against a row's own negatives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ...graph_scoring import graph_scores
from ..case import EAGER, OURS, Case, Outputs, Prepared, back_ends, drawn


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield a batch of triples with their negatives."""
    batch, negatives, width, entities = (256, 64, 128, 10_000) if quick else (512, 256, 256, 15_000)
    for model in ("transe", "rotate"):
        # Candidates are read forward and backward; the gradient of the table is written once, whole.
        size = (2 * batch * negatives * width + entities * width + 4 * batch * width) * 4 + batch * negatives * 12
        yield Case(
            "graph_scores",
            f"B={batch} n={negatives} D={width} {model}",
            torch.float32,
            size,
            1e-4,
            partial(prepare, device, batch, negatives, width, entities, model),
        )


def prepare(device: torch.device, batch: int, negatives: int, width: int, entities: int, model: str) -> Prepared:
    """Draw embeddings and negatives."""
    half = width if model == "transe" else width // 2
    known, relations, table = (
        drawn(device, torch.float32, *shape, seed=seed).requires_grad_()
        for seed, shape in enumerate([(batch, width), (batch, half), (entities, width)])
    )
    leaves = [known, relations, table]
    candidates = torch.randint(entities, (batch, negatives), generator=torch.Generator().manual_seed(0)).to(device)
    by = drawn(device, torch.float32, batch, negatives, seed=9)

    def eager(head: torch.Tensor, relation: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        tails = rows[candidates]
        if model == "transe":
            # The 2-norm: the gradient of the 1-norm jumps where a difference rounds to another sign than float64's.
            distances: torch.Tensor = torch.linalg.vector_norm((head + relation)[:, None] - tails, dim=-1)
            return -distances
        real, imaginary = head.chunk(2, -1)
        cosine, sine = relation.cos(), relation.sin()
        turned = torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine])
        gap = turned[:, :, None] - torch.stack(tails.chunk(2, -1))
        return -gap.square().sum(0).sqrt().sum(-1)

    def both(scores: partial[torch.Tensor], given: list[torch.Tensor] = leaves) -> Outputs:
        made = scores(*given)
        return made, *torch.autograd.grad(made, given, by.to(made.dtype))

    def ours(head: torch.Tensor, relation: torch.Tensor, rows: torch.Tensor, name: str) -> torch.Tensor:
        if model == "transe":
            return graph_scores(head, relation, rows, candidates, model="transe", norm=2, backend=name)
        return graph_scores(head, relation, rows, candidates, model="rotate", backend=name)

    providers = {f"{OURS}{name}": partial(both, partial(ours, name=name)) for name in back_ends(device)}
    providers |= {
        EAGER: partial(both, partial(eager)),
        "torch.compile": partial(both, partial(torch.compile(eager, dynamic=False))),
    }
    return Prepared(providers, lambda: both(partial(eager), [one.detach().double().requires_grad_() for one in leaves]))
