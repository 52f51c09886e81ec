"""A hostile or broken device must not cost more than its own slot: bytes are taken at a bounded rate, and every read lets others run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge_agent.transports.base import (
    AskPort,
    BytePort,
    CardReaders,
    InterfacePort,
    KeyPort,
    Port,
    ReaderPort,
    SpeedPort,
    UsbPort,
)
from protocols.codecs.common import BACKLOG_MAX_BYTES
from protocols.codecs.keys import InputEvent

BYTES_PER_S = 16 * 1024
"""More than a 115200 baud line carries. A USB scanner or printer says less about itself than a serial line could."""
BURST_BYTES = 64 * 1024
"""The largest honest burst is a QR code of 7 KiB, or some answers that waited."""
READ_MAX_BYTES = BACKLOG_MAX_BYTES // 4
"""A decoder that is fed no more than this between two looks never drops a whole frame."""
EVENT_BYTES = 24
READER_BYTES = 256
"""What one look at one reader counts for: sixty-four changes a second are more than hands can make."""
DESCRIPTOR_MAX_BYTES = 255
MAX_PAUSE_S = 2.0


class GuardedPort:
    """Any port with a budget. `flooded` counts the reads that had to wait for it."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.flooded = 0
        self._budget = float(BURST_BYTES)
        self._counted_s = asyncio.get_running_loop().time()

    async def close(self) -> None:
        await self.port.close()

    async def _spend(self, size_bytes: int) -> None:
        if size_bytes == 0:
            return
        now_s = asyncio.get_running_loop().time()
        self._budget = min(BURST_BYTES, self._budget + (now_s - self._counted_s) * BYTES_PER_S) - size_bytes
        self._counted_s = now_s
        pause_s = 0.0
        if self._budget < 0:
            self.flooded += 1
            pause_s = min(MAX_PAUSE_S, -self._budget / BYTES_PER_S)
        await asyncio.sleep(pause_s)


class GuardedBytePort(GuardedPort):
    port: BytePort

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        await self.port.write(data, timeout_s=timeout_s)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        data = await self.port.read(max_bytes=min(max_bytes, READ_MAX_BYTES), timeout_s=max(timeout_s, 0.001))
        await self._spend(len(data))
        return data


class GuardedSpeedPort(GuardedBytePort):
    port: SpeedPort

    async def set_baud(self, baud: int) -> None:
        await self.port.set_baud(baud)


class GuardedUsbPort(GuardedBytePort):
    port: UsbPort

    @property
    def endpoints_out(self) -> tuple[int, ...]:
        return self.port.endpoints_out

    @property
    def endpoints_in(self) -> tuple[int, ...]:
        return self.port.endpoints_in

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        await self.port.write_to(endpoint, data, timeout_s=timeout_s)

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        size = min(max_bytes, READ_MAX_BYTES)
        data = await self.port.read_from(endpoint, max_bytes=size, timeout_s=max(timeout_s, 0.001))
        await self._spend(len(data))
        return data

    async def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, *, timeout_s: float
    ) -> bytes:
        return (await self.port.control_in(request_type, request, value, index, length, timeout_s=timeout_s))[:length]


class GuardedInterfacePort(GuardedUsbPort):
    port: InterfacePort

    @property
    def bulk_out(self) -> tuple[int, ...]:
        return self.port.bulk_out

    @property
    def bulk_in(self) -> tuple[int, ...]:
        return self.port.bulk_in

    @property
    def interrupt_in(self) -> tuple[int, ...]:
        return self.port.interrupt_in

    def class_descriptor(self, kind: int) -> bytes:
        return self.port.class_descriptor(kind)[:DESCRIPTOR_MAX_BYTES]

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None:
        await self.port.control_out(request_type, request, value, index, data, timeout_s=timeout_s)

    async def clear_halt(self, endpoint: int) -> None:
        await self.port.clear_halt(endpoint)

    async def reset(self) -> None:
        await self.port.reset()


class GuardedReaderPort(GuardedPort):
    port: ReaderPort

    async def look(self, *, timeout_s: float) -> CardReaders:
        seen = await self.port.look(timeout_s=max(timeout_s, 0.001))
        await self._spend(READER_BYTES * max(1, len(seen.states)))
        return seen

    async def changed(self, *, timeout_s: float) -> bool:
        told = await self.port.changed(timeout_s=max(timeout_s, 0.001))
        await self._spend(READER_BYTES if told else 0)
        return told


class GuardedAskPort(GuardedPort):
    port: AskPort

    @property
    def address(self) -> str:
        return self.port.address

    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        answer = await self.port.ask(message, max_bytes=max_bytes, timeout_s=max(timeout_s, 0.001))
        await self._spend(len(answer))
        return answer[:max_bytes]


class GuardedKeyPort(GuardedPort):
    port: KeyPort

    async def read_events(self, *, timeout_s: float) -> Sequence[InputEvent]:
        events = await self.port.read_events(timeout_s=max(timeout_s, 0.001))
        await self._spend(EVENT_BYTES * len(events))
        return events

    async def pressed_keys(self) -> frozenset[int]:
        return await self.port.pressed_keys()


def guarded(port: Port) -> GuardedBytePort | GuardedKeyPort | GuardedReaderPort | GuardedAskPort:
    """The same shape as `port`, with a budget."""
    if isinstance(port, InterfacePort):
        return GuardedInterfacePort(port)
    if isinstance(port, ReaderPort):
        return GuardedReaderPort(port)
    if isinstance(port, AskPort):
        return GuardedAskPort(port)
    if isinstance(port, UsbPort):
        return GuardedUsbPort(port)
    if isinstance(port, KeyPort):
        return GuardedKeyPort(port)
    return GuardedSpeedPort(port) if isinstance(port, SpeedPort) else GuardedBytePort(port)
