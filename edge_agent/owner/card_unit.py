"""Card readers and dispensers for the kiosk application, in the words of XFS4IoT (CWA 17852, CardReader).

One command of the application is one command on the wire. What moves a card, opens the mouth or speaks with a chip is said exactly once: it is not
said again after its acknowledgement, nor when the acknowledgement or the result was lost, nor after a NAK (noise can look like one). Instead the
unit is asked where the card is. If that proves the move, it is a success; if not, `MotionUnconfirmed` says what is known, and whether to give the
command again is for the application to decide.

What a chip says is in the completion and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.devices.base import SlotBinding
from edge_agent.devices.card_line import CardLine, Said
from edge_agent.devices.card_unit import (
    ADDRESSED_RULES,
    F2_RULES,
    SIMPLE_RULES,
    STX_RULES,
    D1801Questions,
    F2Questions,
    Questions,
    StxQuestions,
)
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import BytePort, Port, PortRefused
from protocols.canon.words import PaperState
from protocols.codecs import card_d1801 as d1801_words
from protocols.codecs.card_f2 import Answer as F2Answer
from protocols.codecs.card_stx import Answer as StxAnswer
from protocols.codecs.card_unit import CardPlace, CardReading
from protocols.content import card_d1801, card_f2, card_stx
from protocols.profile.options.card import CardOptions
from protocols.profile.schema import Family, Profile

MOVE, RESET, CHIP_POWER, CHIP_IO, READ = (
    f"CardReader.{name}" for name in ("Move", "Reset", "ChipPower", "ChipIO", "ReadRawData")
)
Position = Literal["exit", "transport", "unitStacker", "unitBin"]
EXIT: Position = "exit"
TRANSPORT: Position = "transport"
STACKER: Position = "unitStacker"
BIN: Position = "unitBin"
"""Positions of `CardReader.Move`; the last two are storage units."""

LOOK_EVERY_S = 0.3
"""Between two looks while a card is expected somewhere; a D1801 board may not be asked more often than five times a second."""
NOT_READY, HARDWARE, UNSUPPORTED, INVALID, TIMED_OUT = (
    "deviceNotReady",
    "hardwareError",
    "unsupportedData",
    "invalidData",
    "timeOut",
)
"""Completion codes of the standard's header."""


class MotionUnconfirmed(CommandFailed):
    """A motion was commanded, once, and nothing proves that it was or was not done. `known` is what the unit says now."""

    def __init__(self, *, acknowledged: bool, position: str) -> None:
        super().__init__(HARDWARE, plain=True)
        self.known: Mapping[str, Any] = {"commandSent": True, "acknowledged": acknowledged, "position": position}


@dataclass(frozen=True, slots=True)
class _Done:
    """The unit says that it did it (`confirmed`), or nothing of use. `code`: it says that it did not."""

    confirmed: bool = False
    acknowledged: bool = False
    code: str | None = None
    plain: bool = True


class _Unit(ABC):
    """The commands of one protocol on one port. Each method that writes a command writes it once."""

    questions: Questions
    motion_timeout_s = 15.0

    @abstractmethod
    def move_frame(self, origin: Position, target: Position) -> bytes | None:
        """None: this unit has no such move."""

    @abstractmethod
    def reset_frame(self, target: str) -> bytes | None: ...

    @abstractmethod
    async def command(self, frame: bytes, *, timeout_s: float) -> _Done: ...

    async def reading(self) -> CardReading | None:
        told = await self.questions.state()
        return None if told is None else told.reading

    async def _not_enquired(self) -> _Done:
        """Without its acknowledgement the unit was not enquired, and it acts on nothing else. A question takes the command's place in it, so that
        no later enquiry can mean the command."""
        await self.questions.state()
        return _Done(code=NOT_READY)

    def proves(self, before: CardReading | None, now: CardReading, origin: Position, target: Position) -> bool:
        """Whether where the card is now shows that the move was made."""
        if target == EXIT:
            return now.place is CardPlace.GATE and (before is None or before.place is not CardPlace.GATE)
        if target == TRANSPORT:
            return now.place is CardPlace.INSIDE
        # From the mouth a person may have taken it as well.
        return origin == TRANSPORT and now.place is CardPlace.NONE


