"""What private steps cost, in the run's tables, its summary and its report."""

import json

import pyarrow.parquet as pq
import pytest
from codistill.flows.report.results import Results
from codistill.flows.report.write import report_markup
from codistill.tasks.accounting import Spent, epsilon

SPEC = """
name: quiet
rounds: 2
data: {{dataset: digits, take: {{train: 120, test: 60}}, partition: {{by: iid}}}}
agents: [{{name: a, count: 3, model: mlp}}]
pattern: decentralized
measure: {{control: none}}
recipe: {{use: proxyfl, with: {{companion: mlp, train.private.noise: {noise}, train.batch: 10}}}}
"""


def told(conduct, noise):
    folder = conduct(SPEC.format(noise=noise))
    table = pq.read_table(folder.table("privacy")).to_pylist()
    return table, json.loads(folder.summary.read_text()), report_markup(Results.read(folder.path))


def test_every_agent_s_steps_and_their_epsilon_are_told(conduct):
    pytest.importorskip("dp_accounting")
    table, summary, page = told(conduct, 2.0)
    assert [row["agent"] for row in table] == ["a-1", "a-2", "a-3"]
    for row in table:
        assert row["steps"] == 2 * 4 and row["noise"] == 2.0 and row["rate"] == pytest.approx(0.25)
        assert row["epsilon"] == pytest.approx(epsilon([Spent(2.0, row["rate"], 8)], row["delta"]))
    assert summary["epsilon"] == max(row["epsilon"] for row in table)
    assert "<h2>Privacy</h2>" in page and f"{summary['epsilon']:.2f}" in page


def test_steps_without_noise_cost_without_bound(conduct):
    pytest.importorskip("dp_accounting")
    table, summary, page = told(conduct, 0.0)
    assert [row["epsilon"] for row in table] == [None] * 3 and summary["epsilon"] is None
    assert "cost without bound" in page


def test_without_private_steps_nothing_is_told(conduct):
    folder = conduct(
        SPEC.format(noise=1.0).replace("use: proxyfl", "use: fml").replace(", train.private.noise: 1.0", "")
    )
    assert not folder.table("privacy").exists()
    assert "<h2>Privacy</h2>" not in report_markup(Results.read(folder.path))
