"""From a spec to a folder: whole or not at all, repaired where it can be, and nobody else's."""

import json
import multiprocessing
import os

import pytest
from codistill.flows.folder import RunFolder, replacing
from codistill.flows.launch import launch
from codistill.flows.lock import InUseError, locked
from codistill.flows.plan import Plan
from codistill.flows.report.reading import NotARunError
from codistill.specs.load import load_specs

SPEC = """
name: made
seed: 1
rounds: 3
data: {dataset: digits, partition: {by: iid}, take: {train: 100}}
agents: [{name: a, count: 4, model: linear}]
recipe: fedavg
"""
FILES = ("spec.yaml", "plan.json", "ids.arrow", "partition.parquet")


@pytest.fixture
def spec(write):
    (loaded,) = load_specs(str(write(SPEC)))
    return loaded.value


def contents(folder):
    said = {name: (folder.path / name).read_bytes() for name in FILES}
    info = folder.info()
    return said | {"run.json": {key: value for key, value in info.items() if key not in ("created", "command")}}


def elsewhere(folder, name):
    """What is in the folder, but for the names of a run in it."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != name}


def test_launching_twice_changes_nothing(spec, tmp_path):
    ready = launch(spec, tmp_path)
    before = elsewhere(tmp_path, "")
    assert launch(spec, tmp_path) == ready
    assert elsewhere(tmp_path, "") == before
    assert Plan.read(ready.folder.plan) == ready.plan
    assert ready.folder.info()["control"] == f"../controls/{ready.control.path.name}"


@pytest.mark.parametrize("count", range(10))
def test_a_launch_that_was_cut_off_is_done_again(spec, tmp_path, monkeypatch, count):
    whole = launch(spec, tmp_path / "whole")
    launch(spec, tmp_path / "cut").folder.path.rename(tmp_path / "away")  # so that the data are prepared
    (tmp_path / "cut" / "controls").rename(tmp_path / "away too")
    done = []

    def replace(source, target):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("codistill.flows.folder.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            launch(spec, tmp_path / "cut")
    cut = launch(spec, tmp_path / "cut")
    prepared = {"prepared": str(next((tmp_path / "whole" / ".prepared").glob("[0-9a-f]*")).resolve())}
    for one, other in ((whole.folder, cut.folder), (whole.control, cut.control)):
        said = contents(other)
        assert contents(one) == said | {"run.json": said["run.json"] | prepared}
    assert not list(tmp_path.glob("cut/**/.*.writing"))


def test_the_run_is_the_last_thing_written(spec, tmp_path, monkeypatch):
    launch(spec, tmp_path).folder.path.rename(tmp_path / "away")
    (tmp_path / "controls").rename(tmp_path / "away too")
    done = []
    monkeypatch.setattr("codistill.flows.folder.os.replace", lambda a, b: (done.append(b.name), os.rename(a, b)))
    launch(spec, tmp_path)
    assert len(done) == 10 and done[4] == done[9] == "run.json" and done.count("run.json") == 2


@pytest.mark.parametrize("name", ["run.json", *FILES])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_what_was_damaged_is_written_again_and_the_rounds_stay(spec, tmp_path, name, damage):
    ready = launch(spec, tmp_path)
    ready.folder.commit(2, {"metrics": []})
    before = contents(ready.folder)
    path = ready.folder.path / name
    match damage:
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if name == "spec.yaml" and damage != "gone":
        path.unlink()  # nothing reads it before the end, so it is not looked into
    again = launch(spec, tmp_path)
    assert contents(again.folder) == before
    assert again.folder.committed() == 2


def test_rounds_of_nobody_knows_what_are_refused(spec, tmp_path):
    folder = launch(spec, tmp_path).folder
    folder.commit(1, {})
    folder.run.unlink()
    folder.plan.write_text("{")
    before = elsewhere(tmp_path, "")
    with pytest.raises(FileExistsError, match="holds rounds, and neither run.json nor plan.json says of which run"):
        launch(spec, tmp_path)
    assert elsewhere(tmp_path, "") == before


def test_another_run_is_refused_even_if_only_its_plan_says_so(spec, tmp_path):
    other = launch(spec.model_copy(update={"seed": 2}), tmp_path).folder
    other.run.unlink()
    before = elsewhere(other.path, "")
    with pytest.raises(FileExistsError, match="holds another run"):
        launch(spec, tmp_path, other.path)
    assert elsewhere(other.path, "") == before


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_run_is_left_alone(spec, tmp_path, kind):
    at = tmp_path / "mine"
    if kind == "folder":
        at.mkdir()
        (at / "spec.yaml").write_text("precious")
    else:
        at.write_text("precious")
    with pytest.raises(FileExistsError, match="is there and is no run"):
        launch(spec, tmp_path, at)
    assert (at / "spec.yaml" if kind == "folder" else at).read_text() == "precious"


def test_an_empty_folder_may_be_given(spec, tmp_path):
    (tmp_path / "mine").mkdir()
    assert launch(spec, tmp_path, tmp_path / "mine").folder.info()["status"] == "ready"


def test_a_damaged_checkpoint_is_named(spec, tmp_path):
    folder = launch(spec, tmp_path).folder
    folder.checkpoint.write_text("{")
    with pytest.raises(NotARunError, match=r"checkpoint\.json cannot be read"):
        folder.committed()


def test_a_control_that_is_done_is_not_done_again(spec, tmp_path):
    ready = launch(spec, tmp_path)
    assert ready.left == [ready.control, ready.folder]
    ready.control.note(status="finished")
    assert launch(spec, tmp_path).left == [ready.folder]


def hold(folder, asked, told):
    with locked(folder):
        told.set()
        asked.wait(30)


def test_a_lock_holds_against_other_processes_and_dies_with_its_own(tmp_path):
    context = multiprocessing.get_context("spawn")
    asked, told = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", asked, told))
    process.start()
    assert told.wait(60)
    with (
        pytest.raises(InUseError, match=rf"run is being run by another process \({process.pid}\)"),
        locked(tmp_path / "run"),
    ):
        pass
    process.kill()
    process.join()
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / ".lock").read_text()) == os.getpid()
    with locked(tmp_path / "run"):
        pass


def test_a_file_that_was_not_written_to_the_end_is_not_put_in_place(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("full")
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        os.link(path, temporary)  # the same file already: a rename would do nothing
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_round_is_committed_whole_and_older_versions_go(tmp_path):
    folder = RunFolder(tmp_path)
    folder.make()
    for number in (0, 1):
        folder.begin(number)
        for place in (0, 1):
            folder.state(number, place).write_bytes(b"x")
        folder.packet(number, 0, "0").write_bytes(b"x")
    assert folder.committed() == -1
    folder.commit(1, {"metrics": [1]})
    assert folder.committed() == 1 and json.loads(folder.rows(1).read_text()) == {"metrics": [1]}
    folder.forget(1, [(0, 0)], keep_packets=True)
    assert folder.state(0, 1).exists() and not folder.state(0, 0).exists()
    assert folder.packet(1, 0, "0").exists() and not folder.packet(0, 0, "0").exists()
    folder.forget(1, [(0, 1)], keep_packets=False)
    assert not folder.state(0, 1).parent.exists() and not folder.packet(1, 0, "0").exists()
