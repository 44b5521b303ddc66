"""The run in one place that a run on sites must be like."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from codistill.flows.drive import run_plainly
from codistill.flows.holdings import Holdings
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.tasks.data.dataset import Dataset
from codistill.tasks.data.partition import Partition
from codistill.tasks.data.prepared import prepare
from codistill.tests.finishing import finish_without_report
from codistill.tests.sites.hospitals import HOSPITALS


def in_one_place(federation, *overrides, left_out=None):
    """Return the folder of the run that has all sites' data in one data set, in the same order.

    ``left_out``: who is not there in which round.
    """
    spec = federation.spec(*overrides).value
    said = spec.model_dump(mode="json", by_alias=True)
    held = []
    for site in HOSPITALS:
        with federation.at(site):
            held.append(federation.desk(site)._held(said)[1])
    count = len(held[0].public)
    parts = {name: [getattr(one.data, name)[count * (name[2:] == "train") :] for one in held] for name in ARRAYS}
    shared = {name: [getattr(held[0].data, name)[: count * (name[2:] == "train")]] for name in ARRAYS}
    whole = {name: np.concatenate([*shared[name], *parts[name]]) for name in ARRAYS}
    data = Dataset("all", labels=held[0].labels, **whole)
    ids = {"train": [], "test": []}
    for split, found in ids.items():
        first = 0
        for one in held:
            found += [np.asarray(each) + first for each in getattr(one.partition, split)]
            first += len(getattr(one.data, f"y_{split}")) - (count if split == "train" else 0)
    holdings = Holdings(
        prepare(data, federation.base / "one"),
        data.digest(),
        Partition(tuple(ids["train"]), tuple(ids["test"])),
        np.arange(count),
        data.labels,
        data.input_shape,
        data.y_train,
        data.y_test,
        data,
    )
    local = federation.spec(*overrides, "engine=local").value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codistill.flows.launch.hold", lambda *anything: holdings)
        ready = launch(local, federation.base / "one-runs")
    session = open_session(ready.folder, Here(1))
    for number, places in (left_out or {}).items():
        session._take_out(number, set(places))
    run_plainly(session, SilentProgress())
    finish_without_report(ready.folder, session.plan)
    return ready.folder


ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def rows(folder, table, learners=frozenset({"cleveland", "hungarian-1", "hungarian-2", "va"})):
    found = pq.read_table(folder.table(table)).to_pylist()
    if table == "metrics":  # above sites there is nothing to test with
        return [row for row in found if row["agent"] in learners]
    return found
