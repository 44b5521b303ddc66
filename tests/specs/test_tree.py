from __future__ import annotations

import math
from pathlib import Path

import pytest
from codistill.specs.problems import Mark
from codistill.specs.scalars import scalar
from codistill.specs.tree import LARGEST_FILE, Node, at, locate, parse, plain, read, replaced
from hypothesis import given, settings
from hypothesis import strategies as st


def tree(text: str) -> Node:
    node, problems = parse(text, "x.yaml")
    assert node is not None and not problems, problems
    return node


def said(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, "x.yaml")[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("12", 12),
        ("-7", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("010", 10),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2020-01-01", "2020-01-01"),
        ("0b11", "0b11"),
        ("1\n", "1\n"),
        ("١", "١"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = scalar(text)
    assert found == value and type(found) is type(value)


def test_not_a_number_and_quotes() -> None:
    assert math.isnan(scalar(".nan"))  # type: ignore[arg-type]
    assert plain(tree("a: '1'\nb: \"true\"\non: |\n  null\n")) == {"a": "1", "b": "true", "on": "null\n"}


def test_every_value_and_key_has_a_mark() -> None:
    node = tree("name: x\nrecipe:\n  - train: {lr: 0.1}\n")
    assert locate(node, ("recipe", 0, "train", "lr")) == Mark("x.yaml", 3, 17)
    assert locate(node, ("recipe", 0, "train", "lr"), key=True) == Mark("x.yaml", 3, 13)
    assert locate(node, ("recipe", 0, "train", "momentum", "x")) == Mark("x.yaml", 3, 12)
    assert locate(node, ("recipe", 7), key=True) == Mark("x.yaml", 2, 1)
    assert at(node, ("recipe", 0, "train")) == node.value["recipe"].value[0].value["train"]  # type: ignore
    assert at(node, ("recipe", "0")) is None and at(node, ("recipe", -1)) is None and at(node, ("name", 0)) is None


def test_aliases_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nuse: *b\none: {<<: *b, y: 9}\nboth: {<<: [*b, *o], w: 0}\n"
    assert plain(tree(text)) == {
        "base": {"x": 1, "y": 2},
        "other": {"y": 3, "z": 4},
        "use": {"x": 1, "y": 2},
        "one": {"x": 1, "y": 9},
        "both": {"x": 1, "y": 2, "z": 4, "w": 0},
    }
    assert plain(tree("'<<': 1")) == {"<<": 1}


def test_all_structural_mistakes_are_told() -> None:
    assert said("a: 1\n1: x\nb: !!python/object:os.system {}\na: 2\nc: !secret s\n? [k]\n: 1\n<<: 3\n") == [
        "x.yaml:2:1: 1: a key is a word; 1 is not; put it in quotes".replace(": 1: ", ': "1": ', 1),
        "x.yaml:3:4: b: the tag !!python/object:os.system is not allowed; write the value without a tag",
        "x.yaml:4:1: a: the key 'a' is here twice (first in line 1)",
        "x.yaml:5:4: c: the tag !secret is not allowed; write the value without a tag",
        "x.yaml:6:3: a key is a word, not a list or a mapping",
        "x.yaml:8:5: '<<' merges a mapping or a list of mappings",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml:1:1: the file is empty"),
        ("# only a comment\n", "x.yaml:1:1: the file is empty"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document starts here"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2:2: cannot be read as YAML"),
        ("a:\n\t- 1\n", "not with tabs"),
        ("a: b: c\n", "text that holds ': ' needs quotes"),
        ("a: *b\n", "undefined alias"),
        ("x: 1\na: \x01\n", "x.yaml:2:4: cannot be read as YAML: the character"),
        ("a: &a [*a]\n", "x.yaml:1:4: a[0]: this holds an alias of itself"),
        ("a: &a\n  <<: *a\n", "this holds an alias of itself"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "too long"),
        ('"\\ud800": 1', "surrogate"),
        ('"\\UFFFFFFFF"', "cannot be read as YAML"),
        ("%YAML 1." + "9" * 5000 + "\n--- a", "cannot be read as YAML"),
    ],
)
def test_files_that_cannot_be_read(text: str, expected: str) -> None:
    found = said(text)
    assert len(found) == 1 and expected in found[0]


def test_alias_bombs_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert said("\n".join(lines)) == ["x.yaml:1:1: aliases make this larger than 100,000 values"]


def test_reading_files(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: gr\xc3\xbc\xff\n")
    node, problems = read(file)
    assert node is None and str(problems[0]) == f"{file}:2:7: the file is not UTF-8 text"
    file.write_bytes(b"#" * (LARGEST_FILE + 1))
    assert "too large" in read(file)[1][0].message
    assert "cannot be read" in read(tmp_path)[1][0].message
    assert "cannot be read" in read(tmp_path / "none.yaml")[1][0].message
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    node, problems = read(file)
    assert node is not None and plain(node) == {"a": 1}


def test_replacing_copies() -> None:
    node = tree("a: {b: [1, 2]}\n")
    new = Node(5, Mark("y", 1, 1))
    other = replaced(node, ("a", "b", 1), new)
    assert plain(other) == {"a": {"b": [1, 5]}} and plain(node) == {"a": {"b": [1, 2]}}
    assert plain(replaced(node, ("a", "c"), new)) == {"a": {"b": [1, 2], "c": 5}}
    assert locate(replaced(node, ("a",), new), ("a",), key=True) == Mark("x.yaml", 1, 1)
    for path in (("z", "b"), ("a", "b", 7), ("a", 0)):
        with pytest.raises(LookupError):
            replaced(node, path, new)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet="ab: -[]{}&*!|>'\"\n\t#%?,<~1.\\x"))
def test_any_text_is_read_or_answered(text: str) -> None:
    node, problems = parse(text, "x")
    assert node is not None or problems
    assert all(str(problem) for problem in problems)
