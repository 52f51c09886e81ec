"""What a tap's log means: which questions were asked and answered when, which bytes belong to nothing, what should not have been sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from simulators.capture import Transfer, turns
from simulators.wire import Answered, Question, Wire, asked, told


@dataclass
class Exchange:
    """One question. `answered_s` None: nothing came before the next one."""

    name: str
    expects: Answered
    asked_s: float
    answered_s: float | None = None

    @property
    def took_s(self) -> float | None:
        return None if self.answered_s is None else self.answered_s - self.asked_s


@dataclass
class Findings:
    """The log of one unit, taken apart."""

    exchanges: list[Exchange] = field(default_factory=list)
    notices: int = 0
    stray_bytes: int = 0
    stray_turns: int = 0
    forbidden: list[str] = field(default_factory=list)
    """What was sent and is no question, as the agent's own bytes in hex."""

    @property
    def names(self) -> list[str]:
        return sorted({exchange.name for exchange in self.exchanges})

    def of(self, name: str) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.name == name]

    @property
    def times_s(self) -> list[float]:
        return sorted(took for exchange in self.exchanges if (took := exchange.took_s) is not None)


def analyse(wire: Wire, transfers: Iterable[Transfer]) -> Findings:
    """Take the log apart by what `wire` knows."""
    found = Findings()
    waiting: list[tuple[Question, Exchange]] = []
    heard = b""
    for turn in turns(transfers):
        way = turn[0].way
        if way == "!":
            waiting, heard = [], b""
        elif way == "?":
            _requests(wire, turn, found)
        elif way == ">":
            waiting = _asked(wire, turn, heard, waiting, found)
        else:
            heard = b"".join(transfer.data or b"" for transfer in turn)
            _told(wire, turn, heard, waiting, found)
    return found


def _asked(
    wire: Wire, turn: Sequence[Transfer], heard: bytes, before: list[tuple[Question, Exchange]], found: Findings
) -> list[tuple[Question, Exchange]]:
    for transfer in turn:
        if transfer.request is not None and transfer.request[:2] not in wire.carriers:
            found.forbidden.append(f"control transfer {transfer.request[0]:02x} {transfer.request[1]:02x}")
    whole = b"".join(transfer.data or b"" for transfer in turn)
    ends, at = _ends(turn), 0
    pieces = asked(wire, whole, heard=heard)
    keeps = all(piece.question is not None and piece.question.continues for piece in pieces)
    waiting = list(before) if keeps else []
    for piece in pieces:
        if piece.question is not None:
            exchange = Exchange(piece.name, piece.question.answered, _time_at(ends, at))
            found.exchanges.append(exchange)
            if piece.question.reply is not None:
                waiting.append((piece.question, exchange))
        elif not piece.name:
            found.forbidden.append(piece.raw[:32].hex(" "))
        at += len(piece.raw)
    return waiting


def _told(wire: Wire, turn: Sequence[Transfer], whole: bytes, waiting: list[tuple[Question, Exchange]], found: Findings) -> None:
    ends, at, strays = _ends(turn), 0, 0
    questions = [question for question, _ in waiting]
    for piece in told(wire, whole, questions):
        at += len(piece.raw)
        if piece.question is not None:
            place = next(index for index, (question, _) in enumerate(waiting) if question is piece.question)
            waiting.pop(place)[1].answered_s = _time_at(ends, at - 1)
        elif piece.name:
            found.notices += 1
        else:
            strays += len(piece.raw)
    found.stray_bytes += strays
    found.stray_turns += strays > 0


def _requests(wire: Wire, turn: Sequence[Transfer], found: Findings) -> None:
    for transfer in turn:
        numbers = transfer.request or (0, 0, 0, 0, 0)
        known = next((one for one in wire.requests if (one.request_type, one.request) == numbers[:2]), None)
        if known is None:
            found.forbidden.append(f"control transfer {numbers[0]:02x} {numbers[1]:02x}")
        else:
            answered_s = None if transfer.data is None else transfer.at_s
            found.exchanges.append(Exchange(known.name, "always", transfer.at_s, answered_s))


def _ends(turn: Sequence[Transfer]) -> list[tuple[int, float]]:
    """(offset behind the transfer's last byte, its time)."""
    ends, at = [], 0
    for transfer in turn:
        at += transfer.length
        ends.append((at, transfer.at_s))
    return ends


def _time_at(ends: Sequence[tuple[int, float]], offset: int) -> float:
    return next((at_s for end, at_s in ends if offset < end), ends[-1][1])
