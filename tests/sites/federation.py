"""Three hospitals without a server: desks in this process, each with a home and a folder of data of its own."""

import shutil
import threading
from contextlib import contextmanager

import pytest
from codistill.flows.drive import run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here, SiteAwayError
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.flows.sites import holdings
from codistill.flows.sites.desk import Desk
from codistill.flows.sites.keys import own_key
from codistill.flows.sites.line import Line
from codistill.flows.sites.pool import SitePool
from codistill.specs.engine import COORDINATOR
from codistill.specs.load import load_specs
from codistill.tests.finishing import finish_without_report
from codistill.tests.sites.hospitals import HOSPITALS, PUBLIC, SHARED, SPEC

LOCK = threading.Lock()


class DirectLine(Line):
    """A line to desks in this process. ``asked``: every request; ``before``: called with (site, name) before each."""

    def __init__(self, engine, federation):
        self._engine, self.federation = engine, federation
        self._key_file = federation.home / COORDINATOR / "key.json"
        self._keys = {COORDINATOR: own_key(federation.home / COORDINATOR).public, **engine.sites}
        self.asked, self.gone = [], set()

    def have_answered(self, site, run, name, title):
        self.asked.append((site, title))
        self.federation.before(site, title)
        if site in self.federation.dark:
            self.gone.add(site)
            raise SiteAwayError(site, f"nothing was heard of the site {site} for 10s (engine.wait)")
        with LOCK, self.federation.at(site):  # one process stands for several: one thing at a time
            self.federation.desk(site).answer(run, name)
        return self.federation.lost.pop(site, None)

    def away(self):
        self.gone &= self.federation.dark
        return frozenset(self.gone)

    def close(self):
        pass


class Federation:
    """Three hospitals and a coordinator under one folder: homes, data, the shared store and the runs."""

    def __init__(self, base, patch=None):
        """``patch``: what changes the line to sites for one within this process; None where there is a server."""
        self.base = base
        self.home, self.data, self.store, self.runs = (base / name for name in ("home", "data", "store", "runs"))
        self.store.mkdir(parents=True)
        for site, file in HOSPITALS.items():
            (self.data / site).mkdir(parents=True)
            shutil.copyfile(SHARED / file, self.data / site / "heart.csv")
        (self.data / COORDINATOR).mkdir()
        for place in (*HOSPITALS, COORDINATOR):
            shutil.copyfile(SHARED / PUBLIC, self.data / place / "public.csv")
        self.keys = {site: own_key(self.home / site).public for site in HOSPITALS}
        self.coordinator = own_key(self.home / COORDINATOR).public
        self.desks, self.dark, self.lost, self.shares = {}, set(), {}, {}
        self.before = lambda site, title: None
        self.lines = []
        if patch is not None:
            patch.setattr(holdings, "Line", self.line)

    @contextmanager
    def at(self, site):
        """Be at a site: its home is the one that code sees."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CODISTILL_HOME", str(self.home / site))
            yield

    def desk(self, site):
        if site not in self.desks:
            key = own_key(self.home / site)
            self.desks[site] = Desk(
                site,
                self.data / site,
                str(self.store),
                self.coordinator,
                key,
                self.home / site,
                self.shares.get(site),
                workers=Here(),
            )
        return self.desks[site]

    def line(self, engine):
        self.lines.append(DirectLine(engine, self))
        return self.lines[-1]

    def spec(self, *overrides, text=SPEC):
        path = self.base / "spec.yaml"
        keys = "\n".join(f"    {site}: {key}" for site, key in self.keys.items())
        for mark, value in {"store": self.store, "keys": keys, "root": self.data / COORDINATOR}.items():
            text = text.replace(f"@{mark}@", str(value))
        path.write_text(text, encoding="utf-8")
        (loaded,) = load_specs(str(path), list(overrides))
        return loaded

    def launch(self, *overrides, text=SPEC):
        return launch(self.spec(*overrides, text=text).value, self.runs)

    def run(self, *overrides, text=SPEC, notes=None):
        holdings._TOLD.clear()
        loaded = self.spec(*overrides, text=text)
        ready = launch(loaded.value, self.runs)
        pool = SitePool(loaded.value.engine, self.line(loaded.value.engine), Here())
        session = open_session(ready.folder, pool)
        progress = SilentProgress()
        if notes is not None:
            progress.note = notes.append
        run_plainly(session, progress)
        pool.finish()
        finish_without_report(ready.folder, session.plan)
        return ready.folder
