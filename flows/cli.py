"""The command line. Each command is a few lines over the modules that do the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

from ..specs.problems import SpecError

app = typer.Typer(
    name="codistill",
    help="Knowledge distillation between learners that cannot pool their data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SpecName = Annotated[str, typer.Argument(metavar="SPEC", help="a YAML file, or a shipped spec such as fl/fedmd")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--set", metavar="PATH=VALUE", help="override a value; a list where a value stood makes a sweep"),
]
Runs = Annotated[Path, typer.Option("--runs", help="the folder of run folders")]


@app.command()
def run(
    spec: SpecName,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    into: Annotated[Optional[Path], typer.Option(help="the run's folder, instead of one named after the spec")] = None,  # noqa: UP045
    workers: Annotated[Optional[int], typer.Option(min=1, help="worker processes; one a core if not said")] = None,  # noqa: UP045
    engine: Annotated[Optional[str], typer.Option(metavar="KIND", help="local, dask or ray")] = None,  # noqa: UP045
    without_prefect: Annotated[bool, typer.Option("--without-prefect", help="run by the same functions alone")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the run folders alone")] = False,
) -> None:
    """Run a spec. The same command goes on with a run that was interrupted."""
    from .commands.run import run_command

    said = [*(overrides or []), *([f"engine.kind={engine}"] if engine else [])]
    said += [f"engine.workers={workers}"] if workers else []
    try:
        run_command(spec, said, runs, into, without_prefect, quiet)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from the last finished round", 130)


@app.command()
def ablate(
    spec: SpecName,
    memories: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--memory",
            metavar="NAME[=LEFT]",
            help="a memory, and what is left of it: empty, half, or a share such as 0.1; not said: each, both ways",
        ),
    ] = None,
    overrides: Overrides = None,
    rounds: Annotated[Optional[int], typer.Option(min=1, help="as --set rounds=...")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    workers: Annotated[Optional[int], typer.Option(min=1, help="worker processes; one a core if not said")] = None,  # noqa: UP045
    without_prefect: Annotated[bool, typer.Option("--without-prefect", help="run by the same functions alone")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print the folder of the comparison alone")] = False,
) -> None:
    """Tell what each memory is worth: the same run with it emptied or halved, side by side."""
    from .commands.ablate import ablate_command

    said = [*(overrides or []), *([f"rounds={rounds}"] if rounds else [])]
    said += [f"engine.workers={workers}"] if workers else []
    try:
        ablate_command(spec, said, memories or [], runs, without_prefect, quiet)
    except KeyboardInterrupt:
        _end("interrupted; the same command goes on from the last finished round", 130)


Specs = Annotated[list[str], typer.Argument(metavar="SPEC...", help="YAML files, or shipped specs")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would change")]


@app.command()
def deploy(specs: Specs, overrides: Overrides = None, runs: Runs = Path("runs"), dry_run: DryRun = False) -> None:
    """Register specs with the configured Prefect server or Cloud, to run by schedule or by hand on a work pool."""
    from .commands.deploy import deploy_command

    deploy_command(specs, overrides or [], runs, dry_run)


@app.command()
def serve(
    specs: Specs,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    limit: Annotated[Optional[int], typer.Option(min=1, help="runs at once")] = 1,  # noqa: UP045
    dry_run: DryRun = False,
) -> None:
    """Register specs and run what is due of them from this process, without a work pool, until interrupted."""
    from .commands.deploy import serve_command

    serve_command(specs, overrides or [], runs, limit, dry_run)


@app.command()
def plan(spec: SpecName, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Show what a spec compiles into, without training: agents, stages, task runs, predicted bytes, memory held."""
    from .commands.plan import plan_command

    plan_command(spec, overrides or [], runs)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders; seeds of one spec are pooled")],
    html: Annotated[Optional[Path], typer.Option(help="also write a page")] = None,  # noqa: UP045
    markdown: Annotated[bool, typer.Option("--markdown", help="print a Markdown table")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare runs: accuracy with confidence over seeds, gain over the control, bytes, paired differences."""
    from .commands.compare import compare_command

    compare_command(folders, html, markdown, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
    beside: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="RUN", help="another run, to show what each agent gained over it"),
    ] = None,
) -> None:
    """Write report.html again."""
    from .report.write import write_report

    print(write_report(folder, beside))


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="recipes, specs, operations, memories, filters, ...")],
) -> None:
    """Name what can be said, one a line with its sentence."""
    from .commands.list import list_command

    list_command(what)


@app.command()
def schema(
    check: Annotated[Optional[Path], typer.Option(help="fail unless this file holds the schema")] = None,  # noqa: UP045
) -> None:
    """Print the JSON Schema of specs, for editors."""
    from ..specs.json_schema import json_schema

    text = json.dumps(json_schema(), indent=1)
    if check is not None:
        if not check.is_file():
            _end(f"there is no file {check}")
        if check.read_text(encoding="utf-8").rstrip("\n") != text:
            _end(f"{check} is not what `codistill schema` prints; write it again")
        return
    print(text)


server = typer.Typer(help="A local Prefect server that is kept; see docs/operations.md.", no_args_is_help=True)
app.add_typer(server, name="server")


@server.command("start")
def server_start(
    host: Annotated[str, typer.Option(help="the address to listen at")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 4200,
) -> None:
    """Start it, with the settings that runs need, and return when it answers."""
    from .commands.server import start_command

    start_command(host, port)


@server.command("stop")
def server_stop() -> None:
    """Stop it; what it recorded is kept."""
    from .commands.server import stop_command

    stop_command()


@server.command("status")
def server_status() -> None:
    """Say where it is, since when, how large its database is and what runs; status 1 where there is none."""
    from .commands.server import status_command

    status_command()


site = typer.Typer(help="Runs between organisations; see docs/operations.md.", no_args_is_help=True)
app.add_typer(site, name="site")


@site.command("key")
def site_key() -> None:
    """Print this user's public key, for specs and for `site join`; it is made where there is none."""
    from .commands.site import key_command

    key_command()


@site.command("join")
def site_join(
    pool: Annotated[str, typer.Option(help="the site's name, that of its work pool and in specs")],
    data: Annotated[Path, typer.Option(help="the folder of this site's data; nothing in it leaves")],
    store: Annotated[str, typer.Option(help="the folder or fsspec URL that all sites reach, as it is called here")],
    coordinator: Annotated[str, typer.Option(help="the coordinator's public key, as its `site key` prints it")],
    share: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="a form of knowledge that may leave, such as logits; not said: whatever a spec asks for"),
    ] = None,
    limit: Annotated[float, typer.Option(min=0, help="MB that one letter may have")] = 256,
) -> None:
    """Be a site: do stages for the agents that live here, until interrupted."""
    from .commands.site import join_command

    join_command(pool, data, store, coordinator, share or [], limit)


