"""What each memory is worth: which runs an ablation asks for, and what comes of them."""

import json
from pathlib import Path

import pytest
from codistill.flows.ablate import ablations
from codistill.flows.report.ablation import WHOLE, side_by_side, write_ablation
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.tests.flows.made_up_run import write_run, write_table

SPEC = """
name: tiny
seed: 1
rounds: 2
data: {dataset: digits, partition: {by: dirichlet, alpha: 0.5, min_size: 10}, take: {train: 300, test: 100}}
agents: [{name: a, count: 4, model: linear}]
recipe: RECIPE
"""
FEDCACHE = SPEC.replace("RECIPE", "fedcache")
BOTH = SPEC.replace(
    "RECIPE",
    """
  memories: {facts: {kind: semantic, holds: class_logits}}
  round:
    - train: {}
    - extract: {knowledge: class_logits, from: private}
    - aggregate: {by: mean}
    - store: {memory: facts}
    - store: {memory: semantic}
    - store: {memory: semantic, who: aggregators}
""",
)


def asked(path, *said, overrides=()):
    return ablations(said, load_specs(str(path), list(overrides)))


def test_nothing_said_means_every_declared_memory_emptied_and_halved(write):
    found = asked(write(FEDCACHE))
    assert [(one.memory, one.left, one.label) for one in found] == [
        ("cache", 0.0, "cache emptied"), ("cache", 0.5, "cache halved"),
        ("answers", 0.0, "answers emptied"), ("answers", 0.5, "answers halved"),
    ]  # fmt: skip
    for one in found:
        (spec,) = load_specs(str(write(FEDCACHE)), one.overrides)
        kept = {name: said.keep for name, said in spec.value.recipe.memories.items()}
        assert kept == {"cache": 1.0, "answers": 1.0} | {one.memory: one.left}


def test_an_agents_own_samples_are_no_memory_to_ablate(write):
    told = "\n  memories: {own: {kind: sensory, holds: samples}, facts:"
    path = write(BOTH.replace("\n  memories: {facts:", told))
    assert {one.memory for one in asked(path)} == {"facts"}
    with pytest.raises(SpecError, match=r"own is sensory memory.*compare with less data"):
        asked(path, "own=half")


@pytest.mark.parametrize(
    ("said", "lefts"),
    [
        ("cache", [0.0, 0.5]),
        ("cache=half", [0.5]),
        ("cache=empty", [0.0]),
        ("cache=0", [0.0]),
        ("cache=0.125", [0.125]),
    ],
)
def test_what_is_left(write, said, lefts):
    assert [one.left for one in asked(write(FEDCACHE), said)] == lefts


def test_the_same_twice_is_done_once(write):
    assert len(asked(write(FEDCACHE), "cache=0.5", "cache", "cache=half")) == 2
    assert asked(write(FEDCACHE), "answers=0.1")[0].label == "answers at 10.0 %"


def test_a_memory_that_is_not_declared_is_emptied_by_never_storing_to_it(write):
    path = write(BOTH)
    (one,) = asked(path, "semantic")
    (spec,) = load_specs(str(path), one.overrides)
    stores = [step.parameters for step in spec.value.recipe.round if step.name == "store"]
    assert [(step.memory, step.when is None or step.when.holds(2)) for step in stores] == [
        ("facts", True), ("semantic", False), ("semantic", False)
    ]  # fmt: skip
    assert [one.memory for one in asked(path)] == ["facts", "facts"]
    assert [one.label for one in asked(write(SPEC.replace("RECIPE", "fd")))] == ["semantic emptied"]


def sentences(path, *said, overrides=()):
    with pytest.raises(SpecError) as refused:
        asked(path, *said, overrides=overrides)
    return str(refused.value).splitlines()


def test_mistakes_are_told_all_at_once_with_their_place(write):
    wrong = ("cahce=half", "answers=2", "answers=some", "cache=1", "cache=nan", "answers=")
    found = {line.split(":1:1: ")[0]: line for line in sentences(write(FEDCACHE), *wrong)}
    assert list(found) == sorted(f"--memory {text}" for text in wrong)
    two = found["--memory answers=2"]
    assert "expected empty, half, or a share of at least 0 and below 1 that is left; got '2'" in two
    assert found["--memory cahce=half"] == (
        "--memory cahce=half:1:1: the recipe fedcache has no memory 'cahce'; expected one of cache, answers; "
        "did you mean 'cache'?"
    )
    (half,) = sentences(write(BOTH), "semantic=half")
    assert half.startswith("--memory semantic=half:1:1: semantic memory is not declared") and "semantic=empty" in half


def test_a_recipe_that_remembers_nothing_and_a_sweep_are_refused(write):
    (nothing,) = sentences(write(SPEC.replace("RECIPE", "fedavg")))
    assert "the recipe fedavg remembers nothing beyond a round" in nothing
    (sweep,) = sentences(write(FEDCACHE), overrides=["rounds=[1, 2]", "seed=[1, 2]"])
    assert "a sweep over rounds;" in sweep
    assert len(asked(write(FEDCACHE), "cache=half", overrides=["seed=[1, 2]"])) == 1


