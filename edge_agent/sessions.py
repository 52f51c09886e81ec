"""Owns what a service session is: begun by the application, kept alive by a lease, ended once. Pure: time, ids and state are passed in.

Every transition takes a state and gives a new one, so that the caller can first make it durable (together with the record it caused) and only then
believe it. The person at the screen is not in here: an id is a salted hash, an item is a word of the catalogue.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge_agent.clock import ClockReading
from protocols.contract.records import Session

Channel = Literal["touch", "scan", "assist", "pad", "other"]
Outcome = Literal["success", "failed", "abandoned"]
Cause = Literal["none", "device", "backend", "network", "citizen", "lease", "application"]

ID_BYTES = 16
STUCK_AFTER_MS = 3_600_000
"""Chosen: the longest guided case takes half an hour; after an hour the application renews a lease that nobody uses. Nothing waits for it then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    lease_ms: int = 120_000
    max_open: int = 8
    """A call-pad set serves several windows from one box; a kiosk has one."""
    remember: int = 256
    """Finished cases and ratings whose repeats are recognised: weeks of a kiosk, a day of a busy hall."""


class OpenSession(msgspec.Struct, frozen=True, array_like=True):
    """`seen_boot_ms`: the last sign of life."""

    id: bytes
    item: str
    channel: Channel
    began_wall_ms: int
    began_boot_ms: int
    seen_boot_ms: int


class Finished(msgspec.Struct, frozen=True, array_like=True):
    id: bytes
    outcome: Outcome
    cause: Cause


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about sessions that must survive a restart. `answered`: ids of ratings and refills that are recorded."""

    boot_id: bytes = bytes(16)
    open: tuple[OpenSession, ...] = ()
    finished: tuple[Finished, ...] = ()
    answered: tuple[bytes, ...] = ()

    @property
    def idle(self) -> bool:
        return not self.open


Refused = Literal["unknown", "ended", "otherItem", "otherOutcome", "tooMany"]


class SessionRefused(Exception):
    """The application's request does not fit the state; `word` says why."""

    def __init__(self, word: Refused) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True)
class Step:
    """A new state and the records it causes; `repeated`: this had been done before."""

    state: Sessions
    bodies: tuple[Session, ...] = ()
    repeated: bool = False


def hidden_id(salt: bytes, purpose: str, client_id: uuid.UUID) -> bytes:
    """What is kept of an application's random id."""
    return hmac.new(salt, purpose.encode("ascii") + b"\0" + client_id.bytes, hashlib.sha256).digest()[:ID_BYTES]


def begin(state: Sessions, session: bytes, item: str, channel: Channel, now: ClockReading, policy: Policy) -> Step:
    """Open a session, or recognise it. A repeat is a sign of life. Raises SessionRefused `ended`, `otherItem` or `tooMany`."""
    known = _find(state, session)
    if known is not None:
        if (known.item, known.channel) != (item, channel):
            raise SessionRefused("otherItem")
        return Step(_renewed(state, known, now), repeated=True)
    if any(done.id == session for done in state.finished):
        raise SessionRefused("ended")
    if len(state.open) >= policy.max_open:
        raise SessionRefused("tooMany")
    opened = OpenSession(session, item, channel, now.wall_ms, now.boot_ms, now.boot_ms)
    return Step(msgspec.structs.replace(state, open=(*state.open, opened)))


def renew(state: Sessions, session: bytes, now: ClockReading) -> Step:
    """A sign of life. Raises SessionRefused `ended` or `unknown`."""
    known = _find(state, session)
    if known is None:
        raise SessionRefused("ended" if any(done.id == session for done in state.finished) else "unknown")
    return Step(_renewed(state, known, now))


