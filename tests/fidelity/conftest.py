"""Runs whole specs in this process."""

import pytest
import torch
from codistill.flows.drive import run_plainly
from codistill.flows.finish import finish
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.load import load_specs

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def conduct(tmp_path_factory):
    """A function that runs a spec, given as YAML, on ``lanes`` lanes, and returns its folder. No report is drawn."""
    base = tmp_path_factory.mktemp("fidelity")
    patch = pytest.MonkeyPatch()
    patch.setattr("codistill.flows.report.write.write_report", lambda *anything: None)
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
            finish(ready.folder, session.plan, None)
            pool.close()
            done[text, lanes] = ready.folder
        return done[text, lanes]

    yield run
    patch.undo()
