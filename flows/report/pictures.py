"""The pictures of one run: how accurate, at what price, with what memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .drawing import HALF, WIDE, Palette, Picture, bytes_axis, legend, rounds_axis, value_axis
from .results import AgentInfo, Results, RoundAccuracy
from .text import bytes_text, is_share, seconds_text, value_text

STACKED_BARS = 40
KIND_COLOURS = {"sensory": 6, "working": 1, "semantic": 2, "episodic": 3, "procedural": 0, "emotional": 5}


def group_colours(agents: Sequence[AgentInfo]) -> dict[str, int]:
    """Give each group of learners the series that is its colour in every picture."""
    return {group: index for index, group in enumerate(dict.fromkeys(a.group for a in agents if a.role == "learner"))}


def _lines(axes: Axes, palette: Palette, across: Sequence[float], rounds: Sequence[RoundAccuracy], metric: str) -> None:
    """Draw the band of all agents, their mean, and the total."""
    several = any(at.best > at.worst for at in rounds)
    dot = "o" if len(rounds) <= 30 else None
    if several:
        low, high = [at.worst for at in rounds], [at.best for at in rounds]
        axes.fill_between(across, low, high, color=palette.series(0), alpha=0.16, linewidth=0, label="all agents")
        axes.plot(across, [at.mean for at in rounds], color=palette["ink"], linewidth=1.1, label="mean of agents")
    totals = [at.total for at in rounds]
    axes.plot(across, totals, color=palette.series(0), marker=dot, markersize=3, label="all test samples")
    value_axis(axes, metric)


def _control_line(axes: Axes, palette: Palette, across: Sequence[float], values: Sequence[float]) -> None:
    dashes: dict[str, Any] = {"color": palette["other"], "linestyle": (0, (4, 3)), "linewidth": 1.5}
    if len(across) == 1:
        axes.axhline(values[0], label="each alone (control)", **dashes)
    elif across:
        axes.plot(across, values, label="each alone (control)", **dashes)


def unit_text(metric: str) -> str:
    """Say in what a metric is read."""
    return "in per cent of the test samples" if is_share(metric) else "no unit"


def accuracy_by_round(results: Results, wide: bool = False) -> Picture | None:
    """Draw the headline metric round by round, with the control dashed."""
    rounds, control = results.accuracy_by_round(), results.control_by_round()
    if not rounds:
        return None
    metric, last = results.metric, rounds[-1]

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        _lines(axes, palette, [at.round for at in rounds], rounds, metric)
        _control_line(axes, palette, [at.round for at in control], [at.total for at in control])
        rounds_axis(axes)
        axes.set_ylabel(metric)
        legend(figure, *axes.get_legend_handles_labels())

    start, end, worst = (value_text(value, metric) for value in (rounds[0].total, last.total, last.worst))
    against = ""
    if control:
        alone = value_text(control[-1].total, metric)
        against = f" Dashed: the control, in which each agent learns alone ({alone} at its end)."
    return Picture(
        "by-round",
        f"{metric.capitalize()} by round",
        f"Line chart. {metric.capitalize()} goes from {start} in round {rounds[0].round} to {end} in round"
        f" {last.round}; the worst agent ends at {worst}.",
        f"{metric.capitalize()}, {unit_text(metric)}, on the agents' own test data. Round 0 is before the first"
        f" exchange. The band spans the worst and the best agent.{against}",
        draw,
        WIDE if wide else HALF,
        3.1 if wide else 3.4,
    )


def accuracy_by_bytes(results: Results) -> Picture | None:
    """Draw the headline metric against the bytes that had passed by then."""
    rounds = results.accuracy_by_round()
    passed = results.cumulative_bytes(at.round for at in rounds)
    control = [at.total for at in results.control_by_round()][-1:]
    if not rounds or not any(passed.values()):
        return None
    metric, last = results.metric, rounds[-1]

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        _lines(axes, palette, [passed[at.round] for at in rounds], rounds, metric)
        _control_line(axes, palette, [0.0] * len(control), control)
        bytes_axis(axes, "x")
        axes.set_xlabel("bytes on the wire so far, all agents")
        axes.set_ylabel(metric)
        legend(figure, *axes.get_legend_handles_labels())

    dashed = " Dashed: the control at its end, which costs nothing." if control else ""
    return Picture(
        "by-bytes",
        f"{metric.capitalize()} for the bytes spent",
        f"Line chart. After {bytes_text(passed[last.round])} in all the {metric} is {value_text(last.total, metric)}.",
        f"{metric.capitalize()}, {unit_text(metric)}, against the cumulative bytes of all serialised packets, lost and"
        f" late ones included (1 kB = 1000 bytes).{dashed}",
        draw,
        HALF,
        3.4,
    )


def accuracy_by_time(results: Results) -> Picture | None:
    """Draw the headline metric against the simulated clock, where it moves at all."""
    points = results.accuracy_by_simulated_time()
    if not points or points[-1][0] <= 0:
        return None
    metric, (end, last) = results.metric, points[-1]
    units = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
    unit, length = next((name, size) for name, size in units if end >= 3 * size or size == 1)

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        _lines(axes, palette, [time / length for time, _ in points], [at for _, at in points], metric)
        axes.set_xlabel(f"simulated {unit}")
        axes.set_ylabel(metric)
        legend(figure, *axes.get_legend_handles_labels())

    return Picture(
        "by-time",
        f"{metric.capitalize()} by simulated time",
        f"Line chart. After {seconds_text(end)} of simulated time the {metric} is {value_text(last.total, metric)}.",
        f"{metric.capitalize()}, {unit_text(metric)}, against the simulated clock in {unit}: the agents' speeds,"
        " bandwidths and availability as the spec states them, not the speed of this machine.",
        draw,
        HALF,
        3.4,
    )


def stacked(
    axes: Axes, palette: Palette, layers: Mapping[str, Mapping[int, int]], colours: Mapping[str, int], unit: str
) -> None:
    """Draw layer -> round -> bytes, one upon the other, over rounds; ``colours`` names each layer's series."""
    rounds = sorted({number for by_round in layers.values() for number in by_round})
    floor = [0.0] * len(rounds)
    for name, by_round in layers.items():
        heights = [float(by_round.get(number, 0)) for number in rounds]
        top = [low + height for low, height in zip(floor, heights, strict=True)]
        colour, label = palette.series(colours[name]), name.replace("_", " ")
        if len(rounds) <= STACKED_BARS:
            step = min((b - a for a, b in zip(rounds, rounds[1:], strict=False)), default=1)
            axes.bar(rounds, heights, 0.78 * step, floor, color=colour, label=label)
        else:
            axes.fill_between(rounds, floor, top, color=colour, linewidth=0, label=label, step="mid")
        floor = top
    if len(rounds) == 1:
        axes.set_xlim(rounds[0] - 2, rounds[0] + 2)
    rounds_axis(axes)
    bytes_axis(axes, "y")
    axes.set_ylabel(unit)


