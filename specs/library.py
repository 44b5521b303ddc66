"""The specs and recipes that ship, by name."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"


def spec_names() -> list[str]:
    """Return the shipped specs as ``setting/name``."""
    return sorted(
        path.relative_to(HERE).with_suffix("").as_posix() for path in HERE.glob("*/*.yaml") if path.parent != RECIPES
    )


def recipe_names() -> list[str]:
    """Return the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_spec(name: str) -> Path:
    """Return the file that ``name`` stands for: a path as it is, else a shipped spec. It may not exist."""
    given = Path(name)
    if given.exists() or given.suffix in (".yaml", ".yml"):
        return given
    shipped = HERE / f"{name}.yaml"
    return shipped if shipped.exists() else given


def find_recipe(name: str, beside: Path) -> Path | None:
    """Return the file of recipe ``name``: shipped, or a path ending in .yaml, relative to the folder ``beside``."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        path = path if path.is_absolute() else beside / path
        return path if path.is_file() else None
    path = RECIPES / f"{name}.yaml"
    return path if path.is_file() else None
