"""The report's words on memory: the table of stores, and what was turned away, left or could not be forgotten."""

from __future__ import annotations

from typing import Any

from .memories import EventFigures, StoreFigures, capacity_text, choice_text, event_figures, store_figures
from .page import Cell, escape, table_markup
from .results import Results
from .text import bytes_text, count_text, natural_key, plural, value_text

SHOWN = 40
"""Sentences that are listed; of more, the report says how many."""


def stores_markup(results: Results) -> str:
    """Give the table of stores, one row for each store and role; nothing where the recipe declares none."""
    figures = store_figures(results)
    if not figures:
        return ""
    declared = _declared(results)
    asked = any(said.hit_rate is not None for said in figures)
    ablated = any(float(said.get("keep", 1.0)) < 1 for said in declared.values())
    heads = [("memory", False), ("held by", False), ("kind", False), ("holds", False), ("capacity", False)]
    heads += [("keep", True)] if ablated else []
    heads += [("items", True), ("bytes", True), *([("hit rate", True), ("mean age, rounds", True)] if asked else [])]
    heads += [("refused", True), ("evicted", True)]
    rows = []
    for said in figures:
        known = declared.get(said.store, {})
        row = [Cell(said.store), Cell(_holders(said.agents, said.role)), Cell(said.kind)]
        row += [Cell(_form(known)), Cell(_capacity(known))] if known else [Cell("–"), Cell("–")]
        if ablated:
            share = float(known.get("keep", 1.0))
            row.append(Cell(value_text(share), share))
        row += [Cell(count_text(said.items), said.items), Cell(bytes_text(said.bytes), said.bytes)]
        row += _service(said) if asked else []
        row += [Cell(count_text(said.refused), said.refused), Cell(count_text(said.evicted), said.evicted)]
        rows.append(row)
    note = "Items and bytes are those of all holders together at the end; each holder has a memory of its own."
    if ablated:
        note += " Keep: the share of the ids that may come in; the others are filtered."
    if asked:
        note += (
            " Hit rate: of what was asked for, over the whole run, what was found; age: rounds since what was found was"
            " made. A memory that is read as a whole has neither."
        )
    table = table_markup(heads, rows, "Memories")
    return f'<section id="stores" class="wide"><h2>Memories</h2>\n{table}<p class="note">{escape(note)}</p></section>\n'


def _service(said: StoreFigures) -> list[Cell]:
    age = "–" if said.mean_age is None else f"{said.mean_age:.2f}"
    return [Cell("–" if said.hit_rate is None else value_text(said.hit_rate), said.hit_rate), Cell(age, said.mean_age)]


def _declared(results: Results) -> dict[str, dict[str, Any]]:
    recipe = results.spec().get("recipe")
    memories = recipe.get("memories") if isinstance(recipe, dict) else None
    known = memories.items() if isinstance(memories, dict) else ()
    return {str(name): said for name, said in known if isinstance(said, dict)}


def _form(declared: dict[str, Any]) -> str:
    return f"{declared.get('holds', '–')}, {choice_text(declared, 'encoding')}"


def _capacity(declared: dict[str, Any]) -> str:
    """Write how much a store holds, and who leaves where that is bounded."""
    bound = capacity_text(declared)
    return f"{bound}, {choice_text(declared, 'eviction')}" if declared.get("capacity") else bound


def _holders(agents: list[str], role: str) -> str:
    return agents[0] if len(agents) == 1 else plural(len(agents), role)


def events_markup(results: Results) -> str:
    """Give the table of what happened by step, and what could not be forgotten; nothing where nothing happened."""
    figures = event_figures(results)
    if not figures:
        return ""
    heads = [("what", False), ("about", False), ("step", False), ("on", False), ("rounds", False), ("count", True)]
    spoken = any(said.sentences and said.what != "kept" for said in figures)
    heads += [("why", False)] if spoken else []
    rows = []
    for said in figures:
        span = str(said.first) if said.first == said.last else f"{said.first} to {said.last}"
        row = [Cell(said.what), Cell(said.about), Cell(said.step), Cell(_on(said)), Cell(span)]
        row.append(Cell(count_text(said.count), said.count))
        if spoken:
            more = f" (and {count_text(len(said.sentences) - 1)} more)" if len(said.sentences) > 1 else ""
            row.append(Cell(said.sentences[0] + more if said.sentences and said.what != "kept" else ""))
        rows.append(row)
    table = table_markup(heads, rows, "What was turned away and what left")
    note = (
        "Counts are of rows, or of models. Filtered: turned away at the door; refused: a memory could not take it in;"
        " evicted: it left a full memory; forgotten: a step let it go; kept: it should have gone, and is mixed into"
        " what stays; unlearned: a model was trained to give it up, counted in each round anew."
    )
    return (
        '<section id="events" class="wide"><h2>What was turned away, and what left</h2>\n'
        f'{table}<p class="note">{escape(note)}</p>\n{_kept(figures)}</section>\n'
    )


def _on(said: EventFigures) -> str:
    """Name the agent; of several, say how many and which one most."""
    if len(said.by_agent) == 1:
        return next(iter(said.by_agent))
    most = min(said.by_agent, key=lambda agent: (-said.by_agent[agent], natural_key(agent)))
    return f"{plural(len(said.by_agent), said.role)}, most {most} ({count_text(said.by_agent[most])})"


def _kept(figures: list[EventFigures]) -> str:
    """List what could not be forgotten exactly."""
    sentences = sorted({sentence for said in figures if said.what == "kept" for sentence in said.sentences})
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sorted(sentences, key=natural_key)[:SHOWN])
    more = f'<p class="note">and {count_text(len(sentences) - SHOWN)} more</p>\n' if len(sentences) > SHOWN else ""
    return f'<h3>Not forgotten exactly</h3>\n<ul class="said">\n{items}</ul>\n{more}'