def _stack(
    figure: Figure, palette: Palette, layers: Mapping[str, Mapping[int, int]], colours: Mapping[str, int], unit: str
) -> None:
    axes = figure.add_subplot()
    stacked(axes, palette, layers, colours, unit)
    legend(figure, *axes.get_legend_handles_labels())


def bytes_by_form(results: Results) -> Picture | None:
    """Draw the bytes of each form of knowledge, round by round."""
    layers = results.bytes_by_form_and_round()
    if not layers:
        return None
    total = {form: sum(by_round.values()) for form, by_round in layers.items()}
    parts = ", ".join(f"{form} {bytes_text(total[form])}" for form in sorted(total, key=lambda form: -total[form]))
    colours = {form: index for index, form in enumerate(layers)}
    return Picture(
        "by-form",
        "Bytes on the wire by form of knowledge",
        f"Stacked bar chart over rounds. In all: {parts}.",
        f"Bytes of the serialised packets of all agents in each round. Over the whole run: {parts}.",
        lambda figure, palette: _stack(figure, palette, layers, colours, "bytes in a round"),
    )


def bytes_held(results: Results) -> Picture | None:
    """Draw the bytes that all agents hold, by kind of memory, round by round."""
    kinds = {kind: rounds for kind, rounds in results.bytes_held_by_kind().items() if any(rounds.values())}
    if not kinds:
        return None
    last = max(number for by_round in kinds.values() for number in by_round)
    parts = ", ".join(f"{kind} {bytes_text(by_round.get(last, 0))}" for kind, by_round in kinds.items())
    roles = results.bytes_held_by_role()
    by_role = ", ".join(f"{role} {bytes_text(by_round.get(last, 0))}" for role, by_round in sorted(roles.items()))
    colours = {kind: KIND_COLOURS.get(kind, 7) for kind in kinds}
    return Picture(
        "held",
        "Bytes held by kind of memory",
        f"Stacked bar chart over rounds. After round {last}: {parts}.",
        f"Bytes held by all agents together at the end of each round, by kind of memory. After round {last}, by role:"
        f" {by_role}.",
        lambda figure, palette: _stack(figure, palette, kinds, colours, "bytes held"),
    )
