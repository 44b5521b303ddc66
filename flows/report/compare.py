"""Runs side by side: what differs between their specs, what came of it, and how sure that is over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .differences import canonical, comparable, differing
from .estimates import Estimate, estimate, paired
from .headline import Headline, headline
from .results import Results
from .text import bytes_text, clean, difference_text, is_share, plural, seconds_text, shorten, value_text

if TYPE_CHECKING:
    from rich.console import Console

# The figures that are compared: the field of a headline, and what people call it.
FIGURES = {
    "accuracy": "accuracy",
    "accuracy_mean": "mean of agents",
    "accuracy_worst": "worst agent",
    "gain_mean": "gain over local",
    "gain_worst": "worst gain",
    "bytes": "bytes on the wire",
    "bytes_held": "bytes held",
    "hit_rate": "hit rate",
    "simulated_seconds": "simulated time",
}
MEASURED = ("accuracy", "accuracy_mean", "accuracy_worst", "gain_mean", "gain_worst")
SHOWN = ("accuracy", "accuracy_worst", "gain_mean", "bytes", "bytes_held", "hit_rate", "simulated_seconds")
MOST_COLUMNS = 6
ROOMY_CONSOLE = 110


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    label: str
    values: dict[str, str]
    seeds: list[int]
    folders: list[Path]
    estimates: dict[str, Estimate]
    differences: dict[str, Estimate]

    @property
    def seeds_text(self) -> str:
        """Say how many seeds there are, and that one alone says nothing of the spread."""
        return "1 seed, no interval" if len(self.seeds) == 1 else plural(len(self.seeds), "seed")


@dataclass(frozen=True)
class Comparison:
    """Groups of runs; differences are against the first, which tables call ``against``."""

    groups: list[Group]
    keys: list[str]
    metric: str
    notes: list[str]
    heading: str = "Comparison"
    against: str = "the first"

    def title(self, figure: str) -> str:
        """Give what people call a figure."""
        return self.metric if figure == "accuracy" else FIGURES[figure]

    def figures(self) -> list[str]:
        """List the figures that any group has and that a table has room for."""
        found = []
        for figure in SHOWN:
            means = [group.estimates[figure].mean for group in self.groups if figure in group.estimates]
            if means and (figure != "simulated_seconds" or any(means)):
                found.append(figure)
        return found


def _label(figures: Headline, values: dict[str, str], taken: Sequence[str]) -> str:
    if 0 < len(values) <= 3:
        # A word speaks for itself, a number needs the name of its key.
        words = ((key.rsplit(".", 1)[-1], shorten(value, 30)) for key, value in values.items())
        label = ", ".join(
            value if value.isidentifier() and len(value) > 4 else f"{key} {value}" for key, value in words
        )
    else:
        label = " ".join(filter(None, (figures.recipe or figures.name, figures.pattern)))
    label = clean(label)
    stem, again = label, 2
    while label in taken:
        label, again = f"{stem} ({again})", again + 1
    return label


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Compare finished runs. Those which differ in nothing but their seed make one group."""
    notes: list[str] = []
    grouped: dict[str, dict[int, tuple[Results, Headline]]] = {}
    specs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        results = Results.read(folder)
        if results.status != "finished":
            notes.append(f"{results.folder} is left out: it is {results.status}, not finished.")
            continue
        figures = headline(results)
        spec = comparable(results.spec())
        key = canonical(spec)
        specs[key] = spec
        seeds = grouped.setdefault(key, {})
        seed = figures.seed or 0
        if seed in seeds:
            notes.append(f"{results.folder} is left out: {seeds[seed][0].folder} is the same run.")
        else:
            seeds[seed] = (results, figures)
    if not grouped:
        raise ValueError("There is nothing to compare: none of the folders is a finished run.")
    found = differing(list(specs.values())) if len(specs) > 1 else {}
    metric = next(iter(next(iter(grouped.values())).values()))[1].metric
    groups: list[Group] = []
    first: dict[str, dict[int, float]] = {}
    for index, seeds in enumerate(grouped.values()):
        runs = dict(sorted(seeds.items()))
        some = next(iter(runs.values()))[1]
        values = {key: texts[index] for key, texts in found.items()}
        numbers: dict[str, dict[int, float]] = {}
        for figure in FIGURES:
            if figure in MEASURED and some.metric != metric:
                continue
            each = {seed: getattr(figures, figure) for seed, (_, figures) in runs.items()}
            numbers[figure] = {seed: float(value) for seed, value in each.items() if value is not None}
        if some.metric != metric:
            notes.append(f"{some.name} measures {some.metric}, not {metric}: only its costs are compared.")
        first = first or numbers
        pairs = {figure: paired(numbers[figure], first[figure]) for figure in numbers if index and figure in first}
        groups.append(
            Group(
                label=_label(some, values, [group.label for group in groups]),
                values=values,
                seeds=list(runs),
                folders=[results.folder for results, _ in runs.values()],
                estimates={figure: e for figure, by_seed in numbers.items() if (e := estimate([*by_seed.values()]))},
                differences={figure: pair for figure, pair in pairs.items() if pair},
            )
        )
    return Comparison(groups, list(found), metric, notes)


