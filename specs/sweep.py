"""A list where a value stood: every choice becomes a variant of the spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

from .problems import Path, Problem, dotted, is_within, ordered
from .tree import Node, locate, plain, replaced

Validate = Callable[[Node], list[Problem]]

MOST_VARIANTS = 1_000


@dataclass(frozen=True)
class Variant:
    """One spec of a sweep: what was chosen at which dotted path, and the tree with these choices."""

    choices: dict[str, Any]
    node: Node


def expand(node: Node, validate: Validate, limit: int = MOST_VARIANTS) -> tuple[list[Variant], list[Problem]]:
    """Return the variants of a tree in document order, and the problems found in any of them, each one once.

    A list is an axis of the sweep if ``validate`` finds a problem exactly at its place which is gone when one of
    its elements stands there. A list of lists is also one if every inner list is right in its place. A choice may
    hold lists that are axes in turn. Each variant is validated once, each axis by itself.
    """
    sweep = _Sweep(validate, limit)
    sweep.grow({}, node)
    return sweep.variants, ordered(sweep.problems)


@dataclass
class _Axis:
    path: Path
    elements: list[Node]


@dataclass
class _Sweep:
    validate: Validate
    limit: int
    variants: list[Variant] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    full: bool = False

    def grow(self, choices: dict[str, Any], node: Node) -> None:
        """Add the variants of a tree, or the tree itself if it has no axis."""
        found = self.validate(node)
        axes = list(self.axes(node, (), node, found)) if found else []
        if not axes:
            self.problems += found
            self.variants.append(Variant(choices, node))
            return
        sizes = {dotted(axis.path): len(axis.elements) for axis in axes}
        if len(self.variants) + prod(sizes.values()) > self.limit:
            product_text = " x ".join(f"{name}: {size}" for name, size in sizes.items())
            message = f"the sweep has more than {self.limit:,} variants ({product_text})"
            self.problems.append(Problem(locate(node, axes[0].path), dotted(axes[0].path), message))
            self.full = True
            return
        for elements in product(*(axis.elements for axis in axes)):
            variant, chosen = node, dict(choices)
            for axis, element in zip(axes, elements, strict=True):
                variant = _with(variant, axis.path, element)
                chosen[dotted(axis.path)] = plain(element)
            self.grow(chosen, variant)
            if self.full:
                return

    def axes(self, node: Node, path: Path, root: Node, found: list[Problem]) -> Iterator[_Axis]:
        """Yield the axes at or below a node; none within another."""
        here = dotted(path)
        if not any(is_within(problem.where, here) for problem in found):
            return
        if isinstance(node.value, dict):
            for key, item in node.value.items():
                yield from self.axes(item, (*path, key), root, found)
        elif isinstance(node.value, list):
            if path and self.is_axis(node.value, path, root, found):
                yield _Axis(path, node.value)
                return
            for index, item in enumerate(node.value):
                yield from self.axes(item, (*path, index), root, found)

    def is_axis(self, elements: list[Node], path: Path, root: Node, found: list[Problem]) -> bool:
        here = dotted(path)
        tried = (self.validate(_with(root, path, element)) for element in elements)
        if any(problem.where == here for problem in found):
            return any(all(problem.where != here for problem in left) for left in tried)
        if elements and all(isinstance(element.value, list) for element in elements):
            return all(not any(is_within(problem.where, here) for problem in left) for left in tried)
        return False


def _with(root: Node, path: Path, element: Node) -> Node:
    return replaced(root, path, replace(element, key_mark=None))
