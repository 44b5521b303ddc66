"""What a site refuses, and what it tells of a failure."""

import json
import logging
from types import SimpleNamespace

import pytest
from codistill.flows.check.holdings import refuse_wrong
from codistill.flows.pool import StageError, WorkerDiedError
from codistill.flows.sites import holdings
from codistill.flows.sites.messages import StageRequest
from codistill.specs.problems import SpecError
from codistill.specs.schema import Spec
from codistill.tasks.data.dataset import DataError
from codistill.tests.sites.hospitals import SPEC, TABLE, WITH_PUBLIC


def test_a_site_lets_out_what_it_was_told_it_may(federation):
    federation.shares["va"] = frozenset({"logits", "class_logits"})
    federation.run("recipe=fd")
    federation.desks.clear()
    with pytest.raises(
        StageError, match="at the site va: it lets class_logits, logits leave, and the plan asks for pa"
    ):
        federation.run("recipe=fedavg")


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("{callable: {function: 'os:abort'}}", "data from callable are none that a site reads, for they run code"),
        (f"{{table: {{path: ../va/heart.csv, {TABLE}}}}}", "the spec names data outside the site's own folder"),
        (f"{{table: {{path: /etc/hostname, {TABLE}}}}}", "the spec names data outside the site's own folder"),
    ],
)
def test_a_spec_names_no_code_and_no_files_elsewhere(federation, dataset, sentence):
    spec = federation.spec(f"data.dataset={dataset}").value
    with pytest.raises(StageError, match=f"at the site cleveland: {sentence}"):
        holdings.hold_of_sites(spec, federation.base / "cache")


def test_a_failure_tells_nothing_of_the_data(federation, caplog):
    """The file's path, its columns and its values are in the site's log alone."""
    (federation.data / "hungarian" / "heart.csv").write_text("63,secret,1\n")
    with caplog.at_level(logging.INFO), pytest.raises(StageError) as told:
        federation.launch()
    assert str(told.value) == "at the site hungarian: it failed (DataError); the site's own log says more"
    assert "heart.csv" in caplog.text
    assert not any(b"secret" in path.read_bytes() for path in federation.store.rglob("*") if path.is_file())


def test_what_the_coordinator_did_not_sign_is_not_done(federation):
    federation.run("recipe=fd", "rounds=1")
    desk = federation.desk("va")
    name, run = f"requests/{'0' * 32}", "0" * 16
    with federation.at("va"):
        assert f"there is no letter {name}" in desk.answer(run, name)
        for strange in ((run, "requests/../../x"), ("../../../home", name), ("", name), (run, "packets/0000001/0-1")):
            before = set(federation.base.rglob("*"))
            assert desk.answer(*strange) == "it names no request"
            assert set(federation.base.rglob("*")) == before, "and nothing is written anywhere"
    line = federation.lines[-1]
    line._key_file = federation.home / "cleveland" / "key.json"
    with pytest.raises(StageError, match="is refused: it is not signed with the key of coordinator"):
        line.ask("va", run, "a stage", json.dumps({"kind": "stage"}))


def test_a_request_is_answered_once(federation):
    """Who can write to the server, and sign nothing, cannot have a site do again what it was asked once."""
    federation.run("recipe=fd", "rounds=1", "engine.keep=true")
    path = sorted((federation.store / "coordinator").rglob("requests/*"))[0]
    with federation.at("va"):
        said = [federation.desk("va").answer(path.parts[-3], f"requests/{path.name}") for _ in range(2)]
    assert said[1] == "it was asked that already"


@pytest.mark.parametrize("change", [("cleveland", "../../../escaped"), ('"memories": {}', '"memories": {"../x": {}}')])
def test_a_plan_that_is_not_the_specs_is_refused(federation, change):
    """Its names would become names of files."""
    folder = federation.launch().folder
    text = folder.plan.read_text(encoding="utf-8")
    patched = text.replace(*change)
    assert patched != text
    line = federation.line(federation.spec().value.engine)
    run = folder.info()["digest"][:16]
    spec = federation.spec().value.model_dump(mode="json", by_alias=True)
    assignment = {"spec": spec, "plan": patched, "left_out": {}}
    line.letters(run).write("assignments/a", json.dumps(assignment).encode())
    said = StageRequest(era="e", begins=True, assignment="assignments/a", round=0, stage=-1, places=(0,), measured=())
    with pytest.raises(StageError, match="at the site cleveland: the plan is not that of the spec"):
        line.ask("cleveland", run, "a stage", said.model_dump_json())


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"kind": "pickle"}, "it is asked for 'pickle', and knows describe, stage, finish"),
        ([1, 2], "it is asked for None"),
        ({"kind": "stage", "more": 1}, "the request is of another version"),
        ({"kind": "describe", "spec": {"name": "x"}}, "the spec is of another version"),
    ],
)
def test_requests_of_another_shape_are_refused(federation, request_, sentence):
    line = federation.line(federation.spec().value.engine)
    with pytest.raises(StageError, match=f"at the site va: {sentence}"):
        line.ask("va", "0" * 16, "a stage", json.dumps(request_))


