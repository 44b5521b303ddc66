"""The density ratio against the paper's equations written with loops, and against a ratio that is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.filters import FILTERS
from codistill.tasks.filters.density import kulsif
from codistill.tasks.knowledge import Rows
from codistill.tasks.streams import torch_stream


def by_hand(numerator, denominator, sigma, ridge, x):
    """Kanamori et al. 2012: solve (K11 / n + ridge I) alpha = -K12 1 / (n m ridge), kernel by kernel."""

    def k(a, b):
        return math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * sigma**2))

    n, m = len(denominator), len(numerator)
    left = [[k(a, b) / n + ridge * (i == j) for j, b in enumerate(denominator)] for i, a in enumerate(denominator)]
    right = [-sum(k(a, b) for b in numerator) / (n * m * ridge) for a in denominator]
    alpha = np.linalg.inv(np.array(left)) @ np.array(right)
    return np.array(
        [
            sum(w * k(z, a) for w, a in zip(alpha, denominator, strict=True))
            + sum(k(z, b) for b in numerator) / (m * ridge)
            for z in x
        ]
    )


@pytest.mark.parametrize(("sigma", "ridge"), [(0.5, 0.1), (2.0, 0.01)])
def test_kulsif_is_the_papers_closed_form(sigma, ridge):
    rng = np.random.default_rng(0)
    numerator, denominator, x = rng.normal(size=(7, 3)), rng.uniform(-2, 2, (11, 3)), rng.normal(size=(5, 3))
    found = kulsif(torch.tensor(numerator), torch.tensor(denominator), sigma, ridge)(torch.tensor(x))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), by_hand(numerator, denominator, sigma, ridge, x), rtol=1e-8)


def test_what_is_not_said_comes_from_the_samples():
    rng = np.random.default_rng(1)
    numerator, denominator = rng.normal(size=(9, 2)), rng.uniform(-2, 2, (16, 2))
    found = kulsif(torch.tensor(numerator), torch.tensor(denominator))
    apart = sorted(np.linalg.norm(numerator[i] - numerator[j]) for i in range(9) for j in range(i))
    assert found.sigma == pytest.approx(apart[(len(apart) - 1) // 2], rel=1e-12)
    assert found.regularization == 0.25


@pytest.mark.parametrize("alike", [1, 4])
def test_samples_that_are_all_alike_have_a_width_too(alike):
    assert kulsif(torch.full((alike, 3), 0.3).double(), torch.rand(5, 3).double()).sigma == 1.0


def test_the_estimate_comes_near_a_ratio_that_is_known():
    generator = torch_stream(1, "ratio")
    normal = torch.randn(2000, 1, generator=generator, dtype=torch.float64) * 0.5
    uniform = torch.rand(1000, 1, generator=generator, dtype=torch.float64) * 6 - 3
    x = torch.linspace(-2.5, 2.5, 11).double()[:, None]
    known = torch.exp(-x.square() / 0.5) / (0.5 * math.sqrt(2 * math.pi)) * 6
    found = kulsif(normal, uniform, 0.5, 0.01)(x)
    assert (found - known[:, 0]).abs().max() < 0.3  # the largest ratio is 4.8


def ratio_rows(ids, form="logits"):
    return Rows(form, torch.tensor(ids), torch.zeros(len(ids), 5), torch.ones(len(ids)).double())


def verdicts(agent, ids, context, **said):
    entry = FILTERS["density_ratio"]
    return entry.function(agent, ratio_rows(ids), entry.parameters.model_validate(said), context).numpy()


@pytest.fixture
def crowd(world, context):
    """A world whose samples 0 to 29 and 60 to 74 lie close together, and 75 to 89 elsewhere."""
    generator = torch_stream(2, "crowd")
    x = world.x_train.clone()
    x[:30] = 0.2 + 0.05 * torch.randn(30, 1, 8, 8, generator=generator)
    x[60:75] = 0.2 + 0.05 * torch.randn(15, 1, 8, 8, generator=generator)
    x[75:] = 0.8 + 0.05 * torch.randn(15, 1, 8, 8, generator=generator)
    return replace(context, world=replace(world, x_train=x))


def test_samples_like_the_agents_own_pass_and_others_do_not(agent, crowd):
    found = verdicts(agent, list(range(60, 90)), crowd, share=1.0)
    assert found[:15].sum() >= 13 and not found[15:].any()


@pytest.mark.parametrize("said", [{"share": 0.75}, {"least": 1.2, "sigma": 1.5}, {"basis": 6, "calibration": 8}])
def test_the_filter_is_the_papers_closed_form_on_samples_from_the_agents_stream(said, agent, crowd):
    x = crowd.world.x_train.double().flatten(1).numpy()
    basis, generator = said.get("basis", 256), torch_stream(7, "agent", "phone", "density_ratio")
    order = torch.randperm(30, generator=generator).numpy()
    inside, outside = order[: min(basis, 15)], order[min(basis, 15) :][: said.get("calibration", 1000)]
    drawn = torch.rand(basis, 64, generator=generator, dtype=torch.float64).numpy()
    low, high = x[inside].min(), x[inside].max()
    uniform = low + (high - low) * drawn
    apart = sorted(np.linalg.norm(x[a] - x[b]) for n, a in enumerate(inside) for b in inside[:n])
    sigma = said.get("sigma", apart[(len(apart) - 1) // 2])

    def squares(a, b):
        return ((a[:, None] - b[None]) ** 2).sum(2)

    def k(a, b):
        return np.exp(-squares(a, b) / (2 * sigma**2))

    ridge = basis**-0.5
    left = k(uniform, uniform) / basis + ridge * np.eye(basis)
    alpha = np.linalg.solve(left, -k(uniform, x[inside]).sum(1) / (basis * len(inside) * ridge))

    def ratio(z):
        return k(z, uniform) @ alpha + k(z, x[inside]).mean(1) / ridge

    ids = list(range(60, 90))
    known = np.sort(ratio(x[outside]))[::-1]
    threshold = said.get("least", known[math.ceil(said.get("share", 0.75) * len(known)) - 1])
    expected = ratio(x[ids])
    assert np.abs(expected - threshold).min() > 1e-9
    found = verdicts(agent, ids, crowd, **said)
    np.testing.assert_array_equal(found, expected >= threshold)
    assert 0 < found.sum() < 30


def test_verdicts_do_not_move_from_round_to_round(agent, crowd):
    ids = list(range(60, 90))
    found = verdicts(agent, ids, crowd)
    np.testing.assert_array_equal(found, verdicts(agent, ids, replace(crowd, round=4, place="extract.1")))


def test_an_agent_with_one_sample_compares_with_that(another, crowd):
    one = another("tiny", torch.tensor([4]))
    assert verdicts(one, [4, 80], crowd).tolist() == [True, False]


def test_it_needs_samples_on_both_sides(agent, another, context):
    entry = FILTERS["density_ratio"]
    with pytest.raises(ValueError, match="prototypes is not keyed by"):
        entry.function(agent, ratio_rows([1], "prototypes"), entry.parameters(), context)
    with pytest.raises(ValueError, match="server: the filter density_ratio compares"):
        entry.function(
            another("server", torch.empty(0, dtype=torch.int64)), ratio_rows([1]), entry.parameters(), context
        )
