"""The one place that imports DGL: late, and without a word on the terminal or a file in anybody's home.

DGL 2.1.0 is the newest that has wheels for Python 3.11 and 3.12, for CPUs alone. Two of its habits need care at import:
it takes a part of its own, GraphBolt, for granted that exists for torch up to 2.2 only (nothing here uses that part, so
an empty module stands in for it), and without being told its back end it asks, and writes the answer into the home.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

REMEDY = "pip install 'codistill[graphs]', or choose the back end torch, which computes the same"

_GRAPHBOLT = "dgl.graphbolt"
_lock = threading.Lock()


def lack_of_dgl() -> str | None:
    """Return a sentence that names the extra where DGL is not installed; None where it is. Does not import it."""
    return None if find_spec("dgl") else f"DGL is not installed: {REMEDY}"


def load_dgl() -> Any:
    """Return the module ``dgl``, imported at the first call (about two seconds). Safe to call from several threads.

    The environment is left as it was found. Raises ``ModuleNotFoundError`` that names the extra where DGL, or a
    package that it needs, is not installed.
    """
    with _lock:
        return sys.modules.get("dgl") or _imported()


def _imported() -> ModuleType:
    sys.modules.setdefault(_GRAPHBOLT, ModuleType(_GRAPHBOLT))
    before = dict(os.environ)
    os.environ["DGLBACKEND"] = "pytorch"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module("dgl")
    except ModuleNotFoundError as error:
        missing = "DGL" if error.name == "dgl" else f"the package {error.name}, which DGL needs,"
        raise ModuleNotFoundError(f"{missing} is not installed: {REMEDY}", name=error.name) from error
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
