from __future__ import annotations

from typing import Any

import pytest
from codistill.specs.printing import dump
from codistill.specs.tree import parse, plain
from hypothesis import example, given, settings
from hypothesis import strategies as st

AWKWARD = [
    "on",
    "yes",
    "1e-3",
    "null",
    "~",
    "0x10",
    "",
    " x",
    "x ",
    "a: b",
    "a #b",
    "<<",
    "-",
    "- a",
    "?",
    "a\nb",
    "a\n",
]
AWKWARD += [
    "a\n\nb\n\n",
    "\na",
    "  a\nb",
    "a\n \nb",
    "grün",
    "日本",
    "\u2028",
    "\x85",
    "\ufeff",
    "'",
    '"',
    "\\",
    "---",
    "...",
]
AWKWARD += [
    "a\n---\nb",
    "!x",
    "&x",
    "*x",
    "%x",
    "@x",
    "`x",
    "{a",
    "[a",
    "a, b",
    "x:",
    ".5",
    "0o7",
    "1_0",
    "\U0001f600",
    "\t",
]

text = st.sampled_from(AWKWARD) | st.text(max_size=20) | st.text(alphabet="a \n\t:#-", max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(text, values, max_size=5))
@example({word: word for word in AWKWARD})
@example({"a": [[], {}, [{"b": [[1], "x\ny"]}]], "b": {"c": "x\ny\n", "d": [float("inf"), 1e-05, 1e16, -0.0]}})
def test_what_is_written_reads_back_equal(data: dict[str, Any]) -> None:
    node, problems = parse(dump(data), "x")
    assert node is not None and not problems
    assert repr(plain(node)) == repr(data)


def test_it_reads_well() -> None:
    data = {
        "name": "fedmd-digits",
        "cite": "Li and Wang 2019, arXiv:1910.03581",
        "rounds": 20,
        "data": {"dataset": "digits", "partition": {"by": "dirichlet", "alpha": 0.3}},
        "agents": [{"name": "phone", "count": 12}, {"name": "laptop", "count": 8}],
        "recipe": [{"train": {"optimizer": {"sgd": {"lr": 0.05}}}}, {"note": "two\nlines\n"}],
        "metrics": ["accuracy"],
    }
    assert dump(data) == (
        "name: fedmd-digits\n"
        'cite: "Li and Wang 2019, arXiv:1910.03581"\n'
        "rounds: 20\n"
        "data: {dataset: digits, partition: {by: dirichlet, alpha: 0.3}}\n"
        "agents:\n"
        "  - {name: phone, count: 12}\n"
        "  - {name: laptop, count: 8}\n"
        "recipe:\n"
        "  - {train: {optimizer: {sgd: {lr: 0.05}}}}\n"
        "  - note: |\n"
        "      two\n"
        "      lines\n"
        "metrics: [accuracy]\n"
    )


def test_long_mappings_stand_in_lines_of_their_own() -> None:
    step = {f"parameter{number}": "some value" for number in range(6)}
    lines = dump({"recipe": [{"train": step}]}).splitlines()
    assert lines[:3] == ["recipe:", "  - train:", "      parameter0: some value"]


def test_what_cannot_be_written() -> None:
    assert dump({}) == "{}\n"
    with pytest.raises(TypeError):
        dump({"a": {1, 2}})
    with pytest.raises(TypeError):
        dump({1: 2})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="1,000"):
        dump({"a" * 1001: 1})