def estimate_text(found: Estimate | None, figure: str, metric: str = "accuracy", difference: bool = False) -> str:
    """Write a figure with its interval, where it has one: `81.2 ± 0.9 %`."""
    if found is None:
        return "–"
    mean, half = found.mean, found.half_width
    if figure == "hit_rate":
        metric = "accuracy"  # it is a share, whatever was measured
    if figure in MEASURED or figure == "hit_rate":
        signed = difference or figure.startswith("gain")
        if half is None:
            return difference_text(mean, metric, unit=False) if signed else value_text(mean, metric)
        scale, digits = (100, 1) if is_share(metric) else (1, 3)
        number = difference_text(mean, metric, unit=False) if signed else f"{scale * mean:.{digits}f}"
        return f"{number} ± {scale * half:.{digits}f}" + (" %" if is_share(metric) and not signed else "")
    write = seconds_text if figure == "simulated_seconds" else bytes_text
    sign = ("+" if mean > 0 else "−" if mean < 0 else "") if difference else ""
    text = sign + write(abs(mean))
    return text if half is None or half == 0 else f"{text} ± {write(half)}"


def as_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Give one flat row a group, for CSV or JSON; what was not measured is `None`."""
    rows = []
    for group in comparison.groups:
        row: dict[str, Any] = {"group": group.label, **{f"spec.{key}": group.values[key] for key in comparison.keys}}
        row |= {"metric": comparison.metric, "seeds": len(group.seeds)}
        for figure in FIGURES:
            for name, estimates in ((figure, group.estimates), (f"{figure}_difference", group.differences)):
                found = estimates.get(figure)
                row[name] = found.mean if found else None
                row[f"{name}_half_width"] = found.half_width if found else None
            row[f"{figure}_pairs"] = group.differences[figure].count if figure in group.differences else 0
        rows.append(row)
    return rows


def text_columns(comparison: Comparison, most_columns: int = MOST_COLUMNS) -> tuple[list[list[str]], list[list[str]]]:
    """Give the columns that say what each group is, and those of its figures; each begins with its head."""
    keys, metric, groups = comparison.keys[:most_columns], comparison.metric, comparison.groups
    short = [key.split(".")[-1] for key in keys]
    named = [
        [key if short.count(name) > 1 else name, *(shorten(group.values[key], 40) for group in groups)]
        for key, name in zip(keys, short, strict=True)
    ]
    named = named or [["run", *(group.label for group in groups)]]
    named.append(["seeds", *(group.seeds_text for group in groups)])
    columns = [
        [comparison.title(figure), *(estimate_text(group.estimates.get(figure), figure, metric) for group in groups)]
        for figure in comparison.figures()
    ]
    if any("accuracy" in group.differences for group in groups):
        cells = ["first"]
        for group in groups[1:]:
            pair = group.differences.get("accuracy")
            text = estimate_text(pair, "accuracy", metric, difference=True)
            cells.append(f"{text} ({plural(pair.count, 'pair')})" if pair else text)
        columns.insert(1, [f"{metric} against {comparison.against}, paired", *cells])
    return named, columns


def footnotes(comparison: Comparison, most_columns: int = MOST_COLUMNS) -> list[str]:
    """Say what the table means and what it leaves out."""
    share = is_share(comparison.metric)
    notes = ["± is the half width of Student's 95 % interval over seeds."]
    if len(comparison.groups) > 1:
        notes.append("Paired differences are against the first row, over the seeds that both have.")
    if share:
        notes.append("Gains and differences are in percentage points.")
    if len(comparison.keys) > most_columns:
        notes.append(f"The specs also differ in: {', '.join(comparison.keys[most_columns:])}.")
    return notes + comparison.notes


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the comparison as a table; on a narrow terminal as several below each other."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    named, columns = text_columns(comparison)
    roomy = console.width >= ROOMY_CONSOLE

    def width(column: list[str]) -> int:
        longest = max(map(len, [*column[0].split(), *column[1:]]))
        return 3 + (11 if column is named[-1] and not roomy else longest)

    start = sum(map(width, named))
    parts: list[list[list[str]]] = [[]]
    for column in columns:
        if parts[-1] and start + sum(map(width, parts[-1])) + width(column) > console.width:
            parts.append([])
        parts[-1].append(column)
    for part in parts:
        fits = start + sum(map(width, part)) <= console.width
        table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate([*named, *part]):
            side: Literal["left", "right"] = "left" if index < len(named) else "right"
            exact = width(column) - 3 if fits else None
            table.add_column(Text(clean(column[0])), justify=side, overflow="fold", width=exact)
        for row in zip(*([clean(cell) for cell in column[1:]] for column in [*named, *part]), strict=True):
            table.add_row(*map(Text, row))
        console.print(table)
    for note in footnotes(comparison):
        console.print(Text(clean(note), style="dim"))


def as_markdown(comparison: Comparison) -> str:
    """Give the comparison as a Markdown table."""

    def line(cells: Sequence[str]) -> str:
        safe = (clean(cell).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for cell in cells)
        return "| " + " | ".join(safe) + " |"

    named, columns = text_columns(comparison)
    heads, *rows = zip(*named, *columns, strict=True)
    rule = "| " + " | ".join(["---"] * len(named) + ["---:"] * len(columns)) + " |"
    notes = "\n".join(clean(note).replace("<", "&lt;") for note in footnotes(comparison))
    return "\n".join([line(heads), rule, *map(line, rows)]) + f"\n\n{notes}\n"
