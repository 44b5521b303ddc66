"""``codistill deploy`` and ``codistill serve``: specs registered with the configured Prefect server or Cloud."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...specs.document import Loaded
from ...specs.load import load_specs
from ...specs.problems import Problem, SpecError
from ...specs.schema import Spec
from ..check.holdings import refuse_wrong
from ..check.operating import now, of_others, of_pools, of_specs
from ..deployments import FLOW, Found, Wanted, find, register, wanted
from ..report.text import plural
from ..service import connected
from ..times import in_words, next_time
from ..watch import ensure_watch

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def deploy_command(names: list[str], overrides: list[str], runs: Path, dry_run: bool) -> None:
    """Register the specs called ``names``, each as one deployment; or only say what would change."""
    specs = _loaded(names, overrides)
    with connected() as (client, address):
        pools = {pool.name: pool for pool in client.read_work_pools()}
        _refuse(of_pools(specs, pools, address))
        made = [wanted(loaded, runs, pools[str(loaded.value.deploy.pool)].type) for loaded in specs]
        _apply(client, specs, made, dry_run)
        if dry_run:
            print(f"nothing was changed at {address}")
        else:
            ensure_watch(client, FLOW)


def serve_command(names: list[str], overrides: list[str], runs: Path, limit: int | None, dry_run: bool) -> None:
    """Register the specs called ``names`` and run what is due of them, from this process, until it is interrupted."""
    specs = _loaded(names, overrides)
    with connected() as (client, address):
        made = [wanted(loaded, runs, None) for loaded in specs]
        ids = _apply(client, specs, made, dry_run)
        if dry_run:
            print(f"nothing was changed at {address}")
            return
        ensure_watch(client, FLOW)
    print(f"serving {plural(len(made), 'deployment')} of {address}; Ctrl-C ends it and pauses them", flush=True)
    from ..serving import serve

    serve([(want.name, ids[want.name]) for want in made], limit)


def _loaded(names: list[str], overrides: list[str]) -> list[Loaded[Spec]]:
    """Return the specs, checked as far as that needs neither data nor a server; all mistakes of all of them at once."""
    specs: list[Loaded[Spec]] = []
    problems: list[Problem] = []
    for name in names:
        try:
            variants = load_specs(name, overrides)
            if len(variants) > 1:
                axes = ", ".join(variants[0].choices)
                message = f"a deployment runs one spec, and this is a sweep of {len(variants)} over {axes}"
                hint = f"deploy one of them: --set {next(iter(variants[0].choices))}=..."
                problems.append(Problem(variants[0].node.mark, "", message, hint))
                continue
            refuse_wrong(variants)
            specs += variants
        except SpecError as error:
            problems += error.problems
    _refuse([*problems, *of_specs(specs, now())])
    return specs


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise SpecError(problems)


def _apply(
    client: SyncPrefectClient, specs: Iterable[Loaded[Spec]], made: list[Wanted], dry_run: bool
) -> dict[str, Any]:
    """Make the server's deployments what is wanted and return their ids; say of each what became of it."""
    found = [find(client, want) for want in made]
    _refuse([p for loaded, want, one in zip(specs, made, found, strict=True) for p in of_others(loaded, want, one)])
    ids: dict[str, Any] = {}
    for want, one in zip(made, found, strict=True):
        _tell(want, one)
        if one.existing is not None:
            ids[want.name] = one.existing.id
        if one.status != "unchanged" and not dry_run:
            ids[want.name] = register(client, want)
    return ids


def _tell(want: Wanted, found: Found) -> None:
    print(f"{want.called}: {found.status}")
    for line in found.differences:
        print(f"  {line}")
    schedule = want.spec.schedule
    if found.existing is None:
        pool = want.fields["work_pool_name"]
        print(f"  pool: {pool}, queue {want.fields['work_queue_name']}" if pool else "  pool: none, it is served")
        print(f"  schedule: {in_words(schedule)}")
        print(f"  continue: {_continues(want.spec)}")
        print(f"  runs: {want.fields['parameters']['runs']}")
    if schedule is not None and not schedule.paused:
        due = next_time(schedule, now())
        print(f"  next run: {due.isoformat(timespec='seconds') if due is not None else 'never'}")


def _continues(spec: Spec) -> str:
    said = spec.continue_
    return said if isinstance(said, str) else f"from {said.run}"
