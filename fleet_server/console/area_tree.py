"""Areas as a tree with the sites below each node. Pure; whatever an import left behind (a missing parent, a circle) still shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Node:
    """An area with the number of sites in it and below it."""

    code: str
    parent: str | None
    name_zh: str
    name_en: str
    sort: int
    depth: int = 0
    own: int = 0
    sites: int = 0
    children: list[Node] = field(default_factory=list)

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code

    def below(self) -> Iterable[Node]:
        """Itself and everything under it, in the order of the page."""
        yield self
        for child in self.children:
            yield from child.below()


@dataclass(frozen=True, slots=True)
class Tree:
    roots: tuple[Node, ...]
    by_code: Mapping[str, Node]

    def flat(self) -> list[Node]:
        return [node for root in self.roots for node in root.below()]

    def inside(self, code: str) -> frozenset[str]:
        """The codes of an area and all areas below it."""
        node = self.by_code.get(code)
        return frozenset(one.code for one in node.below()) if node else frozenset()

    def path(self, code: str, lang: str) -> str:
        """`金华市 › 婺城区`."""
        names: list[str] = []
        node = self.by_code.get(code)
        while node is not None:
            names.append(node.name(lang))
            node = self.by_code.get(node.parent) if node.parent else None
        return " › ".join(reversed(names))


def build(areas: Sequence[Mapping[str, Any]], sites: Iterable[Mapping[str, Any]]) -> Tree:
    """Rows in display order. An area whose parent is missing, or that is its own ancestor, stands at the top."""
    by_code = {
        row["code"]: Node(row["code"], row["parent"] or None, row["name_zh"], row["name_en"], row["sort"] or 0) for row in areas
    }
    roots = []
    for node in by_code.values():
        if node.parent not in by_code or _circles(by_code, node):
            node.parent = None
            roots.append(node)
    for node in by_code.values():
        if node.parent is not None:
            by_code[node.parent].children.append(node)
    for row in sites:
        if row["area"] in by_code:
            by_code[row["area"]].own += 1
    for root in roots:
        _measure(root, 0)
    return Tree(tuple(roots), by_code)


def _circles(by_code: Mapping[str, Node], node: Node) -> bool:
    seen = {node.code}
    above = by_code.get(node.parent) if node.parent else None
    while above is not None:
        if above.code in seen:
            return above.code == node.code
        seen.add(above.code)
        above = by_code.get(above.parent) if above.parent else None
    return False


def _measure(node: Node, depth: int) -> int:
    node.depth = depth
    node.sites = node.own + sum(_measure(child, depth + 1) for child in node.children)
    return node.sites
