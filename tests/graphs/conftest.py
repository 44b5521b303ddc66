"""Small graphs: one made up, and UMLS where the project's shared data are."""

import tarfile
from pathlib import Path

import pytest
import torch
from codistill.graphs.embedding import Embedding

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def draw():
    """A maker of random numbers: ``draw(3, 4)``, the same at every start of a test."""
    generator = torch.Generator().manual_seed(5)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def graph():
    """A maker of triples with repeats: ``graph(entities, relations, count)``."""

    def make(entities=20, relations=4, count=60, seed=1):
        generator = torch.Generator().manual_seed(seed)
        sizes = (entities, relations, entities)
        return torch.stack([torch.randint(size, (count,), generator=generator) for size in sizes], 1)

    return make


@pytest.fixture
def embedding():
    """A maker of embeddings: ``embedding("rotate")``."""

    def make(score="transe", entities=20, relations=4, dimension=8, seed=2, **said):
        return Embedding(entities, relations, dimension, score, torch.Generator().manual_seed(seed), **said)

    return make


@pytest.fixture(scope="session")
def umls():
    """UMLS as (entities, relations, parts by name, int64 [n, 3])."""
    path = SHARED / "kg_small" / "umls.tar.gz"
    if not path.exists():
        pytest.skip("the project's shared data are not here")
    parts = {}
    with tarfile.open(path) as archive:
        for name in ("train", "valid", "test"):
            file = archive.extractfile(f"{name}.txt")
            parts[name] = [line.decode().split() for line in file if line.strip()]
    entities = sorted({name for part in parts.values() for head, _, tail in part for name in (head, tail)})
    relations = sorted({relation for part in parts.values() for _, relation, _ in part})
    places = [{name: at for at, name in enumerate(names)} for names in (entities, relations, entities)]
    tensors = {
        name: torch.tensor([[place[word] for place, word in zip(places, line, strict=True)] for line in part])
        for name, part in parts.items()
    }
    return len(entities), len(relations), tensors
