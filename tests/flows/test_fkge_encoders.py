"""Runs whose models have a structure encoder."""

import json

import pyarrow.parquet as pq
import pytest
from codistill.flows.check import check
from codistill.flows.drive import do_round, run_plainly
from codistill.flows.finish import finish
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.graphs import dgl
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.tests.flows.test_fkge import FEDE, PEERS, TREE, farthest, graph_folder, last, models, small, small_steps
from codistill.tests.graphs.made_encoders import needs_dgl

__all__ = ["graph_folder", "small"]  # fixtures

TABLES = ("metrics", "ledger", "memory", "events", "embeddings")


def encoder(said):
    return f"agents[0].model.transe.encoder={json.dumps(said)}"


COMPGCN = encoder({"compgcn": {"composition": "mul"}})


def is_encoders(key):
    return "/encoder." in key


@pytest.mark.parametrize("kind", ["rgcn", "compgcn", "attention"])
@pytest.mark.parametrize("recipe", ["fede", "fedlu-unlearning"])
def test_a_run_with_an_encoder_that_is_cut_off_goes_on_to_the_same_bytes(launched, conduct, small, recipe, kind):
    changes = [*small_steps(recipe), encoder(kind)]
    if recipe == "fedlu-unlearning":
        changes[changes.index("recipe.companion={transe: {dimension: 8, margin: 4.0}}")] = (
            f"recipe.companion={{transe: {{dimension: 8, margin: 4.0, encoder: {kind}}}}}"
        )
    whole, ready = conduct(small(recipe), *changes), launched(small(recipe), *changes)
    for number in (0, 1, 2):
        session = open_session(ready.folder, Here(1))
        do_round(session, number, SilentProgress())
        if number < 2:
            session.commit(number)
    session = open_session(ready.folder, Here(1))
    run_plainly(session, SilentProgress())
    finish(ready.folder, session.plan, None)
    for name in TABLES:
        assert whole.table(name).read_bytes() == ready.folder.table(name).read_bytes(), name
    made = models(whole)
    assert farthest(made, models(ready.folder)) == 0
    assert all(any(map(is_encoders, model)) for model in made.values())


def test_weights_of_encoders_stay_at_home_and_rows_travel_as_without(conduct, small):
    plain, encoded = conduct(small(FEDE)), conduct(small(FEDE), COMPGCN)
    rows = [
        [(r["from"], r["to"], r["bytes"]) for r in pq.read_table(f.table("ledger")).to_pylist()]
        for f in (plain, encoded)
    ]
    assert rows[0] == rows[1]
    one, two, *_ = models(encoded).values()
    own = [key for key in one if is_encoders(key) and key in two and one[key].shape == two[key].shape]
    assert own and all(bool((one[key] != two[key]).any()) for key in own)


def test_the_number_of_workers_changes_nothing(conduct, small):
    one, two = (conduct(small(FEDE), COMPGCN, lanes=lanes) for lanes in (1, 2))
    for name in TABLES:
        assert one.table(name).read_bytes() == two.table(name).read_bytes()


@needs_dgl
@pytest.mark.parametrize("kind", ["rgcn", "compgcn", "attention"])
def test_runs_by_dgl_and_by_torch_agree(conduct, small, kind):
    # TransE sees nothing of a bias that heads and tails have alike: its gradient is rounding alone, of which Adam
    # makes whole steps. Scores stay the same, but not weights; DistMult sees all of it but where a
    # gradient happens to be next to nothing: one number of a table may part by a thousandth of a step (0.05).
    by_torch, by_dgl = (
        conduct(small(FEDE), f"agents[0].model={{distmult: {{dimension: 8, encoder: {{{kind}: {{backend: {one}}}}}}}}}")
        for one in ("torch", "dgl")
    )
    one, other = models(by_torch), models(by_dgl)
    assert farthest(one, other) < 5e-5
    for agent, tables in one.items():
        for key, table in tables.items():
            apart = (table - other[agent][key]).abs()
            assert apart.mean() < 2e-6 and (apart >= 1e-5).sum() <= 1, (agent, key)
    assert last(by_torch) == pytest.approx(last(by_dgl), abs=1e-6)


@pytest.mark.parametrize("pattern", [TREE, PEERS])
@pytest.mark.parametrize("recipe", ["fede", "fedec", "feds", "fedkd-kge", "fkge"])
def test_every_recipe_takes_an_encoder(conduct, small, recipe, pattern):
    folder = conduct(small(recipe), *small_steps(recipe), COMPGCN, pattern, "rounds=2")
    assert len(last(folder)) == 3 and all(0 < value <= 1 for value in last(folder).values())


@pytest.mark.parametrize("kind", ["rgcn", "compgcn", "attention"])
def test_a_server_that_has_a_model_and_no_triple_has_an_encoder_that_hears_nothing(conduct, small, kind):
    server = f"{{name: server, model: {{transe: {{dimension: 8, margin: 4.0, encoder: {kind}}}}}}}"
    folder = conduct(small(FEDE), encoder(kind), f"pattern={{distributed: {{server: {server}}}}}", "rounds=1")
    assert set(last(folder)) == {"clinic-1", "clinic-2", "clinic-3", "server"}
    assert all(0 < value <= 1 for value in last(folder).values())


@pytest.mark.parametrize(
    ("said", "place", "message"),
    [
        ("gcn", "encoder", "expected one of rgcn, compgcn, attention"),
        ({"compgcn": {"composition": "plus"}}, "composition", "sub"),
        ({"compgcn": {"heads": 2}}, "heads", "composition"),
        ({"rgcn": {"backend": "jax"}}, "backend", "torch"),
        ({"rgcn": {}, "compgcn": {}}, "encoder", "exactly one of rgcn, compgcn, attention"),
        ({"attention": {"heads": 3}}, "transe", "3 heads of attention cannot share a dimension of 8 evenly"),
    ],
)
def test_what_is_no_encoder_is_answered_at_its_place(small, write, said, place, message):
    with pytest.raises(SpecError) as raised:
        load_specs(str(write(small("fede"))), [encoder(said)])
    assert place in str(raised.value) and message in str(raised.value)


def test_a_run_by_dgl_without_dgl_is_refused_before_it_begins(small, write, monkeypatch):
    monkeypatch.setattr(dgl, "find_spec", lambda name: None)
    (loaded,) = load_specs(str(write(small("fede"))), [encoder({"compgcn": {"backend": "dgl"}})])
    (problem,) = check(loaded)
    assert problem.message.startswith("DGL is not installed: pip install 'codistill[graphs]'")
