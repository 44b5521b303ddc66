"""Measures cases: correctness first, then time in turns, then memory."""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Iterable
from statistics import median

import torch

from .case import EAGER, OURS, Case, Outputs, Prepared, short
from .measure import Meter, spread
from .record import Origin, Row

ROUNDS, SECONDS = 21, 20.0
"""Of a case, all providers together; the quick form takes a fifth."""

NAN = math.nan


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int) -> None:
    """Let torch, and faiss where it is in use, have ``count`` threads."""
    torch.set_num_threads(count)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(count)


def relative_error(found: Outputs, expected: Outputs) -> float:
    """Return the largest over outputs of |found - expected| / |expected|, infinity where they cannot be compared."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return math.inf
        gap = (one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30)
        worst = max(worst, math.inf if gap.isnan() else gap.item())
    return worst


def measure_case(case: Case, meter: Meter, origin: Origin, copy_bandwidth: float, quick: bool) -> list[Row]:
    """Return a row for each provider; one that is wrong, or cannot run, is not timed, and its note says so."""
    prepared = case.prepare()
    errors, notes = _check(case, prepared)
    timed = {name: call for name, call in prepared.providers.items() if not notes[name]}
    peaks = {name: meter.peak(call) for name, call in timed.items()}
    part = 5 if quick else 1
    taken = meter.in_turns(timed, math.ceil(ROUNDS / part), SECONDS / part)
    rows = []
    for name in prepared.providers:
        middle, low, high = spread(taken[name]) if name in taken else (NAN, NAN, NAN)
        speed = case.bytes_moved / (middle / 1e3)
        ratio = NAN
        if name in taken and EAGER in taken:
            ratio = median(eager / one for eager, one in zip(taken[EAGER], taken[name], strict=True))
        peak = peaks.get(name)
        rows.append(
            Row(
                date=origin.date,
                commit=origin.commit,
                device=origin.device,
                versions=origin.versions,
                threads=meter.threads,
                operation=case.operation,
                shape=case.shape,
                dtype=short(case.dtype),
                provider=name,
                rounds=len(taken.get(name, [])),
                median_ms=middle,
                p20_ms=low,
                p80_ms=high,
                times_eager=ratio,
                bytes_moved=case.bytes_moved,
                gb_per_s=speed / 1e9,
                percent_of_copy=100 * speed / copy_bandwidth,
                peak_mib=NAN if peak is None else peak / 2**20,
                error=errors[name],
                note=notes[name],
            )
        )
    return rows


def _check(case: Case, prepared: Prepared) -> tuple[dict[str, float], dict[str, str]]:
    expected = tuple(one.detach() for one in prepared.exact())
    errors, notes = {}, {}
    for name, provider in prepared.providers.items():
        errors[name], notes[name] = NAN, ""
        try:
            errors[name] = relative_error(tuple(one.detach() for one in provider()), expected)
        except Exception as error:  # a peer that fails, or runs out of memory, must not end the run
            notes[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
        if errors[name] > case.allowed(name):
            notes[name] = f"wrong: more than {case.allowed(name):g} from float64"
    return errors, notes


def run(
    cases: Callable[[], Iterable[Case]],
    device: torch.device,
    threads: Iterable[int],
    quick: bool,
    tell: Callable[[str], None],
    keep: Callable[[list[Row]], None],
) -> list[Row]:
    """Measure all cases with each number of threads; ``keep`` gets the rows of a case as soon as they are there."""
    rows: list[Row] = []
    origin = Origin.here(device)
    before = torch.get_num_threads()
    try:
        for count in threads:
            use_threads(count)
            meter = Meter(device, count)
            bandwidth = meter.copy_bandwidth(2**26 if quick else 2**30 if device.type == "cuda" else 2**28)
            tell(f"{origin.device}, {count} threads: a copy moves {bandwidth / 1e9:.1f} GB/s")
            for case in cases():
                tell("")
                made = measure_case(case, meter, origin, bandwidth, quick)
                keep(made)
                tell(table(made))
                rows += made
                gc.collect()
    finally:
        use_threads(before)
    return rows


def wrong(rows: Iterable[Row]) -> list[Row]:
    """Return our rows that were not right."""
    return [row for row in rows if row.provider.startswith(OURS) and row.note]


def table(rows: list[Row]) -> str:
    """Return the rows of a case as text."""
    head = rows[0]
    lines = [
        f"{head.operation} {head.shape} {head.dtype}, {head.threads} threads, {head.bytes_moved / 1e6:.1f} MB",
        f"  {'provider':<22}{'median ms':>11}{'p20':>10}{'p80':>10}{'x eager':>9}{'GB/s':>8}{'% copy':>8}"
        f"{'peak MiB':>10}{'error':>10}",
    ]
    for row in rows:
        numbers = (
            f"{row.median_ms:>11.3f}{row.p20_ms:>10.3f}{row.p80_ms:>10.3f}{row.times_eager:>9.2f}{row.gb_per_s:>8.1f}"
            f"{row.percent_of_copy:>8.1f}{row.peak_mib:>10.1f}{row.error:>10.1e}"
        )
        lines.append(f"  {row.provider:<22}" + (f"  {row.note}" if row.note else numbers))
    return "\n".join(lines)
