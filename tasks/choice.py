"""Types for "one of the names in a registry, with its parameters", as a spec writes them.

Two ways of writing exist. ``choice``: a word or a mapping with one key (``optimizer: sgd``,
``optimizer: {sgd: {lr: 0.1}}``). ``tagged``: a mapping in which one key names the variant
(``aggregate: {by: mean, weight: samples}``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, GetJsonSchemaHandler, Tag, create_model, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from .parameters import Parameters
from .registry import Entry, Registry


class Choice(Parameters):
    """A word, or a mapping with exactly one key."""

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, value: Any) -> Any:
        names = [field.alias for field in cls.model_fields.values()]
        if isinstance(value, str):
            if value not in names:
                raise PydanticCustomError(
                    "unknown_name",
                    "expected one of {expected}",
                    {"expected": ", ".join(map(str, names)), "names": names},
                )
            return {value: {}}
        if isinstance(value, dict):
            known = [key for key in value if key in names]
            if len(value) != 1 and len(known) == len(value):
                raise PydanticCustomError(
                    "one_key", "expected exactly one of {expected}", {"expected": ", ".join(map(str, names))}
                )
            return {key: {} if inner is None and key in names else inner for key, inner in value.items()}
        return value

    @property
    def name(self) -> str:
        """The name that was chosen."""
        (field,) = self.model_fields_set
        return str(type(self).model_fields[field].alias)

    @property
    def parameters(self) -> Any:
        """The parameters under that name."""
        (field,) = self.model_fields_set
        return getattr(self, field)

    @model_serializer(mode="plain")
    def _as_written(self) -> dict[str, Any]:
        return {self.name: self.parameters.model_dump(mode="json", by_alias=True)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        names = [field.alias for field in cls.model_fields.values()]
        inner = {**mapping, "minProperties": 1, "maxProperties": 1}
        inner.pop("title", None)
        mapping.clear()
        mapping |= {"title": cls.__name__, "description": cls.__doc__, "anyOf": [{"enum": names}, inner]}
        return mapping


def choice(title: str, registry: Registry[Any], sentence: str) -> type[Choice]:
    """Return the type of "one of ``registry``", called ``title`` in the JSON Schema."""
    fields: dict[str, Any] = {}
    for entry in registry:
        described = Field(None, alias=entry.name, description=entry.sentence)
        fields[entry.name.replace("-", "_") + "_"] = (entry.parameters | None, described)
    return create_model(title, __base__=Choice, __doc__=sentence, **fields)


def tagged(title: str, registry: Iterable[Entry[Any]], tag: str, default: str | None = None) -> Any:
    """Return the type of a mapping whose key ``tag`` names an entry of a registry.

    A mapping without the key is ``default``'s, which does not have it: its parameters are taken as they are.
    """
    members: list[Any] = []
    for entry in registry:
        if entry.name == default:
            members.append(Annotated[entry.parameters, Tag(default)])
            continue
        name = "".join(part.capitalize() for part in entry.name.replace("_", "-").split("-"))
        field: dict[str, Any] = {tag: (Literal[entry.name], Field(description=entry.sentence))}
        made = create_model(f"{title}{name}", __base__=entry.parameters, __doc__=entry.sentence, **field)
        members.append(made if default is None else Annotated[made, Tag(entry.name)])
    if len(members) == 1:
        return members[0]
    if default is None:
        return Annotated[Union[tuple(members)], Discriminator(tag)]  # noqa: UP007

    def said(value: Any) -> str:
        return str(value.get(tag, default) if isinstance(value, dict) else getattr(value, tag, default))

    return Annotated[Union[tuple(members)], Discriminator(said)]  # noqa: UP007


def when_asked(**makers: Callable[[], Any]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that makes each of these names when somebody first asks for it.

    A type over a registry is made so, where parts that add to the registry import the module that has it.
    """
    made: dict[str, Any] = {}

    def attribute(name: str) -> Any:
        if name not in makers:
            raise AttributeError(name)
        if name not in made:
            made[name] = makers[name]()
        return made[name]

    return attribute
