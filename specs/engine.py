"""What a run is run on, as a spec says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ..tasks.parameters import Parameters


class Engine(Parameters):
    """What a run is run on. Nothing here changes a number. A word alone is the kind: ``engine: dask``."""

    kind: Literal["local", "dask", "ray"] = Field(
        "local", description="worker processes here; or workers of a Dask, or actors of a Ray cluster"
    )
    address: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="of a cluster that runs already; nothing said: one is started here for the run"
    )
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(None, description="processes; nothing said: one a core")

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Engine:
        if self.kind == "local" and self.address is not None:
            raise ValueError("an address is that of a dask or a ray cluster; give the kind, or leave the address out")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        inner = {key: value for key, value in mapping.items() if key not in ("title", "description")}
        kinds = mapping["properties"]["kind"]["enum"]
        mapping.clear()
        mapping |= {"title": cls.__name__, "description": cls.__doc__, "anyOf": [{"enum": kinds}, inner]}
        return mapping
