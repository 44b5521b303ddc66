"""Weighted means of models and of rows, and one agent's share taken out of them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..knowledge import Knowledge, Models, Rows, aligned
from ..late import late

if TYPE_CHECKING:
    import torch

    from ...kernels import ensembles
else:
    torch = late("torch")
    ensembles = late("codistill.kernels.ensembles")


def mean_of_models(packets: Sequence[Models]) -> Models:
    """Return the mean of each architecture's parameters, weighted by the samples behind them."""
    order = list(dict.fromkeys(identity for packet in packets for identity in packet.tensors))
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    samples: dict[str, float] = {}
    labels: dict[str, torch.Tensor] = {}
    for identity in order:
        given = [packet for packet in packets if identity in packet.tensors]
        weights = [packet.samples_by[identity] for packet in given]
        names = given[0].tensors[identity]
        tensors[identity] = {
            name: ensembles.weighted_mean([packet.tensors[identity][name] for packet in given], weights)
            for name in names
        }
        samples[identity] = sum(weights)
        told = [packet.labels[identity] for packet in given if identity in packet.labels]
        if told:
            labels[identity] = torch.stack(told).sum(0)
    return Models(tensors, samples, labels)


def mean_of_rows(packets: Sequence[Rows]) -> Rows:
    """Return the mean of each id's rows, weighted by what stands behind them; float64 within, float32 out."""
    ids = torch.unique(torch.cat([packet.ids for packet in packets]))
    sums = torch.zeros(len(ids), packets[0].values.shape[1], dtype=torch.float64)
    weights = torch.zeros(len(ids), dtype=torch.float64)
    for packet in packets:
        at = torch.searchsorted(ids, packet.ids)
        sums.index_add_(0, at, packet.values.double() * packet.weights[:, None])
        weights.index_add_(0, at, packet.weights)
    values = (sums / weights[:, None]).float()
    return Rows(packets[0].form, ids, values, weights, sum(packet.samples for packet in packets))


def contribution(knowledge: Knowledge, weight: str) -> Knowledge:
    """Return ``knowledge`` with the weight that it enters a mean with: its samples, or one for each agent."""
    if weight == "samples":
        return knowledge
    if isinstance(knowledge, Models):
        return dataclasses.replace(knowledge, samples_by=dict.fromkeys(knowledge.tensors, 1.0))
    return dataclasses.replace(knowledge, weights=torch.ones_like(knowledge.weights), samples=1.0)


def without(total: Knowledge, own: Knowledge) -> Knowledge:
    """Return the mean ``total`` less the contribution ``own``; an id that nobody else gave is left out."""
    if isinstance(total, Models) and isinstance(own, Models):
        return _models_without(total, own)
    assert isinstance(total, Rows) and isinstance(own, Rows)
    at = aligned(own, total.ids)
    there = at >= 0
    mine = torch.where(there, own.weights[at.clamp(min=0)], 0.0) if len(own.ids) else torch.zeros(len(at)).double()
    rest = total.weights - mine
    sums = total.values.double() * total.weights[:, None]
    if len(own.ids):
        sums -= own.values[at.clamp(min=0)].double() * mine[:, None]
    kept = rest > 1e-9
    values = (sums[kept] / rest[kept, None]).float()
    return Rows(total.form, total.ids[kept], values, rest[kept], total.samples - own.samples)


def _models_without(total: Models, own: Models) -> Models:
    tensors = {identity: dict(group) for identity, group in total.tensors.items()}
    samples = dict(total.samples_by)
    for identity, mine in own.tensors.items():
        weight, all_of_it = own.samples_by[identity], samples[identity]
        if all_of_it - weight <= 1e-9:
            del tensors[identity], samples[identity]
            continue
        share = weight / all_of_it
        tensors[identity] = {
            name: (value.double() - mine[name].double() * share).div(1 - share).float()
            for name, value in tensors[identity].items()
        }
        samples[identity] = all_of_it - weight
    return Models(tensors, samples)