def end(state: Sessions, session: bytes, outcome: Outcome, cause: Cause, now: ClockReading, policy: Policy) -> Step:
    """Finish a session. Raises SessionRefused `unknown`, or `otherOutcome` if it ended differently before (a lost lease, too)."""
    known = _find(state, session)
    if known is None:
        done = next((done for done in state.finished if done.id == session), None)
        if done is None:
            raise SessionRefused("unknown")
        if (done.outcome, done.cause) != (outcome, cause):
            raise SessionRefused("otherOutcome")
        return Step(state, repeated=True)
    return _finish(state, ((known, outcome, cause, now.boot_ms - known.began_boot_ms),), policy)


def expire(state: Sessions, now: ClockReading, policy: Policy) -> Step:
    """Sessions whose lease ran out end as abandoned, with the time up to the last sign of life."""
    lost = [one for one in state.open if now.boot_ms - one.seen_boot_ms >= policy.lease_ms]
    return _finish(state, tuple((one, "abandoned", "lease", one.seen_boot_ms - one.began_boot_ms) for one in lost), policy)


def resume(state: Sessions, boot_id: bytes, policy: Policy) -> Step:
    """At the start of the agent: sessions of this boot go on; those of an earlier boot were cut off."""
    if state.boot_id == boot_id:
        return Step(state)
    step = _finish(state, tuple((one, "abandoned", "lease", one.seen_boot_ms - one.began_boot_ms) for one in state.open), policy)
    return Step(msgspec.structs.replace(step.state, boot_id=boot_id), step.bodies)


def answer(state: Sessions, once: bytes, policy: Policy) -> Step:
    """Remember that a rating or refill was recorded; `repeated` if it was before."""
    if once in state.answered:
        return Step(state, repeated=True)
    return Step(msgspec.structs.replace(state, answered=(*state.answered, once)[-policy.remember :]))


def next_expiry_boot_ms(state: Sessions, policy: Policy) -> int | None:
    """When `expire` will next have something to do; None while idle."""
    return min((one.seen_boot_ms + policy.lease_ms for one in state.open), default=None)


def stuck(state: Sessions, now: ClockReading) -> bool:
    """A session goes on and on."""
    return any(_is_stuck(one, now) for one in state.open)


def serving(state: Sessions, now: ClockReading) -> bool:
    """Somebody is served whom updates, orders and tests wait for: a session is open that is not stuck."""
    return any(not _is_stuck(one, now) for one in state.open)


def _is_stuck(one: OpenSession, now: ClockReading) -> bool:
    return now.boot_ms - one.began_boot_ms >= STUCK_AFTER_MS


def dump(state: Sessions) -> bytes:
    return msgspec.msgpack.encode(state)


def load(raw: bytes | None) -> Sessions:
    """The kept state; a fresh one if there is none or a newer version wrote what this one cannot read."""
    if raw is None:
        return Sessions()
    try:
        return msgspec.msgpack.decode(raw, type=Sessions)
    except msgspec.DecodeError:
        return Sessions()


def _find(state: Sessions, session: bytes) -> OpenSession | None:
    return next((one for one in state.open if one.id == session), None)


def _renewed(state: Sessions, known: OpenSession, now: ClockReading) -> Sessions:
    alive = msgspec.structs.replace(known, seen_boot_ms=max(known.seen_boot_ms, now.boot_ms))
    return msgspec.structs.replace(state, open=tuple(alive if one is known else one for one in state.open))


def _finish(state: Sessions, ends: tuple[tuple[OpenSession, Outcome, Cause, int], ...], policy: Policy) -> Step:
    if not ends:
        return Step(state)
    gone = {one.id for one, *_ in ends}
    finished = (*state.finished, *(Finished(one.id, outcome, cause) for one, outcome, cause, _ in ends))
    bodies = tuple(
        Session(
            id=one.id,
            item=one.item,
            channel=one.channel,
            outcome=outcome,
            cause=cause,
            began_ms=one.began_wall_ms,
            duration_ms=max(0, duration_ms),
        )
        for one, outcome, cause, duration_ms in ends
    )
    left = tuple(one for one in state.open if one.id not in gone)
    return Step(msgspec.structs.replace(state, open=left, finished=finished[-policy.remember :]), bodies)
