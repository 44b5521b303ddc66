"""Asking a Prefect server again, soon, where its database was locked."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import Context, copy_context
from typing import TypeVar

T = TypeVar("T")

SOON = 0.1
"""Seconds until it is asked again at first; Prefect's own client waits two, then four, then eight."""
AT_MOST = 90.0
"""Seconds after which it is told that the server refuses."""


def ask_again_ourselves() -> None:
    """Have Prefect's client not ask again by itself. To be called before Prefect is imported."""
    os.environ["PREFECT_CLIENT_MAX_RETRIES"] = "0"


def where_nobody_asks_again() -> Context:
    """Return a context in which Prefect's client does not ask again by itself; making one takes 40 ms."""
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        return copy_context()


def patiently(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns, asking again while the server is too busy to answer."""
    for pause in _pauses():
        try:
            return ask()
        except _busy() as error:
            if pause is None or not _is_busy(error):
                raise
            time.sleep(pause)
    raise AssertionError("there is always a last time")


async def patiently_async(ask: Callable[[], Awaitable[T]]) -> T:
    """Do what :func:`patiently` does."""
    for pause in _pauses():
        try:
            return await ask()
        except _busy() as error:
            if pause is None or not _is_busy(error):
                raise
            await asyncio.sleep(pause)
    raise AssertionError("there is always a last time")


def _pauses() -> Iterator[float | None]:
    until, pause = time.monotonic() + AT_MOST, SOON
    while time.monotonic() < until:
        yield pause * (0.5 + random.random())  # noqa: S311  # so that those who wait do not come back together
        pause = min(pause * 1.5, 1.0)
    yield None


def _busy() -> type[Exception]:
    from httpx import HTTPError

    return HTTPError


def _is_busy(error: Exception) -> bool:
    from httpx import HTTPStatusError, TransportError

    busy = isinstance(error, HTTPStatusError) and error.response.status_code in (429, 502, 503)
    return busy or isinstance(error, TransportError)
