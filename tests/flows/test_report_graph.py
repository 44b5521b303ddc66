"""The pictures of runs over knowledge graphs, by the numbers that are drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codistill.flows.report.drawing import TOKENS, Palette, Picture
from codistill.flows.report.pictures_graph import shared_embeddings, what_was_unlearned
from codistill.flows.report.reading import NotARunError
from codistill.flows.report.results import Results
from codistill.flows.report.shared_rows import SharedRows, project, shared_rows
from codistill.flows.report.unlearned import unlearned
from codistill.flows.report.write import report_markup
from codistill.tests.flows.made_up_run import write_table
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

AGENTS = ["a", "b", "c"]


def run_of(folder: Path, models: dict[str, str] | None = None, **tables: list[tuple[Any, ...]]) -> Results:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished"}))
    said = [{"name": name, "role": "learner", "architecture": (models or {}).get(name, "transe")} for name in AGENTS]
    (folder / "plan.json").write_text(json.dumps({"agents": said}))
    for name, rows in tables.items():
        write_table(folder, name, rows)
    return Results.read(folder)


def drawn(picture: Picture) -> Figure:
    figure = Figure(figsize=(picture.width, picture.height))
    picture.draw(figure, Palette(TOKENS))
    return figure


# Rows of three entities of which "a" and "b" hold all and "c" holds two, in round 1 and in the last round of each.
BEFORE = {"x": ([0, 0, 1], [2, 0, 1]), "y": ([10, 0, 1], [10, 4, 1]), "z": ([0, 20, 1], [0, 20, 1])}
AFTER = {"x": ([1, 0, 1], [1, 0, 1]), "y": ([11, 2, 1], [11, 2, 1]), "z": ([0, 30, 1], [0, 30, 1])}


def two_agents() -> list[tuple[Any, ...]]:
    return [
        (number, agent, entity, values[entity][place])
        for number, values in ((1, BEFORE), (9, AFTER))
        for place, agent in enumerate(("a", "b"))
        for entity in values
    ]


def made(folder: Path, rows: list[tuple[Any, ...]], **models: str) -> SharedRows:
    found = shared_rows(run_of(folder, models, embeddings=rows))
    assert found is not None
    return found


def test_rows_in_a_plane_keep_their_distances(tmp_path: Path) -> None:
    found = made(tmp_path, two_agents())
    assert (found.agents, found.entities, found.rounds) == (["a", "b"], ["x", "y", "z"], (1, 9))
    assert found.explained == pytest.approx(1.0)
    raw = {
        (moment, agent, entity): np.array(values[entity][place], float)
        for moment, values in enumerate((BEFORE, AFTER))
        for place, agent in enumerate("ab")
        for entity in values
    }
    for one in raw:
        for other in raw:
            far = np.linalg.norm(found.points[one] - found.points[other])
            assert far == pytest.approx(np.linalg.norm(raw[one] - raw[other]), abs=1e-9)


def test_how_far_agents_are_apart_is_told_in_units_of_how_far_entities_are(tmp_path: Path) -> None:
    before, after = made(tmp_path, two_agents()).apart
    within = math.sqrt((1 + 1 + 4 + 4 + 0 + 0) / 6)
    means = np.array([[1, 0], [10, 2], [0, 20]], float)
    between = math.sqrt(((means - means.mean(0)) ** 2).sum() / 3)
    assert before == pytest.approx(within / between)
    assert after == 0


def test_the_plane_is_that_of_the_two_greatest_eigenvalues() -> None:
    values = np.random.default_rng(3).normal(size=(40, 6)) * np.array([5, 1, 3, 0.5, 0.2, 2]) + 7
    points, explained = project(values)
    sizes, axes = np.linalg.eigh(np.cov(values.T, bias=True))
    assert explained == pytest.approx(sizes[-2:].sum() / sizes.sum())
    expected = (values - values.mean(0)) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    for column, axis in enumerate(axes[:, [-1, -2]].T):
        head = axis[np.abs(axis).argmax()]
        np.testing.assert_allclose(points[:, column], expected[:, column] * np.sign(head), atol=1e-9)


def test_a_line_of_rows_is_drawn_as_a_line() -> None:
    points, explained = project(np.array([[0.0], [1.0], [5.0]]))
    np.testing.assert_allclose(points, [[-2, 0], [-1, 0], [3, 0]], atol=1e-12)
    assert explained == pytest.approx(1.0)
    assert project(np.ones((3, 4)))[1] == 1.0


def test_rows_that_nobody_else_has_or_that_are_no_numbers_or_of_one_moment_are_left_out(tmp_path: Path) -> None:
    odd = [(1, "a", "own", [5, 5, 5]), (4, "a", "own", [5, 5, 5])]
    odd += [
        (number, agent, "bad", [math.nan if agent == "a" else 1, 0, 0]) for number in (1, 9) for agent in ("a", "b")
    ]
    odd += [(1, agent, "once", [1, 1, 1]) for agent in ("a", "b")]
    assert made(tmp_path, two_agents() + odd).entities == ["x", "y", "z"]


def test_an_agent_that_is_away_at_first_is_drawn_from_when_it_is_there(tmp_path: Path) -> None:
    late = [(number, "c", entity, [number, 0, 0]) for number in (4, 8) for entity in ("x", "y")]
    found = made(tmp_path, two_agents() + late)
    assert found.agents == AGENTS
    assert {entity for moment, agent, entity in found.points if agent == "c"} == {"x", "y"}
    assert set(found.of(0, "z")) == {"a", "b"}
    assert found.rounds == (4, 9)


def test_agents_with_another_model_are_left_out(tmp_path: Path) -> None:
    other = [(number, "c", entity, [7, 7]) for number in (1, 9) for entity in ("x", "y", "z")]
    assert made(tmp_path, two_agents() + other, c="rotate").agents == ["a", "b"]


def test_of_too_few_entities_there_is_no_picture(tmp_path: Path) -> None:
    few = [row for row in two_agents() if row[2] != "z"]
    assert shared_embeddings(run_of(tmp_path, embeddings=few)) is None
    assert shared_embeddings(run_of(tmp_path / "none")) is None


def test_each_agent_is_drawn_in_its_colour_where_its_rows_are(tmp_path: Path) -> None:
    results = run_of(tmp_path, embeddings=two_agents())
    rows, picture = shared_rows(results), shared_embeddings(results)
    assert rows is not None
    assert picture is not None
    for moment, axes in enumerate(drawn(picture).axes):
        for place, (agent, dots) in enumerate(zip(rows.agents, axes.collections, strict=True)):
            expected = {tuple(rows.points[moment, agent, entity]) for entity in rows.entities}
            assert {tuple(point) for point in np.asarray(dots.get_offsets()).tolist()} == expected
            assert tuple(dots.get_facecolor()[0]) == to_rgba(TOKENS[f"series-{place}"])
        starts = {tuple(np.asarray(line.get_xydata())[0].tolist()) for line in axes.lines}
        np.testing.assert_allclose(sorted(starts), sorted(tuple(rows.middle(moment, e)) for e in rows.entities))
        assert {text.get_text() for text in axes.texts} <= set(rows.entities)
    assert f"{rows.apart[0]:.2f} before, 0.00 after" in picture.caption
    assert "hold 100 % of the variance" in picture.caption
    page = report_markup(results)
    assert '<figure id="shared-embeddings" class="wide">' in page
    assert report_markup(results) == page


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path, "embeddings", [])
    results = run_of(tmp_path, clock=[])
    (tmp_path / "embeddings.parquet").write_bytes((tmp_path / "clock.parquet").read_bytes())
    with pytest.raises(NotARunError, match="has no column entity, values"):
        shared_rows(results)


# Agent a is asked to forget 10 triples and b 30; unlearning begins in round 3, and round 3 is not measured.
RANKS = {"mrr_forgotten": (0.4, 0.8, 0.2), "mrr_kept": (0.5, 0.9, 0.8), "mrr": (0.1, 0.3, 0.4)}
HITS = {"hits_at_1_forgotten": (0.0, 0.6, 0.1), "hits_at_10_forgotten": (0.1, 0.9, 0.3), "hits_at_1": (0.2, 0.3, 0.3)}


def ranks(**of: tuple[float, ...]) -> list[tuple[Any, ...]]:
    return [
        (number, agent, "g", "learner", metric, value + shift, weight)
        for metric, values in of.items()
        for number, value in zip((0, 2, 5), values, strict=True)
        for agent, shift, weight in (("a", 0.04, 10), ("b", 0.0, 30))
    ]


EVENTS = [(number, agent, "train.0", "unlearned", "triples", 10, "") for number in (3, 4, 5) for agent in ("a", "b")]


def test_before_is_the_last_measurement_before_unlearning_and_agents_weigh_by_their_triples(tmp_path: Path) -> None:
    server = (5, "server", "s", "server", "mrr_forgotten", 1.0, 999)
    other = (1, "a", "store.0", "forgotten", "cache", 5, "")
    found = unlearned(run_of(tmp_path, metrics=[*ranks(**RANKS, **HITS), server], events=[other, *EVENTS]))
    assert found is not None
    assert (found.began, found.before, found.after) == (3, 2, 5)
    for part, metric in (("forgotten", "mrr_forgotten"), ("kept", "mrr_kept"), ("never seen", "mrr")):
        assert found.mrr[part] == pytest.approx({n: v + 0.01 for n, v in zip((0, 2, 5), RANKS[metric], strict=True)})
    for part, expected in (("forgotten", ({1: 0.61, 10: 0.91}, {1: 0.11, 10: 0.31})), ("never seen", ({1: 0.31},) * 2)):
        assert [*found.hits[part]] == [pytest.approx(shares) for shares in expected]
    assert "kept" not in found.hits


def test_lines_and_bars_are_the_ranks(tmp_path: Path) -> None:
    picture = what_was_unlearned(run_of(tmp_path, metrics=ranks(**RANKS, **HITS), events=EVENTS))
    assert picture is not None
    lines, bars = drawn(picture).axes
    drawn_lines = {str(line.get_label()): np.asarray(line.get_xydata()) for line in lines.lines}
    np.testing.assert_allclose(drawn_lines["forgotten"], [[0, 0.41], [2, 0.81], [5, 0.21]])
    np.testing.assert_allclose(drawn_lines["kept"], [[0, 0.51], [2, 0.91], [5, 0.81]])
    np.testing.assert_allclose(drawn_lines["never seen"], [[0, 0.11], [2, 0.31], [5, 0.41]])
    assert drawn_lines["unlearning begins"][:, 0].tolist() == [2.5, 2.5]
    heights = [round(float(bar.get_height()), 6) for bar in bars.patches]  # type: ignore[attr-defined]
    assert heights == [0.61, 0.91, 0.11, 0.31, 0.31, 0.31]
    edges = sorted((float(bar.get_x()), float(bar.get_x() + bar.get_width())) for bar in bars.patches)  # type: ignore[attr-defined]
    assert all(end < start for (_, end), (start, _) in zip(edges, edges[1:], strict=False))
    assert "from 0.810 to 0.210 for forgotten, from 0.910 to 0.810 for kept" in picture.caption
    assert "after round 2 (pale) and after round 5 (full)" in picture.caption


def test_without_unlearning_there_is_nothing_before_it(tmp_path: Path) -> None:
    results = run_of(tmp_path, metrics=ranks(**RANKS, **HITS))
    found, picture = unlearned(results), what_was_unlearned(results)
    assert found is not None
    assert picture is not None
    assert (found.began, found.before, found.hits) == (None, None, {})
    assert len(drawn(picture).axes) == 1
    assert "No agent was made to unlearn anything; at the end it is 0.210 for forgotten" in picture.caption


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    assert what_was_unlearned(run_of(tmp_path, metrics=ranks(mrr=RANKS["mrr"]), events=EVENTS)) is None
    assert what_was_unlearned(run_of(tmp_path / "nothing")) is None
    assert 'id="unlearned"' not in report_markup(run_of(tmp_path, metrics=ranks(mrr=RANKS["mrr"])))
    page = report_markup(run_of(tmp_path, metrics=ranks(**RANKS), events=EVENTS))
    assert '<figure id="unlearned" class="wide">' in page
    assert "counted in each round anew" in page
