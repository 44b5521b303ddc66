"""``codistill run``: everything slow begins at once, and training as soon as it can."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from ...specs.document import Loaded
from ...specs.load import load_specs
from ...specs.schema import Spec
from .. import server
from ..check.holdings import checked_holdings, refuse_wrong
from ..drive import doing, run_plainly
from ..engines import one_engine, open_engine
from ..launch import Ready, launch_loaded, workers_of
from ..live import Progress, choose
from ..lock import locked
from ..pool import Pool
from ..report.text import bytes_text, is_share, value_text


def run_command(
    name: str, overrides: list[str], runs: Path, into: Path | None, without_prefect: bool, quiet: bool
) -> None:
    """Run the spec called ``name`` in all its variants; ``SpecError`` before anything runs where it is wrong."""
    for one in conduct(load_specs(name, overrides), runs, into, without_prefect, quiet):
        _tell(one, quiet)


def conduct(
    variants: list[Loaded[Spec]],
    runs: Path,
    into: Path | None,
    without_prefect: bool,
    quiet: bool,
    titles: Sequence[str] = (),
) -> Iterator[Ready]:
    """Run ``variants`` one after another and yield each when it is done; ``titles`` are told before each begins.

    Raises ``SpecError`` before anything runs where any of them is wrong.
    """
    server.apply_settings()
    if into is not None and len(variants) > 1:
        _refuse(f"--into names one folder, and the sweep has {len(variants)} runs")
    refuse_wrong(variants)
    # The three slow things start side by side: Prefect's server, the workers' torch, and (here) the data.
    with _server(without_prefect) as embedded, _workers(variants) as pool:
        checked_holdings(variants, runs)
        ready = [_launched(variant, runs, into) for variant in variants]
        if not without_prefect:
            from .. import flow  # noqa: F401  # imports Prefect while its server starts

            if embedded is not None:
                embedded.wait()
        for one, title in zip_longest(ready, titles):
            with locked(one.folder.path), contextlib.closing(choose(quiet=quiet)) as progress:
                if title is not None:
                    progress.note(title)
                if without_prefect:
                    plainly(one, pool, progress)
                else:
                    _with_prefect(one, runs, pool, progress, embedded is not None)
            yield one


def _launched(loaded: Loaded[Spec], runs: Path, into: Path | None) -> Ready:
    try:
        return launch_loaded(loaded, runs, into)
    except FileExistsError as error:
        _refuse(str(error))


def _refuse(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def _server(without_prefect: bool) -> Iterator[server.EmbeddedServer | None]:
    if without_prefect or server.configured():
        yield None
        return
    embedded = server.EmbeddedServer()
    try:
        yield embedded
    finally:
        embedded.stop()


@contextlib.contextmanager
def _workers(variants: list[Loaded[Spec]]) -> Iterator[Pool]:
    engine = one_engine(variant.value.engine for variant in variants)
    pool = open_engine(engine, max(workers_of(variant.value) for variant in variants))
    try:
        yield pool
    finally:
        pool.close()


def plainly(ready: Ready, pool: Pool, progress: Progress) -> None:
    """Do a run and its control without Prefect, by the same functions."""
    for part in ready.left:
        with doing(part, ready, pool, progress) as session:
            run_plainly(session, progress)


def _with_prefect(ready: Ready, runs: Path, pool: Pool, progress: Progress, embedded: bool) -> None:
    from ..flow import given, run_spec
    from ..records import wait_for_records

    spec = str(ready.folder.spec)
    with given(spec, pool, progress) as lent:
        state = run_spec(spec, runs=str(runs), into=str(ready.folder.path), return_state=True)
    state.result()
    if embedded and state.state_details.flow_run_id is not None:
        wait_for_records(state.state_details.flow_run_id, lent.task_runs)


def _gain(value: float, metric: str) -> str:
    return f"{100 * value:+.1f} points" if is_share(metric) else f"{value:+.3f}"


def _tell(ready: Ready, quiet: bool) -> None:
    if quiet:
        print(ready.folder.path)
        return
    found = json.loads(ready.folder.summary.read_text(encoding="utf-8"))
    metric = found["metric"] if found["accuracy"] is not None else "accuracy"
    gain = "" if found["gain_mean"] is None else f", {_gain(found['gain_mean'], metric)} over learning alone"
    worst = value_text(found["accuracy_worst"], metric)
    print(f"{metric} {value_text(found['accuracy'], metric)} (worst agent {worst}){gain}")
    print(f"{bytes_text(found['bytes'])} in {found['packets']} packets")
    print(f"{ready.folder.path / 'report.html'}")
