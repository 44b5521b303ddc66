"""``codistill site key|join``: what an organisation does to take part in runs with data of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ...specs.problems import one_of, suggestion
from ...tasks.knowledge import FORMS
from ...tasks.parameters import NAME
from ..sites.home import home
from ..sites.keys import own_key, public_bytes


def key_command() -> None:
    """Print the public key of this user, made where there is none."""
    print(own_key(home()).public)


def join_command(pool: str, data: Path, store: str, coordinator: str, share: list[str], limit: float) -> None:
    """Be a site until interrupted; status 2 where what is said cannot be right."""
    wrong = []
    if not re.fullmatch(NAME, pool):
        wrong.append(f"--pool: {pool!r} is no name; expected letters, digits, dot, dash and underscore")
    if not data.is_dir():
        wrong.append(f"--data: there is no folder {data}")
    try:
        public_bytes(coordinator)
    except ValueError as error:
        wrong.append(f"--coordinator: {error}")
    for form in share:
        if form not in FORMS:
            wrong.append(
                f"--share: unknown form {form!r}; {suggestion(form, FORMS) or f'expected {one_of(list(FORMS))}'}"
            )
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        raise SystemExit(2)
    from ..sites.join import join

    join(pool, data, store, coordinator, frozenset(share) or None, limit)