_F2_MOVE_ERRORS: Mapping[str, tuple[str, bool]] = {
    "03": ("unsupportedCommand", True),
    "10": ("mediaJam", False),
    "13": ("mediaJam", False),
    "14": ("mediaJam", False),
    "16": ("mediaJam", False),
    "40": ("noMedia", False),
    "41": ("shutterFail", False),
    "43": ("mediaJam", False),
    "45": ("noMedia", False),
    "50": ("full", False),
    "A0": ("noMedia", False),
    "A1": ("full", False),
    "B0": (NOT_READY, True),
}
_F2_CHIP_ERRORS: Mapping[str, tuple[str, bool]] = {
    "03": ("unsupportedCommand", True),
    "04": (INVALID, True),
    "60": ("invalidMedia", False),
    "61": ("atrNotObtained", False),
    "62": ("protocolNotSupported", False),
    "63": ("invalidMedia", False),
    "64": ("invalidMedia", False),
    "65": ("atrNotObtained", False),
    "66": ("protocolNotSupported", False),
    "67": ("invalidMedia", False),
    "68": ("invalidMedia", False),
    "69": ("invalidMedia", False),
    "B0": (NOT_READY, True),
}


class _F2Unit(_Unit):
    def __init__(self, port: BytePort, options: CardOptions, address: int) -> None:
        self._options, self._address = options, address
        self.questions = F2Questions(port, options, address)
        self._line: CardLine[F2Answer] = CardLine(port, card_f2.CardReader(), F2_RULES)

    def move_frame(self, origin: Position, target: Position) -> bytes | None:
        options, command = self._options, card_f2.Command
        inside = command.TO_ANTENNA if options.reading_position == "antenna" else command.TO_CONTACTS
        out = command.EJECT if options.present == "eject" and origin != STACKER else command.HOLD_AT_GATE
        wanted = {EXIT: out, TRANSPORT: inside, BIN: command.TO_BIN}.get(target)
        if wanted is None or (origin == STACKER and (not options.stacker or target == BIN)):
            return None
        return self._frame(wanted)

    def reset_frame(self, target: str) -> bytes | None:
        command = card_f2.Command
        ways = {"exit": command.RESET_TO_GATE, "retain": command.RESET_TO_BIN, "currentPosition": command.RESET_IN_PLACE}
        wanted = ways.get("currentPosition" if target == "auto" else target)
        return None if wanted is None else self._frame(wanted)

    async def command(self, frame: bytes, *, timeout_s: float) -> _Done:
        said = await self._say(frame, timeout_s)
        answer = said.answer
        if answer is None:
            return _Done(acknowledged=said.acknowledged)
        if answer.positive:
            return _Done(confirmed=True, acknowledged=True)
        code, plain = _F2_MOVE_ERRORS.get(answer.status.decode("latin-1"), (HARDWARE, True))
        return _Done(acknowledged=True, code=code, plain=plain)

    def entry_frame(self, *, permit: bool) -> bytes | None:
        command = card_f2.Command
        if self._options.entry == "30-permits":
            return self._frame(command.ENTRY_30 if permit else command.ENTRY_31)
        if self._options.entry == "30-prohibits":
            return self._frame(command.ENTRY_32 if permit else command.ENTRY_30)
        return None

    async def chip(self, command: card_f2.Command, data: bytes = b"") -> bytes:
        """What the chip answers, for the one who asked. CommandFailed for a refusal or no answer."""
        said = await self._say(card_f2.encode(command, self._address, data), card_f2.CHIP_TIMEOUT_S)
        answer = said.answer
        if answer is None:
            raise CommandFailed(HARDWARE, plain=True)
        if not answer.positive:
            code, plain = _F2_CHIP_ERRORS.get(answer.status.decode("latin-1"), (HARDWARE, True))
            raise CommandFailed(code, plain=plain)
        return answer.data

    def _frame(self, command: card_f2.Command) -> bytes:
        return card_f2.encode(command, self._address)

    async def _say(self, frame: bytes, timeout_s: float) -> Said[F2Answer]:
        wanted = frame[5:7]
        return await self._line.exchange(
            frame,
            lambda answer: answer.address == self._address and answer.command == wanted,
            times=1,
            result_timeout_s=timeout_s,
        )


