"""What each agent gained: over learning alone, or over another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .drawing import HALF, Palette, Picture, legend
from .headline import headline
from .pictures import group_colours, unit_text
from .reading import NotARunError
from .results import Results
from .text import difference_text, is_share, plural, shorten

NAMED_BARS = 40


def gain_by_agent(results: Results) -> Picture | None:
    """Draw each agent's gain over learning alone, sorted; without a control, each agent's value and its first one."""
    gains, metric = results.gain_by_agent(), results.metric
    if gains:
        return _gains(results, gains, "gain", "Gain over learning alone", "its own in the local control", "the control")
    values, first = results.last_accuracy(), results.first_accuracy()
    if not values:
        return None
    return Picture(
        "gain",
        f"{metric.capitalize()} of each agent",
        f"Bar chart of {plural(len(values), 'agent')}.",
        f"Last measured {metric} of each agent, {unit_text(metric)}; the mark is where it began. No control was run to"
        " compare it with.",
        lambda figure, palette: _bars(
            figure, palette, results, values, metric + (", per cent" if is_share(metric) else ""), first
        ),
        HALF,
        _height(len(values)),
    )


def gain_beside(results: Results, other: Results) -> Picture:
    """Draw each agent's gain over the agent of the same name in another run, at the end of both.

    Raises ``NotARunError`` where the other run measures something else, or has no agent of such a name.
    """
    metric, values, theirs = results.metric, results.last_accuracy(), other.last_accuracy()
    if other.metric != metric:
        raise NotARunError(f"{other.folder} measures {other.metric}, not {metric}: it cannot stand beside this run.")
    gains = {name: value - theirs[name] for name, value in values.items() if name in theirs}
    if not gains:
        raise NotARunError(f"{other.folder} has no measured agent of a name that this run has: nothing to compare.")
    name = shorten(headline(other).name, 40)
    return _gains(results, gains, "gain-beside", f"Gain over {name}", f"that of the same agent in {name}", name)


def _gains(results: Results, gains: Mapping[str, float], name: str, title: str, less: str, than: str) -> Picture:
    metric, order = results.metric, _order(gains)
    below = sum(value < -1e-12 for value in gains.values())
    share = is_share(metric)
    return Picture(
        name,
        title,
        f"Bar chart of {plural(len(order), 'agent')}, from {difference_text(gains[order[0]], metric)} to"
        f" {difference_text(gains[order[-1]], metric)}; {below} below {than}.",
        f"Each agent's {metric} less {less}, in {'percentage points' if share else 'units of the metric'}; bars are"
        " coloured by group.",
        lambda figure, palette: _bars(
            figure, palette, results, gains, f"gain in {metric}" + (", percentage points" if share else "")
        ),
        HALF,
        _height(len(order)),
    )


def _order(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: (-values[name], name))


def _height(bars: int) -> float:
    return max(3.1, 0.9 + 0.185 * bars) if bars <= NAMED_BARS else 3.6


def _bars(
    figure: Figure,
    palette: Palette,
    results: Results,
    values: Mapping[str, float],
    what: str,
    marks: Mapping[str, float] | None = None,
) -> None:
    """Draw one bar an agent, from the greatest value to the least, coloured by group; ``marks`` are lines on bars."""
    axes, agents, order = figure.add_subplot(), results.agents(), _order(values)
    groups, group_of = group_colours(agents), {agent.name: agent.group for agent in agents}
    scale, places = 100 if is_share(results.metric) else 1, range(len(order))
    heights = [values[name] * scale for name in order]
    colours = [palette.series(groups.get(group_of.get(name, ""), 99)) for name in order]
    begun = {place: marks[name] * scale for place, name in enumerate(order) if marks and name in marks}
    named = len(order) <= NAMED_BARS
    if begun:
        low, high = [place - 0.36 for place in begun], [place + 0.36 for place in begun]
        lines = axes.vlines if named else axes.hlines
        lines(list(begun.values()), low, high, color=palette["ink"], linewidth=1.4)
    if named:
        axes.barh(places, heights, color=colours, height=0.72)
        _name(axes, palette, order)
        axes.set_xlabel(what)
    else:
        axes.bar(places, heights, color=colours, width=1.0 if len(order) > 120 else 0.8)
        axes.axhline(0, color=palette["muted"], linewidth=0.9)
        axes.set_xlabel("agents, from the greatest to the least")
        axes.set_ylabel(what)
        axes.set_xticks([])
    if len(groups) > 1:
        shown = list(groups.items())[:9]
        patches = [Patch(color=palette.series(index)) for _, index in shown]
        legend(figure, patches, [shorten(name, 20) for name, _ in shown])


def _name(axes: Axes, palette: Palette, order: Sequence[str]) -> None:
    axes.set_yticks(range(len(order)), [shorten(name, 22) for name in order], color=palette["ink"], fontsize=8)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.axvline(0, color=palette["muted"], linewidth=0.9)
    axes.set_ylim(len(order) - 0.4, -0.6)
