"""What the schema cannot see, found before anything runs: all of it at once, each at its line.

``check`` first, then :func:`.holdings.hold`, then ``check_with``, then :func:`.compile.compile_spec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...specs.document import Loaded
from ...specs.problems import Path, Problem, ordered
from ...specs.schema import Spec
from ...tasks.choice import Choice
from ...tasks.data import DATASETS, DataError
from ...tasks.patterns import PatternChoice
from ..holdings import Holdings
from ..launch import trained_alone
from .bridge import of_bridge
from .exchange import of_architectures, of_exchanges, of_public
from .memories import of_memories, put_into
from .notes import notes
from .pattern import of_pattern
from .places import Finding, problem
from .private import of_private
from .recipe import moments, of_recipe
from .scales import of_scales
from .setting import of_setting
from .shapes import of_shapes
from .sites import of_sites

__all__ = ["carries", "check", "check_with", "notes", "problems_of_holding"]


def check(loaded: Loaded[Spec]) -> list[Problem]:
    """Return what can be found without reading the data."""
    spec = loaded.value
    strange = list(of_setting(spec))
    method = [] if strange else _method(spec)  # what is about other data fits nothing
    return _told(loaded, [*_data(spec), *strange, *method, *_schedule(spec), *_measure(spec), *of_sites(spec)])


def check_with(loaded: Loaded[Spec], holdings: Holdings) -> list[Problem]:
    """Return what can be found only with the data read and dealt out."""
    return _told(loaded, of_shapes(loaded.value, holdings))


def problems_of_holding(loaded: Loaded[Spec], error: ValueError) -> list[Problem]:
    """Return as problems what :func:`.holdings.hold` raised."""
    said = loaded.value.data
    found = []
    for text in str(error).splitlines() or [type(error).__name__]:
        if isinstance(error, DataError):
            key = "dataset"
        elif text.startswith("a public share"):
            key = "public"
        elif "samples were asked for" in text and (said.take.train or said.take.test):
            key = "take"
        else:
            key = "partition"
        found.append(Finding(("data", key), text))
    return _told(loaded, found)


def carries(loaded: Loaded[Spec], pattern: str, holdings: Holdings | None = None) -> str | None:
    """Return why the spec's recipe cannot run under ``pattern`` with the spec's agents; None where it can.

    A pattern that is not the spec's own is taken as it is when nothing is said about it, a tree with two edges.
    """
    spec = loaded.value
    if pattern != spec.pattern.name:
        edges = min(2, sum(group.count for group in spec.agents))
        tree = {"hierarchical": {"tiers": [{"name": "edge", "count": edges}, {"name": "cloud"}]}}
        said: Any = tree if pattern == "hierarchical" else pattern
        spec = spec.model_copy(update={"pattern": PatternChoice.model_validate(said)})
    findings = list(_method(spec))
    if holdings is not None:
        findings += of_shapes(spec, holdings)
    return next((f"{f.message}; {f.hint}" if f.hint else f.message for f in findings), None)


def _told(loaded: Loaded[Spec], findings: Iterable[Finding]) -> list[Problem]:
    return ordered(problem(finding, loaded.node) for finding in findings)


def _method(spec: Spec) -> Iterator[Finding]:
    yield from of_recipe(spec.recipe)
    yield from of_private(spec.recipe)
    yield from of_memories(spec.recipe)
    yield from of_scales(spec.recipe)
    yield from of_exchanges(spec.recipe)
    yield from of_public(spec)
    yield from of_architectures(spec)
    yield from of_pattern(spec)
    yield from of_bridge(spec)


def _data(spec: Spec) -> Iterator[Finding]:
    shared = None if spec.data.public is None else spec.data.public.dataset
    named: list[tuple[Path, Choice]] = [(("data", "public", "dataset"), shared)] if shared is not None else []
    if spec.engine.kind != "sites":  # there the data are elsewhere
        named.append((("data", "dataset"), spec.data.dataset))
    for path, said in named:
        for sentence in DATASETS[said.name].function.problems(said.parameters, spec.data.root):
            yield Finding(path, sentence)


def _schedule(spec: Spec) -> Iterator[Finding]:
    agents, minimum = sum(group.count for group in spec.agents), spec.participation.minimum
    if minimum > agents:
        message = f"at least {minimum} agents a round, and there are {agents}"
        yield Finding(("participation", "minimum"), message, f"write at most {agents}")
    masked = any(getattr(step.parameters, "masked", False) for step in spec.recipe.round)
    if masked and spec.participation.late == "next":
        message = "masks are another each round, so what comes a round late cannot be read"
        yield Finding(("participation", "late"), message, "write `late: drop`")
    for index, group in enumerate(spec.agents):
        if group.leaves is not None and group.leaves < group.joins:
            message = f"{group.name} leaves after round {group.leaves} and joins in round {group.joins} only"
            also = (("agents", index, "joins"),)
            yield Finding(("agents", index, "leaves"), message, f"write {group.joins} or more", also)
    for path, when in moments(spec.recipe):
        if when.until is not None and when.until < when.first:
            message = f"from round {when.first} until round {when.until} there are none"
            yield Finding(path, message, f"write `until: {when.first}` or more")


def _measure(spec: Spec) -> Iterator[Finding]:
    metrics = spec.measure.metrics
    for index, name in enumerate(metrics):
        if name in metrics[:index]:
            yield Finding(("measure", "metrics", index), f"{name} is here twice", "remove one")
    if spec.measure.predict == "prototypes":
        kept = put_into(spec.recipe, "semantic")
        if not any("learners" in doing and hand.form in ("prototypes", None) for _, doing, hand in kept):
            message = "no step stores prototypes in semantic memory, so there are none to predict with"
            yield Finding(("measure", "predict"), message, "take the recipe fedproto, or write `predict: classifier`")
    names = [step.name for step in spec.recipe.round]
    if spec.measure.control == "local" and "aggregate" in names and not trained_alone(spec.recipe):
        message = "agents that learn alone need a `train` in the round, and the recipe has none"
        yield Finding(("measure", "control"), message, "write `control: none`")