class _StxUnit(_Unit):
    def __init__(self, port: BytePort, options: CardOptions) -> None:
        self._options = options
        self.questions = StxQuestions(port)
        self._line: CardLine[StxAnswer] = CardLine(port, card_stx.CardReader(), STX_RULES)

    def move_frame(self, origin: Position, target: Position) -> bytes | None:
        command = card_stx.Command
        inside = command.TO_ANTENNA if self._options.reading_position == "antenna" else command.TO_CONTACTS
        out = command.EJECT if self._options.present == "eject" else command.HOLD_AT_FRONT
        wanted = {EXIT: out, TRANSPORT: inside, BIN: command.OUT_AT_REAR}.get(target)
        return None if wanted is None or origin == STACKER else card_stx.encode(wanted)

    def reset_frame(self, target: str) -> bytes | None:
        command = card_stx.Command
        ways = {"exit": command.RESET_TO_FRONT, "retain": command.RESET_TO_REAR, "currentPosition": command.RESET_IN_PLACE}
        wanted = ways.get("currentPosition" if target == "auto" else target)
        return None if wanted is None else card_stx.encode(wanted)

    async def command(self, frame: bytes, *, timeout_s: float) -> _Done:
        wanted = frame[3:5]
        said = await self._line.exchange(
            frame, lambda answer: wanted.startswith(answer.command), times=1, result_timeout_s=timeout_s
        )
        answer = said.answer
        if answer is None:
            return _Done(acknowledged=True) if said.enquired else await self._not_enquired()
        if not answer.positive:
            code, plain = {2: (NOT_READY, True), 6: ("mediaJam", False)}.get(answer.error or 0, (HARDWARE, True))
            return _Done(acknowledged=True, code=code, plain=plain)
        if wanted[:1] == b"0" or answer.data[0] == card_stx.MOVED:
            return _Done(confirmed=True, acknowledged=True)
        known = {card_stx.NO_CARD: ("noMedia", False), card_stx.WRONG_PLACE: ("noMedia", False)}
        code, plain = known.get(answer.data[0], (HARDWARE, True))
        return _Done(acknowledged=True, code=code, plain=plain)


class _SimpleUnit(_Unit):
    """D1801: commands have no result of their own; where the card is tells."""

    def __init__(self, port: BytePort, options: CardOptions) -> None:
        self.questions = D1801Questions(port, options, 0)
        reader = d1801_words.D1801Reader()
        self._line: CardLine[d1801_words.Answer] = CardLine(port, reader, SIMPLE_RULES)

    def move_frame(self, origin: Position, target: Position) -> bytes | None:
        if target == EXIT and origin in (STACKER, TRANSPORT):
            return card_d1801.encode(card_d1801.Command.DISPENSE)
        if target == BIN and origin in (EXIT, TRANSPORT):
            return card_d1801.encode(card_d1801.Command.CAPTURE)
        return None

    def reset_frame(self, target: str) -> bytes | None:
        return card_d1801.encode(card_d1801.Command.RESET) if target in ("retain", "auto") else None

    async def command(self, frame: bytes, *, timeout_s: float) -> _Done:
        said = await self._line.exchange(frame, lambda _: False, times=1, result_timeout_s=timeout_s, expects_result=False)
        return _Done(acknowledged=True) if said.enquired else await self._not_enquired()


