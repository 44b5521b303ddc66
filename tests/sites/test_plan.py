"""What `codistill plan` and a run's folder say of sites."""

import pyarrow.parquet as pq
from codistill.flows.commands.plan import plan_command
from codistill.flows.left_out import read_plan


def test_a_plan_on_sites_says_how_many_samples_there_are_and_not_which(federation, capsys):
    federation.spec()
    plan_command(str(federation.base / "spec.yaml"), [], federation.runs)
    said = capsys.readouterr().out
    assert "not told" in said and "hungarian-2" in said
    folder = federation.launch().folder
    told = pq.read_table(folder.table("partition")).to_pylist()
    assert {row["label"] for row in told} == {"not told"}
    counts = {(row["agent"], row["split"]): row["count"] for row in told}
    assert counts["cleveland", "train"] > 200 and counts["hungarian-1", "test"] > 20
    assert {agent.site for agent in read_plan(folder).agents} == {"cleveland", "hungarian", "va", ""}
