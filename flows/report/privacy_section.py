"""The report's words on privacy: what noisy steps each agent took, and the epsilon that they come to."""

from __future__ import annotations

from .page import Cell, escape, table_markup
from .results import Results
from .text import count_text, natural_key, value_text


def privacy_markup(results: Results) -> str:
    """Give the table of private steps; nothing where no agent took any."""
    said = sorted(results.privacy.to_pylist(), key=lambda row: natural_key(row["agent"]))
    if not said:
        return ""
    heads = [("agent", False), ("steps", True), ("noise", True), ("rate", True), ("delta", True), ("epsilon", True)]
    rows = []
    for row in said:
        cost = row["epsilon"]
        shown = "–" if cost is None else f"{cost:.2f}"
        rows.append(
            [
                Cell(row["agent"]),
                Cell(count_text(row["steps"]), row["steps"]),
                Cell(value_text(row["noise"]), row["noise"]),
                Cell(value_text(row["rate"]), row["rate"]),
                Cell(f"{row['delta']:g}", row["delta"]),
                Cell(shown, cost),
            ]
        )
    note = "Epsilon at delta of all an agent's noisy steps together. Noise is in units of the clipping norm."
    if any(row["epsilon"] is None for row in said):
        note += (
            " A dash: steps without noise cost without bound, or the package that computes epsilon is not installed "
            "(pip install 'codistill[privacy]')."
        )
    table = table_markup(heads, rows, "Privacy")
    return f'<section id="privacy" class="wide"><h2>Privacy</h2>\n{table}<p class="note">{escape(note)}</p></section>\n'


def largest_epsilon(results: Results) -> float | None:
    """Return the largest epsilon of any agent, None where none is known."""
    return max((cost for cost in results.privacy.column("epsilon").to_pylist() if cost is not None), default=None)
