"""The pictures of memory: which tier holds what, and how stores served."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .drawing import WIDE, Palette, Picture, legend, rounds_axis
from .memories import held_by_role_and_kind, served_by_round
from .pictures import KIND_COLOURS, stacked
from .results import KINDS, Results
from .text import bytes_text, plural, value_text

PANELS = 3
"""Tiers that stand side by side."""


def held_by_tier(results: Results) -> Picture | None:
    """Draw the bytes that each tier holds, by kind of memory, round by round; None where there is one tier."""
    tiers = held_by_role_and_kind(results)
    if len(tiers) < 2:
        return None
    count = {role: sum(agent.role == role for agent in results.agents()) for role in tiers}
    names = {role: plural(count[role], role) if count[role] > 1 else role for role in tiers}
    kinds = sorted({kind for held in tiers.values() for kind in held}, key=lambda kind: (*KINDS, kind).index(kind))
    colours = {kind: KIND_COLOURS.get(kind, 7) for kind in kinds}
    last = max(number for held in tiers.values() for by_round in held.values() for number in by_round)
    ends = {role: sum(by_round.get(last, 0) for by_round in held.values()) for role, held in tiers.items()}
    across = min(len(tiers), PANELS)
    down = -(-len(tiers) // across)

    def draw(figure: Figure, palette: Palette) -> None:
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes, (role, held) in zip(panels, tiers.items(), strict=False):
            layers = {kind: held[kind] for kind in kinds if kind in held}
            stacked(axes, palette, layers, colours, "bytes held")
            axes.set_title(names[role], loc="left", fontsize=9)
        for axes in panels[len(tiers) :]:
            axes.set_visible(False)
        legend(figure, [Patch(color=palette.series(colours[kind])) for kind in kinds], kinds)

    said = ", ".join(f"{names[role]} {bytes_text(ends[role])}" for role in tiers)
    return Picture(
        "held-by-tier",
        "Bytes held by tier and kind of memory",
        f"Stacked bar charts over rounds, one for each tier. After round {last}: {said}.",
        f"Bytes held at the end of each round, a panel for each tier, each with its own axis. After round {last}:"
        f" {said}.",
        draw,
        WIDE,
        0.5 + 2.9 * down,
    )


def served(results: Results) -> Picture | None:
    """Draw how often each store had what was asked for, and how old that was, round by round."""
    stores = served_by_round(results)
    if not stores:
        return None
    ends = ", ".join(f"{store} {value_text(points[-1][1])}" for store, points in stores.items())

    def draw(figure: Figure, palette: Palette) -> None:
        rates, ages = figure.subplots(1, 2)
        for index, (store, points) in enumerate(stores.items()):
            dots = {"color": palette.series(index), "marker": "o" if len(points) <= 30 else "", "markersize": 3}
            rates.plot([n for n, _, _ in points], [rate for _, rate, _ in points], label=store, **dots)
            aged = [(n, age) for n, _, age in points if age is not None]
            ages.plot([n for n, _ in aged], [age for _, age in aged], **dots)
        rates.set_ylim(-0.03, 1.03)
        rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g} %"))
        rates.set_ylabel("hit rate")
        ages.set_ylim(bottom=0)
        if ages.get_ylim()[1] < 1:
            ages.set_ylim(0, 1)
        ages.yaxis.set_major_locator(MaxNLocator(5))
        ages.set_ylabel("mean age, rounds")
        for axes in (rates, ages):
            rounds_axis(axes)
        legend(figure, *rates.get_legend_handles_labels())

    return Picture(
        "served",
        "How the memories served",
        f"Two line charts over rounds. Hit rate in the last round: {ends}.",
        "Left: the share of what was asked of each store, on all agents, that was found. Right: how many rounds ago"
        " what was found was made. What is read as a whole is not asked for and does not count.",
        draw,
        WIDE,
        2.9,
    )
