"""Topic scheme `kf/1/<shard>/<terminal>/<direction>/<kind>`.

The shard is two hex digits of SHA-256 over the terminal id. It only spreads load over workers; the server refuses a message whose shard does not fit.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import msgspec

from protocols.errors import ProtocolError

ROOT = "kf/1"
UP_KINDS = frozenset({"hello", "birth", "batch", "loss", "hb", "will"})
DOWN_KINDS = frozenset({"challenge", "head", "ack", "order", "desired"})
SERVER_STATE = f"{ROOT}/server/state"
"""Where the server says that it is up (a hint: agents without an answer greet again)."""
_TERMINAL = re.compile(r"[a-z0-9-]{1,32}")


class TopicError(ProtocolError):
    """A topic that is not ours, names no possible terminal, or carries the wrong shard."""


class UpTopic(msgspec.Struct, frozen=True):
    terminal: str
    kind: str


def check_terminal_id(terminal: str) -> str:
    """`terminal` itself if it is `[a-z0-9-]{1,32}`, else TopicError."""
    if not _TERMINAL.fullmatch(terminal):
        raise TopicError("terminal ids are 1 to 32 of a-z, 0-9 and -")
    return terminal


@lru_cache(maxsize=4096)
def shard(terminal: str) -> str:
    return hashlib.sha256(terminal.encode("ascii")).hexdigest()[:2]


def up(terminal: str, kind: str) -> str:
    return f"{ROOT}/{shard(terminal)}/{terminal}/up/{kind}"


def down(terminal: str, kind: str) -> str:
    return f"{ROOT}/{shard(terminal)}/{terminal}/down/{kind}"


def parse_up(topic: str) -> UpTopic:
    """The terminal and kind of an upward topic; TopicError otherwise."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[:2] != ROOT.split("/") or parts[4] != "up" or parts[5] not in UP_KINDS:
        raise TopicError(f"not an upward topic of {ROOT}: {topic[:120]!r}")
    terminal = check_terminal_id(parts[3])
    if parts[2] != shard(terminal):
        raise TopicError(f"shard {parts[2][:8]!r} does not fit terminal {terminal}")
    return UpTopic(terminal, parts[5])
