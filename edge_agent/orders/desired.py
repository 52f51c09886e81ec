"""Owns the desired state that holds: its envelope and its key's certificate as they came, verified again at each start; the configuration that it
names, on trial until the agent has run with it; the one before, which comes back if it does not; and the lock.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.config import Config, with_signed
from edge_agent.errors import ConfigError
from protocols.contract import certs, records
from protocols.contract.limits import COUNTER_STEP_MAX
from protocols.errors import ProtocolError

if TYPE_CHECKING:
    from protocols.contract import orders

log = logging.getLogger(__name__)

NOW_KEY, GOOD_KEY, NOTES_KEY = "desired.now", "desired.good", "desired.notes"
TRIAL_MS = 60_000
"""A configuration with which the devices were watched so long without a failure is a good one. Chosen: discovery and first polls fit twice."""
TRIAL_STARTS = 3
"""So many starts of the agent may end before that."""

Reason = Literal["none", "replayed", "counter", "notApproved", "configuration", "startFailed"]


class Ledger(Protocol):
    def capture(self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None: ...


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A desired state as it came."""

    envelope: bytes
    certificate: bytes


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """`trial`: starts with a configuration that has not proved itself, 0 if it has. `failed`: hash of one that could not start.
    `refused`: hash of the last envelope that was refused, so that it is told once."""

    held: int = 0
    seen: int = 0
    trial: int = 0
    failed: bytes = b""
    refused: bytes = b""


