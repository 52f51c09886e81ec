"""Owns where updates come from: the two repositories of the fleet's server. A Protocol, so that what is decided with it can be tested without one."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent import files, identity, tls
from edge_agent.clock import Clock
from edge_agent.errors import ConfigError, NotEnrolled
from edge_agent.identity import Identity
from edge_agent.updater import delta
from edge_agent.updater.counters import Counters
from edge_agent.updater.delta import Base, Got
from edge_agent.updater.download import Downloader, Progress
from edge_agent.updater.fetch import Fetcher, Origin
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import read_bounded
from edge_agent.updater.trust import Component, Form, Plan, Refused, Roots, Terminal, Trust
from protocols.contract.orders import Bundle
from protocols.contract.records import ClockQuality

PART_MAX_BYTES = 512 * 1024
"""Of one pinned file; root metadata with dozens of keys have some tens of KiB."""
Tell = Callable[[Form, Progress], None]


class Source(Protocol):
    """Raises UpdaterError only."""

    def look(self, bundle: Bundle, bases: dict[str, bytes]) -> Plan | Refused: ...

    def obtain(self, component: Component, base: Base | None, tell: Tell, keep_on: Callable[[], bool]) -> Got: ...

    def path(self, sha256: bytes) -> Path:
        """Where `obtain` leaves an image."""
        ...

    def limit(self, rate_bytes_s: int | None) -> None: ...

    def discard(self, keep: Collection[bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Pinned:
    """What root pinned: who this terminal is, and whom it trusts."""

    who: Identity
    ca_pem: str
    roots: Roots

    @classmethod
    def load(cls, folder: Path) -> Pinned:
        """Each a plain file of bounded size, no link. NotEnrolled if something is missing, ConfigError if the identity is spoiled."""
        try:
            who = msgspec.json.decode(_part(folder / identity.IDENTITY_FILE), type=Identity)
            ca_pem = _part(folder / identity.CA_FILE).decode("ascii")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigError(f"{folder}: identity or CA is spoiled; enrol this terminal again") from None
        roots = Roots(
            image=_part(folder / identity.UPDATE_ROOT_FILES["image"]),
            director=_part(folder / identity.UPDATE_ROOT_FILES["director"]),
        )
        return cls(who=who, ca_pem=ca_pem, roots=roots)

    def keep(self, folder: Path) -> None:
        """Write it into `folder`, the identity last, since it stands for the whole."""
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, content in (
            (identity.CA_FILE, self.ca_pem.encode("ascii")),
            (identity.UPDATE_ROOT_FILES["image"], self.roots.image),
            (identity.UPDATE_ROOT_FILES["director"], self.roots.director),
            (identity.IDENTITY_FILE, msgspec.json.encode(self.who)),
        ):
            files.write_atomically(folder / name, content, 0o644)


def _part(path: Path) -> bytes:
    raw = read_bounded(path, PART_MAX_BYTES)
    if raw is None:
        raise NotEnrolled(f"{path} is missing or no plain file: run `edge-agent updater pin` as root after enrolment")
    return raw


class TufSource:
    """The real one: a new connection for each look, so that a clock that was set meanwhile counts."""

    def __init__(
        self, pinned: Pinned, *, metadata: Path, downloads: Path, floor: TimeFloor, counters: Counters, clock: Clock, arch: str
    ) -> None:
        self._pinned, self._metadata, self._downloads = pinned, metadata, downloads
        self._floor, self._counters, self._clock, self._arch = floor, counters, clock, arch
        self._rate: int | None = None

    def look(self, bundle: Bundle, bases: dict[str, bytes]) -> Plan | Refused:
        who = self._pinned.who
        fetcher = self._fetcher()
        try:
            trust = Trust(
                self._metadata,
                base_url=who.server_url,
                roots=self._pinned.roots,
                fetcher=fetcher,
                floor=self._floor,
                counters=self._counters,
            )
            terminal = Terminal(id=who.terminal, arch=self._arch)
            return trust.look(bundle, terminal, system_ms=self._clock.wall_ms(), bases=bases)
        finally:
            fetcher.close()

    def obtain(self, component: Component, base: Base | None, tell: Tell, keep_on: Callable[[], bool]) -> Got:
        fetcher = self._fetcher()
        try:
            return delta.obtain(component, Downloader(self._downloads, fetcher), base=base, progress=tell, keep_on=keep_on)
        finally:
            fetcher.close()

    def path(self, sha256: bytes) -> Path:
        return self._downloads / sha256.hex()

    def limit(self, rate_bytes_s: int | None) -> None:
        self._rate = rate_bytes_s

    def discard(self, keep: Collection[bytes]) -> None:
        fetcher = self._fetcher()
        try:
            Downloader(self._downloads, fetcher).discard(keep)
        finally:
            fetcher.close()

    def _fetcher(self) -> Fetcher:
        return Fetcher(Origin.of(self._pinned.who.server_url), tls=self._tls(), rate_bytes_s=self._rate)

    def _tls(self) -> ssl.SSLContext:
        return tls.client_context(self._pinned.ca_pem, check_dates=self._clock.quality() is ClockQuality.SYNCED)
