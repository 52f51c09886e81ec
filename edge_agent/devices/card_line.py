"""One exchange with a card unit: frame, handshake byte, perhaps an enquiry, result. Shared by those who ask and those who command.

How often a frame is said is the caller's decision (`times`): a question as often as it takes, what moves a card once. After an acknowledgement no
frame is said again here, whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_agent.transports.base import BytePort, PortStalled
from protocols.codecs.card_unit import ACK_BYTE, ACK_TIMEOUT_S, ENQ_BYTE, NAK_BYTE, Mark
from protocols.codecs.common import StreamDecoder
from protocols.errors import ProtocolError

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)

WRITE_TIMEOUT_S = 1.0
READ_BYTES = 512
SPOILED_RESULTS = 2
"""How often a spoiled result is asked for again (NAK): the unit repeats its words, not its deed."""
DROP_READS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRules:
    """How a family talks. `enquires`: the unit acts and answers only after ENQ. `repeats`: it repeats a result after NAK. `acknowledged`: it wants
    an ACK for its result."""

    enquires: bool
    repeats: bool
    acknowledged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Generic[A_co]):
    """What came back. `acknowledged`: by a handshake byte or by the result itself. `noise`: something came that means nothing."""

    answer: A_co | None = None
    acknowledged: bool = False
    refused: bool = False
    """NAK: the unit says that it did not take the frame."""
    enquired: bool = False
    noise: bool = False


class CardLine(Generic[A]):
    """Exchanges on one port with one decoder."""

    def __init__(self, port: BytePort, reader: StreamDecoder[Mark | A], rules: LineRules) -> None:
        self.port = port
        self.rules = rules
        self._reader = reader

    async def exchange(
        self, frame: bytes, fits: Callable[[A], bool], *, times: int, result_timeout_s: float, expects_result: bool = True
    ) -> Said[A]:
        """Say `frame`, at most `times` times and never again after it was acknowledged, and wait for the result that `fits`.

        Raises PortError, except for a stalled write, which is silence.
        """
        refused = noise = False
        for _ in range(times):
            await self._drop_stale()
            try:
                await self.port.write(frame, timeout_s=WRITE_TIMEOUT_S)
            except PortStalled:
                # Part of it may be on the wire: for a command that is as good as said.
                continue
            said = await self._result(fits, result_timeout_s, expects_result)
            refused, noise = said.refused or refused, said.noise or noise
            if said.answer is not None or said.acknowledged:
                return Said(answer=said.answer, acknowledged=True, enquired=said.enquired, noise=noise)
        return Said(refused=refused, noise=noise)

    async def _result(self, fits: Callable[[A], bool], result_timeout_s: float, expects_result: bool) -> Said[A]:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + ACK_TIMEOUT_S
        acknowledged = refused = enquired = noise = False
        spoiled, noise_before = 0, self._reader.noise_bytes
        while (left_s := deadline_s - loop.time()) > 0:
            try:
                data = await self.port.read(max_bytes=READ_BYTES, timeout_s=left_s)
            except PortStalled:
                break
            self._reader.feed(data)
            for event in self._events():
                if event is None:
                    noise = True
                    spoiled += 1
                    if acknowledged and self.rules.repeats and spoiled <= SPOILED_RESULTS:
                        await self._say(NAK_BYTE)
                elif event is Mark.ACK and not acknowledged:
                    acknowledged = True
                    if self.rules.enquires:
                        await self._say(ENQ_BYTE)
                        enquired = True
                    if not expects_result:
                        return Said(acknowledged=True, enquired=enquired, noise=noise)
                    deadline_s = loop.time() + result_timeout_s
                elif event is Mark.NAK and not acknowledged:
                    refused = True
                    deadline_s = loop.time()
                elif not isinstance(event, Mark):
                    if fits(event):
                        if self.rules.acknowledged:
                            await self._say(ACK_BYTE)
                        # A result without its handshake byte counts, and so does the byte that was lost.
                        return Said(answer=event, acknowledged=True, enquired=enquired, noise=noise or not acknowledged)
                    noise = True  # somebody else's result, or a late one
        noise = noise or self._reader.noise_bytes > noise_before or self._reader.pending_bytes > 0
        return Said(acknowledged=acknowledged, refused=refused, enquired=enquired, noise=noise)

    def _events(self) -> list[Mark | A | None]:
        """What is complete; None for each spoiled frame."""
        found: list[Mark | A | None] = []
        while True:
            try:
                event = self._reader.next_event()
            except ProtocolError:
                found.append(None)
                continue
            if event is None:
                return found
            found.append(event)

    async def _say(self, byte: bytes) -> None:
        try:
            await self.port.write(byte, timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            return

    async def _drop_stale(self) -> None:
        """Bytes of an earlier exchange; bounded, so that a stream without end cannot hold us."""
        self._reader.reset()
        for _ in range(DROP_READS):
            try:
                if not await self.port.read(max_bytes=READ_BYTES, timeout_s=0.001):
                    break
            except PortStalled:
                break
