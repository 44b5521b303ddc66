"""A server whose database is locked is asked again soon; one that refuses is not."""

import asyncio
import time

import httpx
import pytest
from codistill.flows.sites import patience
from codistill.flows.sites.patience import patiently, patiently_async, where_nobody_asks_again
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

ASKED = httpx.Request("POST", "http://server/api/flow_runs")


def refused(status):
    return httpx.HTTPStatusError("no", request=ASKED, response=httpx.Response(status, request=ASKED))


@pytest.mark.parametrize("error", [refused(503), refused(429), httpx.ConnectError("down", request=ASKED)])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_busy_server_is_asked_again_within_a_second(error, way):
    count, began = iter(range(9)), time.monotonic()

    def ask():
        if next(count) < 3:
            raise error
        return "answer"

    async def ask_async():
        return ask()

    answer = patiently(ask) if way == "sync" else asyncio.run(patiently_async(ask_async))
    assert answer == "answer"
    assert time.monotonic() - began < 2, "Prefect's own client would have waited for 2 + 4 + 8 s"


@pytest.mark.parametrize("status", [401, 404, 409, 500])
def test_what_is_refused_is_refused_once(status):
    count = iter(range(9))

    def ask():
        next(count)
        raise refused(status)

    with pytest.raises(httpx.HTTPStatusError):
        patiently(ask)
    assert next(count) == 1


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(patience, "AT_MOST", 0.3)
    with pytest.raises(httpx.HTTPStatusError):
        patiently(lambda: (_ for _ in ()).throw(refused(503)))


def test_others_in_the_process_ask_again_as_ever():
    assert where_nobody_asks_again().run(PREFECT_CLIENT_MAX_RETRIES.value) == 0
    assert PREFECT_CLIENT_MAX_RETRIES.value() > 0
