"""The federation of these tests, new for each."""

import pytest
from codistill.flows.sites import holdings
from codistill.specs.engine import COORDINATOR
from codistill.tests.sites.federation import Federation


@pytest.fixture
def federation(tmp_path, monkeypatch):
    monkeypatch.setenv("CODISTILL_HOME", str(tmp_path / "home" / COORDINATOR))
    holdings._TOLD.clear()
    return Federation(tmp_path, monkeypatch)
