"""A run with stores that is killed and started again ends with the same bytes as one that was not."""

import random
import signal
import time
from pathlib import Path

from .test_resume import committed, run, until, workers_of

SPEC = """
name: killed-remembering
seed: 3
rounds: 14
data: {dataset: digits, partition: {by: dirichlet, alpha: 0.5, min_size: 10}, take: {train: 500, test: 200}}
agents: [{name: phone, count: 4, model: mlp}, {name: laptop, count: 2, model: cnn}]
participation: {share: 0.7}
measure: {control: none}
recipe: fedcache
"""
SAME = [f"{name}.parquet" for name in ("metrics", "ledger", "memory", "clock", "stores", "events")] + ["summary.json"]


def test_a_run_with_stores_that_is_killed_ends_with_the_same_bytes(begin, codistill, write, tmp_path):
    spec, draw = write(SPEC), random.Random(11)
    undisturbed = run(codistill, spec, tmp_path / "undisturbed", 2)
    folder = tmp_path / "here" / undisturbed.name
    for wanted in (1, 6, 10):
        process = begin("run", spec, "--without-prefect", "--runs", folder.parent, "--workers", 2)
        until(lambda wanted=wanted: committed(folder) >= wanted, process)
        time.sleep(draw.uniform(0, 0.1))
        left = workers_of(process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        until(lambda left=left: not any(Path(f"/proc/{pid}").exists() for pid in left), seconds=8)
        assert wanted <= committed(folder) < 14
    assert run(codistill, spec, folder.parent, 1) == folder
    for name in SAME:
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    names = sorted(file.name for file in (undisturbed / "models").iterdir())
    assert len(names) == 6
    for name in names:
        assert (folder / "models" / name).read_bytes() == (undisturbed / "models" / name).read_bytes(), name