def test_seeds_are_pooled_and_paired_with_the_whole_run(tmp_path):
    runs: dict[str, list[Path]] = {}
    for label, lift in ((WHOLE, 0.0), ("cache emptied", 0.2)):
        for seed in (1, 2):
            folder = write_run(
                tmp_path / f"{label}-{seed}", agents=1, rounds=1, seed=seed, spec={"recipe": [{"x": lift}]}
            )
            write_table(folder, "metrics", [(1, "phone-0", "phone", "learner", "accuracy", 0.8 - lift * seed, 10)])
            runs.setdefault(label, []).append(folder)
    found = side_by_side(runs)
    assert [(group.label, group.seeds) for group in found.groups] == [(WHOLE, [1, 2]), ("cache emptied", [1, 2])]
    assert found.groups[1].differences["accuracy"].mean == pytest.approx(-0.3)
    write_ablation(found, {"cache emptied": {"memory": "cache", "left": 0.0}}, tmp_path / "told" / "here")
    whole, emptied = json.loads((tmp_path / "told" / "here" / "ablation.json").read_text())
    assert (whole["run"], whole["accuracy"], whole["seeds"]) == (WHOLE, pytest.approx(0.8), 2)
    assert (emptied["memory"], emptied["left"], emptied["accuracy_difference"]) == ("cache", 0.0, pytest.approx(-0.3))
    assert (tmp_path / "told" / "here" / whole["folders"][1]).resolve() == runs[WHOLE][1].resolve()
    table = (tmp_path / "told" / "here" / "ablation.md").read_text()
    assert "accuracy against the whole run, paired" in table and "| cache emptied | 2 seeds |" in table
    assert "What each memory was worth" in (tmp_path / "told" / "here" / "ablation.html").read_text()


# --- the command


@pytest.fixture(scope="module")
def ablated(codistill, write, tmp_path_factory):
    runs = tmp_path_factory.mktemp("ablated")
    said = [write(FEDCACHE), "--memory", "cache", "--without-prefect", "--workers", 1, "--runs", runs]
    return runs, said, codistill("ablate", *said)


def test_an_emptied_memory_is_worth_what_the_exchange_was(ablated):
    runs, _, done = ablated
    assert (done.returncode, done.stderr) == (0, "")
    for number, label in enumerate([WHOLE, "cache emptied", "cache halved"], start=1):
        assert f"ablation, run {number} of 3: {label}\n" in done.stdout
    (told,) = (runs / "ablations").iterdir()
    assert done.stdout.splitlines()[-1] == str(told / "ablation.html")
    assert (told / "ablation.html").stat().st_size > 10_000
    whole, emptied, halved = json.loads((told / "ablation.json").read_text())
    assert (whole["memory"], whole["left"], whole["hit_rate"]) == (None, 1.0, 1.0)
    # With nothing in the cache nobody is answered, so that everybody learns alone, to the bit.
    assert emptied["gain_mean"] == emptied["gain_worst"] == 0.0 and emptied["hit_rate"] == 0.0
    assert emptied["bytes_held"] < halved["bytes_held"] < whole["bytes_held"]
    assert emptied["bytes"] < halved["bytes"] < whole["bytes"]
    assert whole["folders"] == [f"../../{told.name}"]


def test_ablated_runs_are_ordinary_runs(ablated):
    runs, _, _ = ablated
    (told,) = (runs / "ablations").iterdir()
    for row in json.loads((told / "ablation.json").read_text()):
        folder = (told / row["folders"][0]).resolve()
        found = json.loads((folder / "summary.json").read_text())
        assert found["accuracy"] == row["accuracy"]
        assert set(found["stores"]) == {"cache", "answers"}
        assert found["stores"]["cache"].keys() == {"items", "bytes", "hit_rate", "mean_age"}
        share = found["stores"]["cache"]["items"] / 300
        assert share == pytest.approx(row["left"], abs=0.1)
        assert found["events"].get("filtered", 0) == 2 * (300 - found["stores"]["cache"]["items"])
        assert ("keep of cache" in (folder / "report.html").read_text()) == (row["left"] < 1)


def test_a_second_call_finds_them_again(ablated, codistill):
    runs, said, _ = ablated
    before = {path: path.read_bytes() for path in runs.glob("tiny-*/*.parquet")}
    folders = sorted(path.name for path in runs.glob("tiny-*"))
    done = codistill("ablate", *said, "--memory", "cache=half", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    (told,) = (runs / "ablations").iterdir()
    assert done.stdout == f"{told}\n"  # nothing ran, and nothing but the folder is printed
    assert {path: path.read_bytes() for path in runs.glob("tiny-*/*.parquet")} == before
    assert sorted(path.name for path in runs.glob("tiny-*")) == folders


def test_nothing_runs_where_a_name_is_wrong(codistill, write, tmp_path):
    done = codistill("ablate", write(FEDCACHE), "--memory", "cach", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "did you mean 'cache'?" in done.stderr
    assert not list(tmp_path.iterdir())
