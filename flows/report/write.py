"""A run's report: one HTML file with its figures, its pictures, its agents, and how to do it again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from .drawing import Picture, figure_markup
from .headline import Headline, headline
from .memory_section import events_markup, stores_markup
from .page import Cell, document, escape, escape_block, table_markup, tiles_markup, write_atomically
from .pictures import accuracy_by_bytes, accuracy_by_round, accuracy_by_time, bytes_by_form, bytes_held
from .pictures_between import who_holds, who_spoke
from .pictures_gain import gain_beside, gain_by_agent
from .pictures_graph import shared_embeddings, what_was_unlearned
from .pictures_memory import held_by_tier, served
from .privacy_section import privacy_markup
from .results import Results
from .text import bytes_text, count_text, difference_text, is_share, plural, seconds_text, value_text


def _sentence(results: Results, figures: Headline) -> str:
    agents = [agent for agent in results.agents() if agent.role == "learner"]
    groups = list(dict.fromkeys(agent.group for agent in agents))
    who = plural(figures.learners, "agent")
    if 1 < len(groups) <= 8:
        who += " (" + ", ".join(f"{sum(a.group == g for a in agents)} {g}" for g in groups) + ")"
    method = figures.recipe or figures.name
    cited = f" ({figures.cite})" if figures.cite else ""
    words = [f"{method}{cited} between {who}"]
    words.append(f", {figures.pattern}" if figures.pattern else "")
    words.append(f", on {figures.dataset}" if figures.dataset else "")
    words.append(f", seed {figures.seed}" if figures.seed is not None else "")
    if figures.rounds is not None:
        done = figures.last_round
        whole = results.status == "finished" or done is None or done >= figures.rounds
        words.append(f", {plural(figures.rounds, 'round')}" if whole else f", {done} of {figures.rounds} rounds so far")
    return "".join(words) + "."


def _tiles(results: Results, figures: Headline) -> list[tuple[str, str, str]]:
    metric = figures.metric
    below = figures.agents_below_control
    statuses = results.packets_by_status()
    troubles = ", ".join(f"{count_text(n)} {status}" for status, n in statuses.items() if status != "delivered")
    simulated = figures.simulated_seconds
    no_control = "no control was run"
    return [
        (
            metric.capitalize(),
            value_text(figures.accuracy, metric),
            f"mean {value_text(figures.accuracy_mean, metric)}, worst {value_text(figures.accuracy_worst, metric)}",
        ),
        (
            "Gain over local",
            difference_text(figures.gain_mean, metric, unit=False),
            f"{'points, ' if is_share(metric) else ''}mean; worst"
            f" {difference_text(figures.gain_worst, metric, unit=False)}"
            if figures.gain_mean is not None
            else no_control,
        ),
        (
            "Agents below local",
            "–" if below is None else count_text(below),
            f"of {count_text(figures.learners)} do worse than alone" if below is not None else no_control,
        ),
        (
            "Bytes on the wire",
            bytes_text(figures.bytes),
            plural(figures.packets or 0, "packet") + (f", {troubles}" if troubles else ""),
        ),
        ("Bytes held", bytes_text(figures.bytes_held), "all memories, at the end"),
        (
            "Time",
            seconds_text(figures.seconds),
            f"on this machine; simulated {seconds_text(simulated)}" if simulated else "on this machine",
        ),
    ]


def _agent_table(results: Results) -> str:
    metric = results.metric
    accuracy, control, gain = results.last_accuracy(), results.control_accuracy(), results.gain_by_agent()
    sent, held, partition = results.bytes_sent_by_agent(), results.bytes_held_by_agent(), results.partition_counts()
    samples = {name: sum(row) for name, row in zip(partition.agents, partition.counts, strict=True)}
    agents = results.agents()
    models = any(agent.model for agent in agents)
    heads = [("agent", False), ("group", False), ("role", False), *([("model", False)] if models else [])]
    heads += [("training samples", True), (metric, True)]
    heads += [("alone", True), ("gain", True)] if control else []
    heads += [("bytes sent", True), ("bytes held", True)]
    rows = []
    for agent in agents:
        name = agent.name
        row = [Cell(name), Cell(agent.group), Cell(agent.role)]
        if models:
            row.append(Cell(agent.model or "–"))
        row.append(Cell(count_text(samples.get(name)), samples.get(name)))
        row.append(Cell(value_text(accuracy.get(name), metric), accuracy.get(name)))
        if control:
            row.append(Cell(value_text(control.get(name), metric), control.get(name)))
            mark = "below" if gain.get(name, 0.0) < -1e-12 else ""
            row.append(Cell(difference_text(gain.get(name), metric, unit=False), gain.get(name), mark))
        row.append(Cell(bytes_text(sent.get(name, 0)), sent.get(name, 0)))
        row.append(Cell(bytes_text(held.get(name)), held.get(name)))
        rows.append(row)
    note = "Bytes held are those at the end of the last round."
    if control:
        note = f"“alone” is the local control; the gain is {metric} less the control's. " + note
    table = table_markup(heads, rows, "Agents")
    return f'<section id="agents" class="wide"><h2>Agents</h2>\n{table}<p class="note">{escape(note)}</p></section>\n'


def _facts(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [fact for key in value for fact in _facts(value[key], f"{path}.{key}" if path else str(key))]
    if isinstance(value, list):
        return [(path, ", ".join(str(item) for item in value))]
    return [(path, "–" if value is None else str(value))]


def _reproduce(results: Results) -> str:
    command = f"codistill run {shlex.quote(str(results.folder / 'spec.yaml'))}"
    rows = "".join(f"<tr><th scope='row'>{escape(key)}</th><td><code>{escape(value)}</code></td></tr>\n"
                   for key, value in _facts(results.run))  # fmt: skip
    spec = f"<details><summary>The resolved spec</summary><pre>{escape_block(results.spec_text)}</pre></details>\n"
    return (
        '<section id="reproduce" class="wide"><h2>How to reproduce</h2>\n'
        f"<pre>{escape(command)}</pre>\n"
        '<p class="note">The same spec gives the same metrics, ledger and memories on any number of workers.'
        " What ran:</p>\n"
        f'<div class="scroll"><table aria-label="Versions and digests"><tbody>\n{rows}</tbody></table></div>\n'
        f"{spec if results.spec_text else ''}</section>\n"
    )


def _nothing(name: str, kind: str, title: str, text: str) -> str:
    words = f'<h2>{escape(title)}</h2>\n<p class="note">{escape(text)}</p>'
    return f'<section id="{name}" class="{kind}">{words}</section>\n'


Shown = tuple[Picture | None, str, str, str]
"""A picture; where there is none, the name and the title of a section that says why, unless the name is empty."""


def _shown(said: Shown) -> str:
    picture, name, title, otherwise = said
    if picture is not None:
        return figure_markup(picture)
    return _nothing(name, "wide" if name in ("links", "partition") else "half", title, otherwise) if name else ""


def report_markup(results: Results, beside: Results | None = None) -> str:
    """Give the report of a run as one HTML page; ``beside``: another run, over which it is told what agents gained."""
    figures = headline(results)
    time = accuracy_by_time(results)
    silent = "No packet was exchanged in this run, so there are no links, bytes or forms to show."
    unmeasured = "Nothing was measured yet."
    talked = results.ledger.num_rows > 0
    first = accuracy_by_round(results, wide=(time is not None) == talked)
    pictures: list[Shown] = [
        (first, "by-round", "Accuracy by round", unmeasured),
        (accuracy_by_bytes(results), "by-bytes" if talked else "", "Accuracy for the bytes spent", unmeasured),
        (time, "", "", ""),
        (gain_by_agent(results), "gain", "Gain over learning alone", unmeasured),
        (None if beside is None else gain_beside(results, beside), "", "", ""),
        (who_spoke(results), "", "", ""),
        (bytes_by_form(results), "", "", ""),
        (bytes_held(results), "held", "Bytes held by kind of memory", "No memory was measured."),
        (held_by_tier(results), "", "", ""),
        (served(results), "", "", ""),
        (shared_embeddings(results), "", "", ""),
        (what_was_unlearned(results), "", "", ""),
        (None, "" if talked else "links", "Who spoke to whom", silent),
    ]
    who: Shown = (who_holds(results), "partition", "Who holds what", "The run's partition is not recorded.")
    parts = [
        *map(_shown, pictures),
        stores_markup(results),
        events_markup(results),
        privacy_markup(results),
        _shown(who),
        _agent_table(results),
        _reproduce(results),
    ]
    body = (
        f'<h1>{escape(figures.name)} <span class="state">{escape(results.status)}</span></h1>\n'
        f'<p class="lead">{escape(_sentence(results, figures))}</p>\n'
        + tiles_markup(_tiles(results, figures))
        + f'<div class="grid">\n{"".join(parts)}</div>\n'
    )
    return document(f"{figures.name}: codistill run", body)


def write_report(folder: str | Path, beside: str | Path | None = None) -> Path:
    """Write `report.html` into a run folder, finished or still running, and give its path.

    ``beside``: the folder of another run, over which it is told what agents gained.
    """
    results = Results.read(folder)
    other = None if beside is None else Results.read(beside)
    return write_atomically(results.folder / "report.html", report_markup(results, other))
