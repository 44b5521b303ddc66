"""From a recipe to the stages of a round: cut at each ``aggregate``, laid over the tiers of a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..specs.schema import Recipe
from ..tasks.choice import Choice
from ..tasks.extract import EXTRACTS
from ..tasks.observe import BY_CLASS
from ..tasks.patterns import Topology
from ..tasks.share import Share
from .plan import ExchangePlan, StagePlan, StepPlan


@dataclass(frozen=True)
class Segment:
    """Steps that an agent does by itself, then what is exchanged (or nothing, at the end of a round)."""

    steps: tuple[StepPlan, ...]
    extract: Any = None
    share: Any = None
    aggregate: Any = None


def segments(recipe: Recipe) -> list[Segment]:
    """Cut the steps of a round at each ``aggregate``; the last segment exchanges nothing and may be empty."""
    planned = step_plans(recipe.round, observing=True)
    made: list[Segment] = []
    steps: list[StepPlan] = []
    extracted = shared = None
    for step, plan in zip(recipe.round, planned, strict=True):
        if step.name == "aggregate":
            steps = [_with_exchange(one, step.parameters) for one in steps]
            made.append(Segment(tuple(steps), extracted, shared, step.parameters))
            steps, extracted, shared = [], None, None
        elif step.name == "share":
            shared = step.parameters
        else:
            steps.append(plan)
            extracted = step.parameters if step.name == "extract" else extracted
    made.append(Segment(tuple(steps)))
    return made


def _with_exchange(step: StepPlan, rule: Any) -> StepPlan:
    """Return an ``extract`` that is done in the rounds of its exchange alone, and any other step as it is."""
    if step.operation != "extract" or rule.when is None:
        return step
    return replace(step, parameters=step.parameters | {"when": rule.when.model_dump(mode="json", by_alias=True)})


def step_plans(steps: Sequence[Choice], observing: bool = False, prefix: str = "") -> list[StepPlan]:
    """Return the steps as plain data; a ``train`` before an ``extract`` from training gathers its form."""
    counts: dict[str, int] = {}
    made: list[StepPlan] = []
    for index, step in enumerate(steps):
        place = f"{prefix}{step.name}.{counts.setdefault(step.name, 0)}"
        counts[step.name] += 1
        observe: tuple[str, ...] = ()
        if observing and step.name == "train":
            later = [s.parameters for s in steps[index + 1 :] if s.name == "extract"]
            observe = tuple(
                form
                for form in BY_CLASS
                if any(e.knowledge == form and e.source == "training" for e in later if hasattr(e, "source"))
            )
        made.append(StepPlan(step.name, place, step.parameters.model_dump(mode="json", by_alias=True), observe))
    return made


def exchange_plans(recipe: Recipe) -> list[ExchangePlan]:
    """Return the exchanges of a recipe, bytes not yet predicted."""
    made = []
    for segment in segments(recipe):
        if segment.aggregate is None:
            continue
        share = segment.share or Share()
        form = EXTRACTS[segment.extract.knowledge].name
        said = [p.model_dump(mode="json", by_alias=True) for p in (segment.aggregate, segment.extract, share)]
        made.append(ExchangePlan(form, said[0], said[1], said[2]["up"], said[2]["down"], (), (), True))
    return made


def stage_plans(recipe: Recipe, topology: Topology, central: bool) -> tuple[StagePlan, tuple[StagePlan, ...]]:
    """Return the stage before round 1 and the stages of a round.

    In a star or tree, learners work, each tier merges on the way up and passes on the way down, learners work
    again. Peers merge what their neighbours sent at the beginning of the next piece of their own work.
    """
    start = StagePlan("start", "start", -1, tuple(step_plans(recipe.start, prefix="start.")))
    parts = segments(recipe)
    own = topology.forward == "own"
    made: list[StagePlan] = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        title = " + ".join(dict.fromkeys(step.operation for step in part.steps)) or "receive"
        received = index - 1 if index else None
        made.append(StagePlan(title, "local", -1, part.steps, received, None if last else index, last=last))
        if last or not central:
            continue
        after = tuple(s for s in parts[index + 1].steps if s.parameters.get("who") in ("aggregators", "all", "top"))
        top = topology.tiers - 1
        final = index == len(parts) - 2
        for tier in range(topology.tiers):
            name = f"aggregate at {_tier_name(topology, tier)}"
            at_top = tier == top
            made.append(
                StagePlan(name, "merge", tier, after, index, index, own=own and not at_top, last=final and at_top)
            )
        for tier in range(top - 1, -1, -1):
            name = f"pass on at {_tier_name(topology, tier)}"
            made.append(StagePlan(name, "relay", tier, after, index, index, last=final))
    return start, tuple(made)


def _tier_name(topology: Topology, tier: int) -> str:
    return next(a.tier_name for a in topology.aggregators if a.tier == tier)
