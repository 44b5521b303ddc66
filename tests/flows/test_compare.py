from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from codistill.flows.report.compare import as_markdown, as_rows, compare, estimate_text, print_comparison
from codistill.flows.report.comparison_page import write_comparison
from codistill.flows.report.differences import differing
from codistill.flows.report.estimates import Estimate, estimate, paired, student_quantile
from codistill.flows.report.results import NotARunError
from codistill.tests.flows.made_up_run import write_run, write_table
from rich.console import Console


def run_with(folder: Path, accuracy: float, seed: int, temperature: float = 2, status: str = "finished") -> Path:
    """A run of two agents, of which one is as accurate as asked and the other 0.1 worse."""
    recipe = [{"train": {"epochs": 1}}, {"absorb": {"loss": "kl", "temperature": temperature}}]
    write_run(folder, agents=2, rounds=1, seed=seed, spec={"recipe": recipe}, status=status)
    rows = [(1, "phone-0", "phone", "learner", "accuracy", accuracy, 10)]
    rows += [(1, "laptop-0", "laptop", "learner", "accuracy", accuracy - 0.1, 10)]
    write_table(folder, "metrics", rows)
    return folder


def test_the_interval_is_students() -> None:
    # By hand: mean 4, squared deviations 4 + 0 + 4, variance 8 / 2 = 4, standard error 2 / sqrt 3, t(2) = 4.302653.
    found = estimate([2.0, 4.0, 6.0])
    assert found is not None
    assert (found.mean, found.count) == (4.0, 3)
    assert found.half_width == pytest.approx(4.302653 * 2 / 3**0.5, rel=1e-6)
    assert student_quantile(1) == pytest.approx(12.7062, rel=1e-5)
    assert student_quantile(29) == pytest.approx(2.04523, rel=1e-5)


def test_one_value_has_no_interval() -> None:
    assert estimate([0.5]) == Estimate(0.5, None, 1)
    assert estimate([]) is None


def test_pairs_are_made_by_seed() -> None:
    # Differences 1, 3: mean 2, variance 2, standard error 1, t(1) = 12.7062.
    found = paired({1: 2.0, 2: 5.0, 9: 100.0}, {2: 2.0, 1: 1.0, 7: -100.0})
    assert found is not None
    assert (found.mean, found.count) == (2.0, 2)
    assert found.half_width == pytest.approx(12.7062, rel=1e-5)
    assert paired({1: 1.0}, {2: 1.0}) is None


def test_runs_group_by_all_but_their_seed(tmp_path: Path) -> None:
    cold = [run_with(tmp_path / f"cold-{seed}", value, seed) for seed, value in ((1, 0.60), (2, 0.64), (3, 0.65))]
    hot = [run_with(tmp_path / f"hot-{seed}", value, seed, 4) for seed, value in ((2, 0.67), (3, 0.69))]
    comparison = compare([*cold, *hot])
    first, second = comparison.groups
    assert (first.seeds, second.seeds) == ([1, 2, 3], [2, 3])
    assert comparison.keys == ["recipe.absorb.temperature"]
    assert (first.values, second.label) == ({"recipe.absorb.temperature": "2"}, "temperature 4")
    # Totals are 0.05 below the better agent: 0.55, 0.59, 0.60; mean 0.58, variance 0.0007.
    assert first.estimates["accuracy"].mean == pytest.approx(0.58)
    assert first.estimates["accuracy"].half_width == pytest.approx(4.302653 * (0.0007 / 3) ** 0.5, rel=1e-5)
    assert first.estimates["accuracy_worst"].mean == pytest.approx(0.53)
    assert first.differences == {}
    # Paired: 0.03 and 0.04; mean 0.035, standard error 0.005.
    assert second.differences["accuracy"].count == 2
    assert second.differences["accuracy"].mean == pytest.approx(0.035)
    assert second.differences["accuracy"].half_width == pytest.approx(12.7062 * 0.005, rel=1e-5)


def test_one_seed_is_never_given_an_interval(tmp_path: Path) -> None:
    comparison = compare([run_with(tmp_path / "a", 0.6, 1), run_with(tmp_path / "b", 0.7, 1, 4)])
    text = as_markdown(comparison)
    assert text.count("1 seed, no interval") == 2
    assert "±" not in text.split("\n\n")[0]
    row = as_rows(comparison)[1]
    assert row["accuracy_half_width"] is None
    assert row["accuracy_difference"] == pytest.approx(0.1)
    assert row["accuracy_pairs"] == 1
    assert row["spec.recipe.absorb.temperature"] == "4"


