"""Runs over knowledge graphs: against a plain loop, on any number of workers, cut off, and with what goes wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from codistill.flows.check import carries, check
from codistill.flows.drive import do_round, run_plainly
from codistill.flows.finish import finish
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.report.results import Results
from codistill.flows.report.shared_rows import shared_rows
from codistill.flows.report.unlearned import unlearned as unlearned_ranks
from codistill.flows.session import open_session
from codistill.specs.load import load_specs
from codistill.tasks.data.prepared import open_prepared
from codistill.tasks.extract import EXTRACTS
from codistill.tasks.streams import torch_stream
from safetensors.torch import load_file

ENTITIES, RELATIONS, SEED = 30, 6, 4
TREE = "pattern={hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
PEERS = "pattern={decentralized: {graph: complete}}"
CENTRAL = ["pattern=distributed", TREE]
ANY = [*CENTRAL, PEERS]


@pytest.fixture(scope="session")
def graph_folder(tmp_path_factory):
    """A graph whose relation k leads from each of 30 entities to the one k places on, cut into three parts."""
    folder = tmp_path_factory.mktemp("graph")
    lines = [f"e{i:02}\tr{k}\te{(i + k) % ENTITIES:02}" for i in range(ENTITIES) for k in range(1, RELATIONS + 1)]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(1)).tolist()
    parts = {"test": order[:20], "valid": order[20:40], "train": order[40:]}
    for name, chosen in parts.items():
        (folder / f"{name}.txt").write_text("".join(lines[i] + "\n" for i in sorted(chosen)))
    unlearn = sorted(order[40:52])
    (folder / "unlearn.txt").write_text("".join(lines[i] + "\n" for i in unlearn))
    return folder


SPEC = """
name: small
setting: fkge
seed: 4
rounds: 3
data: {{dataset: {{triples: {{path: {folder}}}}}, partition: {{by: uniform}}}}
agents: [{{name: clinic, count: 3, model: {{transe: {{dimension: 8, margin: 4.0}}}}}}]
measure: {{control: none, metrics: [mrr, hits_at_10, mrr_forgotten]}}
recipe: {recipe}
"""
FEDE = """
  - train: {by: triples, epochs: 2, batch: 16, negatives: 8, lr: 0.05, filtered: false}
  - extract: {knowledge: embeddings}
  - aggregate: {by: mean, weight: agents}
  - absorb: {by: replace_rows}
