"""What `codistill plan` shows in the terminal: who holds what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from .sums import PartitionCounts, partition_counts
from .text import clean, count_text, plural, shorten

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

HEIGHTS = " ▁▂▃▄▅▆▇█"
LENGTHS = " ▏▎▍▌▋▊▉█"


def bar_text(share: float, width: int, ascii_only: bool = False) -> str:
    """Draw a share of 1 as a bar of at most `width` characters, an eighth of one being the least."""
    eighths = max(round(min(max(share, 0.0), 1.0) * width * 8), 1 if share > 0 else 0)
    if ascii_only:
        return "#" * max(round(eighths / 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + (LENGTHS[eighths % 8] if eighths % 8 else "")


def heights_text(counts: list[int], most: int, ascii_only: bool = False) -> str:
    """Draw one character a label, as high as its count; a label that is not held is a dot."""
    marks = "0123456789" if ascii_only else HEIGHTS
    none, steps = ("." if ascii_only else "·"), len(marks) - 1
    return "".join(marks[max(1, round(count / most * steps))] if count else none for count in counts)


class PartitionView:
    """Who holds what: a line an agent, with its samples and the shape of its labels."""

    def __init__(self, partition: pa.Table, limit: int = 40, order: Iterable[str] = ()) -> None:
        names = list(order)
        self.train = partition_counts(partition, "train", names)
        self.test = partition_counts(partition, "test", names)
        self.public = partition_counts(partition, "public")
        self.limit = limit

    def _label(self, row: list[int], room: int, most: int, ascii_only: bool) -> str:
        labels = self.train.labels
        if len(labels) <= room:
            return heights_text(row, most, ascii_only)
        held = sum(count > 0 for count in row)
        top = max(range(len(row)), key=row.__getitem__)
        total = sum(row)
        share = f", most: {shorten(labels[top], 12)} ({100 * row[top] / total:.0f} %)" if total else ""
        return f"{held} of {len(labels)}{share}"

    def _note(self, shown: int) -> list[str]:
        totals = sorted(sum(row) for row in self.train.counts)
        lines = []
        if len(totals) > shown:
            least, middle, greatest = totals[0], totals[len(totals) // 2], totals[-1]
            hidden = plural(len(totals) - shown, "more agent")
            lines.append(f"and {hidden}; of all, the least holds {least}, the middle {middle}, the most {greatest}")
        words = f"{plural(len(totals), 'agent')}, {plural(sum(totals), 'training sample')}"
        words += f", {plural(len(self.train.labels), 'label')}"
        public = _total(self.public)
        lines.append(words + (f"; public: {plural(public, 'sample')}" if public else ""))
        return lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table in the width there is."""
        from rich.table import Table
        from rich.text import Text

        if not self.train.agents:
            yield Text("Nobody holds any training samples.")
            return
        ascii_only = options.ascii_only
        shown = list(zip(self.train.agents, self.train.counts, strict=True))[: max(self.limit, 1)]
        tested = {name: sum(row) for name, row in zip(self.test.agents, self.test.counts, strict=True)}
        largest = max(sum(row) for row in self.train.counts) or 1
        most = max(max(row) for row in self.train.counts) or 1
        names = [shorten(name, 24 if options.max_width >= 70 else 12) for name, _ in shown]
        wide = options.max_width >= 60
        taken = max(map(len, names)) + 8 + (8 + 14 if wide else 0) + 6
        room = max(options.max_width - taken, 4)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("agent", no_wrap=True)
        table.add_column("train", justify="right", no_wrap=True)
        if wide:
            table.add_column("test", justify="right", no_wrap=True)
            table.add_column("", no_wrap=True, width=12)
        span = f"labels {clean(self.train.labels[0])} to {clean(self.train.labels[-1])}"
        table.add_column(shorten(span, max(room, 6)), no_wrap=True, overflow="ellipsis")
        for name, (agent, row) in zip(names, shown, strict=True):
            cells = [Text(name), Text(count_text(sum(row)))]
            if wide:
                test = tested.get(agent)
                cells += [Text(count_text(test)), Text(bar_text(sum(row) / largest, 12, ascii_only), style="cyan")]
            cells.append(Text(self._label(row, room, most, ascii_only)))
            table.add_row(*cells)
        yield table
        for line in self._note(len(shown)):
            yield Text(line, style="dim")


def _total(counts: PartitionCounts) -> int:
    return sum(sum(row) for row in counts.counts)
