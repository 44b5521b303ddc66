from __future__ import annotations

import io
import subprocess
import sys

import pytest
from codistill.flows.live import LiveProgress, PlainProgress, Progress, SilentProgress, choose
from rich.console import Console


def tell(progress: Progress) -> None:
    progress.started("fedmd\x1b[31m on digits", 3, 1)
    progress.round_done(0, 0.1, 0.05, 0, 9.0)
    for number in (1, 2, 3):
        progress.stage(number, "train", 0, 2)
        progress.stage(number, "train", 1, 2)
        progress.round_done(number, 0.2 + number / 10, 0.1 + number / 10, 1500 * number, 60.0)
    progress.note("agent seven was late")
    progress.finished("done in 3 min")
    progress.close()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_lines() -> None:
    stream = io.StringIO()
    tell(PlainProgress(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(": 3 rounds")
    assert lines[2] == "round 1/3  accuracy 30.0 %  worst 20.0 %  1.5 kB  1 min 00 s  2 min 00 s left"
    assert lines[4] == "round 3/3  accuracy 50.0 %  worst 40.0 %  4.5 kB  1 min 00 s"
    assert lines[-2:] == ["agent seven was late", "done in 3 min"]
    assert "\x1b" not in stream.getvalue()


def test_time_left_is_from_the_median_and_survives_resuming() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress.started("a run", 10, 5)
    for number, seconds in ((5, 10.0), (6, 500.0), (7, 10.0)):
        progress.round_done(number, None, None, 0, seconds)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a run: 10 rounds, going on with round 5"
    assert lines[-1] == "round  7/10  0 B  10 s  30 s left"


def test_a_stream_that_breaks_does_not_stop_the_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    tell(PlainProgress(Gone()))
    closed = io.StringIO()
    closed.close()
    tell(PlainProgress(closed))


def test_plain_lines_in_an_encoding_that_lacks_signs() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    tell(PlainProgress(stream))
    assert b"round 2/3" in raw.getvalue()


@pytest.mark.parametrize("width", [1, 8, 20, 40, 80, 200])
@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_the_live_view_fits_any_width(width: int, colours: str | None) -> None:
    target, now = io.StringIO(), [0.0]
    console = Console(file=target, width=width, height=20, force_terminal=True, color_system=colours)  # type: ignore[arg-type]
    with LiveProgress(console, clock=lambda: now[0], refresh=False) as progress:
        progress.started("fedmd on digits with many agents", 20, 1)
        for number in range(1, 6):
            now[0] += 4
            progress.round_done(number, 0.1 * number, 0.05 * number, 10**6 * number, 4.0)
        progress.stage(6, "absorb", 1, 4)
        now[0] += 1
        lines = console.render_lines(progress, console.options, pad=False)
        assert len(lines) == 4
        text = ["".join(segment.text for segment in line) for line in lines]
        assert all(len(line) <= width for line in text)
        if width >= 80:
            assert " 5/20  21 s, 59 s left" in text[1]
            assert "▁▃▅▆█" in text[2]
            assert text[3] == "round 6: absorb  1 of 4 cohorts"


def test_without_colour_the_bar_is_still_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    target = Terminal()
    console = Console(file=target, width=60, force_terminal=True)
    progress = LiveProgress(console, refresh=False)
    progress.started("a run", 2, 1)
    progress.round_done(1, 0.5, 0.4, 10, 1.0)
    progress.close()
    assert "━╌" in target.getvalue()
    assert "\x1b[3" not in target.getvalue()


def test_an_interruption_gives_the_terminal_back() -> None:
    target = io.StringIO()
    progress = LiveProgress(Console(file=target, width=60, force_terminal=True), refresh=True)
    with pytest.raises(KeyboardInterrupt), progress:
        progress.started("a run", 5, 1)
        raise KeyboardInterrupt
    shown, hidden = target.getvalue().rfind("\x1b[?25h"), target.getvalue().rfind("\x1b[?25l")
    assert shown > hidden
    progress.close()
    progress.round_done(1, None, None, 0, 1.0)  # an event that comes late is no error


def test_live_ends_with_its_message() -> None:
    target = io.StringIO()
    tell(LiveProgress(Console(file=target, width=60, force_terminal=True), refresh=False))
    assert target.getvalue().rstrip().endswith("done in 3 min")
    assert "3/3" in target.getvalue()
    assert "\x1b[31m on" not in target.getvalue()


def test_the_right_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose(io.StringIO()), PlainProgress)
    assert isinstance(choose(Terminal()), LiveProgress)
    assert isinstance(choose(Terminal(), quiet=True), SilentProgress)
    assert isinstance(choose(Console(file=io.StringIO(), force_terminal=True)), LiveProgress)
    assert isinstance(choose(Console(file=io.StringIO(), force_terminal=False)), PlainProgress)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(choose(Terminal()), PlainProgress)
    tell(choose(quiet=True))


def test_plain_progress_imports_nothing_heavy() -> None:
    code = (
        "import sys, io\nfrom codistill.flows.live import choose\nchoose(io.StringIO()).started('a', 1, 1)\n"
        "assert not {'rich', 'matplotlib', 'pyarrow', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
