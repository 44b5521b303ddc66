"""What agents gained, by the bars that are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codistill.flows.report.drawing import TOKENS, Palette, Picture
from codistill.flows.report.pictures_gain import gain_beside, gain_by_agent
from codistill.flows.report.reading import NotARunError
from codistill.flows.report.results import Results
from codistill.flows.report.write import report_markup, write_report
from codistill.tests.flows.made_up_run import write_table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MEASURED = {"a": (0.2, 0.5), "b": (0.1, 0.9), "c": (0.3, 0.4)}
ALONE = {"a": (0.2, 0.7), "b": (0.1, 0.6), "c": (0.3, 0.3)}


def run_of(folder: Path, name: str = "run", metric: str = "mrr", **tables: dict[str, tuple[float, ...]]) -> Results:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished", "name": name}))
    for table, values in tables.items():
        rows: list[tuple[Any, ...]] = [
            (4 * number, agent, "g", "learner", metric, value, 10)
            for agent, each in values.items()
            for number, value in enumerate(each)
        ]
        write_table(folder, table, rows)
    return Results.read(folder)


def axes_of(picture: Picture | None) -> Axes:
    assert picture is not None
    figure = Figure(figsize=(picture.width, picture.height))
    picture.draw(figure, Palette(TOKENS))
    (axes,) = figure.axes
    return axes


def bars(picture: Picture | None) -> dict[str, float]:
    axes = axes_of(picture)
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths = [float(bar.get_width()) for bar in axes.patches]  # type: ignore[attr-defined]
    return dict(zip(names, widths, strict=True))


def test_bars_are_gains_over_the_control_from_the_greatest_on(tmp_path: Path) -> None:
    found = bars(gain_by_agent(run_of(tmp_path, metrics=MEASURED, control=ALONE)))
    assert list(found.items()) == [("b", pytest.approx(0.3)), ("c", pytest.approx(0.1)), ("a", pytest.approx(-0.2))]


def test_a_share_is_drawn_in_percentage_points(tmp_path: Path) -> None:
    picture = gain_by_agent(run_of(tmp_path, metric="hits_at_10", metrics=MEASURED, control=ALONE))
    assert bars(picture) == pytest.approx({"b": 30.0, "c": 10.0, "a": -20.0})
    assert axes_of(picture).get_xlabel() == "gain in hits_at_10, percentage points"


def test_without_a_control_bars_are_values_and_a_mark_is_where_each_began(tmp_path: Path) -> None:
    picture = gain_by_agent(run_of(tmp_path, metrics=MEASURED))
    assert bars(picture) == pytest.approx({"b": 0.9, "a": 0.5, "c": 0.4})
    (marks,) = axes_of(picture).collections
    ends = [np.asarray(path.vertices) for path in marks.get_paths()]
    assert [float(end[0, 0]) for end in ends] == pytest.approx([0.1, 0.2, 0.3])
    assert [float(end[:, 1].mean()) for end in ends] == pytest.approx([0, 1, 2])


def test_beside_another_run_bars_are_gains_over_the_agents_of_the_same_names(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", metrics=MEASURED)
    other = run_of(tmp_path / "other", name="local-umls", metrics={"b": (0.0, 0.4), "a": (0.0, 0.55), "d": (0, 1)})
    picture = gain_beside(run, other)
    assert list(bars(picture).items()) == [("b", pytest.approx(0.5)), ("a", pytest.approx(-0.05))]
    assert picture.title == "Gain over local-umls"
    assert "from +0.500 to −0.050; 1 below local-umls" in picture.alt
    page = write_report(run.folder, other.folder).read_text(encoding="utf-8")
    assert '<figure id="gain-beside"' in page
    assert '<figure id="gain"' in page
    assert "gain-beside" not in report_markup(run)


def test_a_run_that_cannot_stand_beside_is_refused_with_a_sentence(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", metrics=MEASURED)
    with pytest.raises(NotARunError, match="measures accuracy, not mrr"):
        gain_beside(run, run_of(tmp_path / "accuracy", metric="accuracy", metrics=MEASURED))
    with pytest.raises(NotARunError, match="no measured agent of a name that this run has"):
        gain_beside(run, run_of(tmp_path / "whole", metrics={"clinic": (0.1, 0.2)}))


def test_the_command_takes_the_run_beside(codistill: Any, tmp_path: Path) -> None:
    run_of(tmp_path / "one", metrics=MEASURED)
    run_of(tmp_path / "other", metrics=ALONE)
    done = codistill("report", tmp_path / "one", "--beside", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert "gain-beside" in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    wrong = codistill("report", tmp_path / "one", "--beside", tmp_path / "none")
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith("none is not a run: there is no such folder.")
