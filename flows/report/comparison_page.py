"""Runs side by side as one HTML page with pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from .compare import Comparison, Group, estimate_text, footnotes, text_columns
from .drawing import HALF, WIDE, Palette, Picture, bytes_axis, figure_markup, legend, value_axis
from .page import Cell, document, escape, table_markup, write_atomically
from .text import is_share, plural, shorten


def _whiskers(
    figure: Figure, palette: Palette, groups: Sequence[Group], figures: Sequence[tuple[str, str]], unit: str,
    scale: float, differences: bool,
) -> None:  # fmt: skip
    axes = figure.add_subplot()
    handles, labels = [], []
    for number, (name, words) in enumerate(figures):
        shift = (number - (len(figures) - 1) / 2) * 0.24
        rows = [(place, group.differences if differences else group.estimates) for place, group in enumerate(groups)]
        found = [(place + shift, values[name]) for place, values in rows if name in values]
        bars = axes.errorbar(
            [scale * each.mean for _, each in found],
            [place for place, _ in found],
            xerr=[math.nan if each.half_width is None else scale * each.half_width for _, each in found],
            fmt="o" if number == 0 else "D",
            markersize=6 if number == 0 else 4.5,
            color=palette.series(0 if number == 0 else 2),
            elinewidth=1.6,
            capsize=3,
        )
        handles.append(bars)
        labels.append(words)
    axes.set_yticks(range(len(groups)), [shorten(group.label, 34) for group in groups], color=palette["ink"])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    if differences:
        axes.axvline(0, color=palette["muted"], linewidth=0.9)
    axes.set_xlabel(unit)
    legend(figure, handles, labels)


def _price(figure: Figure, palette: Palette, groups: Sequence[Group], metric: str) -> None:
    axes = figure.add_subplot()
    handles = []
    for index, group in enumerate(groups):
        price, value = group.estimates["bytes"], group.estimates["accuracy"]
        handles.append(
            axes.errorbar(
                [price.mean],
                [value.mean],
                [math.nan if value.half_width is None else value.half_width],
                [price.half_width or math.nan],
                fmt="os^Dv"[index // 8 % 5],
                color=palette.series(index % 8),
                elinewidth=1.4,
                capsize=3,
            )  # fmt: skip
        )
    value_axis(axes, metric)
    axes.margins(0.12)
    bytes_axis(axes, "x")
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("bytes on the wire, all agents")
    axes.set_ylabel(metric)
    legend(figure, handles, [shorten(group.label, 26) for group in groups])


def _pictures(comparison: Comparison) -> list[Picture]:
    groups, metric = comparison.groups, comparison.metric
    share = is_share(metric)
    interval = "Whiskers: Student's 95 % interval over seeds"
    if any(len(group.seeds) == 1 for group in groups):
        interval += "; a point without whiskers is a single seed, which gives no interval"
    words = [(figure, comparison.title(figure)) for figure in ("accuracy", "accuracy_worst")]
    scale = 100.0 if share else 1.0
    said = "; ".join(
        f"{group.label}: {estimate_text(group.estimates.get('accuracy'), 'accuracy', metric)}" for group in groups
    )
    height = max(2.6, 1.2 + 0.42 * len(groups))
    pictures = []
    if any("accuracy" in group.estimates for group in groups):
        unit = f"{metric}, per cent" if share else metric
        pictures.append(
            Picture(
                "values",
                metric.capitalize(),
                f"Points with whiskers. {said}.",
                f"Mean over seeds at the end of the run, {'in per cent of the test samples' if share else 'no unit'}."
                f" {interval}.",
                lambda figure, palette: _whiskers(figure, palette, groups, words, unit, scale, False),
                HALF,
                max(height, 3.3),
            )
        )
    priced = [group for group in groups if "bytes" in group.estimates and "accuracy" in group.estimates]
    if any(group.estimates["bytes"].mean for group in priced):
        pictures.append(
            Picture(
                "price",
                f"{metric.capitalize()} for the bytes spent",
                f"Scatter of {metric} and bytes. {said}.",
                f"Mean {metric} against the mean bytes of all packets of a run (1 kB = 1000 bytes). {interval}.",
                lambda figure, palette: _price(figure, palette, priced, metric),
                HALF,
                max(height, 3.3),
            )
        )
    others = [group for group in groups[1:] if "accuracy" in group.differences]
    if others:
        unit_of = f"difference in {metric}, percentage points" if share else f"difference in {metric}"
        pictures.append(
            Picture(
                "paired",
                f"Against {shorten(groups[0].label, 60)}",
                "Points with whiskers. "
                + "; ".join(
                    f"{g.label}: {estimate_text(g.differences['accuracy'], 'accuracy', metric, True)}" for g in others
                )
                + ".",
                f"Paired differences: each seed against the same seed of the first group, in"
                f" {'percentage points' if share else 'units of the metric'}. {interval}.",
                lambda figure, palette: _whiskers(figure, palette, others, words, unit_of, scale, True),
                WIDE,
                max(1.9, 1.2 + 0.42 * len(others)),
            )
        )
    return pictures


def comparison_markup(comparison: Comparison) -> str:
    """Give the comparison as one HTML page."""
    named, measured = text_columns(comparison)
    heads = [(column[0], False) for column in named] + [(column[0], True) for column in measured]
    rows = [list(row) for row in zip(*(column[1:] for column in [*named, *measured]), strict=True)]
    figures = comparison.figures()
    cells = []
    for group, row in zip(comparison.groups, rows, strict=True):
        numbers = [group.estimates[f].mean if f in group.estimates else None for f in figures]
        if len(measured) > len(figures):
            numbers.insert(1, group.differences["accuracy"].mean if "accuracy" in group.differences else None)
        values = [*[None] * len(named), *numbers]
        cells.append([Cell(text, value) for text, value in zip(row, values, strict=True)])
    runs = sum(len(group.seeds) for group in comparison.groups)
    notes = "".join(f'<p class="note">{escape(note)}</p>\n' for note in footnotes(comparison))
    folders = "".join(f"<li><code>{escape(f)}</code></li>\n" for group in comparison.groups for f in group.folders)
    counted = f"{plural(len(comparison.groups), 'group')} of {plural(runs, 'run')}"
    body = (
        f"<h1>{escape(comparison.heading)}</h1>\n"
        f'<p class="lead">{counted}; runs of a group differ in their seed only.</p>\n'
        f'<div class="grid">\n{"".join(map(figure_markup, _pictures(comparison)))}'
        f'<section id="table" class="wide"><h2>Figures</h2>\n{table_markup(heads, cells, "Comparison")}{notes}'
        f"<details><summary>The runs</summary><ul>\n{folders}</ul></details></section>\n</div>\n"
    )
    return document(f"codistill: {comparison.heading.lower()}", body)


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the comparison as a self-contained page, and give its path."""
    return write_atomically(Path(path), comparison_markup(comparison))
