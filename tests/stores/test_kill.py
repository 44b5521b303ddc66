"""A process that is killed while it writes leaves the store as it was before or after, in all its parts."""

import random
import select
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from codistill.tasks.stores import Entries, Store

WRITER = Path(__file__).with_name("writer.py")
KILLS = 8


def reached(rounds, put_round, declaration):
    """The store that did ``rounds`` rounds in memory and was never killed."""
    store = Store.create(declaration, "killed")
    for round in range(rounds):
        put_round(store, round)
    return store


def same(one, other):
    names = [np.array(found.contributors)[found.owners].tolist() for found in (one, other)]
    return names[0] == names[1] and all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(Entries)
        if field.name not in ("keys", "contributors", "owners")
    )


def test_a_killed_writer_leaves_the_store_before_or_after(tmp_path):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("writer", WRITER)
    writer = module_from_spec(spec)
    spec.loader.exec_module(writer)
    delays, last = random.Random(5), -1
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, str(WRITER), str(tmp_path)], stdout=subprocess.PIPE)
        try:
            assert select.select([child.stdout], [], [], 60)[0], "the writer never wrote"
            first = int(child.stdout.readline())
            assert first == last + 1
            try:
                child.wait(delays.uniform(0, 0.05))
                pytest.fail("the writer ended by itself")
            except subprocess.TimeoutExpired:
                pass
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        said = [first, *map(int, child.stdout.read().split())]
        child.stdout.close()
        store = Store.open(tmp_path / "store.json")
        last = int(store.all().rounds.max())
        # What was said is in; at most one round more is, whole.
        assert last in (said[-1], said[-1] + 1)
        expected = reached(last + 1, writer.put_round, writer.declaration())
        assert same(store.all(), expected.all())
        assert store.statistics.evicted == expected.statistics.evicted


@pytest.mark.parametrize("survives", range(4))
def test_a_write_that_fails_at_any_file_changes_nothing(declare, some, tmp_path, monkeypatch, survives):
    from codistill.tasks.stores import segments

    store = Store.create(declare(), "s")
    store.put(some(range(20)), 1)
    path = store.write(tmp_path, "s")
    before, held = {file: file.read_bytes() for file in store.files()}, store.all()
    store.put(some(range(15), seed=8, contributors=("c",)), 2)
    store.forget(contributor="a")
    wanted, real, calls = store.all(), segments.os.replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) > survives:
            raise OSError("no space left on device")
        real(source, target)

    monkeypatch.setattr(segments.os, "replace", failing)
    failed = False
    try:
        store.write(tmp_path, "s")
    except OSError:
        failed = True
    monkeypatch.undo()
    assert failed == (survives < len(calls) or survives < 3)
    assert same(Store.open(path).all(), held if failed else wanted)
    if failed:
        assert all(file.read_bytes() == content for file, content in before.items())
    # The one in memory lost nothing, and writes when it can.
    assert same(store.all(), wanted)
    assert same(Store.open(store.write(tmp_path, "s")).all(), wanted)