class DesiredKeeper:
    """`on_change(configuration_changed)` is called after another state holds. Methods raise OutboxFull and then nothing has changed."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        memory: Memory,
        base: Config,
        root: Ed25519PublicKey,
        fleet: str,
        terminal: str,
        boot_ms: Callable[[], int],
        on_change: Callable[[bool], None] = lambda _changed: None,
    ) -> None:
        """`base`: what the file says, with what enrolment brought."""
        self._ledger, self._memory, self._base = ledger, memory, base
        self._root, self._fleet, self._terminal = root, fleet, terminal
        self._boot_ms, self._on_change = boot_ms, on_change
        self._notes = self._load_notes()
        self._kept: Kept | None = None
        self._now: orders.Desired | None = None
        self._good: orders.Desired | None = None
        raw = memory.get(NOW_KEY)
        if raw is not None:
            self._kept, self._now = self._verified(raw)
            good = memory.get(GOOD_KEY)
            self._good = None if good is None else self._verified(good)[1]
        if self._now is None:
            # Nothing holds: the server sends it again.
            self._notes = Notes(seen=self.seen, refused=self._notes.refused)
        self._began_ms = boot_ms()

    # ---------------------------------------------------------------------------------------------------------------- what holds

    @property
    def held(self) -> int:
        """Counter of the desired state that holds; 0: none."""
        return self._notes.held

    @property
    def seen(self) -> int:
        return max(self._notes.seen, self._notes.held)

    @property
    def envelope(self) -> Kept | None:
        return self._kept

    @property
    def lock(self) -> orders.Lock | None:
        return None if self._now is None else self._now.lock

    @property
    def bundle(self) -> orders.Bundle | None:
        return None if self._now is None else self._now.bundle

    @property
    def on_trial(self) -> bool:
        return self._notes.trial > 0

    @property
    def config_version(self) -> int:
        """Of the configuration in force; 0: the file's own."""
        in_force = self._in_force()
        return 0 if in_force is None else in_force.version

    def config(self) -> Config:
        """What the agent runs with. The file's own if what was signed does not fit it any more: the file has changed since."""
        in_force = self._in_force()
        try:
            return self._base if in_force is None else _merged(self._base, in_force)
        except ConfigError as err:
            log.error(
                "the signed configuration does not fit this terminal's file",
                extra={"terminal": self._terminal, "problem": str(err)},
            )
            return self._base

    def holds(self, raw: bytes) -> bool:
        return self._kept is not None and self._kept.envelope == raw

    def _in_force(self) -> orders.Configuration | None:
        if self._now is None:
            return None
        wanted = self._now.configuration
        if self._notes.failed and _hash(wanted) == self._notes.failed:
            return None if self._good is None else self._good.configuration
        return wanted

    # --------------------------------------------------------------------------------------------------------------- what happens

    def take(self, desired: orders.Desired, raw: bytes, certificate: bytes) -> None:
        """An authentic desired state: it holds from now on, or is refused as a whole."""
        from protocols.contract import orders as contract

        notes = self._notes
        if desired.counter <= notes.held:
            self._tell(desired.counter, "refused", "replayed")
            return
        reason: Reason = "none"
        is_too_far = desired.counter > notes.held + COUNTER_STEP_MAX
        if is_too_far:
            reason = "counter"
        elif contract.needs_two(desired) and not contract.approved(desired):
            reason = "notApproved"
        elif desired.configuration is not None and not self._fits(desired.configuration):
            reason = "configuration"
        if reason != "none":
            digest = hashlib.sha256(raw).digest()
            if digest != notes.refused:
                refused = msgspec.structs.replace(
                    notes, seen=self.seen if is_too_far else max(self.seen, desired.counter), refused=digest
                )
                self._tell(desired.counter, "refused", reason, memory={NOTES_KEY: msgspec.msgpack.encode(refused)})
                self._notes = refused
            return
        self._hold(desired, Kept(raw, certificate))

    def started(self) -> None:
        """The agent starts: one more try for a configuration on trial, or the end of its trial."""
        if not self._notes.trial:
            return
        if self._notes.trial >= TRIAL_STARTS:
            self.roll_back()
            return
        notes = msgspec.structs.replace(self._notes, trial=self._notes.trial + 1)
        self._memory.put(NOTES_KEY, msgspec.msgpack.encode(notes))
        self._notes = notes

    def roll_back(self) -> bool:
        """The configuration on trial cannot run: the one before comes back. False if none is on trial."""
        if not self._notes.trial or self._now is None:
            return False
        notes = msgspec.structs.replace(self._notes, trial=0, failed=_hash(self._now.configuration))
        before, self._notes = self._notes, notes
        try:
            self._tell(notes.held, "rolledBack", "startFailed", memory={NOTES_KEY: msgspec.msgpack.encode(notes)})
        except BaseException:
            self._notes = before
            raise
        self._on_change(True)
        return True

    def tick(self) -> None:
        """Time has passed: a configuration that ran long enough is a good one."""
        if self._notes.trial and self._kept is not None and self._boot_ms() - self._began_ms >= TRIAL_MS:
            notes = msgspec.structs.replace(self._notes, trial=0, failed=b"")
            self._memory.put(NOTES_KEY, msgspec.msgpack.encode(notes))
            self._notes = notes
            self._memory.put(GOOD_KEY, msgspec.msgpack.encode(self._kept))
            self._good = self._now

    # --------------------------------------------------------------------------------------------------------------------- inside

    def _hold(self, desired: orders.Desired, kept: Kept) -> None:
        before = self._in_force()
        was = (self._notes, self._now, self._kept, self._good)
        failed = self._notes.failed if _hash(desired.configuration) == self._notes.failed else b""
        changed = not failed and _hash(desired.configuration) != _hash(before)
        memory = {NOW_KEY: msgspec.msgpack.encode(kept)}
        trial = self._notes.trial
        if changed:
            # What held until now has proved itself, unless it is on trial or has failed: then what is kept as good stays.
            if not trial and not self._notes.failed and self._kept is not None:
                memory[GOOD_KEY] = msgspec.msgpack.encode(self._kept)
                self._good = self._now
            trial = 1
        self._notes = Notes(held=desired.counter, seen=max(self.seen, desired.counter), trial=trial, failed=failed)
        self._now, self._kept = desired, kept
        memory[NOTES_KEY] = msgspec.msgpack.encode(self._notes)
        try:
            self._tell(desired.counter, "applied", "none", memory=memory)
        except BaseException:
            self._notes, self._now, self._kept, self._good = was
            raise
        if changed:
            self._began_ms = self._boot_ms()
        self._on_change(changed)

    def _tell(
        self,
        counter: int,
        state: Literal["applied", "refused", "rolledBack"],
        reason: Reason,
        *,
        memory: Mapping[str, bytes] | None = None,
    ) -> None:
        body = records.Desired(
            counter=counter, state=state, reason=reason, config_version=self.config_version, locked=self.lock is not None
        )
        self._ledger.capture(body, urgent=True, memory=memory)

    def _fits(self, configuration: orders.Configuration) -> bool:
        try:
            _merged(self._base, configuration)
        except ConfigError as err:
            log.warning("a signed configuration is refused", extra={"terminal": self._terminal, "problem": str(err)})
            return False
        return True

    def _verified(self, raw: bytes) -> tuple[Kept | None, orders.Desired | None]:
        """What was kept, if the fleet root still vouches for it: whoever can write the file cannot order anything (O-302)."""
        from protocols.contract import orders as contract

        try:
            kept = msgspec.msgpack.decode(raw, type=Kept)
            cert = certs.open_order_key_cert(kept.certificate, self._root, self._fleet)
            key = Ed25519PublicKey.from_public_bytes(cert.public_key)
            return kept, contract.open_desired(kept.envelope, {cert.kid: key}, self._fleet, self._terminal)
        except (msgspec.MsgspecError, ProtocolError):
            log.error("the desired state that was kept does not verify and holds no more", extra={"terminal": self._terminal})
            return None, None

    def _load_notes(self) -> Notes:
        raw = self._memory.get(NOTES_KEY)
        if raw is None:
            return Notes()
        try:
            return msgspec.msgpack.decode(raw, type=Notes)
        except msgspec.MsgspecError:
            return Notes()


def _merged(base: Config, configuration: orders.Configuration) -> Config:
    return with_signed(base, configuration.devices, configuration.items, configuration.intervals)


def _hash(configuration: orders.Configuration | None) -> bytes:
    return hashlib.sha256(b"" if configuration is None else msgspec.msgpack.encode(configuration, order="deterministic")).digest()
