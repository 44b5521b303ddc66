"""The benchmark on tiny cases: what it writes, what it refuses to time, and what it calls slower."""

import csv
import math
import time

import pytest
import torch
from codistill.kernels.bench import cli, run
from codistill.kernels.bench.case import OPERATIONS, Case, Prepared, all_cases
from codistill.kernels.bench.cases import kd_loss
from codistill.kernels.bench.compare import Verdict, compare
from codistill.kernels.bench.measure import Meter, spread
from codistill.kernels.bench.record import Row, append, read

CPU = torch.device("cpu")


def tiny(providers=None):
    """Doubling a vector, right and wrong."""

    def prepare():
        x = torch.arange(1.0, 1001)
        made = {
            "codistill cpu": lambda: (x * 2,),
            "eager": lambda: (x + x,),
            **(providers or {}),
        }
        return Prepared(made, lambda: (x.double() * 2,))

    return Case("doubling", "1000", torch.float32, 8000, 1e-6, prepare)


def measured(case, device=CPU):
    said = []
    rows = run.run(lambda: [case], device, [1], True, said.append, lambda rows: None)
    return rows, "\n".join(said)


def row(**changed):
    values = {
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "device": "a machine",
        "versions": "torch 2",
        "threads": 1,
        "operation": "doubling",
        "shape": "1000",
        "dtype": "float32",
        "provider": "codistill cpu",
        "rounds": 5,
        "median_ms": 10.0,
        "p20_ms": 9.9,
        "p80_ms": 10.1,
        "times_eager": 2.0,
        "bytes_moved": 8000,
        "gb_per_s": 1.0,
        "percent_of_copy": 10.0,
        "peak_mib": 1.0,
        "error": 1e-7,
        "note": "",
    }
    return Row(**(values | changed))


def test_a_row_says_what_where_and_how_long():
    (ours, eager), said = measured(tiny())
    assert (ours.operation, ours.shape, ours.dtype, ours.provider) == ("doubling", "1000", "float32", "codistill cpu")
    assert ours.threads == 1
    assert 0 < ours.p20_ms <= ours.median_ms <= ours.p80_ms
    assert eager.times_eager == 1
    assert ours.gb_per_s == pytest.approx(8000 / ours.median_ms / 1e6)
    assert ours.percent_of_copy > 0
    assert f"torch {torch.__version__.split('+')[0]}" in ours.versions
    assert "doubling 1000 float32, 1 threads" in said
    assert "a copy moves" in said


def test_what_is_wrong_or_fails_is_not_timed():
    calls = []

    def wrong():
        calls.append(1)
        return (torch.arange(1.0, 1001) * 2.001,)

    def failing():
        raise RuntimeError("out of everything")

    def nan():
        return (torch.full((1000,), math.nan),)

    rows, said = measured(tiny({"codistill reference": wrong, "liger-kernel": failing, "torch.compile": nan}))
    by = {one.provider: one for one in rows}
    assert len(calls) == 1
    assert by["codistill reference"].note == "wrong: more than 1e-06 from float64"
    assert by["codistill reference"].error == pytest.approx(5e-4, rel=1e-2)
    assert by["liger-kernel"].note == "failed: RuntimeError: out of everything"
    assert by["torch.compile"].error == math.inf
    assert all(math.isnan(by[name].median_ms) for name in ("codistill reference", "liger-kernel", "torch.compile"))
    assert by["eager"].note == ""
    assert [one.provider for one in run.wrong(rows)] == ["codistill reference"]
    assert "out of everything" in said


def test_the_csv_is_appended_to_and_read_back(tmp_path):
    file = tmp_path / "bench.csv"
    append(file, [row()])
    append(file, [row(median_ms=math.nan, note="failed, somehow")])
    with file.open(newline="") as to:
        lines = list(csv.reader(to))
    assert len(lines) == 3
    assert lines[0][:6] == ["date", "commit", "device", "versions", "threads", "operation"]
    first, second = read(file)
    assert first == row()
    assert second.note == "failed, somehow" and math.isnan(second.median_ms)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        append(file, [row()])
    with pytest.raises(ValueError, match="is not a CSV of"):
        read(file)


