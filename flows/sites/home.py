"""Where a person or machine keeps its key and, of each site, what is private: states, models, prepared data."""

from __future__ import annotations

import os
from pathlib import Path

from ..folder import RunFolder


def home() -> Path:
    """Return the folder of the key: $CODISTILL_HOME, else ``~/.codistill``."""
    return Path(os.environ.get("CODISTILL_HOME", "~/.codistill")).expanduser()


def site_folder(site: str) -> Path:
    """Return where the site keeps what is private."""
    return home() / "sites" / site


def private_folder(site: str, run: str) -> RunFolder:
    """Return the site's own folder of a run."""
    return RunFolder(site_folder(site) / "runs" / run)