bench = typer.Typer(help="Measure; see docs/benchmarks.md and docs/kernels.md.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command(
    "kernels",
    add_help_option=False,  # --help is answered by the benchmark, which also runs without this command line
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def bench_kernels(context: typer.Context) -> None:
    """Check and time the kernels against eager torch, torch.compile and others; ``compare A.csv B.csv`` compares."""
    from ..kernels.bench.cli import main as measure

    raise SystemExit(measure(context.args))


def _end(sentence: str, status: int = 2) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(status)


def main() -> None:
    """Run the command line: 0 done, 1 failed, 2 wrong input (one sentence a mistake), 130 interrupted."""
    try:
        app()
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except Exception as error:
        said = _said(error)
        if said is None:
            raise
        _end(*said)


def _said(error: Exception) -> tuple[str, int] | None:
    """Return the sentence and the status for what can go wrong; None for what cannot, which is a bug."""
    from ..tasks.trackers import TrackerError
    from .engines import EngineError
    from .faults import storage_fault
    from .lock import InUseError
    from .pool import SiteAwayError, StageError, StorageError, WorkerDiedError
    from .report.reading import NotARunError
    from .server import ServerError
    from .service import ServiceError
    from .shared_store import SharedStoreError
    from .sites.keys import KeyFileError
    from .sites.letter import LetterRefusedError

    if isinstance(error, (SpecError, EngineError, TrackerError, NotARunError, KeyFileError)):
        return str(error), 2
    if isinstance(error, InUseError):
        return f"{error}; wait until it is done, or end it: two never share a folder", 2
    fault = str(error) if isinstance(error, StorageError) else storage_fault(error)
    if fault is not None:
        return f"what is made cannot be written ({fault}); when it can, the same command goes on from the last round", 1
    if isinstance(error, StageError):
        return f"a stage failed in a worker: {error}", 1
    if isinstance(error, WorkerDiedError):
        return f"{error}, again and again; the same command goes on from the last finished round", 1
    if isinstance(error, SiteAwayError):
        return f"{error}; the same command goes on from the last finished round", 1
    if isinstance(error, (ServerError, ServiceError, SharedStoreError, LetterRefusedError)):
        return str(error), 1
    return None


if __name__ == "__main__":
    main()
