"""The relational losses, forward and backward, against all distances and all angles at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ...relations import relation_angle_loss, relation_distance_loss
from ..case import EAGER, OURS, Case, Outputs, Prepared, back_ends, drawn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield batches of embeddings whose student is narrower than its teacher."""
    for kind, rows in (("distance", 256 if quick else 1024), ("angle", 64 if quick else 256)):
        width, wide = 128, 512
        size = rows * (2 * width + wide) * 4
        shape = f"N={rows} D={width}/{wide} {kind}"
        yield Case("relations", shape, torch.float32, size, 1e-3, partial(prepare, device, rows, width, wide, kind))


def prepare(device: torch.device, rows: int, width: int, wide: int, kind: str) -> Prepared:
    """Draw a student's and a teacher's embeddings."""
    student = drawn(device, torch.float32, rows, width, seed=1).requires_grad_()
    teacher = drawn(device, torch.float32, rows, wide, seed=2)
    plain: Loss = _distances if kind == "distance" else _angles
    ours = relation_distance_loss if kind == "distance" else relation_angle_loss

    def both(loss: Loss, given: torch.Tensor = student, other: torch.Tensor = teacher) -> Outputs:
        made = loss(given, other)
        return made, *torch.autograd.grad(made, [given])

    providers = {f"{OURS}{name}": partial(both, partial(ours, backend=name)) for name in back_ends(device)}
    providers |= {EAGER: partial(both, plain), "torch.compile": partial(both, torch.compile(plain, dynamic=False))}
    return Prepared(providers, lambda: both(plain, student.detach().double().requires_grad_(), teacher.double()))


def _distances(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss between distances in units of their mean (Park et al. 2019, eq. 3 to 5)."""

    def relative(rows: torch.Tensor) -> torch.Tensor:
        # Off the diagonal alone: there the root has no derivative.
        count = len(rows)
        some = ~torch.eye(count, dtype=torch.bool, device=rows.device)
        apart = (rows[:, None] - rows[None]).square().sum(-1)[some].sqrt()
        return apart / apart.mean()

    return torch.nn.functional.smooth_l1_loss(relative(student), relative(teacher))


def _angles(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Huber loss between the cosines of all angles (Park et al. 2019, eq. 6 and 7)."""

    def cosines(rows: torch.Tensor) -> torch.Tensor:
        sides = torch.nn.functional.normalize(rows[None] - rows[:, None], dim=-1)
        return sides @ sides.transpose(1, 2)

    # Triples that are not of three rows have the same cosine twice, 0 or 1, and add nothing.
    count = len(student)
    made = torch.nn.functional.smooth_l1_loss(cosines(student), cosines(teacher), reduction="sum")
    return made / (count * (count - 1) * (count - 2))
