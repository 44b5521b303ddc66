"""Measured tables in a document: each stands between two markers, and only a command writes there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def between(text: str, name: str, content: str) -> str:
    """Return ``text`` with what stands between the markers of ``name`` replaced; ``ValueError`` without markers."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"there is no {begin} followed by {end}")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def replace_between(path: Path, name: str, content: str) -> None:
    """Write ``content`` between the markers of ``name`` in the document at ``path``."""
    path.write_text(between(path.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a Markdown table; the first ``words`` columns are words, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (heads, rule, *rows))
    return "\n".join(f"| {line} |" for line in lines)
