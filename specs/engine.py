"""What a run is run on, as a spec says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..tasks.parameters import Name, Parameters
from .durations import Duration

COORDINATOR = "coordinator"
"""Who does what no site does; no site is called so."""
SIGNS_OF_LIFE = 5
"""Seconds between the signs of life of a site, at most."""
PublicKey = Annotated[
    str, Field(pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$", description="as `codistill site key` prints it")
]


class Engine(Parameters):
    """What a run is run on. A word alone is the kind: ``engine: dask``. Of all this only sites change numbers."""

    kind: Literal["local", "dask", "ray", "sites"] = Field(
        "local",
        description="worker processes here; workers of a Dask, actors of a Ray cluster; or sites with their own data",
    )
    address: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="of a cluster that runs already; nothing said: one is started here for the run"
    )
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(None, description="processes; nothing said: one a core")
    sites: dict[Name, PublicKey] = Field(
        default_factory=dict, description="every site by the name of its work pool, with its public key"
    )
    store: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="a folder or a URL of fsspec such as s3://bucket/folder: what all sites can reach; or where a run "
        "is kept for workers of Dask or Ray that do not see its folder",
    )
    wait: Duration = Field(600.0, description="for a site that is away; then the round goes on without it")
    save: Literal["round", "stage"] = Field(
        "round",
        description="when agents are written, so that another worker can go on with those of one that died: after each "
        "round, or after each stage too",
    )
    keep: bool = Field(False, description="whether letters stay in the store, to look at what was sent")
    limit: Annotated[float, Field(gt=0, le=100_000)] = Field(256, description="MB that one letter of a site may have")

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Engine:
        if self.kind == "local" and self.address is not None:
            raise ValueError("an address is that of a dask or a ray cluster; give the kind, or leave the address out")
        if self.kind != "sites":
            if self.sites:
                raise ValueError("`sites` are of the kind sites; write `kind: sites`, or leave them out")
            if self.kind == "local" and self.store is not None:
                raise ValueError("worker processes here need no `store`; leave it out, or name another kind")
        elif not self.sites or self.store is None:
            raise ValueError("runs on sites need `sites` with the key of each, and `store`, which all can reach")
        elif self.address is not None or self.workers is not None:
            raise ValueError("sites come by themselves: leave `address` and `workers` out")
        elif self.save == "stage":
            raise ValueError("sites save their agents after each round: leave `save` out")
        elif self.wait < SIGNS_OF_LIFE * 2:
            raise ValueError(f"`wait` is at least {SIGNS_OF_LIFE * 2}s: a site gives a sign of life every few seconds")
        elif COORDINATOR in self.sites:
            raise ValueError(f"no site can be called {COORDINATOR!r}: that is who does what no site does")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        inner = {key: value for key, value in mapping.items() if key not in ("title", "description")}
        kinds = mapping["properties"]["kind"]["enum"]
        mapping.clear()
        mapping |= {"title": cls.__name__, "description": cls.__doc__, "anyOf": [{"enum": kinds}, inner]}
        return mapping
