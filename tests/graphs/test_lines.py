from __future__ import annotations

import pytest
from codistill.graphs.sources import lines
from codistill.graphs.sources.lines import TRIPLE, find_row, numbered_rows, read_rows
from codistill.tasks.data import DataError
from hypothesis import example, given, settings
from hypothesis import strategies as st

PIECES_OF_A_FILE = st.lists(
    st.sampled_from(
        ["a", "b", "NA", "1", "01", '"', "'", "\\", ",", " ", "\t", "\t", "\t", "\n", "\r", "\r\n", "é", "\u2028"]
    ),
    max_size=40,
).map("".join)
GOOD_LINES = st.lists(
    st.tuples(*[st.sampled_from(["a", "NA", "null", "007", '"x', 'y"', "\\", "é\x85", " z "])] * 3),
    min_size=1,
    max_size=9,
)


def rows(table: object) -> list[tuple[str, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]  # type: ignore[attr-defined]


@settings(deadline=None)
@given(PIECES_OF_A_FILE)
@example("a\tb\tc\rd\te\tf")
@example("a\tb\tc\r\n\r\n\nd\te\tf\r")
@example("\ufeffa\tb\tc\n")
@example("\ufeff\ufeffa\tb\tc\n")
@example("\ufeff")
@example("\ufeff\n\n")
def test_reading_at_once_and_line_by_line_agree_on_every_file(text: str) -> None:
    data = text.encode()
    try:
        expected = [row for _, row in numbered_rows(data, TRIPLE, "f")]
    except DataError as error:
        with pytest.raises(DataError) as caught:
            read_rows(data, TRIPLE, "f")
        assert str(caught.value) == str(error)
    else:
        assert rows(read_rows(data, TRIPLE, "f")) == expected


@settings(deadline=None)
@given(GOOD_LINES, st.sampled_from(["\n", "\r\n"]))
def test_names_are_taken_as_they_stand(names: list[tuple[str, str, str]], end: str) -> None:
    data = end.join("\t".join(row) for row in names).encode()
    assert rows(read_rows(data, TRIPLE, "f")) == names


def test_a_file_without_faults_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "numbered_rows", None)
    assert rows(read_rows(b"a\tr\tb\r\nc\tr\td\n", TRIPLE, "f")) == [("a", "r", "b"), ("c", "r", "d")]


def test_a_name_longer_than_a_block_of_the_fast_reader_is_read() -> None:
    long = "x" * 3_000_000
    assert rows(read_rows(f"a\tr\t{long}\nb\tr\tc\n".encode(), TRIPLE, "f")) == [("a", "r", long), ("b", "r", "c")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a\tr\tb\na\tb\n", "f, line 2: 2 columns, expected 3: head TAB relation TAB tail; put one tab between"),
        (b"a r b\n", "f, line 1: 1 column, expected 3"),
        (b"\n\na\tr\tb\tc\n", "f, line 3: 4 columns, expected 3"),
        (b"a\tr\tb\r\na\t\tb\r\n", "f, line 2: the relation is empty, expected head TAB relation TAB tail"),
        (b"a\tr\tb\nM\xfcnchen\tr\tb\n", "f, line 2: the byte 0xfc at position 2 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_faulty_line_is_told_with_its_number_what_was_expected_and_what_to_do(data: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(data, TRIPLE, "f")
    assert str(caught.value).startswith(said)


def test_a_row_is_found_with_its_line_past_empty_ones() -> None:
    assert find_row(b"a\tr\tb\n\n\nc\tr\td\n", TRIPLE, "f", lambda row: row[0] == "c") == (4, ("c", "r", "d"))
    assert find_row(b"a\tr\tb\n", TRIPLE, "f", lambda row: row[0] == "c") is None
