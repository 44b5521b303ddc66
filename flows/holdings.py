"""Who holds which samples: the data set read, cut and dealt out, before any agent exists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..tasks.data.partition import PARTITIONERS, Partition
from ..tasks.data.prepared import open_prepared, prepare, recall, remember, source_key
from ..tasks.data.public import PUBLIC, split_public, with_public
from ..tasks.data.registry import DATASETS
from ..tasks.data.take import take
from ..tasks.kinds import DATA_KINDS
from ..tasks.streams import numpy_stream
from .folder import replacing

if TYPE_CHECKING:
    from ..specs.schema import Spec


UNTOLD = "not told"
"""The label in partition.parquet of samples whose labels their sites keep to themselves."""


@dataclass(frozen=True)
class Holdings:
    """The data of a run: the prepared set, its folder and digest, ids of each learner, ids of the public samples."""

    folder: Path
    digest: str
    partition: Partition
    public: np.ndarray
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    y_train: np.ndarray
    y_test: np.ndarray
    data: Any
    told: bool = True
    """Whether more is known here of private samples than how many there are; of those of sites it is not."""

    @property
    def kind(self) -> str:
        """The kind of data (:data:`..tasks.kinds.DATA_KINDS`)."""
        return str(self.data.kind)

    def table(self, names: list[str]) -> pa.Table:
        """Return who holds what as the table ``partition.parquet`` (docs/run-folder.md)."""
        rows: dict[str, list[Any]] = {"agent": [], "split": [], "label": [], "count": []}
        columns = [("agent", pa.string()), ("split", pa.string()), ("label", pa.string()), ("count", pa.int64())]
        if not self.told:
            for split, held in (("train", self.partition.train), ("test", self.partition.test)):
                for name, ids in zip(names, held, strict=True):
                    for key, value in zip(rows, (name, split, UNTOLD, len(ids)), strict=True):
                        rows[key].append(value)
            return pa.table(rows, schema=pa.schema(columns))
        parts = [(name, "train", self.y_train[ids]) for name, ids in zip(names, self.partition.train, strict=True)]
        parts += [(name, "test", self.y_test[ids]) for name, ids in zip(names, self.partition.test, strict=True)]
        if len(self.public):
            parts.append(("public", "public", self.y_train[self.public]))
        for name, split, labels in parts:
            counts = np.bincount(labels, minlength=len(self.labels))
            for label in np.flatnonzero(counts):
                for key, value in zip(rows, (name, split, self.labels[label], int(counts[label])), strict=True):
                    rows[key].append(value)
        return pa.table(rows, schema=pa.schema(columns))

    def ids(self, at: Mapping[int, int] | None = None, learners: int | None = None) -> pa.Table:
        """Return the ids as a table: one row a learner, and a last one for the public samples.

        ``at``: for each agent here its place among all ``learners``, where others live elsewhere.
        """
        nothing = np.empty(0, np.int64)
        held = self.partition
        places = {i: i for i in range(held.agents)} if at is None else at
        count = held.agents if learners is None else learners
        columns: dict[str, list[np.ndarray]] = {"train": [nothing] * count, "test": [nothing] * count}
        if held.valid:
            columns["valid"] = [nothing] * count
        for name, rows in columns.items():
            for index, place in places.items() if self.told else ():
                rows[place] = getattr(held, name)[index]
            rows.append(self.public if name == "train" else nothing)
        return pa.table({name: pa.array(rows, pa.list_(pa.int64())) for name, rows in columns.items()})


def write_ids(path: Path, table: pa.Table) -> None:
    """Write the table of :meth:`Holdings.ids`."""
    with replacing(path) as draft, pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)


def hold(spec: Spec, cache: Path) -> Holdings:
    """Read, cut and deal out the data of ``spec``; prepared arrays are kept in ``cache`` and found again by key.

    Where agents live on sites these are asked. Raises ``DataError`` where the data are not there or wrong,
    ``ValueError`` where they cannot be dealt out.
    """
    if spec.engine.kind == "sites":
        from .sites.holdings import hold_of_sites

        return hold_of_sites(spec, cache)
    dataset, folder = _dataset(spec, cache)
    everything = np.arange(len(dataset.y_train), dtype=np.int64)
    public, private = np.empty(0, np.int64), everything
    y_train = np.asarray(dataset.y_train)
    if spec.data.public is not None and spec.data.public.dataset is not None:
        marked = np.asarray(dataset.columns_train[PUBLIC])
        public, private = everything[marked], everything[~marked]
    elif spec.data.public is not None and spec.data.public.share is not None:
        generator = numpy_stream(spec.seed, "public")
        public, private = split_public(y_train, spec.data.public.share, generator)
    dealt = _dealt(spec, dataset, private)
    return Holdings(
        folder,
        dataset.digest(),
        dealt.within(private),
        np.sort(public),
        tuple(dataset.labels),
        tuple(dataset.input_shape),
        y_train,
        np.asarray(dataset.y_test),
        dataset,
    )


def _dealt(spec: Spec, dataset: Any, private: np.ndarray) -> Partition:
    """Return who holds what: of the ``private`` training data, int64 [N], as places among them, and of the rest."""
    said, stream = spec.data.partition, numpy_stream(spec.seed, "partition")
    count = sum(group.count for group in spec.agents)
    of_whole = DATA_KINDS[dataset.kind].function.partitioners
    if said.by in of_whole:
        whole: Partition = of_whole[said.by].function(said, dataset, count, stream)
        return whole
    labels = np.asarray(dataset.y_train)[private]
    columns = {name: column[private] for name, column in dataset.columns_train.items()}
    test, further = np.asarray(dataset.y_test), dict(dataset.columns_test)
    y_valid = getattr(dataset, "y_valid", None)
    if y_valid is None:
        return PARTITIONERS[said.by].function(said, labels, test, columns, further, count, stream)
    # One draw for both: a way of dealing may draw anew until everybody has something to test with.
    further = {name: np.concatenate([column, dataset.columns_valid[name]]) for name, column in further.items()}
    both = np.concatenate([test, np.asarray(y_valid)])
    dealt = PARTITIONERS[said.by].function(said, labels, both, columns, further, count, stream)
    tested = tuple(ids[ids < len(test)] for ids in dealt.test)
    return Partition(dealt.train, tested, tuple(ids[ids >= len(test)] - len(test) for ids in dealt.test))


def _dataset(spec: Spec, cache: Path) -> tuple[Any, Path]:
    said, cut = spec.data.dataset, spec.data.take
    seed = spec.seed if cut.train or cut.test else 0
    extra = {"train": cut.train, "test": cut.test, "seed": seed}
    shared = None if spec.data.public is None else spec.data.public.dataset
    key = source_key(said.name, said.parameters, spec.data.root, extra)
    if shared is not None and key is not None:
        key = source_key(shared.name, shared.parameters, spec.data.root, {"beside": key})
    known = recall(cache, key) if key is not None else None
    if known is not None:
        return open_prepared(known), known
    dataset = DATASETS[said.name].function.load(said.parameters, spec.data.root)
    if cut.train or cut.test:
        dataset = take(dataset, cut.train, cut.test, numpy_stream(spec.seed, "take"))
    if shared is not None:
        dataset = with_public(dataset, DATASETS[shared.name].function.load(shared.parameters, spec.data.root))
    folder = prepare(dataset, cache)
    if key is not None:
        remember(cache, key, dataset.digest())
    return dataset, folder
