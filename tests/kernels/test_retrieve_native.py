"""The native search of ``retrieve`` against the reference, and what is done where it cannot be."""

import shutil
import stat
from pathlib import Path
from typing import Any

import codistill.kernels.cpu.group_search as group_search
import codistill.kernels.cpu.native as native
import pytest
import torch
from codistill.kernels.dispatch import watch
from codistill.kernels.retrieval import retrieve

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search natively however small a call is, in several spans."""
    monkeypatch.setattr(native, "PAYS_FROM", 0)
    monkeypatch.setattr(native, "FEWEST", 1)
    monkeypatch.setattr(group_search, "MAXIMA", 2**12)


def bank(rows: int, count: int, width: int, kind: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    random = torch.Generator().manual_seed(rows + count)
    queries, keys = (torch.randn(n, width, generator=random) for n in (rows, count))
    if kind != torch.int8:
        return queries.to(kind), keys.to(kind), None
    scales = keys.abs().amax(1) / 127
    return queries, (keys / scales[:, None]).round().to(torch.int8), scales


def masks(rows: int, count: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(5)

    def some(most: int, size: int) -> torch.Tensor:
        return torch.randint(0, most, (size,), generator=random)

    return {
        "bias": torch.randn(count, generator=random),
        "query_owner": some(4, rows),
        "key_owner": some(4, count),
        "query_class": some(6, rows).int(),
        "key_class": some(5, count).int(),  # class 5 has no memory
        "key_age": some(10, count),
        "max_age": 7,
    }


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(("rows", "count", "width", "k"), [(50, 3000, 33, 5), (7, 5000, 16, 16), (1, 257, 8, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_as_the_reference(
    kind: Any, similarity: Any, rows: int, count: int, width: int, k: int, masked: bool, threads: int
) -> None:
    queries, keys, scales = bank(rows, count, width, kind)
    said: dict[str, Any] = {"k": k, "similarity": similarity, "scale": 0.7, "key_scales": scales}
    said |= masks(rows, count) if masked else {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with watch() as ran:
            found = retrieve(queries, keys, backend="cpu", **said)
    finally:
        torch.set_num_threads(before)
    assert ran[0].detail == "maxima of groups, native"
    wanted = retrieve(queries, keys, backend="reference", **said)
    assert torch.equal(found.indices, wanted.indices)
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("classes", [False, True])
def test_groups_of_large_banks_are_wider(monkeypatch: pytest.MonkeyPatch, kind: Any, classes: bool) -> None:
    monkeypatch.setattr(group_search, "MANY", 100)
    queries, keys, scales = bank(21, 4000, 24, kind)
    said: dict[str, Any] = {"k": 6, "key_scales": scales}
    said |= {"query_class": torch.arange(21) % 3, "key_class": torch.arange(4000) % 3} if classes else {}
    found = retrieve(queries, keys, backend="cpu", **said)
    assert torch.equal(found.indices, retrieve(queries, keys, backend="reference", **said).indices)


@needs_compiler
@pytest.mark.usefixtures("always")
def test_ties_nan_and_infinity() -> None:
    random = torch.Generator().manual_seed(1)
    keys = torch.randint(-1, 2, (3000, 3), generator=random).float()
    queries = torch.randint(-2, 3, (9, 3), generator=random).float()
    keys[[5, 700, 701], 1] = torch.nan
    keys[9] = torch.inf
    queries[4, 0] = torch.nan
    found = retrieve(queries, keys, k=20, backend="cpu")
    wanted = retrieve(queries, keys, k=20, backend="reference")
    assert torch.equal(found.indices, wanted.indices)
    torch.testing.assert_close(found.scores, wanted.scores, equal_nan=True)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", [torch.float32, torch.int8])
def test_maxima_are_those_of_neighbours(kind: Any) -> None:
    queries, keys, scales = bank(13, 700, 19, kind)
    asked = native.Queries(queries)
    memories = native.Bank(keys, key_scales=scales)
    maxima = torch.full((13, 96), -7.0)
    assert native.why_not(13, 700) == ""
    long = native.group_maxima(native.pack(queries, asked), memories, None, settings(), 8, maxima)
    exact = keys.double() if scales is None else keys.double() * scales.double()[:, None]
    scores = torch.nn.functional.pad(queries.double() @ exact.T, (0, 68), value=-torch.inf)
    torch.testing.assert_close(maxima.double(), scores.view(13, 96, 8).amax(2), rtol=1e-5, atol=1e-5)
    assert long == pytest.approx(float(exact.norm(dim=1).max()), rel=1e-5)


def settings() -> native.Settings:
    return native.Settings(k=1, similarity="dot", scale=1.0, temperature=1.0)


@needs_compiler
def test_it_is_compiled_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make = native._library.__wrapped__
    assert make()[1] == ""
    (made,) = (tmp_path / "codistill" / "kernels").iterdir()
    assert made.suffix == ".so" and stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    written = made.stat().st_mtime_ns
    assert make()[1] == "" and made.stat().st_mtime_ns == written


@pytest.mark.usefixtures("always")
def test_without_a_working_compiler_torch_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = native._library.__wrapped__()
    assert made[0] is None and "CalledProcessError" in made[1]
    monkeypatch.setattr(native, "_library", lambda: made)
    queries, keys, scales = bank(20, 3000, 8, torch.int8)
    with watch() as ran:
        found = retrieve(queries, keys, k=4, key_scales=scales, backend="cpu")
    assert "by torch: compiling group_maxima.cpp failed" in ran[0].detail
    wanted = retrieve(queries, keys, k=4, key_scales=scales, backend="reference")
    assert torch.equal(found.indices, wanted.indices)


def test_small_calls_do_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        @staticmethod
        def cache_info() -> Any:
            return type("Info", (), {"currsize": 0})

    monkeypatch.setattr(native, "_library", Absent())
    assert "native from 16,777,216" in native.why_not(100, 1000)
    assert "2 queries" in native.why_not(2, 2**30)
