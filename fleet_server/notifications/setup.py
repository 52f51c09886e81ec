"""What all kinds of channel are made from, and what those that speak to people have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fleet_server.notifications.digest import Digest
from fleet_server.notifications.sending import Sender
from fleet_server.notifications.words import Language

ShortText = Annotated[str, Meta(min_length=1, max_length=200)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be shown of a channel: the JSON of `channel.config`."""

    lang: Language = "zh"
    host: str = ""
    """Where it goes, without anything that opens it."""
    ca_file: str | None = None
    """Further certificate authorities, for services inside a closed network."""
    own_machine: bool = False
    """It may reach the server's own machine. Only `fleet-server channel` says so: who uses it has a shell there."""

    @property
    def ca_path(self) -> Path | None:
        return None if self.ca_file is None else Path(self.ca_file)


class RobotConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    keyword: ShortText | None = None
    """A word that the robot's security settings ask for in every message."""


class UrlSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What opens a channel that is an address. Its repr shows nothing."""

    url: str
    secret: str | None = None

    def __repr__(self) -> str:
        return "UrlSecret(…)"


@dataclass(frozen=True, slots=True)
class Setup:
    """One channel as stored; `secret` is clear JSON, opened just now. Not to be logged."""

    name: str
    config: bytes
    secret: bytes
    zone: str
    fleet: str

    def __repr__(self) -> str:
        return f"Setup({self.name})"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of channel: what its configuration looks like, and how it is opened. `open` raises SendFailed for what cannot work."""

    name: str
    config: type[Config]
    secret: type[msgspec.Struct]
    open: Callable[[Setup], Sender]
    may_drop: bool = True
    """Whether a message that waits too long gives way to a fresh one. Not where machines listen: one that arrived, and whose answer was lost, would
    be told again under another id."""


def at_once(digest: Digest, now_ms: int) -> int:
    """`Sender.not_before_ms` of a channel that is always ready."""
    del digest
    return now_ms
