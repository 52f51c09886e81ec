"""CardReader of XFS4IoT (CWA 17852, part 3) on a CCID reader: a card is waited for and powered, and commands are exchanged with its chip.

An exchange is sent once: whether a card did what it was asked is not known when its answer is lost, so nothing is repeated here. What a card says
is in the completion and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import InterfacePort, Port, PortError, PortRefused, PortStalled, UsbPort
from protocols.codecs import ccid
from protocols.codecs.ccid import Card, MessageType, Outcome
from protocols.content.ccid import (
    CHAIN_BEGINS,
    CHAIN_GOES_ON,
    EXCHANGE_TIMEOUT_S,
    MAX_RESPONSE_BYTES,
    POWER_TIMEOUT_S,
    ContentReader,
    Reply,
    T0Command,
    encode_exchange,
    encode_power_off,
    encode_power_on,
    offers_t0,
)
from protocols.errors import EncodeError, FrameError, ProtocolError
from protocols.profile.options.ccid import CcidOptions

READ, CHIP_IO, CHIP_POWER = "CardReader.ReadRawData", "CardReader.ChipIO", "CardReader.ChipPower"
WRITE_TIMEOUT_S = 2.0
READ_BYTES = 4096
LOOK_EVERY_S = 0.2
DRAIN_READS = 8
ABORT_TIMEOUT_S = 1.0
LONGEST_S = 30.0
"""However often a reader asks for more time to power a card."""
SLOT = 0
"""The citizen's; further slots hold security modules, which applications have no business with."""


class SmartCard:
    """One reader, for the length of one claim. `take_steps` gives what was met since it was asked last."""

    def __init__(self) -> None:
        self._met: list[Met] = []
        self._sequence = 0x80
        self._powered = False
        self._speaks_t0 = True

    @property
    def commands(self) -> frozenset[str]:
        return frozenset({READ, CHIP_IO, CHIP_POWER})

    def take_steps(self) -> list[Met]:
        taken, self._met = self._met, []
        return taken

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        contactless = (bound.profile.ccid or CcidOptions()).contact == "contactless"
        protocols = ("chipTypeAPart4", "chipTypeB") if contactless else ("chipT0", "chipT1")
        return {
            "cardReader": {
                "type": "contactless" if contactless else "dip",
                "readTracks": None,
                "writeTracks": None,
                "chipProtocols": dict.fromkeys(protocols, True),
                "chipPower": {"cold": True, "warm": True, "off": True},
                "memoryChipProtocols": None,
                "cardTaken": True,
            }
        }

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        """Raises PortStalled if the reader does not answer. Error words are those of the standard's command."""
        if not isinstance(port, UsbPort):
            raise PortRefused("a CCID reader is on USB")
        link = _Link(port, self._next_sequence)
        await link.drain()
        if request.name == READ:
            return await self._read(link, request, tell)
        if request.name == CHIP_POWER:
            return await self._power(link, request)
        return await self._exchange(link, request)

    # ------------------------------------------------------------------ commands

    async def _read(self, link: _Link, request: Request, tell: Tell) -> Mapping[str, Any]:
        """Waits for a card, powers it, and tells its answer to reset."""
        if request.payload.get("chip") is not True:
            raise CommandFailed("unsupportedData", plain=True)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + request.timeout_s
        tell("CardReader.InsertCardEvent", {})
        while not (await link.slot_status()).card.is_present:
            self._powered = False
            if loop.time() + LOOK_EVERY_S >= deadline_s:
                self._met.append(Met.NONE)
                raise CommandFailed("timeOut", plain=True)
            await asyncio.sleep(LOOK_EVERY_S)
        tell("CardReader.MediaInsertedEvent", {})
        atr = await self._power_on(link, mute="invalidMedia")
        return {"chip": [{"status": "ok", "data": _base64(atr)}]}

    async def _power(self, link: _Link, request: Request) -> Mapping[str, Any]:
        wanted = request.payload.get("chipPower")
        if wanted == "off":
            self._powered = False
            await link.ask(encode_power_off(SLOT, link.sequence()), POWER_TIMEOUT_S)
            return {"chipData": None}
        if wanted not in ("cold", "warm"):
            raise CommandFailed("invalidData", plain=True)
        if wanted == "cold":
            # To power a card that is powered is a warm reset.
            await link.ask(encode_power_off(SLOT, link.sequence()), POWER_TIMEOUT_S)
        return {"chipData": _base64(await self._power_on(link, mute="atrNotObtained"))}

    async def _exchange(self, link: _Link, request: Request) -> Mapping[str, Any]:
        apdu = _bytes_of(request.payload.get("chipData"))
        status = await link.slot_status()
        if not status.card.is_present:
            self._powered = False
            raise CommandFailed("noMedia")
        if status.card is not Card.ACTIVE or not self._powered:
            raise CommandFailed("atrNotObtained")
        try:
            response = await self._at_level(link, apdu, request.timeout_s)
        except EncodeError:
            raise CommandFailed("invalidData") from None
        except FrameError:
            raise CommandFailed("hardwareError", plain=True) from None
        protocol = request.payload.get("chipProtocol") or "chipProtocolNotRequired"
        return {"chipProtocol": protocol, "chipData": _base64(response)}

    # ------------------------------------------------------------------ parts

    async def _power_on(self, link: _Link, *, mute: str) -> bytes:
        reply = await link.ask(encode_power_on(SLOT, link.sequence()), POWER_TIMEOUT_S)
        if reply.answer.outcome is Outcome.FAILED:
            self._powered = False
            if not reply.answer.card.is_present:
                raise CommandFailed("noMedia")
            _raise_reader_error(reply)
            self._met += [Met.FOUND, Met.WEAK]
            raise CommandFailed(mute)
        self._powered = True
        self._speaks_t0 = offers_t0(reply.data)
        self._met += [Met.FOUND, Met.OK]
        return reply.data

    async def _at_level(self, link: _Link, apdu: bytes, timeout_s: float) -> bytes:
        if link.level in ("apdu", "extended"):
            return await link.exchange(apdu, timeout_s)
        if not self._speaks_t0 or link.level == "character":
            raise CommandFailed("protocolNotSupported")
        command = T0Command(apdu)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while command.tpdu is not None:
            command.take(await link.exchange(command.tpdu, max(0.1, deadline_s - loop.time())))
        return command.response

    def _next_sequence(self) -> int:
        """From the upper half, so that an answer to the driver's last question is no answer here."""
        self._sequence = 0x80 | (self._sequence + 1) & 0x7F
        return self._sequence


