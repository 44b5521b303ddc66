"""What must hold of ``retrieve`` for any bank: its order does not matter, and a mask is a smaller bank."""

import hypothesis
import hypothesis.strategies as st
import torch
from codistill.kernels.retrieval import retrieve


@st.composite
def banks(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, str]:
    """Queries, keys and values of random numbers, between which there are no ties; k; a similarity."""
    rows, count, width = draw(st.integers(1, 6)), draw(st.integers(1, 150)), draw(st.integers(2, 9))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    queries, keys, values = (torch.randn(n, width, generator=random) for n in (rows, count, count))
    return queries, keys, values, draw(st.integers(1, 20)), draw(st.sampled_from(["dot", "cosine", "l2"]))


BACKENDS = st.sampled_from(["cpu", "reference"])


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(banks(), BACKENDS, st.randoms(use_true_random=False))
def test_the_order_of_the_bank_only_renames(bank, backend, random) -> None:  # type: ignore[no-untyped-def]
    queries, keys, values, k, similarity = bank
    order = list(range(len(keys)))
    random.shuffle(order)
    moved = torch.tensor(order)
    first = retrieve(queries, keys, values, k=k, similarity=similarity, backend=backend)
    second = retrieve(queries, keys[moved], values[moved], k=k, similarity=similarity, backend=backend)
    assert torch.equal(torch.where(second.indices < 0, -1, moved[second.indices]), first.indices)
    torch.testing.assert_close(second.values, first.values, rtol=1e-4, atol=1e-5)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(banks(), BACKENDS, st.integers(0, 2**20))
def test_a_mask_is_a_smaller_bank(bank, backend, seed) -> None:  # type: ignore[no-untyped-def]
    queries, keys, values, k, similarity = bank
    random = torch.Generator().manual_seed(seed)
    owner, class_, age = (torch.randint(0, 3, (len(keys),), generator=random) for _ in range(3))
    mine = torch.randint(0, 3, (len(queries),), generator=random)
    wanted = torch.randint(0, 3, (len(queries),), generator=random)
    found = retrieve(
        queries,
        keys,
        values,
        k=k,
        similarity=similarity,
        query_owner=mine,
        key_owner=owner,
        query_class=wanted,
        key_class=class_,
        key_age=age,
        max_age=1,
        backend=backend,
    )
    assert found.values is not None
    for row in range(len(queries)):
        left = ((owner != mine[row]) & (class_ == wanted[row]) & (age <= 1)).nonzero()[:, 0]
        alone = retrieve(queries[row : row + 1], keys[left], values[left], k=k, similarity=similarity, backend=backend)
        names = torch.cat([left, torch.tensor([-1])])  # index -1 is -1 again
        assert torch.equal(names[alone.indices[0]], found.indices[row])
        assert alone.values is not None
        torch.testing.assert_close(alone.values[0], found.values[row], rtol=1e-4, atol=1e-5)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(banks(), BACKENDS)
def test_the_answers_of_two_banks_can_be_merged(bank, backend) -> None:  # type: ignore[no-untyped-def]
    queries, keys, values, k, similarity = bank
    half = len(keys) // 2
    parts = [
        retrieve(queries, keys[some], values[some], k=len(keys), similarity=similarity, backend=backend)
        for some in (slice(half), slice(half, None))
    ]
    whole = retrieve(queries, keys, values, k=len(keys), similarity=similarity, backend=backend)
    shares = torch.softmax(torch.stack([part.log_sum_exp for part in parts]), 0)
    merged = sum(share[:, None] * part.values for share, part in zip(shares, parts, strict=True))
    torch.testing.assert_close(merged, whole.values, rtol=1e-4, atol=1e-5)
