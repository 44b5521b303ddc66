"""What stands beside a client's triples: lists of its names, and what others call them."""

from __future__ import annotations

from collections.abc import Sequence

from ...tasks.data.dataset import DataError
from .files import File
from .lines import numbered_rows


def listed_names(file: File) -> list[str]:
    """Return the names of a list such as FedLU's entities.dict, lines of a number TAB a name.

    The numbers are not used: ids come from the names. Raises ``DataError`` for a line that does not fit, or a name
    that stands twice.
    """
    lines: dict[str, int] = {}
    for number, (position, name) in numbered_rows(file.read(), ("number", "name"), file.label):
        if not position.isdecimal():
            raise DataError(f"{file.label}, line {number}: {position!r} is no number, expected number TAB name")
        if name in lines:
            raise DataError(
                f"{file.label}, line {number}: {name!r} stands in line {lines[name]} already; delete one of the two"
            )
        lines[name] = number
    return list(lines)


def common_names(own: Sequence[str], file: File, what: str) -> tuple[list[str], str]:
    """Return what others call each of the client's ``own`` names, and a note on how many are mapped.

    The file has lines of own name TAB common name. A name without a line is common already; lines of names that the
    client does not have are passed over. Raises ``DataError`` with file and line if a name is mapped twice, or if
    two names would become one.
    """
    mapped: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, (name, common) in numbered_rows(file.read(), ("own name", "common name"), file.label):
        if mapped.get(name, common) != common:
            raise DataError(
                f"{file.label}, line {number}: {name!r} is mapped to {common!r}, but line {lines[name]} maps it to "
                f"{mapped[name]!r}; delete one of the two"
            )
        mapped.setdefault(name, common)
        lines.setdefault(name, number)
    holder: dict[str, str] = {}
    for name in sorted(own, key=lambda one: lines.get(one, 0)):
        common = mapped.get(name, name)
        if common in holder:
            other = holder[common]
            already = (
                f"as {other!r} is by line {lines[other]}" if other in lines else "which is a name of this client's own"
            )
            raise DataError(
                f"{file.label}, line {lines[name]}: {name!r} is mapped to {common!r}, {already}; two {what} of one "
                "client cannot become one: give one of them another common name, or make them one in its triple files"
            )
        holder[common] = name
    told = f"{sum(name in mapped for name in own):,} of {len(own):,} {what} are mapped by {file.label}"
    return [mapped.get(name, name) for name in own], told
