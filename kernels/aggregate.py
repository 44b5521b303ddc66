"""``aggregate_logits``: what many clients say, as one answer, with one of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch

from . import checks
from .aggregate_settings import Aggregation
from .ensembles import sharpened
from .ops.aggregate import aggregate_step_

Rule = Literal["mean", "sharpened", "entropy", "confidence", "votes"]
Space = Literal["probabilities", "logits"]

TOGETHER = 4
"""Clients that one step takes where all are in memory anyway: the running mean is read and written once for them.

More would take more registers than a GPU's program has for rows of 8,192 classes.
"""


class LogitAggregate:
    """A running ensemble: clients are added as they arrive, in any order, and the answer can be had at any time.

    It holds one [N, V] tensor, however many clients there are. Settings are those of :func:`aggregate_logits`.
    """

    def __init__(
        self,
        *,
        by: Rule = "mean",
        temperature: float = 1.0,
        space: Space = "probabilities",
        entropy_temperature: float = 1.0,
        sharpening_temperature: float = 0.1,
        backend: str | None = None,
    ) -> None:
        self._settings = Aggregation(by, space, float(temperature), float(entropy_temperature))
        self._settings.check()
        checks.above_zero("aggregate_logits", "sharpening_temperature", sharpening_temperature)
        self._sharpening_temperature = sharpening_temperature
        self._backend = backend or ""
        self._like: torch.Tensor | None = None
        self._mean = torch.empty(0)
        self._log_weights = torch.empty(0)

    def add(self, logits: torch.Tensor, weight: float | torch.Tensor = 1.0) -> None:
        """Add a client's ``logits`` [..., V]; ``weight`` is a number of at least 0, or a tensor [...] of one a row."""
        if not isinstance(weight, torch.Tensor):
            if not weight >= 0:
                raise ValueError(f"aggregate_logits: weight is {weight}; expected 0 or more")
            weight = torch.tensor([float(weight)], device=logits.device)
        else:
            checks.rows("aggregate_logits", "weight", weight, logits)
            weight = weight.reshape(-1, 1)
        self._step([logits], weight)

    def _step(self, clients: Sequence[torch.Tensor], weights: torch.Tensor) -> None:
        """Add K clients' logits in one step; ``weights`` are [K], or [N, K] with N the number of rows."""
        first = self._like is None
        like = clients[0] if self._like is None else self._like
        for client in clients:
            _check(client, like)
        classes = like.shape[-1]
        flat = [client.detach().reshape(-1, classes) for client in clients]
        if first:
            dtype = torch.float64 if flat[0].dtype == torch.float64 else torch.float32
            self._mean = flat[0].new_empty(flat[0].shape, dtype=dtype)
            self._log_weights = flat[0].new_empty(flat[0].shape[0], dtype=dtype)
            self._like = self._mean.view(like.shape)
        settings = self._settings
        aggregate_step_(
            self._mean,
            self._log_weights,
            flat,
            weights.detach(),
            settings.by,
            settings.space,
            settings.temperature,
            settings.entropy_temperature,
            first,
            self._backend,
        )

    def result(self) -> torch.Tensor:
        """Return the answer of all clients so far, [..., V], a tensor of its own."""
        made = self._answer()
        return made.clone() if self._settings.by != "sharpened" else made

    def _answer(self) -> torch.Tensor:
        if self._like is None:
            raise ValueError("aggregate_logits: there are no clients; expected at least one")
        mean = self._mean
        if self._settings.by == "sharpened":
            mean = sharpened(mean, self._sharpening_temperature)
        return mean.view(self._like.shape)


