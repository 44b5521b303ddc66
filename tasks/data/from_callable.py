"""Data from a function of your own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ..parameters import Parameters
from .dataset import DataError, Dataset
from .registry import add_source


class CallableParameters(Parameters):
    """Which function gives the data."""

    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="package.module:function; it returns a Dataset or (x_train, y_train, x_test, y_test).",
    )
    arguments: dict[str, Any] = Field({}, description="What the function is called with, by name.")


def _find(parameters: CallableParameters) -> Callable[..., Any]:
    """Return the function; raise ``DataError`` with a sentence if it is not there or cannot be called so."""
    module_name, _, name = parameters.function.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module raises is what the user needs to read
        raise DataError(
            f"callable: importing {module_name} failed with {type(error).__name__}: {error}; it must be installed or "
            "on PYTHONPATH"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        offered = [one for one, value in vars(module).items() if inspect.isfunction(value) and not one.startswith("_")]
        raise DataError(f"callable: {module_name} has no function {name!r}; it has {', '.join(offered) or 'none'}")
    try:
        inspect.signature(function).bind(**parameters.arguments)
    except TypeError as error:
        raise DataError(f"callable: {parameters.function} cannot take these arguments: {error}") from error
    except ValueError:  # some built-in functions tell no signature
        pass
    found: Callable[..., Any] = function
    return found


def _problems(parameters: CallableParameters, root: Path) -> list[str]:
    try:
        _find(parameters)
    except DataError as error:
        return [str(error)]
    return []


def _from_tuple(what: str, given: tuple[Any, ...]) -> Dataset:
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = {name: np.asarray(value) for name, value in zip(names, given, strict=True)}
    for name, array in arrays.items():
        if array.dtype.kind not in ("fiub" if name.startswith("x") else "iub"):
            needed = "numbers" if name.startswith("x") else "whole numbers"
            raise DataError(f"callable: {name} of {what} is {array.dtype}; {needed} are needed")
        arrays[name] = array.astype(np.float32 if name.startswith("x") else np.int64)
    classes = 1 + max(int(arrays[name].max(initial=-1)) for name in ("y_train", "y_test"))
    x_train, y_train, x_test, y_test = (arrays[name] for name in names)
    return Dataset(what, x_train, y_train, x_test, y_test, tuple(str(label) for label in range(classes)))


@add_source("callable", CallableParameters, _problems, None)
def read_callable(parameters: CallableParameters, root: Path) -> Dataset:
    """Data from a function of your own, named as package.module:function.

    It returns a ``Dataset``, or the four arrays (x_train, y_train, x_test, y_test), of which the first axis is the
    sample. Raises ``DataError`` if it cannot be found or called, or returns something else.
    """
    function = _find(parameters)
    given = function(**parameters.arguments)
    if isinstance(given, tuple) and len(given) == 4:
        given = _from_tuple(parameters.function, given)
    if not isinstance(given, Dataset):
        shown = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
        raise DataError(
            f"callable: {parameters.function} returned {shown}; a Dataset or the four arrays x_train, y_train, "
            "x_test, y_test are needed"
        )
    for name in ("x_train", "x_test"):
        if not np.isfinite(getattr(given, name)).all():
            raise DataError(f"callable: {name} of {parameters.function} holds NaN or infinite values")
    return given
