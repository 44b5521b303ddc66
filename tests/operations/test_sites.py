"""Three hospitals as processes of three users, each with its own data, a real server, and one that is killed."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from codistill.flows.folder import RunFolder
from codistill.flows.left_out import read_left_out
from codistill.flows.sites.keys import own_key
from codistill.specs.engine import COORDINATOR
from codistill.tests.operations.conftest import until
from codistill.tests.sites.federation import Federation
from codistill.tests.sites.hospitals import HOSPITALS, SPEC
from codistill.tests.sites.leaks import leaks
from codistill.tests.sites.together import in_one_place, rows

SAID = ("rounds=5", "engine.wait=30s", "engine.keep=true", "agents[1].count=1")
"""A site that is started again has to be there within the time that it is waited for, on a slow machine too."""
PACKAGES = next(path for path in map(Path, sys.path) if path.name == "site-packages")


def python_of_others(base, uid):
    """Return a Python that the user ``uid`` can run and that finds codistill; None where there is none."""
    if os.geteuid() != 0:
        return None
    (base / "packages").mkdir()
    (base / "packages" / "sitecustomize.py").write_text(f"import site\nsite.addsitedir({str(PACKAGES)!r})\n")
    for python in (
        sys.executable,
        shutil.which("python3.11", path="/usr/bin"),
        shutil.which("python3.12", path="/usr/bin"),
    ):
        said = {"PYTHONPATH": str(base / "packages"), "HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(python), "-c", "import codistill.flows.cli, torch"]
        try:
            done = subprocess.run(command, env=said, user=uid, group=uid, extra_groups=[], capture_output=True)
            if done.returncode == 0:
                return python
        except OSError:
            continue
    return None


class Sites:
    """The processes of the sites, by name."""

    def __init__(self, federation, url):
        self.federation, self.url = federation, url
        unused = max(20_000, *(one.pw_uid for one in pwd.getpwall() if one.pw_uid < 60_000)) + 1
        self.users = dict(zip(HOSPITALS, range(unused, unused + len(HOSPITALS)), strict=True))
        self.python = python_of_others(federation.base, unused)
        self.processes, self.logs = {}, {}
        for site, uid in self.users.items():
            for folder in (federation.home / site, federation.data / site):
                if self.python is not None:
                    for path in (folder, *folder.rglob("*")):
                        os.chown(path, uid, uid)
                folder.chmod(0o700)

    def join(self, site):
        home = self.federation.home / site
        said = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        said |= {"CODISTILL_HOME": str(home), "PREFECT_HOME": str(home / "prefect"), "HOME": str(home)}
        said |= {"PREFECT_API_URL": self.url, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        who = {}
        if self.python is not None:
            said |= {"PYTHONPATH": str(self.federation.base / "packages"), "PYTHONDONTWRITEBYTECODE": "1"}
            who = {"user": self.users[site], "group": self.users[site], "extra_groups": []}
        self.logs[site] = self.federation.base / f"{site}.log"
        words = ["--pool", site, "--data", self.federation.data / site, "--store", self.federation.store]
        with self.logs[site].open("ab") as log:
            self.processes[site] = subprocess.Popen(
                [self.python or sys.executable, "-m", "codistill.flows.cli", "site", "join", *map(str, words)]
                + ["--coordinator", self.federation.coordinator],
                env=said,
                cwd=home,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **who,
            )

    def joined(self):
        for site, log in self.logs.items():
            until(lambda log=log: b"has joined" in log.read_bytes(), 120, lambda log=log: log.read_text())
            assert self.processes[site].poll() is None

    def kill(self, site):
        """Kill a site's process and its worker, as a power cut would."""
        with os.scandir("/proc") as every:
            pids = [int(one.name) for one in every if one.name.isdecimal()]
        for pid in pids:
            try:
                if os.getsid(pid) == self.processes[site].pid or pid in self.children(site):
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.processes[site].wait()

    def children(self, site):
        found = Path(f"/proc/{self.processes[site].pid}/task/{self.processes[site].pid}/children")
        return {int(pid) for pid in found.read_text().split()} if found.exists() else set()


@pytest.fixture(scope="module")
def sites(server):
    """A federation whose folders other users can pass through, and its sites, which have joined."""
    base = Path(tempfile.mkdtemp(prefix="codistill-sites-"))
    base.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODISTILL_HOME", str(base / "home" / COORDINATOR))
        made = Sites(Federation(base), server.url)
        made.federation.store.chmod(0o1777)
        for site in HOSPITALS:
            made.join(site)
        made.joined()
        yield made
    for site in HOSPITALS:
        made.kill(site)
    shutil.rmtree(base)


