"""Owns what applications can do: sessions, ratings, refills, and reading the status. Answers only what is already durable.

State and record are written in one transaction of the outbox, so a repeat after a crash finds either both or neither.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from edge_agent import sessions
from edge_agent.clock import Clock, read
from edge_agent.local_api import schema
from edge_agent.local_api.refusal import ApiRefused
from edge_agent.outbox.errors import CaptureRefused
from edge_agent.sessions import Policy, SessionRefused, Sessions, Step
from edge_agent.status import Closed, StatusDocument
from protocols.contract.records import Body, Consumable, Rating

STATE_KEY = "local_api.sessions"
SALT_KEY = "local_api.salt"
SALT_BYTES = 32


class Ledger(Protocol):
    """What makes facts and memory durable, in one step where both change."""

    def capture(self, body: Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None: ...


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...
    def put_all(self, values: Mapping[str, bytes]) -> None: ...


class Booked(Protocol):
    """What was counted, and is not yet written down: its records, its memory, and how to take it back."""

    @property
    def bodies(self) -> tuple[Consumable, ...]: ...
    @property
    def memory(self) -> Mapping[str, bytes]: ...
    @property
    def undo(self) -> Callable[[], None]: ...


class RefillRefused(Exception):
    """This slot does not have that consumable."""


Refiller = Callable[[str, str, int], Booked]
"""(slot, item, quantity) → the refill; RefillRefused if the slot has no such consumable."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


