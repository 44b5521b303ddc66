from __future__ import annotations

import json
from pathlib import Path

import pytest
from codistill.flows.report.headline import headline
from codistill.flows.report.memories import (
    event_counts,
    held_by_role_and_kind,
    hit_rate,
    served_by_round,
    store_figures,
)
from codistill.flows.report.results import Link, NotARunError, Results
from codistill.flows.report.text import (
    bytes_text,
    clean,
    difference_text,
    natural_key,
    seconds_text,
    shorten,
    sparkline,
)
from codistill.tests.flows.made_up_run import write_run, write_table


def small_run(folder: Path) -> Path:
    """Two learners and a server with numbers that are easy to add up."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"status": "finished", "seed": 3}))
    (folder / "spec.yaml").write_text("name: small\nseed: 3\nrounds: 2\n")
    accuracy = [(0, "a", 0.1, 10), (0, "b", 0.2, 30), (2, "a", 0.5, 10), (2, "b", 0.9, 30)]
    write_table(
        folder, "metrics", [(row[0], row[1], "g", "learner", "accuracy", *row[2:]) for row in accuracy]
        + [(2, "server", "server", "server", "accuracy", 0.01, 40), (2, "a", "g", "learner", "loss", 9.0, 10)],
    )  # fmt: skip
    write_table(
        folder,
        "control",
        [(2, name, "g", "learner", "accuracy", value, 10) for name, value in (("a", 0.6), ("b", 0.6))],
    )
    write_table(
        folder, "ledger",
        [
            (1, 0, "a", "server", "logits", "float32", 5, 100, 90, "delivered"),
            (2, 0, "a", "server", "logits", "float32", 5, 100, 90, "late"),
            (2, 1, "server", "a", "prototypes", "float32", 5, 50, 40, "delivered"),
        ],
    )  # fmt: skip
    write_table(
        folder, "memory",
        [(1, "a", "learner", "procedural", 1, 7), (2, "a", "learner", "procedural", 1, 8),
         (2, "a", "learner", "sensory", 1, 1), (2, "server", "server", "semantic", 1, 4)],
    )  # fmt: skip
    write_table(
        folder,
        "partition",
        [("a", "train", "10", 4), ("a", "train", "9", 2), ("b", "train", "9", 3), ("b", "test", "9", 1)],
    )
    write_table(
        folder,
        "clock",
        [(1, "a", 1, 1, "took part", 5.0), (1, "b", 1, 1, "late", 5.0), (2, "a", 1, 1, "took part", 11.0)],
    )
    return folder


def test_helpers_add_up(tmp_path: Path) -> None:
    results = Results.read(small_run(tmp_path / "run"))
    first, last = results.accuracy_by_round()
    assert (first.round, last.round) == (0, 2)
    assert last.total == pytest.approx((0.5 * 10 + 0.9 * 30) / 40)
    assert (last.mean, last.worst, last.best) == (pytest.approx(0.7), 0.5, 0.9)
    assert results.gain_by_agent() == {"a": pytest.approx(-0.1), "b": pytest.approx(0.3)}
    assert results.bytes_by_round() == {1: 100, 2: 150}
    assert results.cumulative_bytes() == {1: 100, 2: 250}
    assert results.cumulative_bytes([0, 2]) == {0: 0, 2: 250}
    assert results.bytes_by_form() == {"logits": 200, "prototypes": 50}
    assert results.bytes_by_form_and_round() == {"logits": {1: 100, 2: 100}, "prototypes": {2: 50}}
    assert results.links() == [Link("a", "server", 200, 2), Link("server", "a", 50, 1)]
    assert results.packets_by_status() == {"delivered": 2, "late": 1}
    assert list(results.bytes_held_by_kind()) == ["sensory", "semantic", "procedural"]
    assert results.bytes_held_by_kind()["procedural"] == {1: 7, 2: 8}
    assert results.bytes_held_by_role() == {"learner": {1: 7, 2: 9}, "server": {2: 4}}
    assert results.bytes_held_by_agent() == {"a": 9, "server": 4}
    partition = results.partition_counts()
    assert (partition.agents, partition.labels, partition.counts) == (["a", "b"], ["9", "10"], [[2, 4], [3, 0]])
    assert [(second, at.round) for second, at in results.accuracy_by_simulated_time()] == [(0.0, 0), (11.0, 2)]
    assert [agent.name for agent in results.agents()] == ["a", "b", "server"]


def test_whoever_rests_still_holds_what_it_held(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    write_table(
        folder, "memory",
        [
            (0, "a", "learner", "sensory", 1, 100), (0, "b", "learner", "sensory", 1, 50),
            (1, "a", "learner", "sensory", 1, 100), (1, "a", "learner", "working", 1, 9),
            (1, "a", "learner", "episodic", 1, 7), (1, "server", "server", "episodic", 1, 30),
            (2, "b", "learner", "sensory", 1, 50), (2, "b", "learner", "episodic", 1, 3),
            (3, "a", "learner", "sensory", 1, 100),
        ],
    )  # fmt: skip
    results = Results.read(folder)
    assert results.bytes_held_by_kind() == {
        "sensory": {0: 150, 1: 150, 2: 150, 3: 150},
        "working": {1: 9},  # emptied at the end of its round
        "episodic": {1: 37, 2: 40, 3: 33},  # in round 3 the learner a has forgotten its own
    }
    assert results.bytes_held_by_agent() == {"a": 100, "b": 53, "server": 30}
    assert results.bytes_held_by_role() == {
        "learner": {0: 150, 1: 166, 2: 160, 3: 153},
        "server": {1: 30, 2: 30, 3: 30},
    }
    assert held_by_role_and_kind(results)["server"] == {"episodic": {1: 30, 2: 30, 3: 30}}


def test_stores_and_events_add_up(tmp_path: Path) -> None:
    folder = small_run(tmp_path / "run")
    write_table(
        folder, "stores",
        [
            (2, "a", "learner", "m", "episodic", 5, 50, 3, 1, 2.0, 0, 4),  # rows may come in any order
            (1, "a", "learner", "m", "episodic", 9, 90, 1, 3, 6.0, 1, 0),
            (1, "server", "server", "m", "episodic", 7, 70, 0, 4, 0.0, 0, 0),
        ],
    )  # fmt: skip
    write_table(
        folder, "events",
        [(1, "a", "store.0", "refused", "m", 1, ""), (2, "a", "store.0", "refused", "m", 2, ""),
         (2, "server", "store.0", "evicted", "m", 4, "")],
    )  # fmt: skip
    results = Results.read(folder)
    learner, server = store_figures(results)
    assert (learner.role, learner.items, learner.bytes, learner.agents) == ("learner", 5, 50, ["a"])
    assert (learner.hit_rate, learner.mean_age) == (4 / 8, (3 * 2.0 + 1 * 6.0) / 4)
    assert (learner.refused, learner.evicted) == (3, 4)  # two were refused before they reached the store
    assert (server.role, server.hit_rate, server.mean_age, server.refused) == ("server", 0.0, None, 0)
    (whole,) = store_figures(results, by_role=False)
    assert (whole.items, whole.hit_rate, whole.refused) == (12, 4 / 12, 3)
    assert hit_rate(results) == 4 / 12
    assert served_by_round(results) == {"m": [(1, 1 / 8, 6.0), (2, 3 / 4, 2.0)]}
    assert event_counts(results) == {"refused": 3, "evicted": 4}
    assert headline(results).hit_rate == 4 / 12


def test_headline_agrees_with_the_tables(tmp_path: Path) -> None:
    figures = headline(Results.read(small_run(tmp_path / "run")))
    assert (figures.name, figures.seed, figures.rounds, figures.learners) == ("small", 3, 2, 2)
    assert (figures.bytes, figures.packets, figures.bytes_held) == (250, 3, 13)
    assert (figures.agents_below_control, figures.gain_mean) == (1, pytest.approx(0.1))
    assert figures.simulated_seconds == 11.0


def test_the_control_is_compared_at_the_same_round(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=3, rounds=6)
    whole = Results.read(folder)
    short = [tuple(row.values()) for row in whole.metrics.to_pylist() if row["round"] <= 2]
    write_table(folder, "metrics", short)
    running = Results.read(folder)
    at_two = {row["agent"]: row["value"] for row in whole.control.to_pylist() if row["round"] == 2}
    assert running.control_accuracy() == at_two != whole.control_accuracy()


def test_tables_may_be_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running"}')
    for empty in (False, True):
        if empty:
            for name in ("metrics", "control", "ledger", "memory", "partition", "clock", "timings"):
                write_table(tmp_path, name, [])
        results = Results.read(tmp_path)
        assert results.status == "running"
        assert not results.has_control
        for answer in (
            results.accuracy_by_round(), results.gain_by_agent(), results.cumulative_bytes(), results.links(),
            results.bytes_by_form_and_round(), results.bytes_held_by_kind(), results.bytes_held_by_agent(),
            results.partition_counts().agents, results.accuracy_by_simulated_time(), results.agents(),
        ):  # fmt: skip
            assert not answer
        assert headline(results).accuracy is None


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="no such folder"):
        Results.read(tmp_path / "nowhere")
    with pytest.raises(NotARunError, match="is not a run: it holds no run.json"):
        Results.read(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(NotARunError, match="run.json cannot be read as JSON"):
        Results.read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "ledger.parquet").write_bytes(b"half a file")
    with pytest.raises(NotARunError, match="ledger.parquet cannot be read"):
        Results.read(tmp_path)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "1.0 MB"),
        (34_500_000, "34.5 MB"),
        (2e15, "2.0 PB"),
        (None, "–"),
    ],
)
def test_bytes_text(size: float | None, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.42, "0.42 s"), (4.25, "4.2 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3599.6, "1 h 00 min"),
     (7500, "2 h 05 min"), (97200, "1 d 3 h"), (None, "–"), (float("nan"), "–")],
)  # fmt: skip
def test_seconds_text(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_other_words() -> None:
    assert difference_text(-0.0004) == "0.0 points"
    assert difference_text(-0.031, unit=False) == "−3.1"
    assert clean("a\x1b[31m\ud800\u202eb\n") == "a\ufffd[31m\ufffd\ufffdb\ufffd"
    assert shorten("a-very-long-name-of-agent-17", 12) == "a-very…nt-17"
    assert sorted(["a10", "a2", "b", "a", "²"], key=natural_key) == ["a", "a2", "a10", "b", "²"]
    assert sparkline([0, 1, 2, 3]) == "▁▃▆█"
    assert sparkline([0.5, 0.5]) == "▄▄"
    assert sparkline([], 5) == sparkline([1.0], 0) == ""
