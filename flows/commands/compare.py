"""``codistill compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..report.compare import as_markdown, as_rows, compare, print_comparison


def compare_command(folders: list[Path], html: Path | None, markdown: bool, as_json: bool) -> None:
    """Print how the runs in ``folders`` compare, in the form that was asked for."""
    try:
        found = compare(folders)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    if html is not None:
        from ..report.comparison_page import write_comparison  # matplotlib

        write_comparison(found, html)
    if as_json:
        print(json.dumps(as_rows(found), indent=1))
    elif markdown:
        print(as_markdown(found))
    else:
        from rich.console import Console

        print_comparison(found, Console())
