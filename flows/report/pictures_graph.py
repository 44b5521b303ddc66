"""The pictures of runs over knowledge graphs: what agents share, and what they unlearned."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from .drawing import WIDE, Palette, Picture, legend, rounds_axis
from .results import Results
from .shared_rows import SharedRows, shared_rows
from .text import plural, shorten
from .unlearned import WITHIN, Unlearned, unlearned

NAMED = 5
"""Entities whose names stand in the picture."""


def shared_embeddings(results: Results) -> Picture | None:
    """Draw the rows of shared entities before and after, one colour an agent; None where nothing is shared."""
    rows = shared_rows(results)
    if rows is None:
        return None
    named = outliers(rows)

    def draw(figure: Figure, palette: Palette) -> None:
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for moment, (axes, word) in enumerate(zip(panels, ("Before", "After"), strict=True)):
            for entity in rows.entities:
                middle = rows.middle(moment, entity)
                for point in rows.of(moment, entity).values():
                    axes.plot(*zip(middle, point, strict=True), color=palette["other"], linewidth=0.6, zorder=1)
            for place, agent in enumerate(rows.agents):
                mine = [point for (when, who, _), point in rows.points.items() if (when, who) == (moment, agent)]
                # Who comes later is drawn smaller, so that agents who agree to the bit show as rings.
                size = 8 + 24 * (1 - place / len(rows.agents))
                axes.scatter(
                    *zip(*mine, strict=True), s=size, color=palette.series(place), linewidths=0, zorder=2 + place
                )
            for entity in named:
                x, y = rows.middle(moment, entity)
                axes.annotate(
                    shorten(entity, 20),
                    (x, y),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color=palette["ink"],
                    bbox={"facecolor": palette["surface"], "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
                    zorder=20,
                )
            axes.set_title(f"{word}: round {rows.rounds[moment]}", loc="left", fontsize=9)
            axes.set_aspect("equal", adjustable="box")
            axes.tick_params(labelbottom=False, labelleft=False, length=0)
            axes.grid(True, axis="both")
        marks = [
            Line2D([], [], color=palette.series(place), marker="o", linestyle="", markersize=5)
            for place in range(len(rows.agents))
        ]
        legend(figure, marks, [shorten(agent, 20) for agent in rows.agents])

    before, after = (f"{value:.2f}" for value in rows.apart)
    return Picture(
        "shared-embeddings",
        "Embeddings of shared entities, before and after",
        f"Two scatter plots of {plural(len(rows.entities), 'entity', 'entities')} of"
        f" {plural(len(rows.agents), 'agent')} on one plane. Agents' rows of one entity are {before} times as far apart"
        f" as entities are in the first round, and {after} times in the last.",
        f"The embeddings of {plural(len(rows.entities), 'entity', 'entities')}, drawn from those that at least two of"
        " these agents hold, after an agent's own training in its first and in its last round and before anything"
        " comes in. Both panels lie on the same two principal axes, which hold"
        f" {100 * rows.explained:.0f} % of the variance; a line leads from each agent's embedding of an entity to the"
        " mean of all agents'. Distance between agents, in units of the distance between entities (root mean squares,"
        f" all dimensions): {before} before, {after} after.",
        draw,
        WIDE,
        5.2,
    )


def outliers(rows: SharedRows) -> list[str]:
    """Return the entities that lie farthest out at the end, and whose names do not stand in each other's way."""
    ends = {entity: rows.middle(1, entity) for entity in rows.entities}
    reach = 2 * max(float(abs(point).max()) for point in ends.values())
    chosen: list[str] = []
    for entity in sorted(ends, key=lambda entity: (-float((ends[entity] ** 2).sum()), entity)):
        steps = [abs(ends[entity] - ends[other]) for other in chosen]
        if all(x > reach / 4 or y > reach / 16 for x, y in steps):
            chosen.append(entity)
    return chosen[:NAMED]


def what_was_unlearned(results: Results) -> Picture | None:
    """Draw the ranks of forgotten triples beside kept and never seen ones; None where they were not measured."""
    found = unlearned(results)
    if found is None:
        return None
    colours = {"forgotten": 4, "kept": 0, "never seen": 1}

    def draw(figure: Figure, palette: Palette) -> None:
        panels = figure.subplots(1, 2 if found.hits else 1, squeeze=False)[0]
        for part, by_round in found.mrr.items():
            dot = "o" if len(by_round) <= 30 else None
            colour = palette.series(colours[part])
            panels[0].plot(*zip(*by_round.items(), strict=True), color=colour, marker=dot, markersize=3, label=part)
        if found.began is not None:
            dashes = {"color": palette["muted"], "linestyle": (0, (4, 3)), "linewidth": 1.2}
            panels[0].axvline(found.began - 0.5, label="unlearning begins", **dashes)
        panels[0].set_ylabel("mean reciprocal rank")
        panels[0].set_ylim(bottom=0)
        rounds_axis(panels[0])
        if found.hits:
            _hits(panels[1], palette, found, colours)
        legend(figure, *panels[0].get_legend_handles_labels())

    ends = {part: f"{by_round[max(by_round)]:.3f}" for part, by_round in found.mrr.items()}
    if found.began is None:
        said = "No agent was made to unlearn anything; at the end it is " + _listed(ends)
        moments = ""
    elif found.before is None:
        said = (
            f"Unlearning begins in round {found.began}, before anything was measured; at the end it is {_listed(ends)}"
        )
        moments = ""
    else:
        starts = {part: by_round.get(found.before, float("nan")) for part, by_round in found.mrr.items()}
        said = "From before unlearning to the end it goes " + _listed(
            {part: f"from {starts[part]:.3f} to {end}" for part, end in ends.items()}
        )
        moments = (
            f" Right: the share of heads and tails that rank among the first 1, 3 and 10, after round {found.before}"
            f" (pale) and after round {found.after} (full)."
        )
    return Picture(
        "unlearned",
        "What was unlearned",
        f"Line chart of the mean reciprocal rank over rounds. {said}.",
        "Mean reciprocal rank of heads and tails over all agents' triples: those that they are asked to forget, those"
        " that they train on and keep (at most 512 an agent), and those that they never saw (the test triples). What"
        f" is wholly forgotten ranks as what was never seen. {said}.{moments if found.hits else ''}",
        draw,
        WIDE,
        3.3,
    )


def _listed(said: Mapping[str, str]) -> str:
    return ", ".join(f"{end} for {part}" for part, end in said.items())


def _hits(axes: Axes, palette: Palette, found: Unlearned, colours: Mapping[str, int]) -> None:
    """Draw the shares within the first k as pairs of bars, before and after, part by part."""
    width = 0.8 / (2 * len(found.hits))
    for place, (part, moments) in enumerate(found.hits.items()):
        for moment, shares in enumerate(moments):
            across = [index - 0.4 + width * (2 * place + moment + 0.5) for index, k in enumerate(WITHIN) if k in shares]
            colour, faint = palette.series(colours[part]), 1.0 if moment else 0.4
            axes.bar(across, list(shares.values()), 0.88 * width, color=colour, alpha=faint, linewidth=0)
    axes.set_xticks(range(len(WITHIN)), [f"first {k}" if k > 1 else "first" for k in WITHIN])
    axes.set_ylabel("share of heads and tails")
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.10g} %"))
    axes.grid(False, axis="x")
