"""Random operations on a store and on a plain list of entries, for every eviction, encoding and way of holding keys."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from codistill.tasks.encoding import ENCODINGS, restore
from codistill.tasks.stores import Declaration, MissingError, Store, consolidated, entries
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

WIDTH, KEY_WIDTH, NAMES = 4, 3, ("a", "b", "c")

EVICTIONS = ("fifo", "lru", "reservoir", "herding", "oldest", "lowest-confidence")
HELD = {"float32": {}, "float16": {}, "int8": {}, "top-k": {"k": 2}}
SIZES = {"float32": 16, "float16": 8, "int8": 8, "top-k": 12}
KEY_SIZES = {"none": 0, "float32": 12, "int8": 7}


def held(name, said, row):
    """What a row of numbers is after it was encoded alone."""
    entry = ENCODINGS[name]
    parameters = entry.parameters.model_validate(said)
    return restore(name, parameters, entry.function(parameters, row[None]), len(row))[0]


@dataclass
class Row:
    id: int
    name: str
    label: int
    round: int
    weight: float
    confidence: np.float32
    values: np.ndarray
    keys: np.ndarray | None
    last_used: int
    draw: float
    strength: np.float32 = np.float32(1)


def herded(rows, keep):
    """The rows that stay, class by class, by the definition of iCaRL's algorithm 4."""
    by_class = {label: [row for row in rows if row.label == label] for label in sorted({row.label for row in rows})}
    quota = dict.fromkeys(by_class, 0)
    while sum(quota.values()) < keep:
        # One more for the class that keeps fewest, of those that have more.
        label = min((q, label) for label, q in quota.items() if q < len(by_class[label]))[1]
        quota[label] += 1
    stay = set()
    for label, members in by_class.items():
        features = [(row.values if row.keys is None else row.keys).astype(np.float64) for row in members]
        mean, chosen = np.mean(features, axis=0), []
        while len(chosen) < quota[label]:
            best = None
            for at, feature in enumerate(features):
                if at not in chosen:
                    running = (sum(features[c] for c in chosen) + feature) / (len(chosen) + 1)
                    apart = ((mean - running) ** 2).sum()
                    if best is None or apart < best[0] - 1e-12:
                        best = (apart, at)
            chosen.append(best[1])
        stay |= {id(members[at]) for at in chosen}
    return [row for row in rows if id(row) in stay]


KEPT = {
    "fifo": lambda row: 0,
    "lru": lambda row: row.last_used,
    "reservoir": lambda row: row.draw,
    "oldest": lambda row: row.round,
    "lowest-confidence": lambda row: row.confidence,
}


