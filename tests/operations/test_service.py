"""Servers that cannot be used, each answered in one sentence with what to do."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from codistill.flows import service
from codistill.flows.service import ServiceError, connected
from prefect import __version__
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings


class Answers(BaseHTTPRequestHandler):
    """Answers as the test says: a status and a body for each path."""

    said: dict = {}
    heard: list = []

    def answer(self):
        self.heard.append(self.headers.get("Authorization"))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self.said.get(self.path, (404, {"detail": "Not Found"}))
        if status == "slow":
            time.sleep(1)
            status = 200
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *anything):
        pass


@pytest.fixture
def answering():
    """A function that makes a server answer so, and returns its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def says(**paths):
        Answers.said = {f"/api/{path.replace('__', '/')}": answer for path, answer in paths.items()}
        Answers.heard = []
        return f"http://127.0.0.1:{server.server_port}/api"

    yield says
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(service.server, "apply_settings", lambda: None)


def refused(monkeypatch, url, **more):
    monkeypatch.setenv("PREFECT_API_URL", url)
    with temporary_settings({PREFECT_API_URL: url, **more}), pytest.raises(ServiceError) as caught, connected():
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_server_is_configured():
    with pytest.raises(ServiceError, match="^no Prefect server is configured; start one with"), connected():
        pass


def test_a_server_that_is_down(monkeypatch):
    said = refused(monkeypatch, "http://127.0.0.1:9/api")
    assert said.startswith("nothing answers at http://127.0.0.1:9/api (") and "Connection refused" in said
    assert said.endswith("start the server with `codistill server start`, or correct PREFECT_API_URL")


def test_a_server_that_is_slow(monkeypatch, answering):
    monkeypatch.setattr(service, "PATIENCE", 0.3)
    url = answering(deployments__count=("slow", 0))
    assert refused(monkeypatch, url) == (
        f"{url} did not answer within 0.3 s; see whether it is overloaded, and try again"
    )


@pytest.mark.parametrize("theirs", ["2.20.16", "4.0.0", "3.1.0", "nonsense"])
def test_a_server_of_another_version(monkeypatch, answering, theirs):
    url = answering(deployments__count=(200, 3), admin__version=(200, json.dumps(theirs)))
    said = refused(monkeypatch, url)
    assert said == (
        f"{url} runs Prefect {theirs}, and this is Prefect {__version__}; start a server of {__version__} "
        "or a later 3.x"
    )


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key(monkeypatch, answering, status):
    url = answering(deployments__count=(status, {"detail": "Unauthorized"}))
    assert refused(monkeypatch, url) == (f"{url} refuses the key ({status}); correct PREFECT_API_AUTH_STRING")
    with temporary_settings({PREFECT_API_KEY: "pnu_wrong"}):
        said = refused(monkeypatch, url)
    assert said.startswith(f"{url} refuses the key ({status}); correct PREFECT_API_KEY, or log in again with `prefect")
    assert Answers.heard[-1] == "Bearer pnu_wrong" and "pnu_wrong" not in said


def test_a_key_in_the_address_is_not_shown(monkeypatch, answering):
    url = answering(deployments__count=(401, {})).replace("http://", "http://user:secret@")
    with temporary_settings({PREFECT_API_AUTH_STRING: "admin:hidden"}):
        said = refused(monkeypatch, url)
    assert "secret" not in said and "hidden" not in said and "127.0.0.1" in said


@pytest.mark.parametrize("answer", [(404, {}), (200, "<html>hello</html>"), (200, {"not": "a count"}), (500, "oh")])
def test_what_is_no_prefect_server(monkeypatch, answering, answer):
    url = answering(deployments__count=answer, admin__version=(200, '"3.8.8"'))
    assert refused(monkeypatch, url).startswith(
        f"what answers at {url} is no Prefect server ({answer[0]}); its address"
    )


def test_a_right_server_is_lent(monkeypatch, answering):
    url = answering(deployments__count=(200, 3), admin__version=(200, json.dumps(__version__)))
    monkeypatch.setenv("PREFECT_API_URL", url)
    with temporary_settings({PREFECT_API_URL: url}), connected() as (client, address):
        assert address == url and str(client.api_url).rstrip("/") == url


def test_a_server_that_refuses_or_goes_away_in_the_middle(monkeypatch, answering):
    url = answering(deployments__count=(200, 3), admin__version=(200, json.dumps(__version__)))
    monkeypatch.setenv("PREFECT_API_URL", url)
    with temporary_settings({PREFECT_API_URL: url}):
        with pytest.raises(ServiceError, match=r"^.* refused \(422: too long\)$"), connected() as (client, _):
            Answers.said["/api/work_pools/filter"] = (422, {"detail": "too long"})
            client.read_work_pools()
        with pytest.raises(ServiceError, match="went away"), connected():
            raise httpx.ConnectError("gone")