"""


@pytest.fixture(scope="session")
def small(graph_folder):
    """A maker of specs over the small graph: ``small("fede")`` or ``small(steps)``."""
    return lambda recipe: SPEC.format(folder=graph_folder, recipe=recipe)


def small_steps(recipe):
    """What makes a shipped recipe fit the small graph."""
    overrides = []
    for index in range(2) if recipe == "fedlu-unlearning" else range(1):
        overrides.append(f"recipe.round[{index}].train.batch=16")
        overrides.append(f"recipe.round[{index}].train.lr=0.05")
        overrides.append(f"recipe.round[{index}].train.negatives=8")
    if recipe in ("fedlu", "fedlu-unlearning"):
        overrides.append("recipe.companion={transe: {dimension: 8, margin: 4.0}}")
    if recipe == "fedlu-unlearning":
        overrides += ["recipe.round[0].train.when.from=2", "recipe.round[1].train.without_forgotten.from=2"]
    return overrides


def last(folder, metric="mrr"):
    rows = pq.read_table(folder.table("metrics")).to_pylist()
    final = max(row["round"] for row in rows)
    return {row["agent"]: row["value"] for row in rows if row["round"] == final and row["metric"] == metric}


def models(folder):
    return {path.stem: load_file(path) for path in sorted((folder.path / "models").iterdir())}


def farthest(one, other):
    return max(float((one[a][k] - other[a][k]).abs().max()) for a in one for k in one[a])


class Plain:
    """FedE with TransE written out: no agent, packet, recipe or loss of the package."""

    def __init__(self, folder):
        given = open_prepared(Path(json.loads((folder.path / "run.json").read_text())["prepared"]))
        with pa.memory_map(str(folder.path / "ids.arrow")) as source:
            ids = pa.ipc.open_file(source).read_all().to_pydict()
        self.names = [f"clinic-{i + 1}" for i in range(3)]
        self.train, self.held, self.true = [], [], []
        for place in range(3):
            parts = [
                torch.tensor(getattr(given, f"x_{part}"))[torch.tensor(ids[part][place])]
                for part in ("train", "valid", "test")
            ]
            every = torch.cat(parts)
            held = torch.unique(every[:, [0, 2]]), torch.unique(every[:, 1])
            local = [torch.searchsorted(held[0], parts[0][:, i].contiguous()) for i in (0, 2)]
            relation = torch.searchsorted(held[1], parts[0][:, 1].contiguous())
            self.train.append(torch.stack([local[0], relation, local[1]], 1))
            heads, tails = (torch.searchsorted(held[0], every[:, i].contiguous()) for i in (0, 2))
            whole = torch.stack([heads, torch.searchsorted(held[1], every[:, 1].contiguous()), tails], 1)
            self.true.append({tuple(triple) for triple in whole.tolist()})
            self.held.append(held)
        start = torch_stream(SEED, "initial", "model", "transe(dimension=8,margin=4.0)").initial_seed()
        drawn = torch.Generator().manual_seed(start)
        reach = (4.0 + 2.0) / 8
        entities = (torch.rand(ENTITIES, 8, generator=drawn) * 2 - 1) * reach
        relations = (torch.rand(RELATIONS, 8, generator=drawn) * 2 - 1) * reach
        self.tables = [[entities[e].clone(), relations[r].clone()] for e, r in self.held]

    def learn(self, place, number):
        tables = [table.requires_grad_() for table in self.tables[place]]
        optimizer = torch.optim.Adam(tables, lr=0.05)
        drawn = torch_stream(SEED, "agent", self.names[place], number, "train.0", "triples")
        count = 0
        for _ in range(2):
            for chosen in torch.randperm(len(self.train[place]), generator=drawn).split(16):
                h, r, t = self.train[place][chosen].T
                other = torch.randint(len(tables[0]), (len(chosen), 8), generator=drawn)
                e, w = tables
                positive = -(e[h] + w[r] - e[t]).abs().sum(1)
                moved = (e[other] + (w[r] - e[t])[:, None]) if count % 2 == 0 else ((e[h] + w[r])[:, None] - e[other])
                negative = -moved.abs().sum(2)
                weights = negative.detach().softmax(1)
                false = (weights * torch.nn.functional.logsigmoid(-4.0 - negative)).sum(1)
                loss = -(torch.nn.functional.logsigmoid(4.0 + positive) + false).mean() / 2
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                count += 1
        self.tables[place] = [table.detach() for table in tables]

    def merge(self):
        sums, counts = torch.zeros(ENTITIES, 8, dtype=torch.float64), torch.zeros(ENTITIES)
        for (held, _), (entities, _) in zip(self.held, self.tables, strict=True):
            sums[held] += entities.double()
            counts[held] += 1
        for (held, _), tables in zip(self.held, self.tables, strict=True):
            tables[0] = (sums / counts.clamp(min=1)[:, None]).float()[held]


def test_a_run_of_fede_is_the_plain_loop(conduct, small):
    folder = conduct(small(FEDE))
    plain = Plain(folder)
    for number in range(1, 4):
        for place in range(3):
            plain.learn(place, number)
        plain.merge()
    expected = {
        name: {"model/entities": entities, "model/relations": relations}
        for name, (entities, relations) in zip(plain.names, plain.tables, strict=True)
    }
    assert farthest(models(folder), expected) < 2e-5


def told(folder, table):
    return pq.read_table(folder.table(table)).to_pylist()


def test_the_rows_that_a_report_draws_are_those_before_the_exchange_of_the_first_and_the_last_round(conduct, small):
    folder = conduct(small(FEDE))
    found = {(row["round"], row["agent"], row["entity"]): row["values"] for row in told(folder, "embeddings")}
    plain, expected = Plain(folder), {}
    count = torch.bincount(torch.cat([entities for entities, _ in plain.held]), minlength=ENTITIES)
    for number in range(1, 4):
        for place, name in enumerate(plain.names):
            plain.learn(place, number)
            entities = plain.held[place][0].tolist()
            if number in (1, 3):
                rows = zip(entities, plain.tables[place][0], strict=True)
                expected |= {(number, name, f"e{entity:02}"): row for entity, row in rows if count[entity] > 1}
        plain.merge()
    assert found.keys() == expected.keys()
    assert max(float((torch.tensor(found[key]) - expected[key]).abs().max()) for key in found) < 2e-5


@pytest.mark.parametrize("rounds", ["rounds=1", "data.partition={by: relation}"])
def test_nothing_is_kept_to_be_drawn_of_one_round_and_of_clients_without_a_common_entity(
    conduct, small, tmp_path, rounds
):
    lines = [f"{k}e{i}\tr{k}\t{k}e{(i + 1) % 8}\n" for k in range(3) for i in range(8)]
    for name, chosen in (("train", lines), ("valid", lines[:1]), ("test", lines[::4])):
        (tmp_path / f"{name}.txt").write_text("".join(chosen))
    where = [] if rounds == "rounds=1" else [f"data.dataset={{triples: {{path: {tmp_path}}}}}"]
    folder = conduct(small(FEDE), *where, rounds)
    assert not folder.table("embeddings").exists()


def plain_ranks(tables, triples, true):
    """Filtered ranks of heads and tails under TransE, one by one, in float64."""
    entities, relations = (table.double() for table in tables)
    ranks = []
    for h, r, t in triples:
        for side in (0, 2):
            scores = []
            for other in range(len(entities)):
                candidate = (other, r, t) if side == 0 else (h, r, other)
                if candidate == (h, r, t) or candidate not in true:
                    a, b, c = candidate
                    scores.append(-float((entities[a] + relations[b] - entities[c]).abs().sum()))
            own = -float((entities[h] + relations[r] - entities[t]).abs().sum())
            ranks.append(1 + sum(score > own for score in scores))
    return torch.tensor(ranks).double()


def test_what_is_kept_and_what_is_to_be_forgotten_is_ranked_apart(conduct, small, graph_folder):
    names = ["mrr", "mrr_kept", "hits_at_3_kept", "mrr_forgotten", "hits_at_10_forgotten"]
    folder = conduct(small(FEDE), f"measure.metrics=[{', '.join(names)}]")
    gone = {tuple(line.split()) for line in (graph_folder / "unlearn.txt").read_text().splitlines()}
    final = {(row["agent"], row["metric"]): row for row in told(folder, "metrics") if row["round"] == 3}
    plain = Plain(folder)
    for place, name in enumerate(plain.names):
        entities, relations = plain.held[place]
        said = [(f"e{entities[h]:02}", f"r{relations[r] + 1}", f"e{entities[t]:02}") for h, r, t in plain.train[place]]
        triples = [tuple(triple) for triple in plain.train[place].tolist()]
        model = models(folder)[name]
        tables = [model["model/entities"], model["model/relations"]]
        for part, is_part in (("kept", False), ("forgotten", True)):
            chosen = [t for t, words in zip(triples, said, strict=True) if (words in gone) == is_part]
            ranks = plain_ranks(tables, chosen, plain.true[place])
            assert final[name, f"mrr_{part}"]["value"] == pytest.approx(float((1 / ranks).mean()), rel=1e-9)
            within = 10 if is_part else 3
            share = float((ranks <= within).double().mean())
            assert final[name, f"hits_at_{within}_{part}"]["value"] == pytest.approx(share)
            assert final[name, f"mrr_{part}"]["weight"] == len(chosen) > 0


def test_the_number_of_workers_and_the_pattern_of_a_tree_change_nothing(conduct, small):
    one, two = conduct(small(FEDE)), conduct(small(FEDE), lanes=2)
    for name in ("metrics", "ledger", "memory", "embeddings"):
        assert one.table(name).read_bytes() == two.table(name).read_bytes()
    assert farthest(models(one), models(two)) == 0
    assert farthest(models(one), models(conduct(small(FEDE), TREE))) < 1e-6


@pytest.mark.parametrize("recipe", ["feds", "fedec", "fedlu-unlearning", "fedkd-kge", "fedr"])
def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(launched, conduct, small, recipe):
    whole = conduct(small(recipe), *small_steps(recipe))
    ready = launched(small(recipe), *small_steps(recipe))
    for number in (0, 1, 2):  # each by workers that know nothing of the round before, the last one not committed
        session = open_session(ready.folder, Here(1))
        do_round(session, number, SilentProgress())
        if number < 2:
            session.commit(number)
    session = open_session(ready.folder, Here(1))
    run_plainly(session, SilentProgress())
    finish(ready.folder, session.plan, None)
    for name in ("metrics", "ledger", "memory", "events", "embeddings"):
        assert whole.table(name).read_bytes() == ready.folder.table(name).read_bytes(), name
    assert farthest(models(whole), models(ready.folder)) == 0


@pytest.mark.parametrize("by", ["iid", "dirichlet, alpha: 0.5", "relation", "uniform"])
def test_every_triple_of_every_part_is_dealt_out_once(launched, small, by):
    folder = launched(small("fede").replace("by: uniform", f"by: {by}")).folder
    with pa.memory_map(str(folder.ids)) as source:
        ids = pa.ipc.open_file(source).read_all().to_pydict()
    for part, count in (("train", 140), ("valid", 20), ("test", 20)):
        assert sorted(one for row in ids[part] for one in row) == list(range(count))


CARRIED = {
    "local-kge": ANY,
    "fede": ANY,
    "fedec": ANY,
    "feds": ANY,
    "fedlu": ANY,
    "fedlu-unlearning": ANY,
    "fedkd-kge": ANY,
    "fkge": ANY,
    "fedr": CENTRAL,
}


@pytest.mark.parametrize(("recipe", "pattern"), [(recipe, one) for recipe, known in CARRIED.items() for one in known])
def test_every_recipe_runs_under_each_pattern_that_carries_it(conduct, small, recipe, pattern):
    folder = conduct(small(recipe), *small_steps(recipe), pattern, "rounds=2")
    assert len(last(folder)) == 3
    assert all(0 < value <= 1 for value in last(folder).values())
    sent = pq.read_table(folder.table("ledger")).num_rows
    assert (sent > 0) == (recipe != "local-kge")


def test_what_peers_cannot_do_is_refused_with_a_sentence(small, write):
    (loaded,) = load_specs(str(write(small("fedr"))), [PEERS])
    assert [p.message for p in check(loaded)] == [
        "the rule secure_mean needs somebody in the middle to whom everybody tells something"
    ]
    assert "somebody in the middle" in str(carries(loaded, "decentralized"))


@pytest.mark.parametrize("recipe", ["fede", "fedr", "feds"])
def test_bytes_of_packets_are_foretold(conduct, small, recipe):
    folder = conduct(small(recipe), *small_steps(recipe), "rounds=1")
    exchange = json.loads((folder.path / "plan.json").read_text())["exchanges"][0]
    rows = pq.read_table(folder.table("ledger")).to_pylist()
    sent = [row["bytes"] for row in rows if row["to"] == "server"]
    assert [abs(a - b) <= 16 for a, b in zip(sent, exchange["up_bytes"], strict=True)] == [True] * 3


def test_rows_that_are_not_finite_or_too_wide_are_refused_and_counted(conduct, small, monkeypatch):
    entry = EXTRACTS["embeddings"]

    def spoiled(agent, said, context):
        made = entry.function(agent, said, context)
        if agent.name == "clinic-1" and context.round == 2:
            values = made.values.clone()
            values[:3] = float("nan")
            return replace(made, values=values)
        if agent.name == "clinic-2" and context.round == 3:
            return replace(made, values=torch.cat([made.values, made.values], 1))
        return made

    monkeypatch.setitem(EXTRACTS._entries, "embeddings", replace(entry, function=spoiled))
    folder = conduct(small(FEDE))
    events = pq.read_table(folder.table("events")).to_pylist()
    told = [(e["round"], e["agent"], e["what"], e["about"]) for e in events]
    assert told == [(2, "server", "filtered", "finite"), (3, "server", "refused", "embeddings")]
    assert events[0]["count"] == 3 and events[1]["count"] > 20
    assert "16 numbers, those of the others 8" in events[1]["sentence"]
    assert all(torch.isfinite(value).all() for model in models(folder).values() for value in model.values())


def test_an_agent_whose_loss_is_no_number_does_not_end_the_run(conduct, small):
    folder = conduct(small(FEDE), "recipe.train.lr=10", "rounds=30", "agents[0].model.transe.margin=3e38")
    events = pq.read_table(folder.table("events")).to_pylist()
    assert {(e["what"], e["about"]) for e in events if e["step"] == "train.0"} == {("refused", "train")}


@pytest.mark.parametrize("recipe", ["fede", "fedr", "feds", "fedlu"])
def test_an_agent_that_is_away_for_ten_rounds_comes_back(conduct, small, recipe):
    groups = (
        "agents=[{name: clinic, count: 2, model: {transe: {dimension: 8, margin: 4.0}}},"
        "{name: late, joins: 12, model: {transe: {dimension: 8, margin: 4.0}}}]"
    )
    folder = conduct(small(recipe), *small_steps(recipe), groups, "rounds=13")
    assert len(last(folder)) == 3
    assert all(torch.isfinite(value).all() for model in models(folder).values() for value in model.values())


def test_secure_sums_are_the_plain_mean(conduct, small):
    plain = small("fedr").replace("recipe: fedr", "recipe: {use: fedr, with: {extract.masked: false}}")
    masked = conduct(small("fedr"), *small_steps("fedr"), "rounds=1")
    open_ = conduct(plain, *small_steps("fedr"), "recipe.aggregate={by: mean, weight: agents}", "rounds=1")
    step = 2 * 8.0 * 3 / 2**24
    assert 0 < farthest(models(masked), models(open_)) <= step


def test_what_is_unlearned_ranks_lower_and_the_rest_stays(conduct, small):
    steps = [*small_steps("fedlu-unlearning"), "rounds=30", "recipe.round[0].train.when.from=21"]
    steps += ["recipe.round[1].train.without_forgotten.from=21"]
    unlearned = conduct(small("fedlu-unlearning"), *steps)
    learned = conduct(small("fedlu"), *small_steps("fedlu"), "rounds=30")
    before, after = (sum(last(f, "mrr_forgotten").values()) / 3 for f in (learned, unlearned))
    assert after < before / 2
    kept = [sum(last(f).values()) / 3 for f in (learned, unlearned)]
    assert kept[1] > kept[0] - 0.15
    events = [(e["round"], e["what"], e["about"]) for e in told(unlearned, "events")]
    assert events == [(number, "unlearned", "triples") for number in range(21, 31) for _ in range(3)]
    counts = {row["agent"]: row["weight"] for row in told(unlearned, "metrics") if row["metric"] == "mrr_forgotten"}
    assert {e["agent"]: e["count"] for e in told(unlearned, "events")} == counts
    assert sum(counts.values()) == 12
    shown = Results.read(unlearned.path)
    ranks, rows = unlearned_ranks(shown), shared_rows(shown)
    assert (ranks.began, ranks.before, ranks.after) == (21, 20, 30)
    assert ranks.mrr["forgotten"][30] < ranks.mrr["forgotten"][20] / 2
    assert rows.agents == ["clinic-1", "clinic-2", "clinic-3"] and rows.rounds == (1, 30)
    assert len(rows.entities) > 20 and 0 < rows.explained < 1 and min(rows.apart) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("setting=fl", "triples holds triples, and the setting fl is about samples"),
        ("agents[0].model=mlp", "mlp is a model of samples"),
        ("measure.metrics=[accuracy]", "accuracy is not measured of triples"),
        ("recipe=fedavg", "`train` of samples is about samples, and agents hold triples"),
        ("recipe.extract.knowledge=logits", "`extract` of logits is about samples, and agents hold triples"),
    ],
)
def test_what_does_not_fit_triples_is_said(small, write, change, message):
    (loaded,) = load_specs(str(write(small("fede"))), [change])
    assert message in [problem.message for problem in check(loaded)]
