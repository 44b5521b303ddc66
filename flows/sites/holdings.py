"""Who holds how many samples where the samples are with sites: asked of them, before anything runs."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tasks.data.dataset import DataError, Dataset
from ...tasks.data.partition import Partition
from ...tasks.data.prepared import prepare
from ...tasks.data.public import require_alike
from ...tasks.data.registry import DATASETS
from ..holdings import Holdings
from .desk import public_digest
from .line import Line, as_json
from .messages import RUN, DescribeRequest, Description

if TYPE_CHECKING:
    from ...specs.schema import Spec

_TOLD: dict[str, dict[str, Description]] = {}
"""What sites told this process, by what they were asked: a sweep asks once, and so do a check and the run after it."""


def hold_of_sites(spec: Spec, cache: Path) -> Holdings:
    """Return who holds how many samples, as the sites tell it, with the public samples that everybody has a copy of.

    Which samples an agent holds and of which class is not told; ids and classes of private samples are made up.
    Raises ``DataError`` where sites do not fit each other, ``SiteAwayError`` where one does not answer.
    """
    told = _told(spec)
    first = next(iter(told))
    labels, shape = told[first].labels, told[first].input_shape
    for site, said in told.items():
        if said.labels != labels or said.input_shape != shape:
            raise DataError(
                f"the site {site} has samples of shape {said.input_shape} with the classes {', '.join(said.labels)}, "
                f"and {first} of shape {shape} with {', '.join(labels)}; all sites need the same"
            )
    public = _public(spec, labels, shape)
    data = public or _nothing(labels, shape)
    count = 0 if public is None else len(public.y_train)
    train, test = _ranges(_counts(spec, told, "train"), count), _ranges(_counts(spec, told, "test"), 0)
    made = sum(map(len, train))
    digest = hashlib.sha256(json.dumps([[site, said.digest] for site, said in sorted(told.items())]).encode())
    digest.update(b"" if public is None else public.digest().encode())
    holdings = Holdings(
        prepare(data, cache),
        digest.hexdigest(),
        Partition(train, test),
        np.arange(count, dtype=np.int64),
        labels,
        shape,
        np.concatenate([data.y_train[:count], np.arange(made, dtype=np.int64) % len(labels)]),
        np.arange(sum(map(len, test)), dtype=np.int64) % len(labels),
        data,
        told=False,
    )
    for site, said in told.items():
        if said.public != public_digest(holdings):
            raise DataError(f"the public samples that the site {site} has are others than those here; give it a copy")
    return holdings


def _told(spec: Spec) -> dict[str, Description]:
    said = spec.model_dump(mode="json", by_alias=True)
    request = as_json(DescribeRequest(spec=said))
    key = hashlib.sha256(json.dumps({"data": said["data"], "agents": said["agents"], "seed": said["seed"]}).encode())
    run = f"about-{key.hexdigest()[:RUN]}"
    if run not in _TOLD:
        with closing(Line(spec.engine)) as line:
            found: dict[str, Description] = {}
            for site in spec.engine.sites:
                told = line.ask(site, run, f"{spec.name}: what data there are", request).description
                if told is None:
                    raise DataError(f"the site {site} does not tell what it has")
                found[site] = told
        _TOLD[run] = found
    return _TOLD[run]


def _counts(spec: Spec, told: dict[str, Description], part: str) -> list[int]:
    """Return the count of each agent, in the spec's order; a site tells those of its agents in that order."""
    left = {site: list(getattr(said, part)) for site, said in told.items()}
    counts: list[int] = []
    for group in spec.agents:
        own = left[str(group.site)]
        if len(own) < group.count:
            raise DataError(f"the site {group.site} tells of fewer agents than the spec has there")
        counts += [own.pop(0) for _ in range(group.count)]
    return counts


def _ranges(counts: list[int], first: int) -> tuple[Any, ...]:
    ends = np.cumsum([first, *counts])
    return tuple(np.arange(a, b, dtype=np.int64) for a, b in zip(ends, ends[1:], strict=False))


def _public(spec: Spec, labels: tuple[str, ...], shape: tuple[int, ...]) -> Dataset | None:
    said = None if spec.data.public is None else spec.data.public.dataset
    if said is None:
        return None
    dataset: Dataset = DATASETS[said.name].function.load(said.parameters, spec.data.root)
    require_alike(dataset, labels, shape, "the sites")
    return dataset


def _nothing(labels: tuple[str, ...], shape: tuple[int, ...]) -> Dataset:
    """Return a data set that stands for one that is not here: one blank sample that nobody holds."""
    blank, label = np.zeros((1, *shape), np.float32), np.zeros(1, np.int64)
    return Dataset("elsewhere", blank, label, blank, label, labels)
