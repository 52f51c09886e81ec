"""CardReader of XFS4IoT (CWA 17852, part 3) on a resident-ID reader: ReadRawData finds, selects and reads one card, in that order, within its time.

The card's content is in the completion and nowhere else. What is counted of an attempt is the meaning of the reader's status byte.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.devices.sdt_port import SdtPort
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import BytePort, Port, PortRefused, PortStalled, UsbPort
from protocols.codecs.sdt import Sw3Class
from protocols.content.sdt import (
    FIND_EVERY_S,
    TIMEOUT_S,
    CardContent,
    CardSession,
    ContentReader,
    Reply,
    Step,
    decode_card,
)
from protocols.errors import ProtocolError

READ = "CardReader.ReadRawData"
SILENT_AFTER = 3
"""Questions in a row without an answer: the reader does not answer, whatever time is left."""
REFUSED_AFTER = 3
"""A card that the module does not accept so often will not be accepted."""
AUTH_WORDS = frozenset({0x31, 0x32, 0x33, 0x40})


class IdReader:
    """One reader. `take_steps` gives what was met since it was asked last."""

    def __init__(self) -> None:
        self._met: list[Met] = []

    @property
    def commands(self) -> frozenset[str]:
        return frozenset({READ})

    def take_steps(self) -> list[Met]:
        taken, self._met = self._met, []
        return taken

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        return {
            "cardReader": {
                "type": "contactless",
                "readTracks": None,
                "writeTracks": None,
                "chipProtocols": None,
                "chipPower": None,
                "memoryChipProtocols": None,
                "cardTaken": False,
            }
        }

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        """`timeOut`: no card came. `invalidMedia`: one came and was not read. Raises PortStalled if the reader does not answer."""
        if request.payload.get("chip") is not True:
            raise CommandFailed("unsupportedData", plain=True)  # such a card has no track and nothing else to read
        if not isinstance(port, BytePort | UsbPort):
            raise PortRefused("an ID reader's port carries bytes")
        fingerprint = request.payload.get("fingerprint") is True
        tell("CardReader.InsertCardEvent", {})
        content = await _Reading(SdtPort(port), self._met, tell, fingerprint=fingerprint).run(request.timeout_s)
        return _payload(content)


class _Reading:
    """One command: over and over until a card is read or the time is up."""

    def __init__(self, line: SdtPort, met: list[Met], tell: Tell, *, fingerprint: bool) -> None:
        self._line = line
        self._met = met
        self._tell = tell
        self._fingerprint = fingerprint
        self._session = CardSession(fingerprint=fingerprint)
        self._reader = ContentReader()
        self._silent = 0
        self._refused = 0

    async def run(self, timeout_s: float) -> CardContent:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        failed = False
        while loop.time() < deadline_s:
            if not await self._step(Step.FIND, Met.FOUND):
                await asyncio.sleep(min(FIND_EVERY_S, max(0.0, deadline_s - loop.time())))
                continue
            self._tell("CardReader.MediaInsertedEvent", {})
            content = await self._read_found()
            if content is not None:
                return content
            failed = True
            if self._refused >= REFUSED_AFTER:
                break
            self._tell("CardReader.InvalidMediaEvent", {})
        if failed:
            raise CommandFailed("invalidMedia")
        raise CommandFailed("timeOut", plain=True)

    async def _read_found(self) -> CardContent | None:
        if not await self._step(Step.SELECT, None):
            return None
        reply = await self._step(Step.READ, None)
        if reply is None:
            return None
        try:
            content = decode_card(reply.data, fingerprint=self._fingerprint)
        except ProtocolError:
            self._met.append(Met.WEAK)
            return None
        self._met.append(Met.OK)
        return content

    async def _step(self, step: Step, met: Met | None) -> Reply | None:
        """Ask, count, and give the reply if the step worked. Raises what the reader says about itself."""
        reply = await self._ask(step)
        if reply is None:
            self._silent += 1
            self._session.take(step, -1)
            if self._silent >= SILENT_AFTER:
                raise PortStalled("the reader does not answer")
            return None
        self._silent = 0
        if reply.verdict in (Sw3Class.HARDWARE, Sw3Class.LICENCE):
            raise CommandFailed("hardwareError", plain=True)
        if self._session.take(step, reply.sw3):
            if met is not None:
                self._met.append(met)
            return reply
        if reply.verdict is Sw3Class.NO_CARD:
            self._met.append(Met.NONE)
        elif reply.sw3 in AUTH_WORDS:
            self._refused += 1
            self._met.append(Met.REFUSED)
        elif reply.verdict is Sw3Class.CARD:
            self._met.append(Met.WEAK)
        return None

    async def _ask(self, step: Step) -> Reply | None:
        self._reader.reset()
        await self._line.drain()
        await self._line.write(self._session.ask(step))
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + TIMEOUT_S[step]
        while (left_s := deadline_s - loop.time()) > 0:
            data = await self._line.read(timeout_s=left_s)
            self._reader.feed(data)
            try:
                reply = self._reader.take_reply()
            except ProtocolError:
                continue
            if reply is not None:
                return reply
            if data:
                self._line.to_body()
        return None


def _payload(content: CardContent) -> dict[str, Any]:
    """The standard has no form for this card: `chip` says that it was read, what stands on it is under our own name."""
    own: dict[str, Any] = {
        "form": content.form.value,
        "fields": dict(content.fields),
        "photo": base64.b64encode(content.photo).decode("ascii"),
        "photoFormat": "wlt",
    }
    if content.fingerprint is not None:
        own["fingerprint"] = base64.b64encode(content.fingerprint).decode("ascii")
    return {"chip": [{"status": "ok", "data": None}], "kioskFleet": {"residentCard": own}}