@contextmanager
def coordinator(sites, environment, *said):
    """Begin the run as the command line does; lend the process and a function that waits for a line of its progress."""
    sites.federation.spec(*said)
    path, log = sites.federation.base / "spec.yaml", sites.federation.base / "coordinator.log"
    overrides = [word for one in said for word in ("--set", one)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "codistill.flows.cli",
                "run",
                str(path),
                "--runs",
                str(sites.federation.runs),
                *overrides,
            ],
            env=environment | {"CODISTILL_HOME": str(sites.federation.home / COORDINATOR)},
            stdout=out,
            stderr=out,
        )

    def line(text, seconds=300):
        until(lambda: text in log.read_text() or process.poll() is not None, seconds, log.read_text)
        assert text in log.read_text(), log.read_text() + "".join(one.read_text() for one in sites.logs.values())

    try:
        yield SimpleNamespace(process=process, line=line, log=log)
    finally:
        process.kill()
        process.wait()


def test_a_run_on_three_sites_with_a_kill_in_the_middle(sites, environment):
    federation = sites.federation
    with coordinator(sites, environment, *SAID) as run:
        run.line("round 1/")
        for site in ("hungarian", "va"):  # in the middle of round 2, or between two of its stages
            sites.kill(site)
        sites.join("hungarian")  # and the other is away for longer than the spec waits
        run.line("goes on without it")
        sites.join("va")
        run.line("report.html")
        assert run.process.wait(60) == 0
    (path,) = federation.runs.glob("hospitals-*")
    folder = RunFolder(path)
    assert folder.info()["status"] == "finished"
    left_out = read_left_out(folder)
    assert set(left_out) and all(places == (2,) for places in left_out.values()) and min(left_out) >= 2
    lines = [row for row in rows(folder, "ledger") if row["status"] == "left out"]
    assert {row["round"] for row in lines} == set(left_out) and {row["from"] for row in lines} == {"va"}
    together = in_one_place(federation, *SAID, left_out=left_out)
    assert rows(folder, "metrics") == rows(together, "metrics"), "a kill changes nothing, and who is away is away"
    federation.said = federation.spec(*SAID).value.model_dump(mode="json", by_alias=True)
    assert leaks(federation, folder, Path(environment["PREFECT_HOME"])) == []


def test_the_sites_are_users_who_cannot_read_each_other(sites):
    if sites.python is None:
        pytest.skip("this user cannot start processes of others, or there is no Python that others could run")
    for site, uid in sites.users.items():
        others = [other for other in HOSPITALS if other != site]
        for other in others:
            for folder in (sites.federation.data / other, sites.federation.home / other):
                done = subprocess.run(["ls", str(folder)], user=uid, group=uid, extra_groups=[], capture_output=True)
                assert done.returncode != 0 and b"Permission denied" in done.stderr
        assert Path(f"/proc/{sites.processes[site].pid}").stat().st_uid == uid
        written = [path for path in (sites.federation.store / site).rglob("*") if path.is_file()]
        assert written and {path.stat().st_uid for path in written} == {uid}


def test_a_site_is_seen_at_the_server(sites, server):
    pools = {one["name"]: one["type"] for one in server.ask("work_pools/filter")}
    assert {pools[site] for site in HOSPITALS} == {"codistill-site"}
    runs = server.ask("flow_runs/filter", flow_runs={"tags": {"all_": ["codistill-site"]}}, limit=200)
    assert any(one["name"].startswith("hospitals, round 3: ") for one in runs)
    assert {key for one in runs for key in one["parameters"]} == {"run", "request"}


def test_what_is_no_site(sites, codistill, server, place):
    """A pool of another type, a key that is none, a folder that is not there: a sentence each."""
    server.ask("work_pools/", name="processes", type="process")
    said = [
        "--store",
        str(sites.federation.store),
        "--coordinator",
        own_key(sites.federation.home / COORDINATOR).public,
    ]
    done = codistill("site", "join", "--pool", "processes", "--data", str(place), *said)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "the work pool processes is of type process, a site's is of type codistill-site; take another name\n"
    )
    done = codistill("site", "join", "--pool", "x", "--data", "nowhere", *said[:3], "mine", "--share", "logitz")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "--data: there is no folder nowhere",
        "--coordinator: expected a public key as `codistill site key` prints it, ed25519: and 44 letters of base64",
        "--share: unknown form 'logitz'; did you mean 'logits'?",
    ]


def test_a_site_that_never_joined_is_waited_for_and_named(sites, codistill):
    text = SPEC.replace("va", "nobody")
    federation = sites.federation
    federation.keys["nobody"] = federation.keys["va"]
    del federation.keys["va"]
    federation.spec("engine.wait=10s", text=text)
    done = codistill("run", str(federation.base / "spec.yaml"), "--runs", "nobody", "--set", "engine.wait=10s", "-q")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "nothing was heard of the site nobody for 10s (engine.wait); "
        "the same command goes on from the last finished round\n"
    )
