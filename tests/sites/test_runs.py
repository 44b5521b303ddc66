"""Whole runs on sites, in this process: what comes out is what one place would give that had all the data."""

import shutil

import pytest
from codistill.flows.folder import RunFolder
from codistill.flows.left_out import read_left_out
from codistill.flows.pool import SiteAwayError, StageError
from codistill.tests.sites.hospitals import HOSPITALS, WITH_PUBLIC
from codistill.tests.sites.together import in_one_place, rows

TREE = "pattern={hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
RECIPES = {
    "fedavg": ("recipe=fedavg",),
    "fd": ("recipe=fd",),
    "fd among peers": ("recipe=fd", "pattern={decentralized: {graph: ring}}"),
    "fedproto in a tree": ("recipe=fedproto", TREE),
    "fedmd": ("recipe=fedmd", WITH_PUBLIC),
    "feddf": ("recipe={use: feddf, with: {aggregate.steps: 3}}", WITH_PUBLIC),
    "fedkd, some away": (
        "recipe=fedkd",
        "participation.share=0.5",
        "recipe.companion={mlp: {hidden: [4]}}",
        "rounds=5",
    ),
    "fedavg, some away": ("recipe=fedavg", "participation.share=0.5", "rounds=6"),
    "late": ("recipe=fedavg", "participation={deadline: 1, late: next}", "agents[0].speed=0.000001", "rounds=4"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_sites_give_to_the_bit_what_one_place_would(federation, case):
    apart, together = federation.run(*RECIPES[case]), in_one_place(federation, *RECIPES[case])
    for table in ("metrics", "ledger", "events"):
        assert rows(apart, table) == rows(together, table), table
    assert len(rows(apart, "ledger")) > 10


def test_a_site_that_is_started_again_at_any_moment_changes_nothing(federation):
    """Between any two requests one site loses all that it had in memory; what it has on disk is enough."""
    case = ("recipe=fedproto", "participation.share=0.7", "rounds=2", TREE)
    whole = federation.run(*case)
    asked = [site for site, title in federation.lines[-1].asked if "the end" not in title]
    expected = {table: rows(whole, table) for table in ("metrics", "ledger", "memory")}
    for at, site in enumerate(asked):
        shutil.rmtree(whole.path)
        shutil.rmtree(federation.store)
        federation.store.mkdir()
        count = iter(range(10**6))

        def restart(who, title, at=at, site=site, count=count):
            if next(count) == at:
                federation.desks.pop(site)

        federation.before = restart
        again = federation.run(*case)
        assert {table: rows(again, table) for table in expected} == expected, f"{site} at request {at}"


@pytest.mark.parametrize("case", ["fedavg", "fd among peers", "fedproto in a tree", "fedmd"])
def test_a_site_that_is_away_is_left_out_and_may_come_back(federation, case):
    """Away in the middle of round 2 and all of round 3; there again in round 4."""
    said, notes = (*RECIPES[case], "rounds=5"), []

    def before(site, title):
        if "round 2" in title and site == "hungarian":
            federation.dark.add(site)
        elif "round 4" in title:
            federation.dark.clear()

    federation.before = before
    folder = federation.run(*said, notes=notes)
    # Whether it is there again is looked at when a round begins: in round 4 nobody had heard of it yet.
    assert read_left_out(folder) == {2: (1, 2), 3: (1, 2), 4: (1, 2)}
    assert notes == ["nothing was heard of the site hungarian for 10s (engine.wait); round 2 goes on without it"]
    lines = [row for row in rows(folder, "ledger") if row["status"] == "left out"]
    assert {(row["round"], row["from"]) for row in lines} == {
        (number, name) for number in (2, 3, 4) for name in ("hungarian-1", "hungarian-2")
    }
    assert all(row["bytes"] == row["items"] == 0 for row in lines)
    together = in_one_place(federation, *said, left_out=read_left_out(folder))
    for table in ("metrics", "ledger", "events", "clock"):
        assert rows(folder, table) == rows(together, table), table
    assert {row["round"] for row in rows(folder, "metrics") if row["agent"] == "hungarian-1"} == set(range(6))


@pytest.mark.parametrize("share", [0.75, 1.0])
def test_who_is_away_is_not_waited_for_to_be_measured(federation, share):
    """Agents that a round before changed are measured later; but not at a site that is away, scheduled or not."""

    def before(site, title):
        assert len(federation.lines[-1].asked) < 60, "it is waited for again and again"
        if "round 2: " in title or "round 3: " in title:
            federation.dark.add("hungarian")

    federation.before = before
    folder = federation.run("recipe=fedavg", "rounds=6", "measure.every=2", f"participation.share={share}")
    assert folder.committed() == 6
    federation.dark.clear()


def test_a_run_that_goes_on_waits_again_for_who_was_away(federation):
    """What was decided of a round that was not committed is forgotten."""

    def before(site, title):
        if "round 1" in title:
            federation.dark.add("va")
        if "round 2" in title:
            raise StageError("the coordinator is ended")

    federation.before = before
    with pytest.raises(StageError, match="is ended"):
        federation.run("rounds=2", "recipe=fedavg")
    (folder,) = (RunFolder(path) for path in federation.runs.glob("hospitals-*"))
    assert read_left_out(folder) == {1: (3,), 2: (3,)}
    federation.dark.clear()
    federation.before = lambda site, title: None
    folder = federation.run("rounds=2", "recipe=fedavg")
    assert read_left_out(folder) == {1: (3,)}
    assert any(row["round"] == 2 and row["from"] == "va" and row["bytes"] for row in rows(folder, "ledger"))


@pytest.mark.parametrize("when", ["round 0", "round 1"])
def test_without_anybody_and_before_the_start_there_is_no_going_on(federation, when):
    def before(site, title):
        if when in title:
            federation.dark |= set(HOSPITALS) if when == "round 1" else {"va"}

    federation.before = before
    with pytest.raises(SiteAwayError, match="nothing (was heard of the site va|is heard of any site)"):
        federation.run("recipe=fedavg")
