"""The rows of a measurement, where they came from, and the CSV that keeps them."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("codistill", "torch", "triton", "liger-kernel", "faiss-cpu", "faiss-gpu")


@dataclass(frozen=True)
class Row:
    """What a provider of an operation took at a shape. Numbers are NaN where there are none."""

    date: str
    commit: str
    device: str
    versions: str
    threads: int
    operation: str
    shape: str
    dtype: str
    provider: str
    rounds: int
    median_ms: float
    p20_ms: float
    p80_ms: float
    times_eager: float
    """How many times faster than eager torch: the median of the ratios within a round."""
    bytes_moved: int
    gb_per_s: float
    percent_of_copy: float
    peak_mib: float
    error: float
    """The largest relative error of an output."""
    note: str

    @property
    def key(self) -> tuple[str, ...]:
        """What two rows have in common that can be compared."""
        return self.device, str(self.threads), self.operation, self.shape, self.dtype, self.provider


@dataclass(frozen=True)
class Origin:
    """Where and when it was measured."""

    date: str
    commit: str
    device: str
    versions: str

    @classmethod
    def here(cls, device: torch.device) -> Origin:
        """Look around."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), _commit(), _name(device), _versions())


def append(file: Path, rows: Sequence[Row]) -> None:
    """Add rows to a CSV, which is made with a header where there is none.

    Raises ``ValueError`` where the file has other columns.
    """
    names = [field.name for field in fields(Row)]
    new = not file.exists() or file.stat().st_size == 0
    if not new:
        with file.open(newline="", encoding="utf-8") as read:
            if next(csv.reader(read)) != names:
                raise ValueError(f"{file} has other columns; expected {', '.join(names)}")
    with file.open("a", newline="", encoding="utf-8") as to:
        writer = csv.writer(to)
        if new:
            writer.writerow(names)
        writer.writerows([_text(getattr(row, name)) for name in names] for row in rows)


def read(file: Path) -> list[Row]:
    """Return the rows of a CSV. Raises ``ValueError`` where it is none of ours."""
    kinds = {"threads": int, "rounds": int, "bytes_moved": int}
    numbers = {field.name for field in fields(Row) if field.type == "float"}
    with file.open(newline="", encoding="utf-8") as to:
        reader = csv.DictReader(to)
        if reader.fieldnames != [field.name for field in fields(Row)]:
            raise ValueError(f"{file} is not a CSV of `python -m codistill.kernels.bench`")
        return [
            Row(**{name: kinds.get(name, float if name in numbers else str)(text) for name, text in said.items()})  # type: ignore[arg-type]
            for said in reader
        ]


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _commit() -> str:
    """Return the commit, with a + where files differ from it, or "" where there is no repository or no git."""

    def git(*said: str) -> str:
        where = Path(__file__).parent
        return subprocess.run(["git", *said], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"


def _versions() -> str:
    said = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            said.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(said)
