"""Runs whole specs in this process."""

import pytest
import torch
from codistill.flows.drive import run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import Session, open_session
from codistill.specs.load import load_specs
from codistill.tests.finishing import finish_without_report

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def conduct(tmp_path_factory):
    """A function that runs a spec, given as YAML, on ``lanes`` lanes, and returns its folder. No report is drawn."""
    base = tmp_path_factory.mktemp("fidelity")
    done = {}

    def run(text, lanes=1):
        if (text, lanes) not in done:
            file = base / f"{len(done)}.yaml"
            file.write_text(text, encoding="utf-8")
            (loaded,) = load_specs(str(file))
            ready = launch(loaded.value, base / "runs", base / "runs" / str(len(done)))
            pool = Here(lanes)
            session = open_session(ready.folder, pool)
            run_plainly(session, SilentProgress())
            finish_without_report(ready.folder, session.plan)
            pool.close()
            done[text, lanes] = ready.folder
        return done[text, lanes]

    return run


@pytest.fixture
def begun_anew(monkeypatch):
    """A function after which runs are begun anew each round: their workers forget all that is not on disk."""

    def begin():
        commit = Session.commit

        def forgetting(session, number):
            found = commit(session, number)
            for lane in range(session.pool.lanes):
                session.pool.replace(lane)
            return found

        monkeypatch.setattr(Session, "commit", forgetting)

    return begin