def aggregate_logits(
    clients: Iterable[torch.Tensor],
    weights: Sequence[float] | torch.Tensor | None = None,
    *,
    by: Rule = "mean",
    temperature: float = 1.0,
    space: Space = "probabilities",
    entropy_temperature: float = 1.0,
    sharpening_temperature: float = 0.1,
    backend: str | None = None,
) -> torch.Tensor:
    """Return one answer [..., V] of any number of clients, float32, or float64 where they are.

    ``clients`` are logits [..., V] of one shape, in any float dtypes; a generator is consumed one at a time, so that
    memory stays that of one client and the answer. ``weights`` are None (all alike), K numbers, or a tensor [K] or
    [..., K], none negative; they need not sum to one. With p_k = softmax(client_k / ``temperature``) the answer is,
    by ``by``:

    - ``mean``: sum of w_k p_k / sum of w_k
    - ``sharpened``: softmax(mean / ``sharpening_temperature``) (Itahara et al. 2021, DS-FL, eq. 9)
    - ``entropy``: the mean with weights w_k exp(-H_k / ``entropy_temperature``) by row, H_k the entropy of p_k in nats
    - ``confidence``: the mean with weights w_k max p_k by row
    - ``votes``: the share of weight whose argmax is the class; a client that is undecided votes for its lowest class

    With ``space`` "logits" the mean is of the clients' logits, and the answer is logits; weights are by p_k as ever.

    The order of clients matters only to rounding. A client without weight counts for nothing, whatever it says; a row
    where no client has weight is zero throughout. A client's NaN in a row makes that row NaN (with mean logits, that
    class of it). There is no gradient. ``backend``: see :mod:`codistill.kernels`.

    Raises ``ValueError`` where shapes, dtypes or settings do not fit.
    """
    if isinstance(clients, torch.Tensor):
        raise ValueError(
            f"aggregate_logits: clients is one tensor of shape {tuple(clients.shape)}; expected several, for one "
            "[K, N, V] use clients.unbind()"
        )
    aggregate = LogitAggregate(
        by=by,
        temperature=temperature,
        space=space,
        entropy_temperature=entropy_temperature,
        sharpening_temperature=sharpening_temperature,
        backend=backend,
    )
    if weights is not None and not isinstance(weights, torch.Tensor):
        _check_numbers(weights)
    count = 0
    if isinstance(clients, list | tuple):
        for start in range(0, len(clients), TOGETHER):
            some = clients[start : start + TOGETHER]
            aggregate._step(some, _these(weights, start, len(some), some[0]))
        count = len(clients)
    else:
        for client in clients:
            aggregate._step([client], _these(weights, count, 1, client))
            count += 1
            del client  # before the next one is made
    if weights is not None and _length(weights) != count:
        raise ValueError(f"aggregate_logits: weights are for {_length(weights)} clients and there are {count}")
    return aggregate._answer()


def _check(client: torch.Tensor, like: torch.Tensor) -> None:
    """Refuse logits that do not stand beside those of the clients before."""
    checks.logits("aggregate_logits", "a client's tensor", client)
    if client.shape != like.shape:
        raise ValueError(
            f"aggregate_logits: a client's logits have shape {tuple(client.shape)}, those before {tuple(like.shape)}; "
            "map classes onto each other first, padding with -inf and not with zero"
        )
    if client.device != like.device:
        raise ValueError(f"aggregate_logits: a client is on {client.device}, those before on {like.device}")


def _length(weights: Sequence[float] | torch.Tensor) -> int:
    return weights.shape[-1] if isinstance(weights, torch.Tensor) else len(weights)


def _these(weights: Sequence[float] | torch.Tensor | None, start: int, count: int, like: torch.Tensor) -> torch.Tensor:
    """Return the weights of ``count`` clients from ``start`` on, [count] or [N, count]."""
    if weights is None:
        return torch.ones(count, device=like.device)
    if _length(weights) < start + count:
        raise ValueError(
            f"aggregate_logits: weights are for {_length(weights)} clients and there are {start + count} or more"
        )
    if not isinstance(weights, torch.Tensor):
        return torch.tensor([float(weight) for weight in weights[start : start + count]], device=like.device)
    if weights.dim() > 1 and weights.shape[:-1] != like.shape[:-1]:
        raise ValueError(
            f"aggregate_logits: weights have shape {tuple(weights.shape)}; expected [K], one a client, "
            f"or {tuple(like.shape[:-1])} and K, one a row and client"
        )
    if weights.device != like.device:
        raise ValueError(f"aggregate_logits: weights are on {weights.device} and the clients on {like.device}")
    some = weights[..., start : start + count]
    return some if some.dim() == 1 else some.reshape(-1, count)


def _check_numbers(weights: Sequence[float]) -> None:
    if not all(weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise ValueError(f"aggregate_logits: weights are {list(weights)}; expected none below 0, and some above")
