"""``codistill::aggregate_step_``: some clients' logits join a running mean."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..aggregate_settings import Aggregation
from ..dispatch import Operation

AGGREGATE = Operation(
    "aggregate_logits",
    reference=".reference.aggregate:aggregate_step",
    cpu=".cpu.aggregate:aggregate_step",
    triton=".triton.aggregate:aggregate_step",
)


@torch.library.custom_op("codistill::aggregate_step_", mutates_args=("mean", "log_weights"))
def aggregate_step_(
    mean: Tensor,
    log_weights: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    by: str,
    space: str,
    temperature: float,
    entropy_temperature: float,
    first: bool,
    backend: str,
) -> None:
    """Overwrite ``mean`` [N, V] and ``log_weights`` [N]; see :mod:`codistill.kernels.reference.aggregate`.

    It has no gradient: teachers do not learn from the students of their ensemble.
    """
    settings = Aggregation(by, space, temperature, entropy_temperature)
    AGGREGATE(backend, clients[0], mean, log_weights, clients, weights, settings, first)


@aggregate_step_.register_fake
def _aggregate_step_fake_(mean: Tensor, *said: Any) -> None:
    return None


@aggregate_step_.register_vmap
def _aggregate_step_batched_(info: Any, in_dims: Any, *said: Any) -> Any:
    raise NotImplementedError(
        "aggregate_logits: torch.func.vmap is not supported, since each step overwrites a running mean; "
        "clients [..., V] of any leading dimensions are"
    )
