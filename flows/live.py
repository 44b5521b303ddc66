"""What a person sees while a run goes on. It is fed by plain events and knows nothing of the engine."""

from __future__ import annotations

import atexit
import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from .progress import Closing, Progress, SilentProgress, State
from .report.text import bytes_text, clean, plural, seconds_text, shorten, sparkline, value_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

__all__ = ["LiveProgress", "PlainProgress", "Progress", "SilentProgress", "choose"]


class PlainProgress(Closing):
    """One plain line a round, for files, pipes and logs. A reader that has gone away does not stop the run."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._state = State()
        self._lock = threading.Lock()
        self._broken = False

    def _line(self, text: str) -> None:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        line = clean(text).encode(encoding, "replace").decode(encoding)
        with self._lock:
            if self._broken:
                return
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True

    def started(self, title: str, rounds: int, first_round: int) -> None:
        """Name the run."""
        self._state.start(title, rounds, first_round)
        resumed = f", going on with round {first_round}" if first_round > 1 else ""
        self._line(f"{title}: {plural(rounds, 'round')}{resumed}")

    def stage(self, round: int, name: str, cohorts_done: int, cohorts: int) -> None:
        """Say nothing: a stage is too little for a line."""

    def round_done(
        self, round: int, accuracy: float | None, worst: float | None, bytes_so_far: int, seconds: float
    ) -> None:
        """Write the round's line."""
        self._state.end_round(round, accuracy, worst, bytes_so_far, seconds)
        parts = [f"round {round:>{len(str(self._state.rounds))}}/{self._state.rounds}"]
        if accuracy is not None:
            parts.append(f"{self.metric} {value_text(accuracy, self.metric)}")
        if worst is not None:
            parts.append(f"worst {value_text(worst, self.metric)}")
        parts += [bytes_text(bytes_so_far), seconds_text(seconds)]
        left = self._state.left()
        if left is not None and round < self._state.rounds:
            parts.append(f"{seconds_text(left)} left")
        self._line("  ".join(parts))

    def finished(self, message: str) -> None:
        """Write the last line."""
        self._line(message)

    def note(self, text: str) -> None:
        """Write a line."""
        self._line(text)


class LiveProgress(Closing):
    """A few lines at the foot of the terminal that follow the run."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic, refresh: bool = True
    ) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole() if console is None else console
        self._clock = clock
        self._refresh = refresh
        self._state = State()
        self._begun = self._round_begun = clock()
        self._lock = threading.RLock()
        self._live: Live | None = None

    def started(self, title: str, rounds: int, first_round: int) -> None:
        """Open the view."""
        from rich.live import Live

        self.close()
        with self._lock:
            self._state = State()
            self._state.start(title, rounds, first_round)
            self._begun = self._round_begun = self._clock()
        # Outside the lock, as in close: rich draws under a lock of its own and then asks for this one.
        self._live = Live(self, console=self._console, refresh_per_second=4, auto_refresh=self._refresh)
        atexit.register(self.close)
        with contextlib.suppress(OSError, ValueError):
            self._live.start(refresh=True)
            # A run that is killed outright cannot give the cursor back, so it is never taken.
            self._console.show_cursor(True)

    def stage(self, round: int, name: str, cohorts_done: int, cohorts: int) -> None:
        """Show how far a stage is."""
        with self._lock:
            self._state.stage, self._state.cohorts_done, self._state.cohorts = clean(name), cohorts_done, cohorts

    def round_done(
        self, round: int, accuracy: float | None, worst: float | None, bytes_so_far: int, seconds: float
    ) -> None:
        """Move the bar."""
        with self._lock:
            self._state.end_round(round, accuracy, worst, bytes_so_far, seconds)
            self._round_begun = self._clock()

    def finished(self, message: str) -> None:
        """Leave the last view standing and say how it ended."""
        self.close()
        self._print(message)

    def note(self, text: str) -> None:
        """Print a line above the view."""
        self._print(text)

    def _print(self, text: str) -> None:
        from rich.text import Text

        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone does not stop the run
            self._console.print(Text(clean(text, newlines=True)))

    def close(self) -> None:
        """Stop following and leave the terminal as it was found."""
        with self._lock:
            live, self._live = self._live, None
        # Outside the lock: the refreshing thread may need it for its last picture.
        if live is not None:
            atexit.unregister(self.close)
            with contextlib.suppress(OSError, ValueError):
                live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the view in at most the width there is."""
        with self._lock:
            lines = self._lines(options.max_width, ascii_only=options.ascii_only)
        for line in lines:
            line.truncate(options.max_width, overflow="ellipsis" if not options.ascii_only else "crop")
            line.no_wrap = True
            yield line

    def _lines(self, width: int, ascii_only: bool) -> list[Text]:
        from rich.text import Text

        state, now = self._state, self._clock()
        left, done = state.left(), state.round
        if left is not None:
            spent = min(now - self._round_begun, statistics.median(state.lengths))
            left = max(left - spent, 0.0)
        over = done >= state.rounds
        times = seconds_text(float(int(now - self._begun)))
        if not over and left is not None:
            times = f"{times}, {seconds_text(left)} left" if width >= 50 else f"{seconds_text(left)} left"
        count = f" {done}/{state.rounds}  "
        room = max(min(width - len(count) - len(times), 60), 0)
        share = done / state.rounds if state.rounds else 1.0
        filled = int(room * min(share, 1.0))
        full, rest = ("#", "-") if ascii_only else ("━", "━")
        bar: list[Any] = [(full * filled, "green" if over else "cyan"), (rest * (room - filled), "bright_black")]
        if room < 4:
            bar = []
        elif self._console.no_color or self._console.color_system is None:  # without colour the rest must look else
            bar = [full * filled, ("-" if ascii_only else "╌") * (room - filled)]
        lines = [Text(shorten(state.title, max(width, 8)), style="bold"), Text.assemble(*bar, count, (times, "dim"))]
        measured: list[Any] = []
        if state.accuracies:
            mark = " " + sparkline(state.accuracies, min(24, max(width - 56, 0)), ascii_only)
            last = value_text(state.accuracies[-1], self.metric)
            measured += [f"{self.metric} ", (last, "bold"), (mark.rstrip(), "cyan"), "  "]
        if state.worst is not None:
            measured.append(f"worst {value_text(state.worst, self.metric)}  ")
        measured.append(f"{bytes_text(state.bytes)} on the wire")
        lines.append(Text.assemble(*measured))
        if state.stage and not over:
            part = f"  {state.cohorts_done} of {plural(state.cohorts, 'cohort')}" if state.cohorts else ""
            lines.append(Text(f"round {done + 1}: {state.stage}{part}", style="dim"))
        return lines


def choose(target: Console | TextIO | None = None, quiet: bool = False) -> Progress:
    """Pick what suits a console or stream: nothing if quiet, a live view on a terminal, plain lines elsewhere."""
    if quiet:
        return SilentProgress()
    stream: Any = sys.stdout if target is None else target
    if hasattr(stream, "is_dumb_terminal"):  # rich's console; rich itself is imported only for a live view
        lively = stream.is_terminal and not stream.is_dumb_terminal
        return LiveProgress(stream) if lively else PlainProgress(stream.file)
    plain = os.environ.get("TERM", "") in ("", "dumb", "unknown") and os.name != "nt"
    if plain or not (hasattr(stream, "isatty") and stream.isatty()):
        return PlainProgress(stream)
    from rich.console import Console as RichConsole

    return LiveProgress(RichConsole(file=stream))