def test_work_for_the_agents_of_others_is_refused(federation):
    federation.run("recipe=fd", "rounds=1", "engine.keep=true")
    line, request = federation.lines[-1], None
    for path in sorted((federation.store / "coordinator").rglob("requests/*")):
        if b'"kind": "stage"' in path.read_bytes() and b'"places": [3]' in path.read_bytes():
            text = path.read_bytes()
            request = json.loads(text[text.index(b'{"kind"') : text.index(b'"measured"')] + b'"measured": []}')
            run = path.parts[-3]
    assert request is not None
    for places, sentence in (([0], "do not live at va"), ([3, 99], "do not live at va")):
        said = StageRequest.model_validate(request | {"places": places, "begins": True})
        with pytest.raises(StageError, match=sentence):
            line.ask("va", run, "a stage", said.model_dump_json())
    said = StageRequest.model_validate(request | {"begins": False, "era": "of before"})
    with pytest.raises(WorkerDiedError, match="was replaced in the middle of a round"):
        line.ask("va", run, "a stage", said.model_dump_json())


def test_a_site_that_tells_of_others_is_not_believed(federation, monkeypatch):
    desk = federation.desk("va")
    honest = desk._stage

    def boasting(run, request):
        reply = honest(run, request)
        return reply.model_copy(update={"metrics": ((0, "accuracy", 1.0, 99),)})

    desk._doing["stage"] = (StageRequest, boasting)
    with pytest.raises(StageError, match="the site va tells of agents that are not its own; nothing of it was taken"):
        federation.run("recipe=fd")


def test_public_samples_must_be_the_same_everywhere(federation):
    path = federation.data / "va" / "public.csv"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match="the public samples that the site va has are others than those here"):
        federation.launch(WITH_PUBLIC, "recipe=fedmd")


def test_sites_with_other_classes_do_not_fit(federation):
    """Told by number, the disease has five degrees in Cleveland and two in Hungary."""
    sentence = (
        r"the site hungarian has samples of shape \(10,\) with the classes 0, 1, and cleveland of .* all sites need"
    )
    with pytest.raises(DataError, match=sentence):
        federation.launch("data.dataset.table.label_above=null")


WRONG = {
    "agents[0].site=null": "agents[0]: cleveland lives nowhere",
    "agents[0].site=clevland": "engine.sites has no 'clevland'",
    "agents[2].site=cleveland": "no agents live at va",
    "data.public={share: 0.1}": "public samples cannot be a share of what sites keep to themselves",
    "continue=latest": "what an earlier run left is with the sites",
    "engine.store=null": "runs on sites need `sites` with the key of each, and `store`",
    "engine.workers=2": "leave `address` and `workers` out",
    "engine.save=stage": "sites save their agents after each round: leave `save` out",
    "engine.sites.va=ed25519:short": "engine.sites.va",
    "engine.sites={coordinator: 'ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='}": "no site can be called",
    "recipe=fedgkt": "rows about single private samples do not leave their site",
}


@pytest.mark.parametrize("recipe", ["fd", "fedavg", "fedproto", "fedkd"])
def test_what_can_be_on_sites_passes(federation, recipe):
    refuse_wrong([federation.spec(f"recipe={recipe}", *(["recipe.companion=linear"] if recipe == "fedkd" else []))])


@pytest.mark.parametrize("override", WRONG)
def test_what_cannot_be_on_sites_is_said_before_anything_is_asked(federation, override):
    with pytest.raises(SpecError) as told:
        refuse_wrong([federation.spec(override)])
    assert WRONG[override] in str(told.value)
    assert not federation.lines


def test_sites_are_of_the_kind_sites(federation):
    with pytest.raises(SpecError, match="`sites` are of the kind sites"):
        federation.spec("engine.kind=local")
    assert federation.spec("engine=local").value.engine.kind == "local"
    assert isinstance(federation.spec().value, Spec)
    assert SPEC.count("site:") == 3


def test_a_site_of_another_version_is_named(federation, monkeypatch):
    answer = SimpleNamespace(error=None, model_dump_json=lambda: '{"more": 1}')
    monkeypatch.setattr(federation.desk("va"), "_replied", lambda *anything: answer)
    with pytest.raises(StageError, match="the site va answers in another version"):
        federation.run("recipe=fd")
