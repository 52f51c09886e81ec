"""A set of device profiles as one file: canonical JSON of `{kind, version, files}`, where files are TOML texts by name without `.toml`.

The same profiles give the same bytes. A set is read whole or not at all: one profile that is wrong refuses it, with its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from protocols.contract.records import ProfileId, Version
from protocols.errors import ProtocolError
from protocols.profile.schema import PROFILE_MAX_BYTES, Profile, parse_all

PROFILES_MAX_BYTES = 4 * 1024 * 1024
MAX_PROFILES = 512

_T = TypeVar("_T")


class PackageError(ProtocolError):
    """A package that cannot be used; the message names the place and the rule."""


class ProfileSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["kf-profiles/1"] = "kf-profiles/1"
    version: Version
    files: Annotated[dict[ProfileId, Annotated[str, Meta(max_length=PROFILE_MAX_BYTES)]], Meta(max_length=MAX_PROFILES)]


def encode(version: str, files: Mapping[str, str]) -> bytes:
    """Raises PackageError if any of it would be refused by a terminal."""
    raw = msgspec.json.encode(ProfileSet(version=version, files=dict(files)), order="deterministic")
    decode(raw)
    return raw


def decode(raw: bytes) -> tuple[ProfileSet, dict[str, Profile]]:
    """The set and its profiles by id. Raises PackageError."""
    found = read(raw, ProfileSet, PROFILES_MAX_BYTES)
    try:
        return found, parse_all({name: text.encode("utf-8") for name, text in found.files.items()})
    except ProtocolError as err:
        raise PackageError(str(err)) from None


def read(raw: bytes, kind: type[_T], max_bytes: int) -> _T:
    if len(raw) > max_bytes:
        raise PackageError(f"larger than {max_bytes} bytes")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as err:
        rule, _, path = str(err).partition(" - at ")
        where = path.replace("`", "").replace("$", "").strip(".") or "package"
        raise PackageError(f"{where}: {rule[:1].lower()}{rule[1:]}") from None
