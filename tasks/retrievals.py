"""How something is found in a store: all of it, by id, by class, or by what is nearest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .agent import Agent, Context
from .aggregate import mean_of_rows
from .choice import Choice, choice
from .held import completed, rows_of
from .keys import KEYS, KeyChoice
from .knowledge import Rows
from .late import late
from .parameters import Parameters
from .registry import Registry

if TYPE_CHECKING:
    import torch

    from .stores import Store
else:
    torch = late("torch")

RETRIEVALS: Registry[Callable[..., Rows | None]] = Registry("retrievals")

EVENLY = 1e9
"""A temperature of the softmax over what was found at which all weigh the same."""


class All(Parameters):
    """Nothing to choose."""


class Ids(Parameters):
    """Nothing to choose."""


class Classes(Parameters):
    """Nothing to choose."""


class Nearest(Parameters):
    """The nearest by similarity of keys."""

    k: Annotated[int, Field(ge=1, le=1024)] = Field(16, description="entries that are found for each row, at most")
    similarity: Literal["dot", "cosine", "l2"] = "cosine"
    same_class: bool = Field(False, description="of the row's own class alone")
    not_mine: bool = Field(False, description="of others alone")
    max_age: Annotated[int, Field(ge=0)] | None = Field(None, description="rounds; older ones are not found")
    temperature: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="of the softmax over similarities; nothing said: all that is found counts the same",
    )
    keys: KeyChoice | None = Field(
        None, description="how the agent finds a key for its own samples, where it does not ask for rows in hand"
    )


@RETRIEVALS.register("all", All)
def everything(agent: Agent, store: Store, said: All, hand: Rows | None, form: str, context: Context) -> Rows | None:
    """All that is held; what several contributed to one id lies side by side."""
    found = rows_of(store.all(), form)
    return found if found.items else None


@RETRIEVALS.register("id", Ids)
def by_id(agent: Agent, store: Store, said: Ids, hand: Rows | None, form: str, context: Context) -> Rows | None:
    """What is held for the ids in hand, the mean over contributors; ids that nothing is held for are left out."""
    ids = agent.train_ids if hand is None else torch.unique(hand.ids)
    held = store.get(ids.numpy(), round=context.round, missing="skip")
    return mean_of_rows([rows_of(held, form)]) if len(held) else None


@RETRIEVALS.register("class", Classes)
def by_class(agent: Agent, store: Store, said: Classes, hand: Rows | None, form: str, context: Context) -> Rows | None:
    """The mean of all that is held of each class, keyed by class."""
    means = []
    for label in store.classes():
        held = rows_of(store.of_class(label, round=context.round), form)
        means.append(mean_of_rows([replace(held, ids=torch.full_like(held.ids, label))]))
    if not means:
        return None
    return Rows(
        form,
        torch.cat([one.ids for one in means]),
        torch.cat([one.values for one in means]),
        torch.cat([one.weights for one in means]),
        sum(one.samples for one in means),
    )


@RETRIEVALS.register("nearest", Nearest)
def nearest(agent: Agent, store: Store, said: Nearest, hand: Rows | None, form: str, context: Context) -> Rows | None:
    """For each row the mean of the k entries whose keys are nearest to its own key, for the row's owner (FedCache)."""
    asking = _own(agent, said, context) if hand is None else completed(hand, store)
    if asking.keys is None or not asking.items or asking.owners is None:
        return None
    owners = [asking.contributors[place] for place in asking.owners.tolist()] if said.not_mine else None
    found = store.nearest(
        asking.keys,
        said.k,
        said.similarity,
        round=context.round,
        not_mine=owners,
        same_class=asking.classes if said.same_class else None,
        max_age=said.max_age,
        temperature=EVENLY if said.temperature is None else said.temperature,
    )
    answered = (found.rows >= 0).sum(1)
    answers = replace(
        asking, form=form, values=found.values, weights=answered.double(), classes=None, keys=None, addressed=True
    )
    return answers.part(answered > 0) if answered.any() else None


def _own(agent: Agent, said: Nearest, context: Context) -> Rows:
    """Return the agent's own samples as rows that ask: with keys and classes, and no values."""
    ids = agent.train_ids.sort().values
    keys = None if said.keys is None else KEYS[said.keys.name].function(agent, ids, said.keys.parameters, context)
    nothing = torch.zeros(len(ids), 0)
    ones = torch.ones(len(ids), dtype=torch.float64)
    classes, owners = context.world.y_train[ids], torch.zeros_like(ids)
    return Rows("logits", ids, nothing, ones, float(len(ids)), classes, (agent.name,), owners, keys)


if TYPE_CHECKING:
    RetrievalChoice = Choice
else:
    RetrievalChoice = choice("Retrieval", RETRIEVALS, "How something is found in a store.")
