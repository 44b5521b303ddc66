"""What a person sees of a run in the server's UI: its pages, drawn by Debian's Chromium."""

import html
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from codistill.flows import kept

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not here")
SPEC = """
name: seen
rounds: 3
data: {dataset: digits, partition: {by: iid}, take: {train: 120, test: 60}}
agents: [{name: phone, count: 3, model: linear}]
engine: {workers: 1}
recipe: fd
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A kept server with its UI, and one run on it; the server and the run's folder."""
    home, place = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("place")
    (place / "seen.yaml").write_text(SPEC, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def command(*words, **more):
        line = [sys.executable, "-m", "codistill.flows.cli", *map(str, words)]
        done = subprocess.run(line, cwd=place, env=environment | more, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    command("server", "start", "--port", port)
    try:
        made = kept.Kept(**json.loads((home / "codistill-server.json").read_text()))
        folder = place / command("run", "seen.yaml", "-q", PREFECT_API_URL=made.url).strip()
        yield made, folder
    finally:
        command("server", "stop")


@pytest.fixture
def page(server, tmp_path):
    """A function that opens a page of the UI and returns what it shows when its scripts have run, as HTML."""

    def opened(path):
        said = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
        line = [CHROMIUM, *said, f"--user-data-dir={tmp_path}", f"{server[0].ui}/{path}"]
        return subprocess.run(line, capture_output=True, text=True, timeout=120).stdout

    return opened


def words(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def artifact(server, what):
    made, folder = server
    (found,) = made.ask("artifacts/filter", said={"artifacts": {"key": {"any_": [f"{folder.name}-{what}"]}}})
    return f"artifacts/artifact/{found['id']}"


def test_the_page_of_a_run_shows_its_name_and_how_it_ended(server, page):
    made, folder = server
    (run,) = made.ask("flow_runs/filter", said={"flow_runs": {"name": {"any_": [folder.name]}}})
    shown = words(page(f"runs/flow-run/{run['id']}"))
    assert folder.name in shown and "Completed" in shown and "Task runs" in shown and "Artifacts" in shown


def test_the_page_of_its_agents_has_a_row_for_each(server, page):
    shown = words(page(artifact(server, "agents")))
    assert "agent accuracy gain over local bytes sent" in shown
    summary = json.loads((server[1] / "summary.json").read_text())
    for name in ("phone-1", "phone-2", "phone-3"):
        assert name in shown
    assert f"{summary['accuracy_worst']:.4f}".rstrip("0") in shown


def test_the_page_of_its_rounds_has_a_row_for_each(server, page):
    shown = words(page(artifact(server, "rounds")))
    summary = json.loads((server[1] / "summary.json").read_text())
    assert "4 Items" in shown and str(summary["bytes"]) in shown


def test_the_curve_is_drawn_and_the_report_is_linked(server, page):
    assert re.search(r'<img[^>]*src="data:image/png;base64,iVBOR', page(artifact(server, "accuracy")))
    assert (server[1] / "report.html").resolve().as_uri() in page(artifact(server, "report"))