class _AddressedUnit(_Unit):
    """CRT-540/541: it dispenses, says how that went, and never where a card is."""

    def __init__(self, port: BytePort, options: CardOptions, address: int) -> None:
        self._address = address
        self._questions = D1801Questions(port, options, address)
        self.questions = self._questions
        reader = d1801_words.D1801Reader(addressed=True)
        self._line: CardLine[d1801_words.Answer] = CardLine(port, reader, ADDRESSED_RULES)

    def move_frame(self, origin: Position, target: Position) -> bytes | None:
        if (origin, target) != (STACKER, EXIT):
            return None
        return card_d1801.encode(card_d1801.Command.DISPENSE, self._address)

    def reset_frame(self, target: str) -> bytes | None:
        return card_d1801.encode(card_d1801.Command.RESET_ADDRESSED, self._address) if target == "auto" else None

    async def command(self, frame: bytes, *, timeout_s: float) -> _Done:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        said = await self._line.exchange(frame, lambda _: False, times=1, result_timeout_s=timeout_s, expects_result=False)
        dispensing = False
        while loop.time() < deadline_s:
            await asyncio.sleep(LOOK_EVERY_S)
            answer = await self._questions.answer()
            work = None if answer is None else d1801_words.work_of(answer)
            if work is d1801_words.Work.FAILED:
                return _Done(acknowledged=True, code="mediaJam", plain=False)
            if work is d1801_words.Work.CANNOT:
                return _Done(acknowledged=True, code=NOT_READY)
            if work is d1801_words.Work.LAST_OK or (dispensing and work is d1801_words.Work.READY):
                return _Done(confirmed=True, acknowledged=True)
            dispensing = dispensing or work is d1801_words.Work.DISPENSING
        return _Done(acknowledged=said.acknowledged)

    def proves(self, before: CardReading | None, now: CardReading, origin: Position, target: Position) -> bool:
        return False


