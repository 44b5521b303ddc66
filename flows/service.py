"""The configured Prefect server or Cloud: reached, or said in one sentence why not and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import server

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PATIENCE = 15
"""Seconds that a server may take for an answer to the first question."""


class ServiceError(RuntimeError):
    """The server cannot be used; the sentence says why and what to do."""


@contextmanager
def connected() -> Iterator[tuple[SyncPrefectClient, str]]:
    """Lend a client of the configured server, and the server's address without what is secret in it.

    Raises ``ServiceError`` where none is configured, it is down, slow, of another version or no Prefect server, or
    where it refuses the key.
    """
    if not server.configured():
        raise ServiceError(
            "no Prefect server is configured; start one with `codistill server start` and say "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`, or use Cloud with `prefect cloud login`"
        )
    server.apply_settings()
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    address = str(settings.api.url).rstrip("/")
    shown = str(httpx.URL(address).copy_with(username=None, password=None))
    _probe(address, shown, settings)
    try:
        with get_client(sync_client=True) as client:
            yield client, shown
    except PrefectHTTPStatusError as error:
        raise ServiceError(f"{shown} refused ({_refusal(error.response)})") from None
    except httpx.HTTPError as error:
        raise ServiceError(f"{shown} went away ({_cause(error)}); do the same again, nothing is half done") from None


def _probe(address: str, shown: str, settings: Any) -> None:
    """Ask what any server answers, by hand: Prefect's client tries for a minute before it says anything."""
    import httpx
    from prefect import __version__ as ours

    key, pair = settings.api.key, settings.api.auth_string
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    auth = httpx.BasicAuth(*pair.get_secret_value().partition(":")[::2]) if pair else None
    cloud = address.startswith(str(settings.cloud.api_url))
    try:
        with httpx.Client(headers=headers, auth=auth, timeout=PATIENCE, follow_redirects=True) as client:
            answer = client.post(f"{address}/deployments/count", json={})
            theirs = None if cloud or answer.status_code != 200 else client.get(f"{address}/admin/version").json()
            counted = answer.json() if answer.status_code == 200 else None
    except httpx.TimeoutException:
        raise ServiceError(
            f"{shown} did not answer within {PATIENCE} s; see whether it is overloaded, and try again"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(
            f"nothing answers at {shown} ({_cause(error)}); start the server with `codistill server start`, or correct "
            "PREFECT_API_URL"
        ) from None
    except ValueError:
        counted = theirs = None
    if answer.status_code in (401, 403):
        what = (
            "PREFECT_API_KEY, or log in again with `prefect cloud login`" if cloud or key else "PREFECT_API_AUTH_STRING"
        )
        raise ServiceError(f"{shown} refuses the key ({answer.status_code}); correct {what}")
    if not isinstance(counted, int):
        raise ServiceError(
            f"what answers at {shown} is no Prefect server ({answer.status_code}); its address ends in /api: correct "
            "PREFECT_API_URL"
        )
    there, here = _series(str(theirs)), _series(ours)
    if not cloud and (there < here or there[0] != here[0]):
        raise ServiceError(
            f"{shown} runs Prefect {theirs}, and this is Prefect {ours}; start a server of {ours} or a later 3.x"
        )


def _series(version: str) -> tuple[int, int]:
    parts = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:2]]
    return (parts[0], parts[1]) if len(parts) == 2 else (0, 0)


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refusal(response: Any) -> str:
    try:
        said = response.json()
    except ValueError:
        said = response.text
    detail = said.get("detail") or said.get("exception_detail") or said if isinstance(said, dict) else said
    return f"{response.status_code}: {str(detail)[:300]}"