def test_rows_go_into_csv_and_json(tmp_path: Path) -> None:
    rows = as_rows(compare([run_with(tmp_path / "a", 0.6, 1), run_with(tmp_path / "b", 0.7, 1, 4)]))
    assert json.loads(json.dumps(rows)) == rows
    target = io.StringIO()
    writer = csv.DictWriter(target, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    assert len(target.getvalue().splitlines()) == 3


def test_unfinished_and_repeated_runs_are_named(tmp_path: Path) -> None:
    good = run_with(tmp_path / "good", 0.6, 1)
    again, running = run_with(tmp_path / "again", 0.6, 1), run_with(tmp_path / "running", 0.6, 2, status="running")
    comparison = compare([good, again, running])
    assert comparison.groups[0].folders == [good]
    assert any("again is left out" in note for note in comparison.notes)
    assert any("it is running, not finished" in note for note in comparison.notes)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([running])
    with pytest.raises(NotARunError):
        compare([tmp_path / "nowhere"])


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_its_terminal(tmp_path: Path, width: int) -> None:
    comparison = compare([run_with(tmp_path / "a", 0.6, 1), run_with(tmp_path / "b", 0.7, 1, 4)])
    target = io.StringIO()
    print_comparison(comparison, Console(file=target, width=width))
    lines = target.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert "temperature" in target.getvalue() or width < 60


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / f"a{seed}", 0.6 + seed / 100, seed) for seed in (1, 2)]
    hostile = run_with(tmp_path / "<b>", 0.7, 1, 4)
    spec = json.loads((hostile / "spec.yaml").read_text())
    (hostile / "spec.yaml").write_text(json.dumps(spec | {"setting": "<script>x</script>|"}))
    comparison = compare([*runs, hostile])
    text = write_comparison(comparison, tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<script>") == 1
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert write_comparison(comparison, tmp_path / "again.html").read_text(encoding="utf-8") == text
    assert "\\|" in as_markdown(comparison)


def test_estimates_read_well() -> None:
    assert estimate_text(Estimate(0.812, 0.0094, 3), "accuracy") == "81.2 ± 0.9 %"
    assert estimate_text(Estimate(-0.031, 0.01, 3), "gain_mean") == "−3.1 ± 1.0"
    assert estimate_text(Estimate(0.2, None, 1), "accuracy") == "20.0 %"
    assert estimate_text(Estimate(0.2, 0.01, 2), "accuracy", "mrr") == "0.200 ± 0.010"
    assert estimate_text(Estimate(1500.0, 0.0, 3), "bytes") == "1.5 kB"
    assert estimate_text(None, "bytes") == "–"


def test_differences_of_specs() -> None:
    train, extract = {"train": {"epochs": 1}}, {"extract": {"from": "public"}}
    assert differing([{"a": 1, "b": {"c": 2}}, {"b": {"c": 3}, "a": 1}]) == {"b.c": ["2", "3"]}
    assert differing([{"a": 1}, {"a": 1, "b": "x"}]) == {"b": ["–", "x"]}
    assert differing([{"a": None}, {"a": None, "b": None}]) == {"b": ["–", "null"]}
    assert differing([{"recipe": [train]}, {"recipe": [train, extract]}]) == {"recipe": ["train", "train → extract"]}
    assert differing([{"recipe": [train, extract]}, {"recipe": [extract, train]}]) == {
        "recipe": ["train → extract", "extract → train"]
    }
    agents = [[{"name": "phone", "count": count}] for count in (2, 3)]
    assert differing([{"agents": each} for each in agents]) == {"agents.phone.count": ["2", "3"]}
    twice = [{"recipe": [{"train": {"epochs": n}}, {"train": {"epochs": n}}]} for n in (1, 2)]
    assert list(differing(twice)) == ["recipe.train.epochs", "recipe.train.epochs (2)"]
    assert differing([{"a": [1, 2]}, {"a": [1, 3]}]) == {"a[1]": ["2", "3"]}


def test_runs_whose_specs_have_keys_that_yaml_1_1_takes_for_words(tmp_path: Path) -> None:
    folders = [run_with(tmp_path / f"run-{seed}", 0.6, seed) for seed in (1, 2)]
    for folder, public in zip(folders, ("public", "private"), strict=True):
        (folder / "spec.yaml").write_text(f"name: a\nrecipe: {{round: [{{train: {{on: {public}, yes: 1}}}}]}}\n")
    assert compare(folders).keys == ["recipe.round.train.on"]
