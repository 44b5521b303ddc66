"""The JSON Schema of a spec file as people write it, for editors."""

from __future__ import annotations

from typing import Any

from .library import recipe_names
from .schema import Recipe, Spec


def json_schema() -> dict[str, Any]:
    """Return the schema: what a checked spec is, and besides it the short ways to write a recipe."""
    made = Spec.model_json_schema(by_alias=True, mode="validation")
    made["properties"]["recipe"] = ways_to_say_a_recipe(
        {"$ref": f"#/$defs/{Recipe.__name__}"}, {"$ref": "#/$defs/Step"}
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def ways_to_say_a_recipe(full: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of ``recipe`` as people write it; ``full`` and ``step`` refer to a whole one and to a step."""
    steps = {"type": "array", "items": step, "minItems": 1, "description": Recipe.__doc__}
    named = {"anyOf": [{"enum": recipe_names()}, {"type": "string", "pattern": r"\.ya?ml$"}]}
    used = {
        "type": "object",
        "properties": {
            "use": {**named, "description": "a shipped recipe, or a path to one"},
            "with": {
                "type": "object",
                "description": "values to change, such as {train.epochs: 2}",
            },
        },
        "required": ["use"],
        "additionalProperties": False,
    }
    return {
        "description": "a recipe's name, a recipe with changes, or the steps of a round",
        "anyOf": [named, used, steps, full],
    }
