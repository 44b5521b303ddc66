"""The JSON Schema of a spec as the schema of a flow's parameter: what Prefect's UI makes a form of."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ..specs.json_schema import ways_to_say_a_recipe
from ..specs.schema import Recipe, Spec


class AsSpec:
    """Marks a parameter that is a spec: described by the schema of specs, checked by the flow itself.

    Prefect's own check of a parameter would refuse in pydantic's words what the command line refuses in ours.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.any_schema()

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(Spec.__pydantic_core_schema__)
        recipe = handler(Recipe.__pydantic_core_schema__)
        whole = handler.resolve_ref_schema(reference)
        steps = handler.resolve_ref_schema(recipe)["properties"]["round"]["items"]
        whole["properties"]["recipe"] = ways_to_say_a_recipe(recipe, steps)
        return reference
