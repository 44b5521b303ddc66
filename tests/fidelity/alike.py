"""Whether two runs came to the same: to the byte, or in weights."""

from __future__ import annotations

from safetensors.torch import load_file

TABLES = ("metrics", "ledger", "memory", "clock", "stores", "events")


def same(one, other, tables=TABLES):
    """Assert that two runs, each with a folder of its own, have equal bytes in ``tables`` and in all models."""
    assert one.path != other.path
    for table in tables:
        assert one.table(table).read_bytes() == other.table(table).read_bytes(), table
    names = sorted(file.name for file in (one.path / "models").iterdir())
    assert names and names == sorted(file.name for file in (other.path / "models").iterdir())
    for name in names:
        assert (one.path / "models" / name).read_bytes() == (other.path / "models" / name).read_bytes(), name


def apart(one, other, names, of=""):
    """Return the largest difference of any weight of any agent of two runs; ``of``: of what begins with that alone."""
    found = 0.0
    for name in names:
        a, b = (
            {key: value for key, value in load_file(run.model(name)).items() if key.startswith(of)}
            for run in (one, other)
        )
        assert a and a.keys() == b.keys()
        found = max(found, *((a[key] - b[key]).abs().max().item() for key in a))
    return found
