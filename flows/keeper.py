"""A worker's agents: made, loaded, kept in memory while there is room, and saved."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import torch
from safetensors.torch import load_file, save_file

from ..tasks import packet
from ..tasks.agent import Agent, World
from ..tasks.architecture import Architecture
from ..tasks.kinds import DATA_KINDS
from ..tasks.memory import KINDS, Memory
from ..tasks.models import architecture
from ..tasks.patterns import ModelChoice
from ..tasks.share import EncodingChoice
from ..tasks.stores import Declaration, Store
from ..tasks.streams import torch_stream
from .folder import STORE, WAITING, RunFolder, piece_beside, waiting
from .plan import Plan
from .versions import Versions

ROOM = 192 * 2**20
"""Bytes of models that a worker keeps in memory; the rest waits on disk."""

OWN = ("model", "companion")
"""What an agent's own models are called; other modules are made by steps that ask for them."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """An agent in memory; ``version`` is the round that left it, or the one that it is in the middle of.

    ``stage``: the stage that left it in the middle of the round; None: it is not in the middle of one. ``written``:
    whether it is on disk as it is.
    """

    agent: Agent
    version: int
    stage: int | None
    size: int
    written: bool = True


class Keeper:
    """Loads an agent as its last round left it, and keeps it for the next stage."""

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        world: World,
        ids: list[tuple[torch.Tensor, torch.Tensor]],
        valid: list[torch.Tensor] | None = None,
    ) -> None:
        self._folder, self._plan, self._world, self._ids = folder, plan, world, ids
        self._valid = valid or []
        self._versions = Versions(plan)
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._held = 0
        self._declared = {name: Declaration.model_validate(said) for name, said in plan.memories.items()}

    def load(self, place: int, number: int, stage: int) -> Agent:
        """Return the agent as a stage of round ``number`` finds it: in the middle, or as the round before left it."""
        kept = self._kept.get(place)
        if kept is not None:
            expected = self._versions.before(number, place) if kept.stage is None else number
            if kept.version == expected:
                self._kept.move_to_end(place)
                return kept.agent
            self._let_go(place)
        agent = self._made(place)
        earlier = self._folder.find_unfinished(number, stage, place)
        if earlier is not None:
            self._read(agent, self._folder.unfinished(number, earlier, place))
            self._open(agent, self._folder.state(number, place), waiting(earlier))
        else:
            version = self._versions.before(number, place)
            left = None if version is None else self._folder.state(version, place)
            if left is None and self.inherits(place):
                left = self._folder.inherited(place)
            if left is not None:
                self._folder.fetch(left)
                self._read(agent, left)
                self._open(agent, left, STORE)
        return agent

    def inherits(self, place: int) -> bool:
        """Whether the agent comes from a run that this one goes on from."""
        self._folder.fetch(self._folder.inherited(place))
        return self._folder.inherited(place).exists()

    def keep(self, place: int, agent: Agent, number: int, stage: int, write: bool) -> None:
        """Keep an agent after a stage of round ``number`` for the next one; ``write``: also for another worker."""
        if write:
            self._write(agent, number, place, stage)
            self._folder.publish_unfinished(number, stage, place)
        self._hold(place, _Kept(agent, number, stage, _size(agent), written=write))

    def save(self, place: int, agent: Agent, number: int) -> None:
        """Write the version of the agent that round ``number`` leaves, and keep the agent for the next round."""
        self._write(agent, number, place)
        self._folder.publish(self._folder.state(number, place))
        self._hold(place, _Kept(agent, number, None, _size(agent)))

    def _hold(self, place: int, kept: _Kept) -> None:
        """Put an agent last in line, and let those go that waited longest where there is no more room."""
        if place in self._kept:
            self._let_go(place)
        self._kept[place] = kept
        self._held += kept.size
        while self._held > ROOM and len(self._kept) > 1:
            first = next(iter(self._kept))
            gone = self._let_go(first)
            if not gone.written:
                self._write(gone.agent, gone.version, first, gone.stage)

    def _let_go(self, place: int) -> _Kept:
        gone = self._kept.pop(place)
        self._held -= gone.size
        return gone

    def _architectures(self, place: int) -> dict[str, Architecture]:
        said = self._plan.agents[place]
        chosen = {"model": said.model, "companion": self._plan.companion if said.tier < 0 else None}
        made: dict[str, Architecture] = {}
        for name, value in chosen.items():
            if value is not None:
                one = ModelChoice.model_validate(value)
                made[name] = architecture(one.name, one.parameters, self._plan.input_shape, self._plan.classes)
        return made

    def _made(self, place: int) -> Agent:
        said = self._plan.agents[place]
        train, test = self._ids[place] if place < self._plan.learners else self._pooled(said.test_samples > 0)
        agent = Agent(said.name, said.group, said.role, train, test, self._architectures(place))
        agent.above = "" if said.parent is None else self._plan.agents[said.parent].name
        if place < len(self._valid):
            agent.valid_ids = self._valid[place]
        agent.memory = Memory(self._declared)
        for name, one in agent.architectures.items():
            shared = said.initial == "shared" or name == "companion"
            owner = one.name if shared else f"{said.name}/{one.name}"
            stream = torch_stream(self._plan.seed, "initial", name, owner)
            agent.models[name] = DATA_KINDS[self._plan.kind].function.build(one, stream, agent, self._world, shared)
        return agent

    def _pooled(self, tested: bool) -> tuple[torch.Tensor, torch.Tensor]:
        nothing = torch.empty(0, dtype=torch.int64)
        return nothing, torch.cat([test for _, test in self._ids]) if tested else nothing

    def _write(self, agent: Agent, number: int, place: int, stage: int | None = None) -> None:
        left = self._folder.state(number, place)
        path = left if stage is None else self._folder.unfinished(number, stage, place)
        for folder in (path.parent, left.parent):  # a worker that fetches what it needs has not made them
            folder.mkdir(parents=True, exist_ok=True)
        models = [*((name, model.state_dict()) for name, model in agent.models.items()), *agent.parked.items()]
        save_file({f"{name}/{key}": value for name, state in models for key, value in state.items()}, path)
        plain = EncodingChoice.model_validate("float32")
        for name, store in sorted(agent.memory.stores.items()):
            # Where an agent waits on disk in the middle of a round its files must outlive the round's packets.
            store.write(left.parent, f"{place}.{STORE if stage is None else waiting(stage)}.{name}")
        for kind in KINDS:
            if kind == "working" and stage is None:
                continue
            for key, item in agent.memory.items(kind).items():
                label = packet.Label(item.contributor or agent.name, item.round, 0)
                message = packet.encode(item.knowledge, plain.name, plain.parameters, label, remembered=True)
                packet.write(piece_beside(path, kind, key), message)

    def _read(self, agent: Agent, path: Path) -> None:
        grouped: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in load_file(path).items():
            name, _, rest = key.partition("/")
            grouped.setdefault(name, {})[rest] = value
        for name, tensors in grouped.items():
            if name in agent.models:
                agent.models[name].load_state_dict(tensors)
            elif name not in OWN:  # else it is the model of an agent that has none in this run
                agent.parked[name] = tensors
        for file in sorted(path.parent.glob(f"{path.stem}.*.arrow")):
            _, kind, key, *_ = file.name.split(".")
            if kind == STORE or kind.startswith(WAITING):
                continue
            knowledge, head = packet.decode(file.read_bytes())
            maker = "" if head["sender"] == agent.name else head["sender"]
            agent.memory.hold(kind, unquote(key), knowledge, int(head["round"]), maker)  # type: ignore[arg-type]

    def _open(self, agent: Agent, path: Path, word: str) -> None:
        for name in self._declared:
            manifest = path.with_name(f"{path.stem}.{word}.{name}.json")
            if manifest.exists():
                agent.memory.stores[name] = Store.open(manifest)


def _size(agent: Agent) -> int:
    models = sum(value.numel() * 4 for model in agent.models.values() for value in model.parameters())
    stores = sum(store.statistics.bytes for store in agent.memory.stores.values())
    return models + stores + sum(agent.memory.bytes(kind) for kind in KINDS)
