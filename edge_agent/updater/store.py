"""Owns what the updater itself remembers: the accepted desired state, the workflow, and what is installed besides the agent."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import msgspec

from edge_agent import files, launcher
from edge_agent.updater import layout
from edge_agent.updater.handover import read_bounded
from edge_agent.updater.workflow import Work
from protocols.contract.records import Installed

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The newest desired state that was authentic, and the certificates by which it was."""

    raw: bytes
    certificates: tuple[bytes, ...]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """`workflow.json`. `told`: state and reason that were told last, so that a restart does not tell them again."""

    work: Work | None = None
    told: str = ""
    installed: tuple[Installed, ...] = ()
    """Of what the agent puts to use; the agent itself is what the launcher's state says."""
    versions_told: str = ""


class Store:
    """Files in one directory, each written whole. A spoiled one reads as nothing: what was going on begins anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep_reserve(self) -> None:
        """Some disk for the last words on a full one."""
        layout.keep_reserve(self._folder / launcher.RESERVE, layout.RESERVE_BYTES)

    def give_up_reserve(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / launcher.RESERVE).unlink()

    def load(self) -> Memory:
        raw = read_bounded(self._folder / "workflow.json", MAX_BYTES)
        if raw is None:
            return Memory()
        try:
            return msgspec.json.decode(raw, type=Memory)
        except (msgspec.DecodeError, RecursionError):
            log.error("the workflow's file is spoiled; what was going on begins anew")
            return Memory()

    def save(self, memory: Memory) -> None:
        files.write_atomically(self._folder / "workflow.json", msgspec.json.encode(memory))

    def accepted(self) -> Accepted | None:
        raw = read_bounded(self._folder / "accepted.json", MAX_BYTES)
        try:
            return None if raw is None else msgspec.json.decode(raw, type=Accepted)
        except (msgspec.DecodeError, RecursionError):
            return None

    def accept(self, accepted: Accepted) -> None:
        files.write_atomically(self._folder / "accepted.json", msgspec.json.encode(accepted))
