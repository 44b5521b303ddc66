"""What each memory was worth: an ablation as JSON, as a Markdown table and as a page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .compare import Comparison, as_markdown, as_rows, compare
from .page import write_atomically

WHOLE = "the whole run"


def side_by_side(runs: Mapping[str, Sequence[Path]]) -> Comparison:
    """Compare runs by what was left of which memory: label -> the run of each seed, the whole run first."""
    label_of = {folder: label for label, folders in runs.items() for folder in folders}
    found = compare([folder for folders in runs.values() for folder in folders])
    groups = [
        replace(group, label=label_of[group.folders[0]], values={"run": label_of[group.folders[0]]})
        for group in found.groups
    ]
    return replace(found, groups=groups, keys=["run"], heading="What each memory was worth", against=WHOLE)


def write_ablation(comparison: Comparison, asked: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write ``ablation.json``, ``ablation.md`` and ``ablation.html`` into ``folder``.

    ``asked``: label -> what the JSON says of it besides its figures, such as the memory and the share that was left.
    Folders of runs are named as seen from ``folder``.
    """
    from .comparison_page import write_comparison  # matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for group, figures in zip(comparison.groups, as_rows(comparison), strict=True):
        known = {key: value for key, value in figures.items() if key not in ("group", "spec.run")}
        where = [os.path.relpath(each, folder) for each in group.folders]
        rows.append({"run": group.label, **asked.get(group.label, {}), **known, "folders": where})
    write_atomically(folder / "ablation.json", json.dumps(rows, indent=1) + "\n")
    write_atomically(folder / "ablation.md", as_markdown(comparison))
    write_comparison(comparison, folder / "ablation.html")