class KioskService:
    """One terminal's sessions. `on_change` is called after sessions opened or closed. Requests raise ApiRefused or OutboxFull."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        memory: Memory,
        clock: Clock,
        boot_id: bytes,
        items: frozenset[str],
        slots: frozenset[str],
        refill: Refiller,
        use: Callable[[str, bool, int], Booked],
        status: Callable[[], StatusDocument],
        policy: Policy,
        on_change: Callable[[], None] = lambda: None,
        closed: Callable[[], Closed | None] = lambda: None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._ledger, self._memory, self._clock = ledger, memory, clock
        self._items, self._slots = items, slots
        self._refill, self._use, self._status = refill, use, status
        self._policy, self._on_change, self._closed = policy, on_change, closed
        self._salt = memory.get(SALT_KEY) or b""
        if len(self._salt) != SALT_BYTES:
            self._salt = random_bytes(SALT_BYTES)
            memory.put(SALT_KEY, self._salt)
        self._state = sessions.load(memory.get(STATE_KEY))
        self._boot_id, self._resumed = boot_id, self._state.boot_id == boot_id

    def offer(self, items: frozenset[str], slots: frozenset[str]) -> None:
        """Another catalogue and inventory hold from now on; open sessions go on."""
        self._items, self._slots = items, slots

    def resume(self) -> None:
        """At the start of the agent: end what an earlier boot left open, and what ran out while the agent was away. Raises OutboxFull."""
        if not self._resumed:
            self._commit(sessions.resume(self._state, self._boot_id, self._policy))
            self._resumed = True
        self.expire()

    @property
    def idle(self) -> bool:
        """No open lease."""
        return self._state.idle

    @property
    def serving(self) -> bool:
        """Somebody is served whom others have to wait for; a session that is stuck keeps nobody waiting."""
        return sessions.serving(self._state, read(self._clock))

    def stuck(self) -> bool:
        return sessions.stuck(self._state, read(self._clock))

    def expire(self) -> None:
        """End sessions whose lease ran out. Raises OutboxFull; then it is tried again at the next call."""
        if not self._resumed:
            self.resume()
            return
        step = sessions.expire(self._state, read(self._clock), self._policy)
        if step.bodies:
            self._commit(step)

    def next_expiry_s(self) -> float | None:
        """Seconds until `expire` has something to do; None while idle."""
        due_ms = sessions.next_expiry_boot_ms(self._state, self._policy)
        return None if due_ms is None else max(0.0, (due_ms - self._clock.boot_ms()) / 1000)

    # ------------------------------------------------------------------------------------------------------------------ requests

    def begin(self, ask: schema.Begin) -> Answer:
        self._up_to_date()
        if ask.item not in self._items:
            raise ApiRefused(422, "item", "The item is not in this terminal's catalogue.")
        session = sessions.hidden_id(self._salt, "session", uuid.UUID(ask.client_id))
        step = self._try(lambda: sessions.begin(self._state, session, ask.item, ask.channel, read(self._clock), self._policy))
        closed = self._closed()
        if closed is not None and not step.repeated:
            raise ApiRefused(*_CLOSED_ANSWERS[closed])
        self._commit(step)
        return Answer(200 if step.repeated else 201, {"session": session.hex(), "lease_s": self._policy.lease_ms // 1000})

    def renew(self, session_hex: str, _ask: schema.Renew) -> Answer:
        self._up_to_date()
        session = bytes.fromhex(session_hex)
        self._commit(self._try(lambda: sessions.renew(self._state, session, read(self._clock))))
        return Answer(200, {"session": session_hex, "lease_s": self._policy.lease_ms // 1000})

    def end(self, session_hex: str, ask: schema.End) -> Answer:
        self._up_to_date()
        if ask.outcome == "success" and ask.cause != "none":
            raise ApiRefused(422, "field", "A session that ended with success has no cause.")
        session = bytes.fromhex(session_hex)
        self._commit(
            self._try(lambda: sessions.end(self._state, session, ask.outcome, ask.cause, read(self._clock), self._policy))
        )
        return Answer(200, {"session": session_hex, "recorded": True})

    def rate(self, ask: schema.Rate) -> Answer:
        self._need_slot(ask.slot)
        session = None if ask.session is None else bytes.fromhex(ask.session)
        body = Rating(level=ask.level, channel=ask.channel, slot=ask.slot, session=session)
        return self._once("rating", ask.client_id, lambda: body)

    def refill(self, ask: schema.Refill) -> Answer:
        self._need_slot(ask.slot)

        def done() -> Booked:
            try:
                return self._refill(ask.slot, ask.item, ask.quantity)
            except RefillRefused:
                raise ApiRefused(422, "refill", "This slot does not hold that consumable.") from None

        return self._book("refill", ask.client_id, done)

    def use(self, ask: schema.Use) -> Answer:
        """A job of a device, told by the program that did it."""
        self._need_slot(ask.slot)
        return self._book("use", ask.client_id, lambda: self._use(ask.slot, ask.ok, ask.count))

    def showing(self, ask: schema.Showing, play: Callable[[str, str, int, int], bool]) -> Answer:
        """A page was shown; told twice it counts once."""
        step = sessions.answer(self._state, sessions.hidden_id(self._salt, "play", uuid.UUID(ask.client_id)), self._policy)
        if not step.repeated:
            if not play(ask.package, ask.page, ask.count, ask.seconds):
                raise ApiRefused(422, "page", "No content package in use has that page.")
            self._commit(step)
        return Answer(200 if step.repeated else 201, {"recorded": True})

    def status(self) -> Answer:
        return Answer(200, self._status())

    # -------------------------------------------------------------------------------------------------------------------- inside

    def _once(self, purpose: str, client_id: str, make: Callable[[], Body]) -> Answer:
        step = sessions.answer(self._state, sessions.hidden_id(self._salt, purpose, uuid.UUID(client_id)), self._policy)
        if not step.repeated:
            self._write(step.state, (make(),))
        return Answer(200 if step.repeated else 201, {"recorded": True})

    def _book(self, purpose: str, client_id: str, count: Callable[[], Booked]) -> Answer:
        """Counted once: the counter, its records and the memory of the id are written in one transaction or not at all."""
        step = sessions.answer(self._state, sessions.hidden_id(self._salt, purpose, uuid.UUID(client_id)), self._policy)
        if not step.repeated:
            booked = count()
            try:
                self._write(step.state, booked.bodies, booked.memory)
            except BaseException:
                booked.undo()
                raise
        return Answer(200 if step.repeated else 201, {"recorded": True})

    def _need_slot(self, slot: str | None) -> None:
        if slot is not None and slot not in self._slots:
            raise ApiRefused(422, "field", "The field slot is not a slot of this terminal.")

    def _up_to_date(self) -> None:
        self.expire()

    def _try(self, transition: Callable[[], Step]) -> Step:
        try:
            return transition()
        except SessionRefused as refused:
            raise ApiRefused(*_SESSION_ANSWERS[refused.word]) from None

    def _commit(self, step: Step) -> None:
        if step.state is not self._state:
            self._write(step.state, step.bodies)

    def _write(self, state: Sessions, bodies: tuple[Body, ...], more: Mapping[str, bytes] | None = None) -> None:
        """Records first, memory with the last of them: after a crash a repeat finds the same records again, with the same ids."""
        memory = {STATE_KEY: sessions.dump(state), **(more or {})}
        was_idle = self._state.idle
        try:
            for body in bodies[:-1]:
                self._ledger.capture(body)
            if bodies:
                self._ledger.capture(bodies[-1], memory=memory)
            else:
                self._memory.put_all(memory)
        except CaptureRefused:
            raise ApiRefused(422, "record", "The agent cannot keep this as a record.") from None
        self._state = state
        if was_idle != state.idle:
            self._on_change()


_CLOSED_ANSWERS: dict[Closed, tuple[int, str, str]] = {
    "locked": (423, "locked", "The operator has locked this terminal; show the message of GET /v1/status."),
    "updating": (503, "updating", "The terminal is being updated; no session can begin for some minutes."),
    "restarting": (503, "restarting", "The terminal is being restarted; no session can begin now."),
}

_SESSION_ANSWERS = {
    "unknown": (404, "unknownSession", "There is no such session."),
    "ended": (410, "ended", "This session has ended, by the application or because its lease ran out."),
    "otherItem": (409, "otherItem", "This client_id already belongs to a session with another item or channel."),
    "otherOutcome": (409, "otherOutcome", "This session ended before with another outcome, or because its lease ran out."),
    "tooMany": (429, "tooMany", "Too many sessions are open at this terminal."),
}


def encode(answer: Answer) -> bytes:
    return msgspec.json.encode(answer.body)
