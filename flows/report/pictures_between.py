"""The pictures of what lies between agents: who spoke to whom, and who holds what."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .drawing import HALF, WIDE, Palette, Picture, legend, shades
from .pictures import group_colours
from .results import AgentInfo, Link, Results
from .text import bytes_text, count_text, natural_key, plural, shorten

LARGEST_GRAPH = 60
NAMED_NODES = 40
LARGEST_BUBBLES = (60, 40)

Place = tuple[float, float]


def tiers(agents: Sequence[AgentInfo], links: Sequence[Link]) -> list[list[str]]:
    """Give agents from the top tier down, each tier ordered so that children stand below their parents."""
    roles: dict[str, list[str]] = {}
    for agent in agents:
        if agent.role != "learner":
            roles.setdefault(agent.role, []).append(agent.name)
    if not roles:
        return [[agent.name for agent in agents]]
    near: dict[str, set[str]] = {agent.name: set() for agent in agents}
    for link in links:
        near[link.sender].add(link.receiver)
        near[link.receiver].add(link.sender)
    learners = {agent.name for agent in agents if agent.role == "learner"}
    # The top is the smallest tier; of several as small, the one that speaks least to learners.
    top = min(roles.values(), key=lambda names: (len(names), sum(len(near[name] & learners) for name in names)))
    levels = [sorted(top, key=natural_key)]
    seen = set(levels[0])
    while len(seen) < len(near):
        below = [n for parent in levels[-1] for n in sorted(near[parent] - seen, key=natural_key)]
        level = list(dict.fromkeys(below))
        if not level:
            level = [agent.name for agent in agents if agent.name not in seen]
        levels.append(level)
        seen |= set(level)
    return levels


def ring(names: Sequence[str], links: Sequence[Link]) -> list[str]:
    """Give the order in which agents stand on a circle: along the links where they form one ring."""
    near: dict[str, list[str]] = {name: [] for name in names}
    for link in links:
        for one, other in ((link.sender, link.receiver), (link.receiver, link.sender)):
            if other in near and one in near and other not in near[one] and one != other:
                near[one].append(other)
    if len(names) < 3 or any(len(others) != 2 for others in near.values()):
        return list(names)
    order = [names[0]]
    while len(order) < len(names):
        onward = [name for name in near[order[-1]] if name not in order]
        if not onward:
            return list(names)
        order.append(onward[0])
    return order


def _circle(names: Sequence[str]) -> dict[str, Place]:
    turn = 2 * math.pi / max(len(names), 1)
    return {name: (math.sin(index * turn), math.cos(index * turn)) for index, name in enumerate(names)}


def layout(agents: Sequence[AgentInfo], links: Sequence[Link]) -> tuple[str, dict[str, Place]]:
    """Place agents: a `star` round one hub, a `tree` of tiers, or a `circle` of peers."""
    names = [agent.name for agent in agents]
    levels = tiers(agents, links)
    if len(levels) == 1:
        return "circle", _circle(ring(names, links))
    if len(levels) == 2 and len(levels[0]) == 1:
        return "star", {levels[0][0]: (0.0, 0.0)} | _circle(levels[1])
    places: dict[str, Place] = {}
    for depth, level in enumerate(levels):
        for index, name in enumerate(level):
            places[name] = ((index + 0.5) / len(level), -float(depth))
    parents: dict[str, set[str]] = {}
    for link in links:
        for above, below in ((link.sender, link.receiver), (link.receiver, link.sender)):
            if places[above][1] > places[below][1]:
                parents.setdefault(above, set()).add(below)
    for level in reversed(levels[:-1]):  # a parent stands over the middle of its children, where they have room
        for name in level:
            if name in parents:
                across = sorted(places[child][0] for child in parents[name])
                places[name] = (math.fsum(across) / len(across), places[name][1])
        if len({round(places[name][0], 6) for name in level}) < len(level):
            for index, name in enumerate(level):
                places[name] = ((index + 0.5) / len(level), places[name][1])
    return "tree", places


def _pairs(links: Sequence[Link]) -> dict[tuple[str, str], int]:
    pairs: dict[tuple[str, str], int] = {}
    for link in links:
        pair = (min(link.sender, link.receiver), max(link.sender, link.receiver))
        pairs[pair] = pairs.get(pair, 0) + link.bytes
    return pairs


def _draw_graph(figure: Figure, palette: Palette, agents: Sequence[AgentInfo], links: Sequence[Link]) -> None:
    form, places = layout(agents, links)
    axes = figure.add_subplot()
    axes.axis("off")
    pairs = _pairs(links)
    most = max(pairs.values(), default=1) or 1
    axes.add_collection(
        LineCollection(
            [(places[one], places[other]) for one, other in pairs],
            linewidths=[0.5 + 3.5 * size / most for size in pairs.values()],
            colors=palette["other"],
            alpha=0.6 if len(pairs) <= 120 else 0.35,
            zorder=1,
        )
    )
    groups = group_colours(agents)
    kinds = list(dict.fromkeys(agent.group for agent in agents))
    markers = {kind: "o" if kind in groups else "sD^v"[index % 4] for index, kind in enumerate(reversed(kinds))}
    for kind in kinds:
        members = [agent for agent in agents if agent.group == kind]
        learner = members[0].role == "learner"
        axes.scatter(
            [places[agent.name][0] for agent in members],
            [places[agent.name][1] for agent in members],
            s=(70 if len(agents) <= 30 else 34) if learner else 130,
            marker=markers[kind],
            color=palette.series(groups[kind]) if learner else palette["ink"],
            edgecolors=palette["surface"],
            linewidths=1.2,
            zorder=3,
        )
    deepest = min(y for _, y in places.values())
    if len(agents) <= NAMED_NODES:
        for name, (x, y) in places.items():
            label, turned = shorten(name, 16), len(agents) > 12
            if form == "tree":
                leaf = y == deepest
                turn = 90 if leaf and turned else 0
                axes.annotate(label, (x, y), (0, -9 if leaf else 10), textcoords="offset points", fontsize=7.5,
                              ha="center", va="top" if leaf else "bottom", rotation=turn)  # fmt: skip
            elif (x, y) == (0.0, 0.0):
                box = {"boxstyle": "round,pad=0.15", "facecolor": palette["surface"], "edgecolor": "none"}
                axes.annotate(label, (x, y), (0, 10), textcoords="offset points", ha="center", fontsize=7.5, zorder=4,
                              bbox=box)  # fmt: skip
            else:
                angle = math.degrees(math.atan2(y, x))
                left = x < -1e-6
                level = abs(x) <= 1e-6 and not turned
                axes.text(1.09 * x, 1.09 * y, label, fontsize=7.5, rotation_mode="anchor",
                          rotation=(angle + 180 if left else angle) if turned else 0,
                          ha="center" if level else "right" if left else "left",
                          va=("bottom" if y > 0 else "top") if level else "center")  # fmt: skip
    if form == "tree":
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(deepest - 0.62, 0.35)
    else:
        axes.set_aspect("equal")
        reach = 1.1 + 0.045 * max((len(shorten(n, 16)) for n in places), default=0) * (len(agents) <= NAMED_NODES)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-reach, reach) if len(agents) > 12 else axes.set_ylim(-1.25, 1.25)
    marks = []
    for kind in kinds[:8]:
        learner = kind in groups
        colour = palette.series(groups[kind]) if learner else palette["ink"]
        marks.append(Line2D([], [], color=colour, marker=markers[kind], linestyle=""))
    legend(figure, marks, [shorten(kind, 20) for kind in kinds[:8]])


def _draw_matrix(figure: Figure, palette: Palette, names: list[str], cells: list[list[int]]) -> None:
    axes = figure.add_subplot()
    most = max(max(row) for row in cells) or 1
    axes.imshow(cells, cmap=shades(), vmin=0, vmax=most, aspect="auto", interpolation="nearest")
    axes.grid(False)
    short = [shorten(name, 18) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=90 if len(names) > 6 else 0)
    axes.set_yticks(range(len(names)), short)
    axes.set_xlabel("to")
    axes.set_ylabel("from")
    edges = [index + 0.5 for index in range(len(names) - 1)]
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(True, axis="both", which="minor", color=palette["grid"], linewidth=1)
    if len(names) <= 8:
        for y, row in enumerate(cells):
            for x, size in enumerate(row):
                colour = "#ffffff" if size > 0.6 * most else palette["ink"]
                axes.text(x, y, bytes_text(size) if size else "–", ha="center", va="center", color=colour)


def who_spoke(results: Results) -> Picture | None:
    """Draw the communication graph, or for many agents the bytes from group to group."""
    links, agents = results.links(), results.agents()
    if not links:
        return None
    total = bytes_text(sum(link.bytes for link in links))
    packets = plural(sum(link.packets for link in links), "packet")
    said = f"{plural(len(agents), 'agent')}, {plural(len(_pairs(links)), 'pair')} that spoke, {packets}, {total}"
    if len(agents) > LARGEST_GRAPH:
        group_of = {agent.name: agent.group for agent in agents}
        names = list(dict.fromkeys(agent.group for agent in agents))
        place = {name: index for index, name in enumerate(names)}
        cells = [[0] * len(names) for _ in names]
        for link in links:
            cells[place[group_of[link.sender]]][place[group_of[link.receiver]]] += link.bytes
        return Picture(
            "links",
            "Who spoke to whom",
            f"Heat map of bytes from group to group. {said}.",
            f"Bytes that each group (row) sent to each group (column) over the whole run. {said}.",
            lambda figure, palette: _draw_matrix(figure, palette, names, cells),
            HALF,
            3.6,
        )
    form, _ = layout(agents, links)
    return Picture(
        "links",
        "Who spoke to whom",
        f"Communication graph drawn as a {form}. {said}.",
        f"A line's width is the bytes that passed between two agents in both directions over the whole run; the widest"
        f" is {bytes_text(max(_pairs(links).values()))}. {said}.",
        lambda figure, palette: _draw_graph(figure, palette, agents, links),
        HALF,
        4.4 if len(agents) > 12 else 3.5,
    )


def who_holds(results: Results) -> Picture | None:
    """Draw how many training samples of each label each agent holds."""
    held = results.partition_counts()
    most = max((count for row in held.counts for count in row), default=0)
    if not most:
        return None
    bubbles = len(held.agents) <= LARGEST_BUBBLES[0] and len(held.labels) <= LARGEST_BUBBLES[1]
    rows = list(zip(held.agents, held.counts, strict=True))
    if not bubbles:  # agents that hold mostly the same label stand together
        rows.sort(key=lambda row: (row[1].index(max(row[1])), -max(row[1]) / max(sum(row[1]), 1)))

    def draw(figure: Figure, palette: Palette) -> None:
        axes = figure.add_subplot()
        axes.set_ylabel("label")
        if bubbles:
            full = min(190.0, (0.82 * 72 * min(WIDE * 0.9 / len(rows), 0.24)) ** 2)
            found = [(x, y, n) for x, (_, row) in enumerate(rows) for y, n in enumerate(row) if n]
            axes.grid(True, axis="both")
            axes.scatter([x for x, _, _ in found], [y for _, y, _ in found], color=palette.series(0), alpha=0.85,
                         s=[full * n / most for _, _, n in found], linewidths=0)  # fmt: skip
            names = [shorten(name, 18) for name, _ in rows]
            axes.set_xticks(range(len(rows)), names, rotation=90 if len(rows) > 8 else 0)
            axes.set_xlim(-0.7, len(rows) - 0.3)
            axes.set_ylim(-0.7, len(held.labels) - 0.3)
        else:
            cells = [[row[y] for _, row in rows] for y in range(len(held.labels))]
            axes.grid(False)
            image = axes.imshow(cells, cmap=shades(), vmin=0, vmax=most, aspect="auto", origin="lower",
                                interpolation="nearest")  # fmt: skip
            axes.set_xlabel("agents, those that hold mostly the same label side by side")
            axes.set_xticks([])
            bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.03, label="samples")
            bar.outline.set_visible(False)
        if len(held.labels) <= LARGEST_BUBBLES[1]:
            axes.set_yticks(range(len(held.labels)), [shorten(label, 18) for label in held.labels])

    samples = sum(sum(row) for _, row in rows)
    said = f"{count_text(samples)} training samples, {plural(len(rows), 'agent')}, {plural(len(held.labels), 'label')}"
    key = "A bubble's area" if bubbles else "A cell's shade"
    height = min(6.5, 1.3 + 0.24 * len(held.labels)) if bubbles else 3.8
    return Picture(
        "partition",
        "Who holds what",
        f"{'Bubble chart' if bubbles else 'Heat map'} of agents and labels. {said}.",
        f"{key} is the number of training samples of a label that an agent holds; the greatest is {count_text(most)}."
        f" {said}.",
        draw,
        WIDE,
        height,
    )
