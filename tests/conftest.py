"""One thread everywhere: the same sums in the same order, and two cores for whoever else is at work."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

LONG = (
    "golden/test_golden.py",
    "operations/test_sites.py",
    "operations/test_deploy.py",
    "kernels/test_build.py",
    "flows/test_resume.py",
    "flows/test_memory_resume.py",
    "kernels/test_interpreter.py",
    "flows/test_engines.py",
    "flows/test_mirror.py",
    "flows/test_faults.py",
    "flows/test_prefect.py",
)
"""Files that take minutes, longest first. They begin first, so that no core waits for the last of them at the end, and
those that wait for a server or a clock run beside those that compute."""


def pytest_collection_modifyitems(items):
    """Put long files first; all else stays in order."""
    here = Path(__file__).parent
    place = {here / name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))
