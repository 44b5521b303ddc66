"""A run that goes on from another: as if the first had been longer, or refused in one sentence."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from codistill.flows.drive import do_round, run_plainly
from codistill.flows.finish import finish
from codistill.flows.launch import launch_loaded
from codistill.flows.origin import latest
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from safetensors.torch import load_file

SPEC = """
name: line
seed: 4
rounds: 2
data: {dataset: digits, partition: {by: iid}, take: {train: 240, test: 90}, public: {share: 0.2, labelled: false}}
agents: [{name: a, count: 3, model: mlp}, {name: b, count: 1, model: linear}]
measure: {control: none}
"""
SERVER_KEEPS = """
recipe:
  start:
  - train: {epochs: 1, batch: 16, optimizer: {sgd: {lr: 0.1}}}
  round:
  - train: {epochs: 1, batch: 16, optimizer: {sgd: {lr: 0.1, momentum: 0.9}}}
  - extract: {knowledge: prototypes}
  - aggregate: {by: mean}
  - store: {memory: semantic, when: {until: 3}}
"""


@pytest.fixture(scope="module", autouse=True)
def without_reports():
    patch = pytest.MonkeyPatch()
    patch.setattr("codistill.flows.report.write.write_report", lambda *anything: None)
    yield
    patch.undo()


@pytest.fixture
def done(write, tmp_path):
    """A function that runs a spec to its end, or some rounds of it, among the runs of this test."""

    def run(text, *overrides, until=None, runs=tmp_path):
        (loaded,) = load_specs(str(write(text)), list(overrides))
        ready = launch_loaded(loaded, runs)
        for part in ready.left:
            session = open_session(part, Here(1))
            if until is not None:
                for number in range(session.next_round, until + 1):
                    do_round(session, number, SilentProgress())
                    session.commit(number)
                return part
            run_plainly(session, SilentProgress())
            finish(part, session.plan, None if part is ready.control else ready.control)
        return ready.folder

    return run


def of_round(folder, name, number):
    rows = pq.read_table(folder.table(name)).to_pylist()
    return [{key: value for key, value in row.items() if key != "round"} for row in rows if row["round"] == number]


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("recipe: fedavg", []),
        ("recipe: fedcache", []),
        ("recipe: fedproto", ["agents.b.model=mlp"]),
        ("recipe: ds-fl", []),
        ("recipe: fd", ["pattern={decentralized: {graph: pairs}}", "participation.share=0.6"]),
        ("recipe: fedgkt", []),
        (SERVER_KEEPS, []),
    ],
)
def test_two_rounds_and_then_two_are_four(done, recipe, overrides):
    """Models and memories came along whole, and nothing is drawn a second time."""
    text = f"{SPEC}\n{recipe}\n"
    first = done(text, *overrides)
    second = done(text, *overrides, "continue=latest")
    whole = done(text, *overrides, "rounds=4")
    assert second.path != first.path and second.info()["continues"]["rounds"] == 2 == second.info()["before"]
    models = sorted(path.name for path in (whole.path / "models").iterdir())
    assert models and models == sorted(path.name for path in (second.path / "models").iterdir())
    for name in models:
        assert (second.path / "models" / name).read_bytes() == (whole.path / "models" / name).read_bytes(), name
    for name in {path.name for path in (first.path / "models").iterdir()}:
        moved, before = load_file(second.path / "models" / name), load_file(first.path / "models" / name)
        assert any((moved[key] != before[key]).any() for key in moved), name
    for table in ("metrics", "stores", "memory"):
        if table != "stores" or whole.table("stores").exists():
            assert of_round(second, table, 2) == of_round(whole, table, 4), table
    assert of_round(second, "metrics", 0) == of_round(first, "metrics", 2)


def test_the_folder_says_from_which_run_and_needs_it_no_more_once_begun(done, tmp_path):
    text = f"{SPEC}\nrecipe: fedcache\n"
    first, second = done(text), done(text, "continue=latest")
    third = done(text, "continue=latest")
    for before, after in ((first, second), (second, third)):
        said, spec = after.info()["continues"], after.spec.read_text()
        assert said["run"] == str(before.path.resolve()) and said["digest"] == before.info()["digest"]
        assert said["state_digest"] == before.info()["state_digest"]
        assert f"\ncontinue:\n  run: {json.dumps(said['run'])}\n  digest: " in spec and said["digest"] in spec
    assert third.info()["before"] == 4
    assert (
        first.info()["before"] == 0
        and "continues" not in first.info()
        and "\ncontinue: anew\n" in first.spec.read_text()
    )
    assert latest("line", tmp_path) == third.path and latest("lin", tmp_path) is None


def test_what_was_interrupted_is_gone_on_with_and_not_gone_on_from(done, tmp_path):
    text = f"{SPEC}\nrecipe: fedavg\ncontinue: latest\n"
    first = done(text, until=1)
    assert first.committed() == 1 and latest("line", tmp_path) is None
    assert done(text) == first
    second = done(text, until=1)
    assert second != first and latest("line", tmp_path) == first.path
    assert done(text) == second and second.info()["status"] == "finished"


def test_a_control_goes_on_alone(done):
    text = SPEC.replace("control: none", "control: local") + "recipe: fedavg\n"
    first, second = done(text), done(text, "continue=latest")
    whole = done(text, "rounds=4")
    assert first.info()["control"] != second.info()["control"]
    assert of_round(second, "control", 2) == of_round(whole, "control", 4)
    bare = done(text, "measure.control=none", "seed=5")
    third = done(text, "seed=5", f"continue={{run: {bare.path}}}")
    assert of_round(third, "control", 0) == of_round(bare, "metrics", 2)


def test_new_agents_begin_and_those_gone_are_left_out(done):
    text = f"{SPEC}\n{SERVER_KEEPS}"
    first = done(text)
    more = done(text, "agents.a.count=4", "continue=latest")
    names = {path.stem for path in (more.path / "models").iterdir()}
    assert names == {"a-1", "a-2", "a-3", "a-4", "b"}
    begun = {row["agent"]: row["value"] for row in of_round(more, "metrics", 0)}
    assert len(begun) == 5
    fewer = done(text, "agents.a.count=2", f"continue={{run: {first.path}}}")
    assert {path.stem for path in (fewer.path / "models").iterdir()} == {"a-1", "a-2", "b"}


def refused(done, text, *overrides):
    with pytest.raises(SpecError) as caught:
        done(text, *overrides)
    (problem,) = caught.value.problems
    return str(problem)


def test_refusals(done, tmp_path):
    text = f"{SPEC}\nrecipe: fedcache\n"
    first = done(text)
    go_on = f"continue: {{run: {first.path}}}\n"
    line = len(text.splitlines()) + 1
    said = refused(done, text + go_on, "agents.a.model=cnn")
    assert f".yaml:{line}:1: continue: in {first.path} the model of a-1 is mlp" in said and "here it is cnn" in said
    assert said.endswith("give it the same model, or say `continue: anew`, or name another run")
    assert "the memory 'cache' is declared with another" in refused(
        done, text + go_on, *[f"recipe.memories.{name}.encoding=float16" for name in first_memory(first)]
    )
    assert f"{first.path} has none of these agents (it has a-1, a-2, a-3, ...)" in refused(
        done, text + go_on, "agents.a.name=x", "agents.b.name=y"
    )
    assert f"{first.path} learned from samples of 1 x 8 x 8 values, and these have 1 x 28 x 28" in refused(
        done, text + go_on, "data.dataset={digits: {size: 28}}"
    )
    gone = tmp_path / "gone"
    assert f"{gone} is no run; say `continue: anew`, or name another run" in refused(
        done, text + f"continue: {{run: {gone}}}\n"
    )
    half = done(text, "seed=9", until=1)
    assert f"{half.path} is not finished; run it to its end first" in refused(
        done, text + f"continue: {{run: {half.path}}}\n"
    )
    digest = first.info()["digest"]
    assert f"is another run: its digest is {digest[:8]} and not 00000000" in refused(
        done, text + f"continue: {{run: {first.path}, digest: '00000000'}}\n"
    )
    assert done(text + f"continue: {{run: {first.path}, digest: '{digest[:12]}'}}\n").info()["before"] == 2


def first_memory(folder):
    return json.loads(folder.plan.read_text())["memories"]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_models_that_are_not_those_that_the_run_finished_with(done, damage):
    text = f"{SPEC}\nrecipe: fedcache\n"
    first = done(text)
    files = sorted((first.path / "state" / "0000002").glob("*.arrow"))
    if damage == "gone":
        files[0].unlink()
    else:
        kept = bytearray(files[0].read_bytes())
        kept[-20] ^= 1
        files[0].unlink()
        files[0].write_bytes(kept)
    said = refused(done, text, "continue=latest")
    assert ("are not those that it finished with" in said) or ("something is missing" in said)
    assert said.endswith("restore them, or say `continue: anew`, or name another run") or damage == "gone"


def test_a_sweep_cannot_tell_which_is_the_latest(codistill, write, tmp_path):
    path = write(f"{SPEC}\nrecipe: ds-fl\ncontinue: latest\n")
    done = codistill("run", path, "--runs", tmp_path, "--without-prefect", "--set", "seed=[1, 2]")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert (
        "continue: which of the sweep's 2 runs of one name is the latest cannot be told apart; deploy or run"
        in done.stderr
    )
    assert not list(tmp_path.glob("line-*"))


def test_the_run_before_is_left_as_it_was(done):
    text = f"{SPEC}\nrecipe: fedcache\n"
    first = done(text)
    before = {path: path.read_bytes() for path in Path(first.path).rglob("*") if path.is_file()}
    done(text, "continue=latest", "rounds=3")
    assert {path: path.read_bytes() for path in Path(first.path).rglob("*") if path.is_file()} == before
    shutil.rmtree(first.path)
