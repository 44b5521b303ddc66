from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from codistill.flows.report.drawing import figure_markup
from codistill.flows.report.pictures import bytes_by_form
from codistill.flows.report.pictures_between import layout, ring, tiers
from codistill.flows.report.results import AgentInfo, Link, NotARunError, Results
from codistill.flows.report.show import PartitionView, heights_text
from codistill.flows.report.write import report_markup, write_report
from codistill.tests.flows.made_up_run import write_run, write_table

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
HOSTILE = "<script>alert(1)</script>\"' & $x_{1}$ #0a0b10 \x07\u202e{}"


class Page(HTMLParser):
    """Reads a page, and insists that its elements close in order and its ids are its own."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", agents=6, rounds=4)
    return write_report(folder).read_text(encoding="utf-8")


def test_every_section_is_there_in_order(report: str) -> None:
    page = Page(report)
    names = [
        "by-round",
        "by-bytes",
        "by-time",
        "gain",
        "links",
        "by-form",
        "held",
        "held-by-tier",
        "partition",
        "agents",
    ]
    names += ["reproduce"]
    assert [found for found in page.ids if found in names] == names
    assert page.names.count("figure") == page.names.count("figcaption") == page.names.count("svg") == 9
    words = " ".join(page.words)
    for said in ("Li and Wang 2019", "between 6 agents (3 phone, 3 laptop), distributed, on digits, seed 1, 4 rounds",
                 "codistill run", "versions.torch", "sha256:abab", "The resolved spec", "Gain over local"):  # fmt: skip
        assert said in words


def test_it_asks_for_nothing_from_outside(report: str) -> None:
    page = Page(report)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"https?:|//[a-z]|@import", report)
    assert not re.search(r"url\((?!#)", report)
    assert "#0a0b" not in report  # every colour follows the theme


def test_every_reference_inside_a_picture_has_its_target(report: str) -> None:
    page = Page(report)
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', report)
    assert wanted
    assert {one or other for one, other in wanted} <= set(page.ids)
    for _, name, value in page.attributes:
        if name == "aria-labelledby":
            assert set(value.split()) <= set(page.ids)


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=4, rounds=2)
    first = write_report(folder).read_bytes()
    code = f"from codistill.flows.report.write import write_report; write_report({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"})
    assert (folder / "report.html").read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("pattern", ["distributed", "hierarchical", "decentralized"])
def test_hostile_names_stay_words(tmp_path: Path, pattern: str) -> None:
    names = [HOSTILE + str(index) for index in range(4)] + ["]]>", "--><b>", "a\nb", "&amp;", "\\frac{$", "日本語"]
    folder = write_run(
        tmp_path / "<run>", names=names, groups=(HOSTILE, "</svg><b>"), pattern=pattern, rounds=2, cite=HOSTILE,
        spec={"name": HOSTILE},
    )  # fmt: skip
    text = write_report(folder).read_text(encoding="utf-8")
    page = Page(text)
    assert page.names.count("script") == 1
    assert "b" not in page.names
    assert "alert(1)</script>" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert any("$x_{1}$ #0a0b10" in word for word in page.words)


def test_a_run_without_exchange_or_control(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=4, rounds=3, exchange=False, control=False, clock=False)
    text = report_markup(Results.read(folder))
    page = Page(text)
    assert "by-time" not in page.ids
    assert "by-form" not in page.ids
    assert "No packet was exchanged" in text
    assert "no control was run" in text
    assert "Accuracy of each agent" in text


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running"}')
    text = report_markup(Results.read(tmp_path))
    Page(text)
    assert "Nothing was measured yet." in text
    write_table(tmp_path, "metrics", [(0, "a", "g", "learner", "mrr", 0.25, 10)])
    write_table(tmp_path, "memory", [(0, "a", "learner", "procedural", 1, 10)])
    text = report_markup(Results.read(tmp_path))
    Page(text)
    assert "Mrr by round" in text
    assert "0.250" in text


def test_a_running_run_says_how_far_it_is(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=3, rounds=4, status="running")
    rows = [tuple(row.values()) for row in Results.read(folder).metrics.to_pylist() if row["round"] <= 2]
    write_table(folder, "metrics", rows)
    assert "2 of 4 rounds so far." in report_markup(Results.read(folder))


def test_many_agents_are_drawn_as_maps(tmp_path: Path) -> None:
    text = report_markup(Results.read(write_run(tmp_path / "run", agents=80, rounds=2)))
    Page(text)
    assert "Heat map of bytes from group to group" in text
    assert "Heat map of agents and labels" in text
    assert len(text) < 1_500_000


def test_a_heavy_drawing_is_embedded_as_an_image_for_each_theme(tmp_path: Path) -> None:
    picture = bytes_by_form(Results.read(write_run(tmp_path / "run", agents=3, rounds=2)))
    assert picture is not None
    text = figure_markup(picture, largest_svg=100)
    page = Page(text)
    assert "svg" not in page.names
    assert text.count("data:image/png;base64,") == 2
    assert "prefers-color-scheme: dark" in text
    assert ("img", "alt") in [(tag, name) for tag, name, _ in page.attributes]
    assert text == figure_markup(picture, largest_svg=100)


def agents_of(**roles: list[str]) -> list[AgentInfo]:
    return [AgentInfo(name, role, role) for role, names in roles.items() for name in names]


def both(*pairs: tuple[str, str]) -> list[Link]:
    return [Link(one, other, 10, 1) for pair in pairs for one, other in (pair, pair[::-1])]


def test_the_layout_follows_the_roles() -> None:
    star = agents_of(learner=["a", "b", "c"], server=["s"])
    form, places = layout(star, both(("a", "s"), ("b", "s"), ("c", "s")))
    assert form == "star"
    assert places["s"] == (0.0, 0.0)
    tree = agents_of(learner=["a", "b", "c", "d"], edge=["e", "f"], cloud=["z"])
    links = both(("a", "f"), ("b", "e"), ("c", "f"), ("d", "e"), ("e", "z"), ("f", "z"))
    assert tiers(tree, links) == [["z"], ["e", "f"], ["b", "d", "a", "c"]]
    form, places = layout(tree, links)
    assert form == "tree"
    assert places["z"][1] > places["e"][1] > places["b"][1]
    assert places["b"][0] < places["e"][0] < places["d"][0]
    peers = ["a", "b", "c", "d"]
    assert ring(peers, both(("a", "c"), ("c", "b"), ("b", "d"), ("d", "a"))) == ["a", "c", "b", "d"]
    two_rings = both(("a", "b"), ("b", "c"), ("c", "a"), ("d", "e"), ("e", "f"), ("f", "d"))
    assert ring(list("abcdef"), two_rings) == list("abcdef")


MEMORIES = {
    "cache": {"kind": "episodic", "holds": "logits", "capacity": {"items": 50, "bytes": None},
              "eviction": {"lru": {}}, "encoding": {"top-k": {"k": 3}}, "keep": 1.0},
    "facts": {"kind": "semantic", "holds": "prototypes", "capacity": None, "eviction": {"fifo": {}},
              "encoding": {"float32": {}}, "keep": 1.0},
}  # fmt: skip


def with_memories(folder: Path, memories: dict[str, Any] = MEMORIES, **said: Any) -> Path:
    """A made-up run with a cache on its server and facts on two learners, and events of every kind."""
    write_run(folder, agents=4, rounds=2, spec={"recipe": {"name": "r", "memories": memories, "round": []}}, **said)
    write_table(
        folder, "stores",
        [
            (1, "server", "server", "cache", "episodic", 30, 3000, 8, 2, 0.5, 0, 0),
            (1, "phone-0", "learner", "facts", "semantic", 10, 700, 0, 0, 0.0, 0, 0),
            (1, "laptop-0", "learner", "facts", "semantic", 9, 600, 0, 0, 0.0, 0, 0),
            (2, "server", "server", "cache", "episodic", 50, 5000, 2, 8, 3.0, 0, 7),
            (2, "phone-0", "learner", "facts", "semantic", 11, 800, 0, 0, 0.0, 1, 0),
        ],
    )  # fmt: skip
    write_table(
        folder, "events",
        [
            (1, "server", "aggregate.0", "filtered", "confidence", 12, ""),
            (2, "server", "aggregate.0", "filtered", "confidence", 3, ""),
            (1, "server", "aggregate.0", "filtered", "finite", 2, "rows of <phone-1> are not finite"),
            (1, "phone-0", "store.0", "refused", "facts", 1, ""),
            (2, "phone-1", "store.0", "refused", "facts", 5, ""),
            (2, "server", "store.1", "evicted", "cache", 7, ""),
            (2, "server", "forget.0", "forgotten", "cache", 4, ""),
            (2, "laptop-0", "forget.0", "kept", "procedural", 1, "the weights of laptop-0 may have learned from b"),
            (2, "phone-0", "forget.0", "kept", "procedural", 1, "the weights of phone-0 may have learned from b"),
        ],
    )  # fmt: skip
    return folder


def cells_of(text: str, name: str) -> list[list[str]]:
    """The rows of the table in the section called ``name``, as words."""
    section = text.split(f'<section id="{name}"')[1].split("</section>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section.split("<tbody>")[1], re.DOTALL)
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_the_report_tells_of_memories(tmp_path: Path) -> None:
    text = write_report(with_memories(tmp_path / "run")).read_text(encoding="utf-8")
    page = Page(text)
    order = ["held", "held-by-tier", "served", "stores", "events", "partition"]
    assert [found for found in page.ids if found in order] == order
    assert cells_of(text, "stores") == [
        # 10 of 20 found, 8 of them half a round old and 2 of them three rounds: an age of (8 * 0.5 + 2 * 3) / 10.
        [
            "cache",
            "server",
            "episodic",
            "logits, top-k k 3",
            "50 items, lru",
            "50",
            "5.0 kB",
            "50.0 %",
            "1.00",
            "0",
            "7",
        ],
        ["facts", "2 learners", "semantic", "prototypes, float32", "no bound", "20", "1.4 kB", "–", "–", "6", "0"],
    ]
    assert cells_of(text, "events") == [
        ["filtered", "confidence", "aggregate.0", "server", "1 to 2", "15", ""],
        ["filtered", "finite", "aggregate.0", "server", "1", "2", "rows of &lt;phone-1&gt; are not finite"],
        ["refused", "facts", "store.0", "2 learners, most phone-1 (5)", "1 to 2", "6", ""],
        ["evicted", "cache", "store.1", "server", "2", "7", ""],
        ["forgotten", "cache", "forget.0", "server", "2", "4", ""],
        ["kept", "procedural", "forget.0", "2 learners, most laptop-0 (1)", "2", "2", ""],
    ]
    assert "Not forgotten exactly" in text
    assert text.count("<li>the weights of ") == 2


def test_an_ablated_memory_shows_what_it_keeps(tmp_path: Path) -> None:
    halved = {name: said | {"keep": 0.5 if name == "cache" else 1.0} for name, said in MEMORIES.items()}
    text = report_markup(Results.read(with_memories(tmp_path / "run", halved)))
    assert [row[5] for row in cells_of(text, "stores")] == ["50.0 %", "100.0 %"]


def test_what_did_not_happen_has_no_section(tmp_path: Path) -> None:
    page = Page(report_markup(Results.read(write_run(tmp_path / "run", agents=2, rounds=1, pattern="decentralized"))))
    assert not {"stores", "events", "served", "held-by-tier"} & set(page.ids)


def test_hostile_words_of_memories_stay_words(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=2, rounds=1, spec={"recipe": {"memories": {HOSTILE: 3, "b": None}}})
    write_table(folder, "stores", [(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1, 1, 1, 0, 1.0, 0, 0)])
    write_table(folder, "events", [(1, HOSTILE, HOSTILE, what, HOSTILE, 1, HOSTILE) for what in (HOSTILE, "kept")])
    text = report_markup(Results.read(folder))
    assert Page(text).names.count("script") == 1
    assert "alert(1)</script>" not in text


def test_of_many_sentences_some_are_listed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", agents=2, rounds=1)
    write_table(folder, "events", [(1, "phone-0", "forget.0", "kept", "m", 1, f"sentence {i}") for i in range(50)])
    text = report_markup(Results.read(folder))
    assert text.count("<li>sentence ") == 40
    assert "and 10 more" in text


def test_no_report_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        write_report(tmp_path)


def test_the_partition_fits_its_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    partition = Results.read(write_run(tmp_path / "run", agents=9, rounds=1, labels=30)).partition
    for width in (30, 50, 80, 140):
        console = Console(width=width, no_color=True, force_terminal=False, record=True, file=io.StringIO())
        console.print(PartitionView(partition, limit=5))
        lines = console.export_text().splitlines()
        assert all(len(line) <= width for line in lines)
        assert "4 more agents" in " ".join(lines)
    assert heights_text([0, 1, 8], 8) == "·▁█"
    assert heights_text([0, 1, 9], 9, ascii_only=True) == ".19"


def test_the_partition_of_nobody(tmp_path: Path) -> None:
    from codistill.tests.flows.made_up_run import table_of
    from rich.console import Console

    console = Console(width=60, record=True, file=io.StringIO())
    console.print(PartitionView(table_of("partition", [])))
    assert "Nobody holds" in console.export_text()