class _Link:
    """Questions and answers on one port."""

    def __init__(self, port: UsbPort, sequence: Any) -> None:
        self._port = port
        self._next = sequence
        self._reader = ContentReader()
        self._asked = 0
        described = (
            ccid.parse_class_descriptor(port.class_descriptor(ccid.CLASS_DESCRIPTOR)) if isinstance(port, InterfacePort) else None
        )
        self.level = "apdu" if described is None else described.level
        self._longest = 271 if described is None else described.max_message_bytes

    def sequence(self) -> int:
        self._asked = self._next()
        return self._asked

    async def drain(self) -> None:
        for _ in range(DRAIN_READS):
            if not await self._port.read(max_bytes=READ_BYTES, timeout_s=0.001):
                break

    async def slot_status(self) -> ccid.Answer:
        return (await self.ask(ccid.encode_slot_status(SLOT, self.sequence()), ccid.ANSWER_TIMEOUT_S)).answer

    async def exchange(self, data: bytes, timeout_s: float) -> bytes:
        """One command and its whole response. Raises CommandFailed, PortStalled."""
        response, more = b"", False
        while True:
            message = encode_exchange(SLOT, self.sequence(), b"" if more else data, more=more, longest=self._longest)
            reply = await self.ask(message, EXCHANGE_TIMEOUT_S, within_s=timeout_s)
            if reply.answer.outcome is Outcome.FAILED:
                _raise_reader_error(reply)
                raise CommandFailed("invalidMedia" if reply.answer.card.is_present else "noMedia")
            response += reply.data
            if len(response) > MAX_RESPONSE_BYTES:
                raise FrameError("a card's answer has no end")
            more = reply.chain in (CHAIN_BEGINS, CHAIN_GOES_ON)
            if not more:
                return response

    async def ask(self, message: bytes, timeout_s: float, *, within_s: float | None = None) -> Reply:
        """Send once and wait, as long as the reader says that the card works on it. `within_s`: then it is aborted (CommandFailed, `timeOut`)."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (LONGEST_S if within_s is None else within_s)
        self._reader.reset()
        self._reader.expect(SLOT, self._asked)
        await self._port.write(message, timeout_s=WRITE_TIMEOUT_S)
        deadline_s = loop.time() + timeout_s
        while (left_s := min(deadline_s, end_s) - loop.time()) > 0:
            self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s))
            while (reply := self._take_reply()) is not None:
                if reply.answer.outcome is not Outcome.TIME_EXTENSION:
                    return reply
                deadline_s = loop.time() + timeout_s
        if loop.time() >= end_s:
            await self._abort()
            raise CommandFailed("timeOut", plain=True)
        raise PortStalled("the reader does not answer")

    def _take_reply(self) -> Reply | None:
        while True:
            try:
                reply = self._reader.take_reply()
            except ProtocolError:
                continue  # noise, or an answer to somebody else's question
            if reply is None or reply.answer.kind in (MessageType.DATA_BLOCK, MessageType.SLOT_STATUS):
                return reply

    async def _abort(self) -> None:
        """Both ways, with the numbers of what is given up (5.3.1); a reader that does not know it is left to its driver."""
        if not isinstance(self._port, InterfacePort):
            return
        with suppress(PortError):
            value = ccid.abort_value(SLOT, self._asked)
            await self._port.control_out(ccid.ABORT_REQUEST_TYPE, ccid.ABORT_REQUEST, value, 0, b"", timeout_s=ABORT_TIMEOUT_S)
            await self._port.write(ccid.encode_abort(SLOT, self._asked), timeout_s=WRITE_TIMEOUT_S)
            await self._port.read(max_bytes=READ_BYTES, timeout_s=ABORT_TIMEOUT_S)


def _raise_reader_error(reply: Reply) -> None:
    """What a failed command says about the reader and not about the card."""
    if reply.answer.is_hardware_error:
        raise CommandFailed("hardwareError", plain=True)
    if reply.answer.error == ccid.ERROR_SLOT_BUSY:
        raise CommandFailed("deviceNotReady", plain=True)


def _bytes_of(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise CommandFailed("invalidData", plain=True) from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
