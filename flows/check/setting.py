"""Whether data, models, steps and metrics are of one kind, and of the kind that the setting is about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...specs.problems import Path, one_of
from ...specs.schema import SETTINGS, Spec
from ...tasks.data.registry import DATASETS
from ...tasks.kinds import DATA_KINDS
from ...tasks.models import MODELS
from .pattern import tiers
from .places import Finding

INSTEAD = {
    ("train", "triples"): "write `by: triples`",
    ("train", "samples"): "leave `by` out",
    ("extract", "triples"): "extract embeddings or relation_embeddings",
    ("extract", "samples"): "extract logits, parameters or prototypes",
    ("absorb", "triples"): "absorb by replace_rows",
    ("absorb", "samples"): "absorb by replace or distil",
}


def kind_of(spec: Spec) -> str:
    """Return the kind of data that the spec's setting is about."""
    return SETTINGS[spec.setting]


def of_setting(spec: Spec) -> Iterator[Finding]:
    """Find data, models, steps and metrics of another kind than the setting's, and packages that a model lacks."""
    kind = kind_of(spec)
    given = DATASETS[spec.data.dataset.name].function.kind
    if given != kind:
        right = next((name for name, about in SETTINGS.items() if about == given), "")
        message = f"{spec.data.dataset.name} holds {given}, and the setting {spec.setting} is about {kind}"
        yield Finding(("setting",), message, f"write `setting: {right}`", (("data", "dataset"),))
        return
    yield from _models(spec, kind)
    yield from _steps(spec, kind)
    yield from _rest(spec, kind)


def _reads(parameters: Any) -> str:
    return str(getattr(parameters, "reads", "samples"))


def _models(spec: Spec, kind: str) -> Iterator[Finding]:
    said: list[tuple[Path, Any]] = [(("agents", index, "model"), one.model) for index, one in enumerate(spec.agents)]
    said += [((*path, "model"), tier.model) for path, tier, _ in tiers(spec)]
    said.append((("recipe", "companion"), spec.recipe.companion))
    fitting = [entry.name for entry in MODELS if _reads(entry.parameters) == kind]
    for path, model in said:
        if model is not None and _reads(model.parameters) != kind:
            yield Finding(path, f"{model.name} is a model of {_reads(model.parameters)}", f"expected {one_of(fitting)}")
        lacking = getattr(model.parameters, "lacking", None) if model is not None else None
        if lacking is not None and (sentence := lacking()):
            yield Finding(path, sentence)


def _steps(spec: Spec, kind: str) -> Iterator[Finding]:
    for part, steps in (("start", spec.recipe.start), ("round", spec.recipe.round)):
        for index, step in enumerate(steps):
            if (step.name, kind) in INSTEAD and _reads(step.parameters) != kind:
                what = getattr(step.parameters, "knowledge", None) or getattr(step.parameters, "by", "")
                message = f"`{step.name}` of {what} is about {_reads(step.parameters)}, and agents hold {kind}"
                yield Finding(("recipe", part, index, step.name), message, INSTEAD[step.name, kind])


def _rest(spec: Spec, kind: str) -> Iterator[Finding]:
    by, own = spec.data.partition.by, DATA_KINDS[kind].function
    others = [entry.function for entry in DATA_KINDS if entry.name != kind]
    if any(by in other.partitioners for other in others):
        message = f"the partition {by} looks at more than {kind} have"
        yield Finding(("data", "partition", "by"), message, "take dirichlet or iid")
    metrics = own.metrics.names()
    for index, name in enumerate(spec.measure.metrics):
        if name not in metrics:
            path = ("measure", "metrics", index)
            yield Finding(path, f"{name} is not measured of {kind}", f"expected {one_of(metrics)}", (("measure",),))
    if kind == "triples" and spec.data.public is not None:
        yield Finding(("data", "public"), "no step of this setting uses public triples", "leave `public` out")
