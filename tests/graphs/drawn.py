"""Random small graphs for hypothesis."""

import torch
from hypothesis import strategies as st


@st.composite
def graphs(draw, most=40):
    """Triples int64 [N, 3], some of them twice, some self-loops; and how many entities and relations there are."""
    entities, relations = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    one = st.tuples(st.integers(0, entities - 1), st.integers(0, relations - 1), st.integers(0, entities - 1))
    rows = draw(st.lists(one, max_size=most))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3), entities, relations