class CardUnitServer:
    """Commands of one card reader or dispenser."""

    def __init__(self, profile: Profile) -> None:
        self._family = profile.family
        self._options = profile.card or CardOptions()
        self._addressed = profile.family is Family.CARD_D1801 and self._options.form == "addressed"
        self._powered = False
        """By this claim: a chip that another application has spoken with may still be open to whoever comes next."""

    @property
    def commands(self) -> frozenset[str]:
        names = {MOVE, RESET}
        if self._has_chip:
            names |= {CHIP_POWER, CHIP_IO}
        if self._takes_cards:
            names.add(READ)
        return frozenset(names)

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        chip = self._has_chip
        reader: dict[str, Any] = {
            "type": "motor",
            "positions": {"exit": True, "transport": not self._addressed},
            "cardTakenSensor": not self._addressed,
            "chipProtocols": {"chipT0": chip, "chipT1": chip},
            "chipPower": {"cold": chip, "warm": chip, "off": chip},
        }
        storage: dict[str, Any] = {}
        if self._options.stacker or self._family is Family.CARD_D1801:
            storage[STACKER] = {"type": "dispense"}
        if not self._addressed:
            storage[BIN] = {"type": "retain"}
        return {"cardReader": reader, "storage": storage}

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        if request.name not in self.commands:
            raise CommandFailed("unsupportedCommand", plain=True)
        if not isinstance(port, BytePort):
            raise PortRefused(f"profile {bound.profile.id}: a card unit needs a stream of bytes")
        unit = self._unit(port, bound)
        if request.name == MOVE:
            return await self._move(unit, request.payload, tell)
        if request.name == RESET:
            return await self._reset(unit, request.payload, tell)
        assert isinstance(unit, _F2Unit)
        if request.name == CHIP_POWER:
            return await self._chip_power(unit, request.payload)
        if request.name == CHIP_IO:
            return await self._chip_io(unit, request.payload)
        return await self._read(unit, request, tell)

    @property
    def _has_chip(self) -> bool:
        return self._family is Family.CARD_F2 and self._options.chip

    @property
    def _takes_cards(self) -> bool:
        return self._has_chip and self._options.entry != "none"

    def _unit(self, port: BytePort, bound: SlotBinding) -> _Unit:
        options = self._options
        address = options.address if bound.address is None else bound.address
        if self._family is Family.CARD_F2:
            return _F2Unit(port, options, address)
        if self._family is Family.CARD_STX:
            return _StxUnit(port, options)
        return _AddressedUnit(port, options, address) if self._addressed else _SimpleUnit(port, options)

    # ------------------------------------------------------------------ motions

    async def _move(self, unit: _Unit, payload: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        origin, target = payload.get("from"), payload.get("to")
        if origin not in (EXIT, TRANSPORT, STACKER, None) or target not in (EXIT, TRANSPORT, BIN) or origin == target:
            raise CommandFailed(INVALID, plain=True)
        before = _able(await unit.reading())
        if origin is None:
            origin = EXIT if before.place is CardPlace.GATE else TRANSPORT
        frame = unit.move_frame(origin, target) if origin != target else None
        if frame is None:
            raise CommandFailed(UNSUPPORTED, plain=True)
        _check_origin(before, origin)
        if target == BIN and before.bin_full:
            raise CommandFailed("full")
        started_s = asyncio.get_running_loop().time()
        done = await unit.command(frame, timeout_s=unit.motion_timeout_s)
        _raise_refusal(done)
        if not done.confirmed:
            await self._settle(unit, before, origin, target, done, started_s + unit.motion_timeout_s, tell)
        return {}

    async def _settle(
        self,
        unit: _Unit,
        before: CardReading,
        origin: Position,
        target: Position,
        done: _Done,
        deadline_s: float,
        tell: Tell,
    ) -> None:
        """The unit did not say how it went: look until the card is where it should be, or the time for a motion is over. Only questions."""
        loop = asyncio.get_running_loop()
        last: CardReading | None = None
        while True:
            now = await unit.reading()
            if now is not None:
                last = now
                if unit.proves(before, now, origin, target):
                    return
                if "CARD_STUCK" in now.conditions:
                    raise CommandFailed("mediaJam")
                if "MECHANISM" in now.conditions:
                    raise CommandFailed(HARDWARE, plain=True)
            if loop.time() >= deadline_s:
                break
            await asyncio.sleep(LOOK_EVERY_S)
        position = _position(last)
        if position != "none":
            tell("CardReader.MediaDetectedEvent", {"position": position})
        raise MotionUnconfirmed(acknowledged=done.acknowledged, position=position)

    async def _reset(self, unit: _Unit, payload: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        target = payload.get("to") or "auto"
        if target not in ("exit", "retain", "currentPosition", "auto"):
            raise CommandFailed(INVALID, plain=True)
        frame = unit.reset_frame(target)
        if frame is None:
            raise CommandFailed(UNSUPPORTED, plain=True)
        before = await unit.reading()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + card_f2.RESET_TIMEOUT_S
        done = await unit.command(frame, timeout_s=card_f2.RESET_TIMEOUT_S)
        _raise_refusal(done, full="retainBinFull")
        # A unit that was well before and did not even acknowledge proves nothing by being well.
        provable = done.acknowledged or (before is not None and not _is_reset(before, target))
        now = await unit.reading()
        while not done.confirmed and not (provable and _is_reset(now, target)):
            if loop.time() >= deadline_s or not provable:
                raise MotionUnconfirmed(acknowledged=done.acknowledged, position=_position(now))
            await asyncio.sleep(LOOK_EVERY_S)
            now = await unit.reading()
        if now is not None and now.place in (CardPlace.GATE, CardPlace.INSIDE, CardPlace.JAMMED):
            tell("CardReader.MediaDetectedEvent", {"position": _position(now)})
        return {}

    # ------------------------------------------------------------------ what a card says

    async def _chip_power(self, unit: _F2Unit, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        ways = {"cold": card_f2.Command.CHIP_COLD, "warm": card_f2.Command.CHIP_WARM, "off": card_f2.Command.CHIP_OFF}
        command = ways.get(str(payload.get("chipPower")))
        if command is None:
            raise CommandFailed(INVALID, plain=True)
        _check_origin(_able(await unit.reading()), TRANSPORT)
        said = await unit.chip(command)
        self._powered = command is not card_f2.Command.CHIP_OFF
        # One byte tells the protocol, the rest is the answer to reset.
        return {} if command is card_f2.Command.CHIP_OFF else {"chipData": _text(said[1:])}

    async def _chip_io(self, unit: _F2Unit, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        protocol = payload.get("chipProtocol")
        ways = {"chipT0": card_f2.Command.CHIP_T0, "chipT1": card_f2.Command.CHIP_T1}
        command = ways.get(str(protocol))
        if command is None:
            raise CommandFailed("protocolNotSupported")
        data = _bytes(payload.get("chipData"))
        _check_origin(_able(await unit.reading()), TRANSPORT)
        if not self._powered:
            raise CommandFailed("atrNotObtained")
        return {"chipProtocol": protocol, "chipData": _text(await unit.chip(command, data))}

    async def _read(self, unit: _F2Unit, request: Request, tell: Tell) -> Mapping[str, Any]:
        """Let a person put a card in, and reset its chip. The mouth is opened once and closed again whatever happens."""
        wanted = {name for name, value in request.payload.items() if value is True}
        if wanted != {"chip"}:
            raise CommandFailed(UNSUPPORTED if wanted else INVALID, plain=True)
        before = _able(await unit.reading())
        if before.place is not CardPlace.INSIDE:
            if before.place is not CardPlace.NONE:
                raise CommandFailed("invalidMedia")
            await self._let_in(unit, request.timeout_s, tell)
        said = await unit.chip(card_f2.Command.CHIP_COLD)
        self._powered = True
        return {"chip": [{"status": "ok", "data": _text(said[1:])}]}

    async def _let_in(self, unit: _F2Unit, timeout_s: float, tell: Tell) -> None:
        permit, prohibit = unit.entry_frame(permit=True), unit.entry_frame(permit=False)
        assert permit is not None
        assert prohibit is not None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        try:
            done = await unit.command(permit, timeout_s=card_f2.CHIP_TIMEOUT_S)
            _raise_refusal(done)
            tell("CardReader.InsertCardEvent", {})
            while True:
                now = await unit.reading()
                if now is not None and "CARD_STUCK" in now.conditions:
                    raise CommandFailed("mediaJam")
                if now is not None and now.place is CardPlace.INSIDE:
                    tell("CardReader.MediaInsertedEvent", {})
                    return
                if loop.time() >= deadline_s:
                    raise CommandFailed(TIMED_OUT, plain=True)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            # Closing moves no card; a unit that does not hear it closes at its next reset.
            await unit.command(prohibit, timeout_s=card_f2.CHIP_TIMEOUT_S)


def _able(reading: CardReading | None) -> CardReading:
    """A unit that can be commanded now; CommandFailed with the reason why not. Nothing was commanded then."""
    if reading is None or "NOT_READY" in reading.conditions:
        raise CommandFailed(NOT_READY, plain=True)
    if "CARD_STUCK" in reading.conditions:
        raise CommandFailed("mediaJam")
    if {"MECHANISM", "POWER"} & set(reading.conditions):
        raise CommandFailed(HARDWARE, plain=True)
    if reading.device.value != "online":
        raise CommandFailed(NOT_READY, plain=True)
    return reading


def _is_reset(now: CardReading | None, target: str) -> bool:
    """Whether the unit is well, and a card that was in it is where the reset should have brought it."""
    if now is None or now.device.value != "online" or {"NOT_READY", "CARD_STUCK", "MECHANISM", "POWER"} & set(now.conditions):
        return False
    if target == "exit":
        return now.place in (CardPlace.GATE, CardPlace.NONE)
    return target != "retain" or now.place is CardPlace.NONE


def _check_origin(before: CardReading, origin: Position) -> None:
    """A unit with a stacker feeds a new card where the one it should move is missing, so that must be known first."""
    if before.place is CardPlace.UNKNOWN:
        raise CommandFailed(NOT_READY, plain=True)
    if origin == STACKER:
        if before.place not in (CardPlace.NONE, None):
            raise CommandFailed("occupied")
        if before.stock is PaperState.OUT:
            raise CommandFailed("noMedia")
        return
    if before.place is not (CardPlace.GATE if origin == EXIT else CardPlace.INSIDE):
        raise CommandFailed("noMedia")


def _raise_refusal(done: _Done, *, full: str = "full") -> None:
    if done.code is not None:
        raise CommandFailed(full if done.code == "full" else done.code, plain=done.plain)


def _position(reading: CardReading | None) -> str:
    words = {CardPlace.GATE: EXIT, CardPlace.INSIDE: TRANSPORT, CardPlace.NONE: "none", CardPlace.JAMMED: "jammed"}
    return "unknown" if reading is None or reading.place is None else words.get(reading.place, "unknown")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: object) -> bytes:
    try:
        data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not 4 <= len(data) <= 261:
        raise CommandFailed(INVALID, plain=True)
    return data
