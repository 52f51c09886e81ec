"""A catalogue of service items as one file: canonical JSON. An item that is off is offered nowhere, whoever lists it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocols.contract.records import ItemCode, Version
from protocols.packages.profiles import PackageError, read

CATALOGUE_MAX_BYTES = 1024 * 1024
MAX_ITEMS = 2000

Name = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f<>]{1,80}\Z")]


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: ItemCode
    type: Literal["handle", "query", "book", "other"] = "handle"
    zh: Name
    en: Name
    on: bool = True


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["kf-catalogue/1"] = "kf-catalogue/1"
    version: Version
    items: Annotated[tuple[Item, ...], Meta(max_length=MAX_ITEMS)]

    def on(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.on)

    def off(self) -> frozenset[str]:
        return frozenset(item.code for item in self.items if not item.on)


def encode(catalogue: Catalogue) -> bytes:
    """In order of the codes. Raises PackageError if a terminal would refuse it."""
    ordered = msgspec.structs.replace(catalogue, items=tuple(sorted(catalogue.items, key=lambda item: item.code)))
    raw = msgspec.json.encode(ordered)
    decode(raw)
    return raw


def decode(raw: bytes) -> Catalogue:
    """Raises PackageError."""
    catalogue = read(raw, Catalogue, CATALOGUE_MAX_BYTES)
    seen: set[str] = set()
    for index, item in enumerate(catalogue.items):
        if item.code in seen:
            raise PackageError(f"items[{index}].code: there twice")
        seen.add(item.code)
    return catalogue
