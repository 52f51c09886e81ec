"""What target metadata of the two update repositories says about artifacts (`custom` of TUF targets), and the names of roles and paths.

Image repository: everything that was ever released, signed by keys that need not be on the server. Director: which terminal gets what, online keys.
An update is what both describe with the same length and hash, and what the signed desired state asks for. Specification: docs/spec/updates.md.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocols.contract import wire
from protocols.contract.orders import Counter, TargetPath
from protocols.contract.records import ComponentName, Count, ProfileId, Version
from protocols.contract.topics import check_terminal_id

CUSTOM_KEY = "kiosk-fleet"
"""Name of our object inside a target's `custom`."""
IMAGE_ROLES: dict[str, tuple[str, ...]] = {
    "agent": ("agent/*",),
    "firmware": ("firmware/*/*",),
    "image": ("image/*",),
    "profiles": ("profiles/*",),
    "catalogue": ("catalogue/*",),
    "content": ("content/*/*",),
    "packed": ("packed/*",),
}
"""Roles to which the image repository's targets role delegates, and their paths. Keys of agent, firmware, image and profiles are offline by default;
content and catalogue are signed on the server after review; `packed` is what is only another form of a target: compressed, or a difference."""
DIRECTOR_ROLE_PREFIX = "terminal-"

HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
HexId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class ImageCustom(msgspec.Struct, frozen=True, kw_only=True):
    """Of a target in the image repository."""

    component: Literal["agent", "firmware", "image", "profiles", "catalogue", "content"]
    version: Version
    release: Counter
    arch: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{1,15}\Z")] = "any"
    hardware: Annotated[tuple[ProfileId, ...], Meta(max_length=64)] = ()
    """Firmware: profiles of the units it fits (Uptane's hardware ids). Never empty for firmware."""
    name: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,48}\Z")] = ""
    """Content: name of the package."""
    min_from: Version | None = None
    """Firmware: lowest version that may be replaced by this one."""
    unpacked_bytes: Count = 0
    """Archives: sum of the files; a limit while unpacking."""
    unpacked_files: Count = 0


class PackedCustom(msgspec.Struct, frozen=True, kw_only=True):
    """Of a target in `packed`: zstd of the image `to`, alone or with the image `base` as its dictionary (`zstd --patch-from`)."""

    to: HexDigest
    base: HexDigest | None = None


class DirectorCustom(msgspec.Struct, frozen=True, kw_only=True):
    """Of a target in the director's role of one terminal."""

    bundle: HexId
    size: Annotated[int, Meta(ge=1)]
    """How many components the bundle has: one that is missing shows."""
    component: ComponentName
    target: TargetPath
    """Path in the image repository."""
    version: Version
    release: Counter
    downgrade: bool = False


def director_role(terminal: str) -> str:
    return DIRECTOR_ROLE_PREFIX + check_terminal_id(terminal)


def director_paths(terminal: str) -> tuple[str, ...]:
    """Patterns of what a terminal's role may sign for; `*` does not cross a slash (TUF specification, 4.5)."""
    terminal = check_terminal_id(terminal)
    return (f"{terminal}/*", f"{terminal}/*/*")


def director_path(terminal: str, component: str) -> str:
    return f"{check_terminal_id(terminal)}/{component}"


def packed_path(to: str, base: str | None = None) -> str:
    """`packed/<sha256>.zst`, or `packed/<sha256 of the base>-<sha256>.zst` for a difference."""
    return f"packed/{to}.zst" if base is None else f"packed/{base}-{to}.zst"


def to_custom(custom: ImageCustom | PackedCustom | DirectorCustom) -> dict[str, Any]:
    """For the `custom` member of a TUF target."""
    return {CUSTOM_KEY: msgspec.to_builtins(custom)}


def of_custom(custom: object, kind: type[wire.T]) -> wire.T:
    """WireError if the target's `custom` has no object of ours, or one that does not fit."""
    if not isinstance(custom, dict) or CUSTOM_KEY not in custom:
        raise wire.WireError("the target does not say what it is")
    return wire.convert(custom[CUSTOM_KEY], kind)
