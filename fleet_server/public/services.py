"""Owns the catalogue of what citizens can do at a terminal, and which devices that takes. Read from `services.toml`; pure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from typing import Final, Literal

import msgspec

FUNCTIONS: Final = {
    "a4-printer": "laser-printer",
    "laser-printer": "laser-printer",
    "pjl": "laser-printer",
    "receipt-printer": "receipt-printer",
    "escpos": "receipt-printer",
    "id-reader": "id-reader",
    "sdt": "id-reader",
    "scanner": "scanner",
    "scanner-serial": "scanner",
    "scanner-keyboard": "scanner",
}
"""What a device is for, by the family or the slot that an inventory names."""


class Service(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: str
    zh: str
    en: str
    needs: tuple[str, ...]
    shown: Literal["fitted", "used"]
    items: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def name(self, lang: str) -> str:
        return self.zh if lang == "zh" else self.en


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field of public service, such as social insurance."""

    code: str
    zh: str
    en: str
    areas: tuple[str, ...]

    def name(self, lang: str) -> str:
        return self.zh if lang == "zh" else self.en


class _Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: tuple[Service, ...]
    topic: tuple[Topic, ...]


def _catalogue() -> _Catalogue:
    return msgspec.convert(tomllib.loads(resources.files(__package__).joinpath("services.toml").read_text("utf-8")), _Catalogue)


_ALL: Final = _catalogue()
SERVICES: Final = _ALL.service
TOPICS: Final = _ALL.topic
SERVICE_BY_CODE: Final = {service.code: service for service in SERVICES}
TOPIC_BY_CODE: Final = {topic.code: topic for topic in TOPICS}


@lru_cache(maxsize=1024)
def function_of(slot: str, family: str) -> str | None:
    """What a place of an inventory is for; None if no service needs it. `id-reader-2` and `id_reader` are an `id-reader`."""
    stem, _, number = slot.rpartition("-")
    for word in (family, slot, stem if number.isdigit() else ""):
        if (found := FUNCTIONS.get(word.replace("_", "-"))) is not None:
            return found
    return None


def offered(functions: frozenset[str], type_: str, items: Iterable[str]) -> tuple[Service, ...]:
    """Services of a terminal with these functions, at whose site `items` were finished lately."""
    seen = tuple(items)
    return tuple(
        service
        for service in SERVICES
        if functions.issuperset(service.needs)
        and (not service.types or type_ in service.types)
        and (service.shown == "fitted" or any(_is_of(service, item) for item in seen))
    )


@lru_cache(maxsize=4096)
def _is_of(service: Service, item: str) -> bool:
    return any(fnmatchcase(item, pattern) for pattern in service.items)


def topics_of(items: Iterable[str]) -> tuple[Topic, ...]:
    areas = {item.partition(".")[0] for item in items}
    return tuple(topic for topic in TOPICS if areas.intersection(topic.areas))
