"""Owns the terminal's word on what runs, as it is told at each start. Without an updater that is the agent alone."""

from __future__ import annotations

import logging

import msgspec

from protocols.contract import records

log = logging.getLogger(__name__)

VERSIONS_KEY = "updates.versions"
"""Where the last versions that the updater told are kept."""


def versions_at_start(kept: bytes | None, version: str) -> records.Versions:
    """What the updater told last, with this agent's own version in place of what was believed of it."""
    known: tuple[records.Installed, ...] = ()
    if kept is not None:
        try:
            known = msgspec.msgpack.decode(kept, type=records.Versions).installed
        except msgspec.MsgspecError:
            log.warning("what the updater said of versions cannot be read any more")
    agent = next((one for one in known if one.component == "agent" and one.version == version), None)
    agent = agent or records.Installed(component="agent", version=version, release=0)
    return records.Versions(installed=(agent, *(one for one in known if one.component != "agent"))[:64])
