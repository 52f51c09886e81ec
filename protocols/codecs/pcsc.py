"""What a PC/SC service says about its readers: result codes and event states. It is asked, and no card is ever connected to.

PC/SC Workgroup, "Interoperability Specification for ICCs and Personal Computer Systems", part 5, as pcsc-lite implements it: SCardGetStatusChange
gives each reader's state as a 32-bit word whose upper half counts insertions and removals. Both words travel here as four bytes, most significant
first, and so stand in records.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.codecs.common import Explanation

CODEC = "pcsc"

SUCCESS, NO_SERVICE, SERVICE_STOPPED, NO_READERS, TIMEOUT = 0, 0x8010001D, 0x8010001E, 0x8010002E, 0x8010000A
STALLED = 0x80100001
"""SCARD_F_INTERNAL_ERROR; also what a service that does not answer in time stands under here."""
_CODE_NAMES = {
    NO_SERVICE: "no_service",
    SERVICE_STOPPED: "no_service",
    0x80100003: "no_service",  # SCARD_E_INVALID_HANDLE: the service was restarted under us
    0x80100013: "no_service",  # SCARD_F_COMM_ERROR: it ended while it was asked
    NO_READERS: "no_readers",
    STALLED: "stalled",
    0x80100027: "refused",  # SCARD_E_NO_ACCESS
    0x8010006A: "refused",  # SCARD_W_SECURITY_VIOLATION: a polkit rule keeps us out
}

_UNKNOWN, _UNAVAILABLE, _EMPTY, _PRESENT = 0x0004, 0x0008, 0x0010, 0x0020
_EXCLUSIVE, _IN_USE, _MUTE = 0x0080, 0x0100, 0x0200


@dataclass(frozen=True, slots=True)
class ReaderState:
    """One reader's event state in words. `inserted` counts insertions and removals since the service started."""

    is_there: bool
    has_card: bool
    is_mute: bool
    in_use: bool
    inserted: int
    evidence: bytes


def read_state(event_state: int) -> ReaderState:
    word = event_state & 0xFFFFFFFF
    return ReaderState(
        is_there=not word & (_UNKNOWN | _UNAVAILABLE),
        has_card=bool(word & _PRESENT),
        is_mute=bool(word & _MUTE) and bool(word & _PRESENT),
        in_use=bool(word & (_IN_USE | _EXCLUSIVE)),
        inserted=word >> 16,
        evidence=word.to_bytes(4, "big"),
    )


def code_evidence(code: int) -> bytes:
    return (code & 0xFFFFFFFF).to_bytes(4, "big")


def is_refused(code: int) -> bool:
    return _CODE_NAMES.get(code & 0xFFFFFFFF) == "refused"


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """A result code (its highest bit is set), else an event state."""
    if len(reply) != 4:
        return ()
    word = int.from_bytes(reply, "big")
    if word & 0x80000000 and word >> 16 == 0x8010:
        return (Explanation(0, 0xFF, f"pcsc.{_CODE_NAMES.get(word, 'other')}", length=4),)
    hits = [
        Explanation(at, mask, f"pcsc.{name}")
        for at, mask, name, is_set in (
            (3, _UNKNOWN | _UNAVAILABLE, "gone", bool(word & (_UNKNOWN | _UNAVAILABLE))),
            (3, _EMPTY, "empty", bool(word & _EMPTY)),
            (3, _PRESENT, "present", bool(word & _PRESENT)),
            (3, _EXCLUSIVE, "exclusive", bool(word & _EXCLUSIVE)),
            (2, _IN_USE >> 8, "in_use", bool(word & _IN_USE)),
            (2, _MUTE >> 8, "mute", bool(word & _MUTE)),
        )
        if is_set
    ]
    return tuple(hits)
