"""C++ sources that lie here, compiled when first needed, and threads to call them in.

A compilation takes seconds. It is kept in the user's cache, under a name that tells source, compiler and processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import math
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from . import compiled

OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-shared", "-fPIC")

_LOG = logging.getLogger(__name__)
_Made = TypeVar("_Made")


def library(source: Path) -> tuple[ctypes.CDLL | None, str]:
    """Return the functions of ``source`` and "", or None and why there are none."""
    compiler = shlex.split(compiled.compiler())
    try:
        text = source.read_bytes()
        # All macros of the compiler: its version, and what instructions the processor has.
        macros = _run([*compiler, "-march=native", "-dM", "-E", "-x", "c++", os.devnull])
        name = hashlib.sha256(b"\0".join([text, macros, *map(str.encode, OPTIONS)])).hexdigest()[:32]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codistill" / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = folder / f"{name}.so"
        if not made.exists():
            _LOG.info("compiling %s, once a machine; %s=0 avoids it", source.name, compiled.VARIABLE)
            with tempfile.TemporaryDirectory(dir=folder) as there:
                fresh = Path(there) / made.name
                _run([*compiler, *OPTIONS, str(source), "-o", str(fresh)])
                fresh.replace(made)  # at once: another process sees all of it or nothing
        return ctypes.CDLL(str(made)), ""
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _LOG.warning("codistill.kernels: %s was not compiled, and torch does its work: %s", source.name, error)
        return None, f"compiling {source.name} failed ({type(error).__name__})"


def in_threads(do: Callable[[int, int], _Made], count: int, block: int) -> list[_Made]:
    """Call ``do(first, last)`` for parts of ``count`` that begin at multiples of ``block``, in torch's many threads."""
    threads = torch.get_num_threads()
    step = math.ceil(math.ceil(count / block) / (1 if threads == 1 else 4 * threads)) * block
    parts = [(first, min(first + step, count)) for first in range(0, count, step)]
    if threads == 1 or len(parts) == 1:
        return [do(*part) for part in parts]
    # The calls let go of Python's lock. OpenMP's threads would wait for each other at every block.
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda part: do(*part), parts))


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
