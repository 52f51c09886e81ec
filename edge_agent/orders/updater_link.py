"""Owns the agent's side of the talk with the updater: hands over what was ordered and how the terminal is, promises quiet when nobody is served,
and makes records of what the updater tells, each exactly once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from edge_agent.clock import Clock
from edge_agent.orders.desired import Kept
from edge_agent.orders.versions import VERSIONS_KEY
from edge_agent.outbox.errors import CaptureRefused, OutboxError
from edge_agent.status import SlotView
from edge_agent.updater.handover import AgentSide, Grant, Health, Want
from protocols.contract import records

log = logging.getLogger(__name__)

PROGRESS_KEY = "updates.progress"
HEALTH_EVERY_MS = 5_000
QUIET_MAX_S = 3600


class Ledger(Protocol):
    def capture(
        self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None, wall_ms: int | None = None
    ) -> None: ...


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class UpdaterLink:
    """`begin` before applications may speak, then `tick` every second. Files that cannot be written are tried again at the next tick."""

    def __init__(
        self,
        side: AgentSide,
        *,
        ledger: Ledger,
        memory: Memory,
        clock: Clock,
        boot_id: bytes,
        version: str,
        idle: Callable[[], bool],
        slots: Callable[[], tuple[SlotView, ...]],
        faults: Callable[[], list[records.Fault]],
        on_quiet_end: Callable[[], None] = lambda: None,
        may_begin: Callable[[], bool] | None = None,
    ) -> None:
        """`idle`: no citizen is served and nothing else keeps the terminal busy. `may_begin`: the same, asked by the updater that waits for it."""
        self._side, self._ledger, self._memory, self._clock = side, ledger, memory, clock
        self._boot_id, self._version = boot_id.hex(), version
        self._idle, self._slots, self._faults, self._on_quiet_end = idle, slots, faults, on_quiet_end
        self._may_begin = may_begin or idle
        self._grant: Grant | None = None
        self._what: str | None = None
        self._spent = ""
        self._captured = int.from_bytes(memory.get(PROGRESS_KEY) or b"", "big")
        self._health: Health | None = None
        self._to_write: dict[str, Callable[[], None]] = {}
        self._complained = False

    @property
    def granted(self) -> bool:
        """No session may begin."""
        return self._grant is not None

    @property
    def switching(self) -> bool:
        """The updater has asked for the quiet in which it changes the agent: an end of the agent now is its doing."""
        return self._grant is not None and self._what == "install"

    def begin(self, kept: Kept | None, has_keys: bool) -> None:
        """At the start: what an earlier run promised is over, what it handed over may be lost."""
        self._write("grant", lambda: self._side.write_grant(None))
        if kept is not None:
            self.desired_changed(kept)
            if not has_keys:
                self.keys_changed((kept.certificate,))
        self.tick()

    def desired_changed(self, kept: Kept) -> None:
        self._write("desired", lambda: self._side.write_desired(kept.envelope))

    def keys_changed(self, certificates: tuple[bytes, ...]) -> None:
        self._write("keys", lambda: self._side.write_order_keys(certificates))

    def tick(self) -> None:
        """Do what is due. Nothing is raised: a broken updater or a full disk does not stop the agent."""
        for name, write in list(self._to_write.items()):
            self._write(name, write)
        self._look_at_want(self._side.want())
        self._capture_progress()
        self._tell_health()

    # --------------------------------------------------------------------------------------------------------------------- inside

    def _look_at_want(self, want: Want | None) -> None:
        now_ms = self._clock.boot_ms()
        grant = self._grant
        if grant is not None and (want is None or want.id != grant.want or now_ms >= grant.until_boot_ms):
            self._spent = grant.want  # one asking is granted once in a run: the same may not hold the terminal for ever
            self._write("grant", lambda: self._side.write_grant(None))
            self._grant = self._what = None
            self._on_quiet_end()
            grant = None
        if want is None or grant is not None or want.id == self._spent or not self._may_begin():
            return
        until_ms = now_ms + min(want.seconds, QUIET_MAX_S) * 1000
        # First no session can begin, then the updater may know it.
        self._grant, self._what = Grant(want=want.id, boot_id=self._boot_id, until_boot_ms=until_ms), want.what
        promised = self._grant
        self._write("grant", lambda: self._side.write_grant(promised))

    def _capture_progress(self) -> None:
        for told in self._side.told_after(self._captured):
            body = told.update or told.versions
            assert body is not None
            memory = {PROGRESS_KEY: told.n.to_bytes(8, "big")}
            if told.versions is not None:
                memory[VERSIONS_KEY] = msgspec.msgpack.encode(told.versions)
            try:
                self._ledger.capture(body, urgent=True, memory=memory, wall_ms=told.wall_ms)
            except CaptureRefused:
                log.error("what the updater tells does not fit a record", extra={"number": told.n})
                try:
                    self._memory.put(PROGRESS_KEY, memory[PROGRESS_KEY])
                except OutboxError:
                    return
            except OutboxError:
                return  # the line stays; it is read again
            self._captured = told.n

    def _tell_health(self) -> None:
        views = self._slots()[:64]
        health = Health(
            boot_id=self._boot_id,
            boot_ms=self._clock.boot_ms(),
            version=self._version,
            pid=os.getpid(),
            idle=self._idle() and self._grant is None,
            devices={view.slot: str(view.state.device) if view.state is not None else "unknown" for view in views},
            mandatory=tuple(view.slot for view in views if view.mandatory),
            faults=tuple(sorted({fault.code for fault in self._faults()})[:256]),
            progress=self._captured,
        )
        last = self._health
        if (
            last is not None
            and health.boot_ms - last.boot_ms < HEALTH_EVERY_MS
            and msgspec.structs.replace(health, boot_ms=last.boot_ms) == last
        ):
            return
        self._health = health
        self._write("health", lambda: self._side.write_health(health))

    def _write(self, name: str, write: Callable[[], None]) -> None:
        self._to_write.pop(name, None)
        try:
            write()
        except OSError as err:
            self._to_write[name] = write
            if not self._complained:
                log.warning("the updater's directory cannot be written", extra={"reason": os.strerror(err.errno or 0)})
            self._complained = True
        else:
            self._complained = False
