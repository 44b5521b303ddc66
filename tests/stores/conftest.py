"""Made-up entries and declarations."""

import numpy as np
import pytest
from codistill.tasks.stores import Declaration, entries


def made_entries(ids, seed=0, width=5, key_width=4, round=1, contributors=("a", "b"), classes=3, **said):
    """Entries with drawn values, keys, owners and classes."""
    rng, count = np.random.default_rng(seed), len(ids)
    drawn = {
        "owners": rng.integers(0, len(contributors), count),
        "classes": rng.integers(0, classes, count),
        "weights": rng.integers(1, 4, count).astype(float),
        "confidence": rng.random(count, np.float32),
        "keys": rng.normal(size=(count, key_width)),
    }
    values = said.pop("values", None)
    values = rng.normal(size=(count, width)) if values is None else values
    return entries(np.asarray(ids), values, contributors, round, **drawn | said)


@pytest.fixture
def some():
    return made_entries


@pytest.fixture
def declare():
    """A maker of declarations: ``declare(encoding="int8", capacity={"items": 3})``."""
    return lambda **said: Declaration.model_validate({"kind": "episodic", "holds": "logits"} | said)