@pytest.mark.parametrize(
    ("after", "word"),
    [
        ({"median_ms": 10.4, "p20_ms": 10.3, "p80_ms": 10.5}, "same"),  # 4 %
        ({"median_ms": 10.8, "p20_ms": 10.7, "p80_ms": 10.9}, "slower"),
        ({"median_ms": 10.8, "p20_ms": 9.9, "p80_ms": 11.0}, "same"),  # within the spread
        ({"median_ms": 9.0, "p20_ms": 8.9, "p80_ms": 9.1}, "faster"),
        ({"median_ms": math.nan}, "broken"),
    ],
)
def test_slower_is_more_than_five_percent_and_more_than_the_spread(after, word):
    verdict = Verdict(row(), row(**after))
    assert verdict.word == word
    assert verdict.fails == (word in ("slower", "broken"))


def test_only_our_own_may_not_become_slower():
    assert not Verdict(row(provider="eager"), row(provider="eager", median_ms=20)).fails


def test_the_last_row_counts_and_machines_are_not_compared():
    (verdict,) = compare([row(median_ms=99), row()], [row(median_ms=1), row(median_ms=10.2), row(shape="7")])
    assert (verdict.before.median_ms, verdict.after.median_ms) == (10.0, 10.2)
    with pytest.raises(ValueError, match="nothing in common"):
        compare([row()], [row(device="another")])


def test_the_command_compares(tmp_path, capsys):
    before, after = tmp_path / "a.csv", tmp_path / "b.csv"
    append(before, [row(), row(shape="7")])
    append(after, [row(median_ms=12, p20_ms=11.9, p80_ms=12.1), row(shape="7")])
    assert cli.main(["compare", str(before), str(after)]) == 1
    said = capsys.readouterr().out
    assert "slower doubling 1000 float32, 1 threads, codistill cpu: 10.000 ms, now 12.000 ms (1.20 times)" in said
    assert "2 compared, 1 of ours slower" in said
    assert cli.main(["compare", str(before), str(before)]) == 0


def test_the_command_measures(tmp_path, capsys, monkeypatch):
    file = tmp_path / "bench.csv"
    monkeypatch.setattr(cli, "all_cases", lambda device, quick, only: [tiny()])
    assert cli.main(["--quick", "--threads", "1,2", "--device", "cpu", "--csv", str(file)]) == 0
    assert [one.threads for one in read(file)] == [1, 1, 2, 2]
    monkeypatch.setattr(
        cli, "all_cases", lambda device, quick, only: [tiny({"codistill cpu": lambda: (torch.ones(1),)})]
    )
    assert cli.main(["--quick", "--threads", "1", "--device", "cpu"]) == 1
    assert "codistill cpu wrong" in capsys.readouterr().out


def test_taking_turns_and_what_is_counted():
    order = []
    calls = {"a": lambda: (order.append("a"), time.sleep(0.005)), "b": lambda: (order.append("b"), time.sleep(0.001))}
    taken = Meter(CPU, 2).in_turns(calls, 4, 60)
    assert [len(times) for times in taken.values()] == [4, 4]
    assert spread(taken["a"])[0] > 2 * spread(taken["b"])[0]
    assert "".join(order).count("ab") >= 4
    busy = Meter(CPU, 1).in_turns({"asleep": lambda: time.sleep(0.01)}, 3, 60)["asleep"]
    assert spread(busy)[0] < 5  # one thread is measured by the process's own time


def test_memory_that_a_call_needs():
    peak = Meter(CPU, 1).peak(lambda: torch.ones(16 * 2**20).mul(2))
    assert peak is None or 100 * 2**20 < peak < 160 * 2**20


def test_kd_loss_at_a_tiny_shape():
    prepared = kd_loss.prepare(CPU, torch.float32, 6, 10, 2)
    expected = prepared.exact()
    for name in ("codistill cpu", "codistill reference", "eager"):
        assert run.relative_error(prepared.providers[name](), expected) < 1e-5


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_operation_has_cases(quick, device):
    found = list(all_cases(torch.device(device), quick))
    assert {case.operation for case in found} == set(OPERATIONS)
    assert all(case.bytes_moved > 0 for case in found)
    assert len({(case.operation, case.shape, case.dtype) for case in found}) == len(found)
    assert {case.operation for case in all_cases(torch.device(device), quick, ["retrieve"])} == {"retrieve"}
