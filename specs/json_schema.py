"""The JSON Schema of a spec file as people write it, for editors."""

from __future__ import annotations

from typing import Any

from .library import recipe_names
from .schema import Recipe, Spec


def json_schema() -> dict[str, Any]:
    """Return the schema: what a checked spec is, and besides it the short ways to write a recipe."""
    made = Spec.model_json_schema(by_alias=True, mode="validation")
    definitions = made["$defs"]
    full = definitions[Recipe.__name__]
    steps = {"type": "array", "items": {"$ref": "#/$defs/Step"}, "minItems": 1, "description": full["description"]}
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
    made["properties"]["recipe"] = {
        "description": "a recipe's name, a recipe with changes, or the steps of a round",
        "anyOf": [named, used, steps, {"$ref": f"#/$defs/{Recipe.__name__}"}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
