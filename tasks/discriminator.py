"""A discriminator tells whose answer a row of scores is. It travels as tensors, one of them for each contributor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from .knowledge import Models, Rows
from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

DISCRIMINATOR = "discriminator"
"""The name of the module that an aggregator keeps, and of the models that are attached to rows."""

_OF = "of "


def made(classes: int, hidden: int, contributors: int) -> torch.nn.Sequential:
    """Return a discriminator: probabilities [N, classes] in, scores [N, contributors] out."""
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(classes, hidden), torch.nn.ReLU(), linear(hidden, contributors))


def grown(network: torch.nn.Module, more: int, generator: torch.Generator) -> torch.nn.Sequential:
    """Return ``network`` with ``more`` contributors after those it knows, drawn from ``generator`` alone."""
    hidden, output = _layers(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        new = torch.nn.Linear(output.in_features, more)
        larger = made(hidden.in_features, hidden.out_features, output.out_features + more)
    larger[0].load_state_dict(hidden.state_dict())
    whole = {name: torch.cat([value, new.state_dict()[name]]) for name, value in output.state_dict().items()}
    larger[2].load_state_dict(whole)
    return larger


def packed(network: torch.nn.Module, names: Sequence[str]) -> Models:
    """Return the network as tensors that travel: the hidden layer, and for each name its output's weights and bias."""
    hidden, output = _layers(network)
    tensors = {f"hidden.{name}": value.detach().clone() for name, value in hidden.state_dict().items()}
    rows = torch.cat([output.weight, output.bias[:, None]], dim=1).detach().clone()
    tensors |= {f"{_OF}{name}": row for name, row in zip(names, rows, strict=True)}
    return Models({DISCRIMINATOR: tensors}, {DISCRIMINATOR: 1.0})


def unpacked(rows: Rows) -> tuple[Callable[[torch.Tensor], torch.Tensor], list[str]] | None:
    """Return the discriminator attached to ``rows``, probabilities [N, C] to scores [N, K], and whom it knows.

    The names are in the order of the scores; None where there is no discriminator. Nobody trains it through this.
    """
    if rows.attached is None or DISCRIMINATOR not in rows.attached.tensors:
        return None
    tensors: Mapping[str, torch.Tensor] = rows.attached.tensors[DISCRIMINATOR]
    names = [name.removeprefix(_OF) for name in tensors if name.startswith(_OF)]
    output = torch.stack([tensors[f"{_OF}{name}"] for name in names])

    def scores(probabilities: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        hidden = torch.relu(linear(probabilities, tensors["hidden.weight"], tensors["hidden.bias"]))
        return linear(hidden, output[:, :-1], output[:, -1])

    return scores, names


def _layers(network: torch.nn.Module) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    hidden, _, output = cast("torch.nn.Sequential", network)
    return cast("torch.nn.Linear", hidden), cast("torch.nn.Linear", output)
