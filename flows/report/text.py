"""How figures are written for people: bytes, seconds, shares, small pictures made of characters."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

SPARKS = "▁▂▃▄▅▆▇█"
ASCII_SPARKS = "_.-~=+*#"


def bytes_text(count: float | None) -> str:
    """Give a number of bytes in decimal units: `512 B`, `1.2 kB`, `34 MB`; `–` for none."""
    if count is None or not math.isfinite(count):
        return "–"
    size = abs(float(count))
    sign = "-" if count < 0 else ""
    if size < 999.5:
        return f"{sign}{size:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB"]
    size /= 1000
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{sign}{size:.{0 if size >= 99.95 else 1}f} {units[0]}"


def seconds_text(seconds: float | None) -> str:
    """Give a length of time: `0.42 s`, `12 s`, `3 min 20 s`, `2 h 05 min`, `1 d 3 h`; `–` for none."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 0:
        return "-" + seconds_text(-seconds)
    if seconds < 0.995:
        return f"{seconds:.2g} s" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of all cases, which people read in per cent."""
    return metric == "accuracy" or metric.startswith(("hits", "f1"))


def value_text(value: float | None, metric: str = "accuracy") -> str:
    """Give a measured value: `81.2 %` for a share such as accuracy, `0.812` otherwise."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3f}"


def difference_text(value: float | None, metric: str = "accuracy", unit: bool = True) -> str:
    """Give a difference of two values with its sign; a share's is in percentage points."""
    if value is None or not math.isfinite(value):
        return "–"
    if not is_share(metric):
        return f"{value:+.3f}".replace("-", "−")
    number = f"{100 * value:+.1f}"
    if number in ("+0.0", "-0.0"):
        number = "0.0"
    return number.replace("-", "−") + (" points" if unit else "")


def count_text(count: int | None) -> str:
    """Give a whole number with thin spaces between thousands; `–` for none."""
    return "–" if count is None else f"{count:,}".replace(",", "\u202f")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Give a number and its noun: `1 agent`, `2 agents`."""
    return f"{count_text(count)} {one if count == 1 else many or one + 's'}"


def clean(text: object, newlines: bool = False) -> str:
    """Make text safe to show: control, format and lone surrogate characters become `\ufffd`."""
    kept = "\n\t" if newlines else ""
    return "".join(
        character if character in kept or unicodedata.category(character) not in ("Cc", "Cf", "Cs") else "\ufffd"
        for character in str(text)
    )


def shorten(text: object, width: int) -> str:
    """Cut text that is longer than `width` in the middle, so that a number at its end stays."""
    whole = clean(text)
    if len(whole) <= width:
        return whole
    tail = min(6, (width - 1) // 2)
    return whole[: width - 1 - tail] + "…" + (whole[-tail:] if tail else "")


def natural_key(text: object) -> list[tuple[int, int, str]]:
    """Sort key under which `agent-2` stands before `agent-10`."""
    pieces = [piece for piece in re.split(r"([0-9]+)", str(text)) if piece]
    return [(0, int(piece), "") if piece.isdecimal() and piece.isascii() else (1, 0, piece) for piece in pieces]


def sparkline(values: Sequence[float], width: int = 20, ascii_only: bool = False) -> str:
    """Draw the last `width` values as a line of blocks between their least and their greatest."""
    marks = ASCII_SPARKS if ascii_only else SPARKS
    shown = [value for value in values if math.isfinite(value)][-max(width, 0) :] if width > 0 else []
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if high - low < 1e-12:
        return marks[3] * len(shown)
    return "".join(marks[round((value - low) / (high - low) * (len(marks) - 1))] for value in shown)
