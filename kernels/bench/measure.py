"""Time and memory of one call: CUDA by events with a cold cache, a CPU by its clock or that of its one thread."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median, quantiles

import torch

AT_LEAST = 0.004
"""Seconds that a timing on a CPU takes; shorter calls are repeated within it."""

CYCLES = 2e9
"""Of a GPU's clock in a second, at least."""

Call = Callable[[], object]


class Meter:
    """Measures on a device; on a CPU with ``threads`` threads.

    With one thread the time is that of the process, which another program on the machine changes little; with several
    it is that of the clock on the wall.
    """

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads
        self._cuda = device.type == "cuda"
        self._clock = time.process_time if threads == 1 else time.perf_counter
        # Larger than any L2 cache: a call finds nothing of the call before.
        self._flush = torch.empty(2**28 if self._cuda else 0, dtype=torch.int8, device=device)

    def once(self, call: Call, queued: float = 0.001) -> float:
        """Return the milliseconds of a call, which takes the host ``queued`` seconds at most to queue on a GPU."""
        if not self._cuda:
            return self._on_cpu(call, 1)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        # While the GPU sleeps, the whole call is queued: what is measured is the GPU's time and not Python's.
        torch.cuda._sleep(int(queued * CYCLES))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        taken: float = start.elapsed_time(end)
        return taken

    def in_turns(self, calls: Mapping[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
        """Return the milliseconds of every call, taken in turns (A B A B) so that a slower machine slows all.

        There are up to ``rounds`` rounds, fewer where ``seconds`` have passed after the third.
        """
        inner, queued = {}, {}
        for name, call in calls.items():
            call()  # what is compiled or allocated at first is not counted
            queued[name] = self._to_queue(call) if self._cuda else 0.0
            inner[name] = 1 if self._cuda else max(1, int(AT_LEAST * 1e3 / max(self._on_cpu(call, 1), 1e-3)))
        taken: dict[str, list[float]] = {name: [] for name in calls}
        until = time.monotonic() + seconds
        for number in range(rounds):
            if number >= 3 and time.monotonic() > until:
                break
            for name, call in calls.items():
                taken[name].append(self.once(call, queued[name]) if self._cuda else self._on_cpu(call, inner[name]))
        return taken

    def _to_queue(self, call: Call) -> float:
        """Return seconds that are enough for the host to queue a call, also if the host is slow for a moment."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        return min(0.02, 0.0005 + 2 * (time.perf_counter() - start))

    def _on_cpu(self, call: Call, times: int) -> float:
        start = self._clock()
        for _ in range(times):
            call()
        return (self._clock() - start) * 1e3 / times

    def peak(self, call: Call) -> int | None:
        """Return the bytes that a call needs beyond what is there already, or None where that cannot be known."""
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            kept = call()
            torch.cuda.synchronize()
            del kept
            return torch.cuda.max_memory_allocated() - before
        _give_back()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets the highest resident size to the present one
        except OSError:
            return None
        before = _resident("VmRSS")
        kept = call()
        del kept
        return max(0, _resident("VmHWM") - before)

    def copy_bandwidth(self, size: int) -> float:
        """Return bytes a second, read and written, of a copy of ``size`` bytes."""
        source = torch.zeros(size, dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        taken = self.in_turns({"copy": lambda: target.copy_(source)}, 9, 20)["copy"]
        return 2 * size / (median(taken) / 1e3)


def _give_back() -> None:
    """Let the C library return what it holds, or a call finds its memory there already."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident(what: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    return 0


def spread(taken: list[float]) -> tuple[float, float, float]:
    """Return the median and the 20th and 80th percentile."""
    if len(taken) < 2:
        return taken[0], taken[0], taken[0]
    fifths = quantiles(taken, n=5, method="inclusive")
    return median(taken), fifths[0], fifths[3]
