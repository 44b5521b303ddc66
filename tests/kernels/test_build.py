"""The Triton kernels compiled for an H100 without one, held against ``build/budgets.json``."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from codistill.tests.kernels.build import budgets

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; it compiles the kernels")


@pytest.fixture(scope="module")
def measured():
    """What ``build/dry.py`` measures in a process of its own: compiling and interpreting do not go together."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "codistill.tests.kernels.build.dry"],
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("{"), f"exit status {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)


def test_every_kernel_keeps_its_budget(measured):
    broken = budgets.breaches(measured, budgets.load())
    assert not broken, "\n".join(["these kernels changed for the worse:", *broken])


def test_no_budget_is_left_over(measured):
    gone = budgets.left_over(measured, budgets.load())
    assert not gone, "\n".join(gone)


def test_a_broken_budget_is_noticed(measured):
    case, kernels = next((case, kernels) for case, kernels in measured.items() if "error" not in kernels)
    name, has = next(iter(kernels.items()))
    for what in ("registers", "instructions"):
        tight = budgets.budgets({case: kernels})
        tight[case][name]["at_most"][what] = has[what] - 1
        said = [sentence for sentence in budgets.breaches({case: kernels}, tight) if name in sentence]
        assert said == [f"{case}: {name} has {has[what]} {budgets.MEANING[what]}; its budget is {has[what] - 1}"]


KERNEL = {
    **dict.fromkeys(budgets.NEVER, 0),
    "registers": 64,
    "dots": 1,
    "hgmma": 8,
    "tensor_core": 8,
    "ldg": 10,
    "ldg128": 2,
    "ldgsts": 4,
    "ldgsts128": 3,
    "stg128": 1,
    "shared_bytes": 512,
    "instructions": 1000,
    "seconds": 0.5,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"registers": 73}, "c: k has 73 registers a thread; its budget is 72"),
        ({"spill_bytes": 4}, "c: k has 4 bytes of spilled registers; its budget is 0"),
        ({"fp64": 1}, "c: k has 1 float64 instructions; its budget is 0"),
        ({"ldg128": 1}, "c: k has 1 16-byte global loads; its budget is at least 2"),
        ({"ldgsts128": 2}, "c: k has 2 16-byte global loads into shared memory; its budget is at least 3"),
        ({"tensor_core": 0, "hgmma": 0}, "c: k has 0 tensor-core instructions; its budget is at least 8"),
        ({"instructions": 1101}, "c: k has 1101 instructions; its budget is 1100"),
        ({"seconds": 16}, "c: k has 16 seconds of compilation; its budget is 15"),
    ],
)
def test_each_kind_of_breach_has_its_sentence(change, sentence):
    allowed = budgets.budgets({"c": {"k": KERNEL}})
    assert budgets.breaches({"c": {"k": KERNEL}}, allowed) == []
    assert sentence in budgets.breaches({"c": {"k": {**KERNEL, **change}}}, allowed)


def test_a_new_budget_forgives_no_spills_and_no_float64():
    bad = {**KERNEL, "spill_bytes": 8, "fp64": 3, "tensor_core": 0, "hgmma": 0}
    said = budgets.breaches({"c": {"k": bad}}, budgets.budgets({"c": {"k": bad}}))
    assert len(said) == 3


def test_missing_budgets_and_broken_cases_are_noticed():
    allowed = budgets.budgets({"c": {"k": KERNEL}})
    assert "has no budget" in budgets.breaches({"d": {"k": KERNEL}}, allowed)[0]
    assert "launches no kernel" in budgets.breaches({"c": {}}, allowed)[0]
    assert "does not compile: no" in budgets.breaches({"c": {"error": "no"}}, allowed)[0]
    assert budgets.left_over({"d": {"k": KERNEL}}, allowed) == ["c: there is a budget and no such case"]
