"""The flow of deployments: a run of the spec that stands in its parameter, for schedules and for people at the UI."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy
from prefect.context import get_run_context
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.timeout import timeout

from ..specs.document import Loaded
from ..specs.durations import written
from ..specs.load import load_mapping, without_lines
from ..specs.problems import SpecError
from ..specs.schema import Spec
from .check.holdings import checked_holdings
from .conditions import why_not_now
from .engines import open_engine
from .flow import do_run
from .form import AsSpec
from .launch import launch_loaded, workers_of
from .live import SilentProgress
from .lock import locked
from .missed import skipped, why_skipped

ENTRYPOINT = f"{__name__}.run_deployed"
"""What deployments are registered by: a module and a name in it, never a file."""


def _run_name() -> str:
    said = get_run_context().flow_run.parameters.get("spec")  # type: ignore[union-attr]
    return str(said.get("name", "codistill")) if isinstance(said, dict) else "codistill"


@flow(
    name="codistill",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(),  # type: ignore[arg-type]
    persist_result=False,
    log_prints=False,
)
def run_deployed(spec: Annotated[dict[str, Any], AsSpec()], runs: str = "runs") -> Any:
    """Run ``spec``, and each variant where it is a sweep, with run folders in ``runs``; return the run folders.

    A wrong spec is refused with the sentences of the command line before anything else happens. A run that was due
    while nobody ran it is done or skipped as the spec's schedule says.
    """
    try:
        return _run(load_mapping(spec), Path(runs))
    except SpecError as error:
        return Failed(name="Refused", message=str(without_lines(error)))


def _run(variants: list[Loaded[Spec]], runs: Path) -> Any:
    said, run = variants[0].value, get_run_context().flow_run  # type: ignore[union-attr]
    with get_client(sync_client=True) as client:
        reason = why_skipped(client, run, said.schedule)
        if reason is not None:
            return skipped(reason)
        holdings = checked_holdings(variants, runs)
        if run is not None and run.auto_scheduled:
            reason = why_not_now(said, holdings[0], runs)
            if reason is not None:
                return skipped(reason)
        if run is not None and said.deploy.retries:  # only from here on: doing a wrong spec again would not right it
            policy = FlowRunPolicy(retries=said.deploy.retries, retry_delay=round(said.deploy.retry_delay))
            client.update_flow_run(run.id, empirical_policy=policy)
    with nullcontext() if said.deploy.timeout is None else _Bounded(said.deploy.timeout):
        return [str(_done(loaded, runs)) for loaded in variants]


def _done(loaded: Loaded[Spec], runs: Path) -> Path:
    log, ready = get_run_logger(), launch_loaded(loaded, runs)
    info, where, committed = ready.folder.info(), ready.folder.path, ready.folder.committed()
    if info.get("status") == "finished":
        log.info("%s is finished and nothing that matters changed since: there is nothing to do", where)
        return where
    begun = "begins" if committed < 0 else f"goes on after round {committed}"
    origin = f", from what {info['continues']['run']} left" if "continues" in info else ""
    log.info("%s %s%s", where, begun, origin)
    with locked(where), closing(open_engine(loaded.value.engine, workers_of(loaded.value))) as pool:
        do_run(ready, pool, SilentProgress())
    log.info("%s is finished; its report is %s", where, where / "report.html")
    return where


class _Bounded:
    """Prefect's own time limit, which belongs to a flow and not to a deployment, with a sentence of ours."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._inner = seconds, timeout(seconds=seconds)

    def __enter__(self) -> None:
        self._inner.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._inner.__exit__(kind, error, trace)
        except TimeoutError:
            limit = written(self._seconds)
            sentence = f"longer than deploy.timeout, {limit}; a retry or the next run goes on from the last round done"
            raise TimeoutError(sentence) from None
