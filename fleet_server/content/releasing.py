"""Signing what people have agreed to: claimed in the database first, then signed, then noted.

A server that is stopped in between has the claim, so nothing else happens to the package and nobody gets its number; the same act, asked again by
anybody who may, signs the same bytes, or finds them signed, and goes on. Of a catalogue only the number is lost.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from fleet_server.content import publish, store
from fleet_server.content.publish import Intake, Signed
from fleet_server.errors import NotFound, Refused
from fleet_server.rollouts import releases
from fleet_server.updates.errors import UpdatesError


class Write(Protocol):
    """Runs `work(connection)` in one IMMEDIATE transaction: `FleetEngine.write`."""

    def __call__(self, work: Callable[[sqlite3.Connection], Any]) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing:
    write: Write
    files: publish.Store
    intake: Intake
    now_ms: int

    async def package(self, package_id: int, act: str, *, by: str, may: Collection[str], note: str = "") -> None:
        """`publish` or `disable`. Refused, Conflict, NotFound, UpdatesError; then the package is as it was."""
        claimed: store.Claim = await self.write(
            lambda conn: store.claim(conn, package_id, act, by=by, may=may, now_ms=self.now_ms, note=note)
        )
        try:
            signed = await asyncio.to_thread(self._sign, claimed)
        except (Refused, NotFound, UpdatesError) as err:
            why = err.reason if isinstance(err, Refused) else type(err).__name__
            await self.write(lambda conn: store.give_back(conn, claimed, by=by, why=why, now_ms=self.now_ms))
            raise

        def note_it(conn: sqlite3.Connection) -> None:
            store.finish(conn, claimed, self._record(conn, signed, by), by=by, now_ms=self.now_ms, note=note)

        await self.write(note_it)

    async def catalogue(self, area: str, *, by: str) -> None:
        """The items of an area as they are now; `area` empty: of no area in particular. Refused, NotFound, UpdatesError."""
        number, made = await self.write(lambda conn: store.claim_catalogue(conn, area, by=by, now_ms=self.now_ms))
        signed = await asyncio.to_thread(publish.catalogue, made, area, number, self.intake)
        await self.write(lambda conn: store.finish_catalogue(conn, number, self._record(conn, signed, by)))

    def _sign(self, claimed: store.Claim) -> Signed:
        if claimed.act == "publish":
            return publish.package(claimed.draft, self.files, self.intake)
        name, number = claimed.draft.name, claimed.withdrawal
        return publish.withdrawal(name, number, self.files, self.intake, created_by=claimed.withdrawn_by)

    def _record(self, conn: sqlite3.Connection, signed: Signed, by: str) -> int:
        return releases.record(
            conn, signed.custom, path=signed.path, length=signed.length, sha256=signed.sha256, by=by, now_ms=self.now_ms
        )
