"""What the ingest process does between messages, in small steps, each a short transaction of its own."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from fleet_server.channel import transact
from fleet_server.errors import place_of
from fleet_server.evidence.ledger import Ledger
from fleet_server.evidence.verdict import settle_some
from fleet_server.facts.project import correct_some, settle_clock
from fleet_server.facts.projection import Projection
from fleet_server.faults.certificates import follow_certificates
from fleet_server.faults.platform import clear_platform_fault
from fleet_server.faults.van import follow_vans
from fleet_server.presence.watch import PresenceWatch
from fleet_server.usage.days import recompute_some

log = logging.getLogger(__name__)

WATCH_EVERY_MS = 1_000
DAYS_PER_STEP = 20
"""About 20 ms: a step must not keep a fault waiting."""
TRIM_EVERY_MS = 60_000
CLOCK_EVERY_MS = 30_000
CERTIFICATES_EVERY_MS = 60_000
VANS_EVERY_MS = 60_000
CLOCK_AGAIN_MS = 3_600_000
"""Putting a long boot right takes minutes of slices."""
HINTS_KEPT_MS = 3_600_000
"""Open pages reload from the database after a longer break."""
SIGNATURE_QUIET_MS = 3_600_000
"""Without another bad envelope for an hour the alarm SEC.SIGNATURE is over."""


class Housekeeping:
    def __init__(
        self, conn: sqlite3.Connection, ledger: Ledger, watch: PresenceWatch, projection: Projection, wall_ms: Callable[[], int]
    ) -> None:
        self._conn, self._ledger, self._watch, self._wall_ms = conn, ledger, watch, wall_ms
        self._projection = projection
        projection.resume(conn)
        self._next_watch_ms = self._next_trim_ms = self._next_clock_ms = self._next_certificates_ms = self._next_vans_ms = 0
        self._settled: dict[tuple[str, bytes], int] = {}
        self._parked: int | None = 0

    def broker(self, up: bool) -> None:
        """The connection to the broker came or went."""
        self._watch.broker(up, self._wall_ms())

    def step(self) -> bool:
        """A little work; True if there is more to do at once. Never raises: what fails stays and is tried again, and the other duties go on."""
        now_ms = self._wall_ms()
        if not 0 < self._next_watch_ms - now_ms <= WATCH_EVERY_MS:
            self._next_watch_ms = now_ms + WATCH_EVERY_MS
            self._do("presence", lambda: self._watch.keep(self._conn, now_ms))
        if not 0 < self._next_trim_ms - now_ms <= TRIM_EVERY_MS:
            self._next_trim_ms = now_ms + TRIM_EVERY_MS
            self._do("trimming", lambda: transact(self._conn, lambda conn: _trim(conn, now_ms)))
        if not 0 < self._next_clock_ms - now_ms <= CLOCK_EVERY_MS:
            self._next_clock_ms = now_ms + CLOCK_EVERY_MS
            self._do("clocks", lambda: self._settle_clock(now_ms))
        if not 0 < self._next_certificates_ms - now_ms <= CERTIFICATES_EVERY_MS:
            self._next_certificates_ms = now_ms + CERTIFICATES_EVERY_MS
            self._do("certificates", lambda: transact(self._conn, lambda conn: follow_certificates(conn, now_ms)))
        if not 0 < self._next_vans_ms - now_ms <= VANS_EVERY_MS:
            self._next_vans_ms = now_ms + VANS_EVERY_MS
            self._do("vans", lambda: transact(self._conn, lambda conn: follow_vans(conn, now_ms)))
        more = self._do("clock corrections", lambda: transact(self._conn, correct_some))
        more |= self._do("verdicts", lambda: transact(self._conn, settle_some))
        if self._parked is not None:
            self._do("parked records", self._project_parked)
        more |= self._do("disputes", lambda: transact(self._conn, self._projection.settle))
        more |= self._do("figures", lambda: transact(self._conn, lambda conn: recompute_some(conn, DAYS_PER_STEP)))
        return more or self._parked is not None

    def _settle_clock(self, now_ms: int) -> None:
        """One boot at a time, slice by slice, and each not again within the hour."""
        self._settled = {boot: at_ms for boot, at_ms in self._settled.items() if 0 <= now_ms - at_ms < CLOCK_AGAIN_MS}
        boot = transact(self._conn, lambda conn: settle_clock(conn, self._settled))
        if boot is not None:
            self._settled[boot] = now_ms

    def _project_parked(self) -> None:
        after = self._parked or 0
        self._parked = transact(self._conn, lambda _: self._ledger.project_parked(after, 20))

    def _do(self, duty: str, work: Callable[[], object]) -> bool:
        """Whether `work` ran and did something."""
        try:
            return bool(work())
        except sqlite3.OperationalError as err:
            log.warning("housekeeping put off: %s", err)
        except Exception as err:  # noqa: BLE001 - one duty that fails must not end the others, of which presence is one
            log.error("housekeeping failed", extra={"duty": duty, "reason": place_of(err)})
        self._ledger.forget()
        return False


def _trim(conn: sqlite3.Connection, now_ms: int) -> None:
    conn.execute("DELETE FROM change WHERE at_ms < ?", (now_ms - HINTS_KEPT_MS,))
    quiet = conn.execute(
        "SELECT terminal FROM quarantine_count GROUP BY terminal HAVING max(last_ms) < ?", (now_ms - SIGNATURE_QUIET_MS,)
    ).fetchall()
    for (terminal,) in quiet:
        clear_platform_fault(conn, terminal, "SEC.SIGNATURE", now_ms)
