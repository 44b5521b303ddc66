"""Which back end runs: argument, environment variable, device; and that a call can say so."""

import subprocess
import sys

import pytest
import torch
from codistill.kernels import Ran, kd_loss, watch
from codistill.kernels.dispatch import VARIABLE, Operation, detail

STUDENT, TEACHER = torch.randn(3, 5), torch.randn(3, 5)


@pytest.fixture(autouse=True)
def nobody_says(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def ran_by(student=STUDENT, teacher=TEACHER, **settings):
    with watch() as ran:
        kd_loss(student, teacher, **settings)
    assert len(ran) == 1
    return ran[0]


def test_the_device_decides_where_nobody_does():
    ran = ran_by()
    assert ran == Ran("kd_loss", "cpu", "the tensors are on cpu", ran.detail)
    assert ran.detail.startswith("plain: 30 elements, compiled from ")


def test_the_argument_comes_before_the_variable_and_that_before_the_device(monkeypatch):
    monkeypatch.setenv(VARIABLE, "reference")
    said = ran_by()
    assert (said.backend, said.reason) == ("reference", "the environment variable CODISTILL_KERNELS says so")
    said = ran_by(backend="cpu")
    assert (said.backend, said.reason) == ("cpu", "the argument `backend` says so")


def test_float64_goes_to_the_reference():
    said = ran_by(STUDENT.double(), TEACHER.double())
    assert (said.backend, said.reason) == ("reference", "float64 is for the reference alone")


def test_back_ends_that_do_not_exist_or_cannot_are_refused(monkeypatch):
    with pytest.raises(
        ValueError, match="kd_loss: there is no back end 'cuda'; expected one of reference, cpu, triton"
    ):
        ran_by(backend="cuda")
    with pytest.raises(ValueError, match="'cpu' was asked for .the argument .* float64 is for the reference alone"):
        ran_by(STUDENT.double(), TEACHER.double(), backend="cpu")
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(ValueError, match="'triton' was asked for .the environment variable CODISTILL_KERNELS says so"):
        ran_by()
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(ValueError, match="no back end 'fast'"):
        ran_by()


def test_triton_needs_triton_and_a_gpu_or_its_interpreter(monkeypatch):
    with pytest.raises(ValueError, match="the tensors are on cpu, and Triton needs a GPU"):
        ran_by(backend="triton")
    operation = Operation("made_up", reference="nowhere:nothing", triton="nowhere:nothing")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert operation.choose("triton", STUDENT)[0] == "triton"
    assert operation.choose("", STUDENT) == ("reference", "made_up has no cpu implementation")
    monkeypatch.setattr("codistill.kernels.dispatch.installed", lambda name: False)
    with pytest.raises(ValueError, match="Triton is not installed"):
        operation.choose("triton", STUDENT)


def test_watching_nests_and_ends():
    with watch() as outer:
        kd_loss(STUDENT, TEACHER, backend="reference")
        with watch() as inner:
            kd_loss(STUDENT, TEACHER)
        kd_loss(STUDENT, TEACHER, backend="reference")
    kd_loss(STUDENT, TEACHER)
    detail("nobody listens")
    assert [one.backend for one in outer] == ["reference", "reference"]
    assert [one.backend for one in inner] == ["cpu"]


def test_back_ends_agree():
    student, teachers = torch.randn(9, 33), [torch.randn(9, 33) for _ in range(3)]
    settings = {"mode": "jsd", "temperature": 2.0, "teacher_weights": "entropy", "reduction": "none"}
    torch.testing.assert_close(
        kd_loss(student, teachers, backend="cpu", **settings),
        kd_loss(student, teachers, backend="reference", **settings),
    )


def test_the_library_alone_needs_neither_triton_nor_faiss_nor_the_rest_of_codistill():
    program = (
        "import sys; absent = ['triton', 'faiss', 'codistill.tasks', 'codistill.flows', 'codistill.specs']\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "import torch; from codistill.kernels import kd_loss; z = torch.randn(3, 5, requires_grad=True)\n"
        "kd_loss(z, torch.randn(3, 5)).backward(); print(z.grad.shape)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "torch.Size([3, 5])"
