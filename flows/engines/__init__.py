"""Where stages are done: worker processes here, workers of a Dask or a Ray cluster, or sites with their own data.

An engine changes no number. What passes between the run and a worker is a line of JSON each way; models, packets and
memories stay in the run's folder, which all workers must see under the same path. Sites are :mod:`..sites`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...specs.engine import Engine
from ..extras import missing
from ..pool import Pool, Processes


class EngineError(RuntimeError):
    """The engine cannot be had; the sentence says why and what to do."""


def open_engine(engine: Engine, lanes: int) -> Pool:
    """Return a pool of ``lanes`` workers of the engine. Raises ``EngineError``."""
    pool = ENGINES[engine.kind](engine, lanes)
    pool.writes = engine.save == "stage"
    return pool


def one_engine(engines: Iterable[Engine]) -> Engine:
    """Return the engine that all of them name. Raises ``EngineError``, for a sweep is done on one."""
    named = list(engines)
    kinds = {(one.kind, one.address): one for one in named}
    if len(kinds) > 1:
        said = " and ".join(kind if address is None else f"{kind} at {address}" for kind, address in kinds)
        raise EngineError(f"engine: a sweep is done on one engine, and this one names {said}; run one after the other")
    return named[0]


def _local(engine: Engine, lanes: int) -> Pool:
    return Processes(lanes)


def _dask(engine: Engine, lanes: int) -> Pool:
    _need("distributed", "dask")
    from .dask import DaskWorkers

    return DaskWorkers(lanes, engine.address, engine.store)


def _ray(engine: Engine, lanes: int) -> Pool:
    _need("ray", "ray")
    from .ray import RayWorkers

    return RayWorkers(lanes, engine.address, engine.store)


def _need(module: str, extra: str) -> None:
    sentence = missing(module, extra)
    if sentence is not None:
        raise EngineError(f"engine: {sentence}")


def _sites(engine: Engine, lanes: int) -> Pool:
    from ..sites.pool import SitePool

    return SitePool(engine)


ENGINES: dict[str, Callable[[Engine, int], Pool]] = {"local": _local, "dask": _dask, "ray": _ray, "sites": _sites}
"""Every engine by its name in a spec."""