class Operations(RuleBasedStateMachine):
    @initialize(
        eviction=st.sampled_from(EVICTIONS),
        encoding=st.sampled_from(list(HELD)),
        keys=st.sampled_from(["none", "float32", "int8"]),
        replace=st.booleans(),
        capacity=st.none() | st.integers(1, 12),
        in_bytes=st.booleans(),
        bound=st.sampled_from([1, 400, 2**20]),
        spills=st.booleans(),
    )
    def begin(self, eviction, encoding, keys, replace, capacity, in_bytes, bound, spills):
        self.folder = Path(tempfile.mkdtemp())
        self.spill = self.folder / "spill"
        self.spill.mkdir()
        self.row_bytes = 34 + SIZES[encoding] + KEY_SIZES[keys]
        self.eviction, self.encoding, self.keys, self.replace, self.capacity = (
            eviction,
            encoding,
            keys,
            replace,
            capacity,
        )
        limit = {"bytes": capacity * self.row_bytes + 3} if in_bytes and capacity else {"items": capacity}
        self.declaration = Declaration.model_validate(
            {
                "kind": "episodic",
                "holds": "logits",
                "eviction": eviction,
                "encoding": {encoding: HELD[encoding]},
                "keys": keys,
                "replace": replace,
                "capacity": limit if capacity else None,
            }
        )
        self.settings = {"spill": self.spill if spills else None, "bound": bound}
        self.store = Store.create(self.declaration, "made-up", **self.settings)
        self.rows: list[Row] = []
        self.round, self.writes, self.puts = 0, 0, 0
        self.hits = self.misses = self.refused = self.evicted = 0
        self.ages: list[int] = []

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(
        addresses=st.lists(
            st.tuples(st.integers(0, 9), st.sampled_from(NAMES), st.integers(-1, 2)), min_size=1, max_size=6
        ),
        broken=st.none() | st.integers(0, 5),
        where=st.sampled_from(["values", "keys", "weights", "confidence"]),
        made=st.integers(0, 3),
        seed=st.integers(0, 2**20),
    )
    def put(self, addresses, broken, where, made, seed):
        rng, count = np.random.default_rng(seed), len(addresses)
        ids, names, labels = zip(*addresses, strict=True)
        said = {
            "values": rng.normal(size=(count, WIDTH)).astype(np.float32),
            "keys": rng.normal(size=(count, KEY_WIDTH)).astype(np.float32),
            "weights": rng.integers(1, 5, count).astype(np.float64),
            "confidence": rng.random(count).astype(np.float32),
        }
        bad = set()
        if broken is not None and broken < count:
            said[where].reshape(count, -1)[broken, 0] = [np.nan, np.inf, -np.inf][seed % 3]
            if where != "keys" or self.keys != "none":
                bad = {broken}
        rounds = np.maximum(self.round - rng.integers(0, made + 1, count), 0)
        given = entries(
            np.array(ids),
            said["values"],
            NAMES,
            rounds,
            owners=np.array([NAMES.index(name) for name in names]),
            classes=np.array(labels),
            weights=said["weights"],
            confidence=said["confidence"],
            keys=said["keys"] if self.keys != "none" or seed % 2 else None,
        )
        self.puts += 1
        stored = self.store.put(given, self.round, np.random.default_rng(self.puts))

        fine = [at for at in range(count) if at not in bad]
        replaced = 0
        if self.replace:
            last = [at for at in fine if not any(addresses[at][:2] == addresses[b][:2] for b in fine if b > at)]
            came = {addresses[at][:2] for at in last}
            before = len(self.rows)
            self.rows = [row for row in self.rows if (row.id, row.name) not in came]
            replaced, kept = before - len(self.rows) + len(fine) - len(last), last
        else:
            kept = fine
        draws = np.random.default_rng(self.puts).random(len(kept))
        for at, draw in zip(kept, draws, strict=True):
            keys = None if self.keys == "none" else held(self.keys, {}, said["keys"][at])
            values = held(self.encoding, HELD[self.encoding], said["values"][at])
            weight, confidence = said["weights"][at], said["confidence"][at]
            row = Row(*addresses[at], int(rounds[at]), weight, confidence, values, keys, self.round, float(draw))
            self.rows.append(row)
        evicted = max(0, len(self.rows) - self.capacity) if self.capacity else 0
        if evicted and self.eviction == "herding":
            self.rows = herded(self.rows, self.capacity)
        elif evicted:
            leaving = {id(row) for row in sorted(self.rows, key=KEPT[self.eviction])[:evicted]}
            self.rows = [row for row in self.rows if id(row) not in leaving]
        self.refused += len(bad)
        self.evicted += evicted
        assert (stored.stored, stored.replaced, stored.evicted, stored.refused) == (
            len(fine),
            replaced,
            evicted,
            len(bad),
        )

    @rule(more=st.integers(1, 2))
    def next_round(self, more):
        self.round += more

    @rule(ids=st.lists(st.integers(0, 12), max_size=4), name=st.none() | st.sampled_from(NAMES), use=st.booleans())
    def get(self, ids, name, use):
        now = self.round if use else None
        found = self.store.get(ids, name, round=now, missing="skip")
        fits = [[row for row in self.rows if row.id == one and name in (None, row.name)] for one in ids]
        self.same(found, [row for rows in fits for row in rows])
        if use:
            self.used([row for rows in fits for row in rows])
            self.hits += sum(map(bool, fits))
            self.misses += sum(not rows for rows in fits)
        gone = list(dict.fromkeys(one for one, rows in zip(ids, fits, strict=True) if not rows))
        if gone:
            with pytest.raises(MissingError) as raised:
                self.store.get(ids, name)
            assert list(raised.value.ids) == gone

    @rule(label=st.integers(-1, 3))
    def of_class(self, label):
        rows = [row for row in self.rows if row.label == label]
        self.same(self.store.of_class(label, round=self.round), rows)
        self.used(rows)
        self.hits += len(rows)
        self.misses += not rows

    @rule(
        older_than=st.none() | st.integers(0, 6),
        name=st.none() | st.sampled_from(NAMES),
        ids=st.none() | st.lists(st.integers(0, 9), max_size=3),
    )
    def forget(self, older_than, name, ids):
        before = len(self.rows)
        self.rows = [
            row
            for row in self.rows
            if (older_than is not None and row.round >= older_than)
            or (name is not None and row.name != name)
            or (ids is not None and row.id not in ids)
        ]
        assert self.store.forget(older_than=older_than, contributor=name, ids=ids) == before - len(self.rows)

    @rule(factor=st.sampled_from([0.5, 0.9]), floor=st.sampled_from([0.0, 0.3]))
    def decay(self, factor, floor):
        for row in self.rows:
            row.strength *= np.float32(factor)
        before = len(self.rows)
        self.rows = [row for row in self.rows if row.strength >= np.float32(floor)]
        assert self.store.decay(factor, floor) == before - len(self.rows)

    @rule(reopen=st.booleans(), elsewhere=st.booleans())
    def write(self, reopen, elsewhere):
        self.writes += elsewhere
        folder = self.folder / f"round {self.writes}"
        folder.mkdir(exist_ok=True)
        path = self.store.write(folder, "episodes")
        for file in self.folder.rglob("*"):
            if file.is_file() and file not in self.store.files():
                file.unlink()
        assert all(file.is_file() for file in self.store.files())
        assert self.store.statistics.bytes_on_disk == sum(file.stat().st_size for file in self.store.files())
        segments = [file for file in self.store.files() if file.suffix == ".arrow" and ".marks." not in file.name]
        if self.settings["bound"] > 400:
            assert len(segments) <= 2 + np.log2(1 + self.puts * 6)
        if reopen:
            self.store = Store.open(path, **self.settings)
            assert self.store.declaration == self.declaration

    @rule(without=st.sets(st.sampled_from(NAMES)))
    def means(self, without):
        means = consolidated(self.store.class_means(), without)
        rows = [row for row in self.rows if row.name not in without and row.label >= 0]
        assert means.classes.tolist() == sorted({row.label for row in rows})
        for label, mean, weight in zip(means.classes, means.values, means.weights, strict=True):
            members = [row for row in rows if row.label == label]
            assert weight == sum(row.weight for row in members)
            np.testing.assert_allclose(
                mean, sum(r.weight * r.values.astype(float) for r in members) / weight, atol=1e-6
            )

    def used(self, rows):
        self.ages += [self.round - row.round for row in rows]
        for row in rows:
            row.last_used = max(row.last_used, self.round)

    def same(self, found, rows):
        assert found.ids.tolist() == [row.id for row in rows]
        assert [found.contributors[owner] for owner in found.owners] == [row.name for row in rows]
        assert found.classes.tolist() == [row.label for row in rows]
        assert found.rounds.tolist() == [row.round for row in rows]
        assert found.weights.tolist() == [row.weight for row in rows]
        assert found.confidence.tolist() == [row.confidence for row in rows]
        if rows:
            assert np.array_equal(found.values, np.stack([row.values for row in rows]))
            if self.keys == "none":
                assert found.keys is None
            else:
                assert np.array_equal(found.keys, np.stack([row.keys for row in rows]))

    @invariant()
    def holds_what_the_list_holds(self):
        if not hasattr(self, "store"):
            return
        self.same(self.store.all(), self.rows)
        assert len(self.store) == len(self.rows)
        assert self.store.contributors() == tuple(sorted({row.name for row in self.rows}))
        assert self.store.classes() == tuple(sorted({row.label for row in self.rows} - {-1}))
        found = self.store.statistics
        assert (found.items, found.bytes) == (len(self.rows), len(self.rows) * self.row_bytes)
        assert (found.hits, found.misses, found.refused, found.evicted) == (
            self.hits,
            self.misses,
            self.refused,
            self.evicted,
        )
        assert found.mean_age == pytest.approx(np.mean(self.ages) if self.ages else 0.0)


TestOperations = Operations.TestCase
TestOperations.settings = hypothesis.settings(deadline=None, max_examples=60, stateful_step_count=25)
