"""Keeps the broker's idea of who is revoked equal to the registry's."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fleet_server.authority.authority import PROBE_NAME, Authority
from fleet_server.broker import mqtt
from fleet_server.broker.kinds import ca_file, own_address
from fleet_server.db import open_reader
from fleet_server.enrolment.registry import revoked_certificates, revoked_terminals
from fleet_server.settings import Settings

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
GREET_TIMEOUT_S = 10.0
PROBE_TIMEOUT_S = 3.0
"""A broker on this machine answers in milliseconds, in seconds while 400 terminals connect at once."""
RELOAD_S = 0.3
"""A broker acts on SIGHUP in its next round, mosquitto's has at most 100 ms; the take-over comes after that, or a fast client would slip back in."""


class Warden:
    """Looks at the registry once a second; `reload` makes the broker read its revocation list again."""

    def __init__(self, settings: Settings, authority: Authority, reload: Callable[[], None], now_ms: Callable[[], int]) -> None:
        self._settings, self._authority, self._reload, self._now_ms = settings, authority, reload, now_ms
        self._listed: list[tuple[str, int]] | None = None
        self._kicked: set[str] | None = None

    def prepare(self) -> None:
        """Write the list before the broker starts."""
        listed, terminals = self._registry()
        self._authority.write_revocation_list(listed, now_ms=self._now_ms())
        self._listed, self._kicked = listed, set(terminals)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """One round: a changed list is written and loaded, and terminals that were revoked since the last round lose their sessions."""
        listed, terminals = await asyncio.to_thread(self._registry)
        if listed != self._listed:
            self._authority.write_revocation_list(listed, now_ms=self._now_ms())
            self._listed = listed
            self._reload()
            log.info("revocation list with %d certificates written", len(listed))
        kicked = self._kicked or set()
        new = [terminal for terminal in terminals if terminal not in kicked]
        if new:
            await asyncio.sleep(RELOAD_S)
        for terminal in new:
            await self._end_session(terminal)
        self._kicked = kicked.union(terminals)

    async def broker_answers(self) -> bool:
        """Whether the broker takes a connection of the server's own probe."""
        try:
            return await self._greet(PROBE_NAME, PROBE_TIMEOUT_S) == mqtt.ACCEPTED
        except (OSError, TimeoutError) as err:
            log.debug("broker: %s", err)
            return False

    async def _end_session(self, terminal: str) -> None:
        """Take the session over with a certificate that lives for minutes, and leave: the broker closes the connection that had it."""
        try:
            await self._greet(terminal, GREET_TIMEOUT_S)
            log.info("%s: session ended, revoked", terminal)
        except (OSError, TimeoutError) as err:
            log.warning("%s: its session could not be ended: %s", terminal, err)

    async def _greet(self, name: str, timeout_s: float) -> int:
        host, port = own_address(self._settings)
        return await mqtt.greet(host, port, self._context(name), name, timeout_s=timeout_s)

    def _context(self, name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca_file(self._settings)))
        file = self._settings.layout.run / f"greet-{name}.pem"
        try:
            file.touch(mode=0o600)
            file.write_bytes(self._authority.issue_own_client(name, now_ms=self._now_ms()))
            context.load_cert_chain(file)
        finally:
            file.unlink(missing_ok=True)
        return context

    def _registry(self) -> tuple[list[tuple[str, int]], list[str]]:
        with closing(open_reader(_existing(self._settings.layout.database))) as connection:
            return revoked_certificates(connection, now_ms=self._now_ms()), revoked_terminals(connection)


def _existing(path: Path) -> Path:
    """SQLite would make an empty file."""
    if not path.exists():
        raise FileNotFoundError(path)
    return path
