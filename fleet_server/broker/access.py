"""Who may do what at the broker, once as rules and once as mosquitto's file. The name is the certificate's, never what a client says of itself.

A broker that gets this wrong cannot forge anything (records are signed), but it could let terminals read or drown one another.
"""

from __future__ import annotations

from fleet_server.authority.authority import INGEST_NAME
from protocols.contract.topics import ROOT, SERVER_STATE, UP_KINDS

MESSAGE_MAX_BYTES = 128 * 1024
"""Largest MQTT message; an envelope is at most 48 KiB, so what is larger is an accident or an attack."""


def may_publish(name: str, topic: str) -> bool:
    parts = topic.split("/")
    if name == INGEST_NAME:
        return parts[:2] == ROOT.split("/")
    return len(parts) == 6 and parts[:2] == ROOT.split("/") and parts[3:5] == [name, "up"] and parts[5] in UP_KINDS


def may_read(name: str, topic: str) -> bool:
    """Whether a message of `topic` may be delivered; also used on subscription filters, which have the shape of the topics they ask for."""
    parts = topic.split("/")
    if name == INGEST_NAME:
        return parts[:2] == ROOT.split("/")
    return topic == SERVER_STATE or (len(parts) == 6 and parts[:2] == ROOT.split("/") and parts[3:5] == [name, "down"])


def mosquitto_acl() -> str:
    """The same as an `acl_file`. `%u` is the certificate's common name; nothing is said about `%c`, which a client chooses freely."""
    lines = [
        *(f"pattern write {ROOT}/+/%u/up/{kind}" for kind in sorted(UP_KINDS)),
        f"pattern read {ROOT}/+/%u/down/+",
        f"pattern read {SERVER_STATE}",
        "",
        f"user {INGEST_NAME}",
        f"topic readwrite {ROOT}/#",
    ]
    return "\n".join(lines) + "\n"
