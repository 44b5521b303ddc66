"""The stages of a round as a mermaid diagram."""

from __future__ import annotations

from .plan import Plan
from .report.text import bytes_text


def mermaid(plan: Plan) -> str:
    """Return a mermaid flowchart of one round: stages in order, exchanges with their predicted bytes."""
    lines = ["flowchart TD"]
    for index, stage in enumerate(plan.stages):
        who = "learners" if stage.tier < 0 else next(a.role for a in plan.agents if a.tier == stage.tier)
        lines.append(f'  s{index}["{who}: {stage.name}"]')
    for index, stage in enumerate(plan.stages[:-1]):
        label = ""
        if stage.sends is not None:
            exchange = plan.exchanges[stage.sends]
            total = sum(exchange.up_bytes) if stage.kind == "local" else sum(exchange.down_bytes)
            label = f"|{exchange.form}, {bytes_text(total)}|" if total else f"|{exchange.form}|"
        lines.append(f"  s{index} -->{label} s{index + 1}")
    if plan.stages:
        lines.append(f"  s{len(plan.stages) - 1} -.->|next round| s0")
    return "\n".join(lines)
