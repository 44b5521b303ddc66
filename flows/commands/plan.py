"""``codistill plan``: what a spec compiles into, shown without training."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...specs.document import Loaded
from ...specs.load import load_specs
from ...specs.schema import Recipe, Spec
from ...tasks.patterns import PATTERNS
from ..check.check import carries, notes
from ..check.holdings import checked_holdings
from ..compile import agent_names, compile_spec
from ..holdings import Holdings
from ..launch import workers_of
from ..plan import AgentPlan, Plan
from ..report.memories import capacity_text, choice_text
from ..report.show import PartitionView
from ..report.text import bytes_text, plural, seconds_text, value_text


def plan_command(name: str, overrides: list[str], runs: Path) -> None:
    """Print the plan of the spec called ``name``; of a sweep, the first variant's and what varies."""
    variants = load_specs(name, overrides)
    holdings = checked_holdings(variants, runs)
    console = Console()
    if len(variants) > 1:
        axes = ", ".join(variants[0].choices)
        console.print(f"a sweep of {len(variants)} runs over {axes}; the plan of the first:", markup=False)
    show_plan(console, variants[0], holdings[0])


def show_plan(console: Console, loaded: Loaded[Spec], holdings: Holdings) -> None:
    """Print one plan."""
    spec, plan = loaded.value, compile_spec(loaded.value, holdings)
    title = f"{plan.name}: {plan.recipe}, {plan.pattern}, {plural(plan.rounds, 'round')}, seed {plan.seed}"
    console.print(title, style="bold", markup=False)
    console.print(_agents(plan))
    console.print(_stages(plan, workers_of(spec)))
    console.print(_links(plan))
    if spec.recipe.memories:
        console.print(_memories(spec.recipe))
    console.print(PartitionView(holdings.table(agent_names(spec)), order=agent_names(spec)))
    if plan.schedule[-1].ends:
        console.print(f"simulated clock: {seconds_text(plan.schedule[-1].ends)} for {plural(plan.rounds, 'round')}")
    for pattern in PATTERNS.names():
        why = carries(loaded, pattern)
        console.print(f"{pattern}: {'can carry this recipe' if why is None else 'no: ' + why}", markup=False)
    for note in notes(loaded, holdings):
        console.print(f"note: {note}", markup=False)


def _agents(plan: Plan) -> Table:
    table = _table("agents", "role", "model", "samples", "computes a round")
    for (group, role), members in groupby(plan.agents, key=lambda agent: (agent.group, agent.role)):
        some = list(members)
        samples = [agent.samples for agent in some]
        held = "none" if not any(samples) else f"{min(samples)} to {max(samples)}"
        work = sum(agent.work for agent in some)
        model = some[0].architecture or "none"
        table.add_row(f"{len(some)} x {group}", role, model, held, f"{work / 1e9:.2f} GFLOP" if work else "")
    return table


def _stages(plan: Plan, lanes: int) -> Table:
    table = _table("stages of a round", "who", "agents", "task runs")
    total = 0
    for stage in plan.stages:
        who = [agent for agent in plan.agents if agent.tier == stage.tier]
        runs = min(lanes, len(who))
        total += runs
        table.add_row(stage.name, who[0].role, str(len(who)), str(runs))
    segments = plan.segments(lanes, 0)
    in_all = f"merged into {len(segments)} segments" if segments else f"{plan.task_runs(lanes)} in all"
    table.add_row("all, and the start", "", "", f"{total} a round, {in_all}")
    return table


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="dim", pad_edge=False)


def _range(values: tuple[int, ...]) -> str:
    least, most = bytes_text(min(values)), bytes_text(max(values))
    return least if min(values) == max(values) else f"{least} to {most}"


def _links(plan: Plan) -> Table:
    table = _table("exchanged", "each link up", "each link down", "a round, if all take part", "held by an agent")
    for exchange in plan.exchanges:
        most = "" if exchange.exact else "at most "
        central = len(plan.agents) > plan.learners
        if central:
            up, down = exchange.up_bytes, exchange.down_bytes
            total = sum(up) + sum(down) + _between_tiers(plan, up, down)
        else:
            degree = {place: len(others) for place, others in plan.neighbours(1).items()}
            total = sum(size * degree.get(place, 0) for place, size in enumerate(exchange.up_bytes))
        arrives = _range(exchange.down_bytes if central else exchange.up_bytes)
        held = "replaces the model" if exchange.form == "parameters" else arrives
        back = most + _range(exchange.down_bytes) if central else "(peers: as up)"
        way_up = most + _range(exchange.up_bytes)
        if exchange.told_bytes:
            whole = [size + more for size, more in zip(exchange.up_bytes, exchange.told_bytes, strict=True)]
            way_up += f" ({_range(tuple(whole))} with labels or keys)"
        table.add_row(exchange.form, way_up, back, most + bytes_text(total), held)
    if not plan.exchanges:
        table.add_row("nothing", "", "", "0 B", "")
    return table


def _memories(recipe: Recipe) -> Table:
    table = _table("memories", "kind", "holds", "capacity", "eviction", "encoding", "filled by")
    for name, declared in recipe.memories.items():
        said = declared.model_dump(mode="json", by_alias=True)
        held = choice_text(said, "encoding") + ("" if said["keys"] == "none" else f", {said['keys']} keys")
        leaves = choice_text(said, "eviction") if said["capacity"] else ""
        bound = capacity_text(said) + ("" if declared.keep == 1 else f", keeps {value_text(declared.keep)}")
        table.add_row(name, declared.kind, declared.holds, bound, leaves, held, _filled_by(recipe, name))
    return table


def _filled_by(recipe: Recipe, name: str) -> str:
    """Say whose steps put something into a memory."""
    if recipe.memories[name].kind == "sensory":
        return "the partition"
    found = []
    for step in recipe.round:
        into = {"store": "memory", "consolidate": "into"}.get(step.name)
        if into is not None and getattr(step.parameters, into) == name:
            found.append(f"{step.name}, {step.parameters.who}")
    return "; ".join(dict.fromkeys(found)) or "nothing"


def _between_tiers(plan: Plan, up: tuple[int, ...], down: tuple[int, ...]) -> int:
    """Bytes between tiers of aggregators: a merged packet is about as large as the largest that is merged."""
    inner: list[AgentPlan] = [agent for agent in plan.agents if agent.tier >= 0 and agent.parent is not None]
    return len(inner) * (max(up) + max(down))
