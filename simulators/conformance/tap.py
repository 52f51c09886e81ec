"""A tap between the agent and a port: every transfer with its time. It changes nothing and knows no family."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from edge_agent.transports.base import (
    AskPort,
    BytePort,
    InterfacePort,
    KeyPort,
    Port,
    PortError,
    PortOpener,
    Sighting,
    SpeedPort,
    UsbPort,
)
from protocols.codecs.keys import InputEvent
from protocols.profile.schema import Profile
from simulators.capture import Transfer

LOG_BYTES = 256 * 1024
"""A whole check of the most talkative honest unit (a position receiver) is half of it."""


class Tap:
    """The log of one unit, over as many openings as there were. Keys are counted, never kept."""

    def __init__(self) -> None:
        self.transfers: list[Transfer] = []
        self.key_events = 0
        self.opened = 0
        self.refusals: list[str] = []
        """Why the port could not be opened, each reason once."""
        self.is_blind = False
        """A port of a form that cannot be tapped was opened."""
        self.endpoints: tuple[int, ...] = ()
        """Pipes of a USB unit, out and in."""
        self.lost_bytes = 0
        """What came after the log was full."""
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()

    def note(self, transfer: Transfer) -> None:
        self._bytes += transfer.length
        if self._bytes <= LOG_BYTES:
            self.transfers.append(transfer)
        else:
            self.lost_bytes += transfer.length

    def now_s(self) -> float:
        return self._loop.time() - self._start_s

    def event(self, what: str) -> None:
        self.note(Transfer(self.now_s(), "!", note=what))


class TappedOpener:
    """The agent's opener with the tap in between."""

    def __init__(self, opener: PortOpener, tap: Tap) -> None:
        self._opener = opener
        self._tap = tap

    async def open(self, sighting: Sighting, profile: Profile) -> Port:
        try:
            port = await self._opener.open(sighting, profile)
        except PortError as err:
            if str(err) not in self._tap.refusals:
                self._tap.refusals.append(str(err))
            raise
        self._tap.opened += 1
        self._tap.event("open")
        return tapped(port, self._tap)


def tapped(port: Port, tap: Tap) -> Port:
    """The same shape as `port`."""
    if isinstance(port, UsbPort):
        tap.endpoints = (*port.endpoints_out, *port.endpoints_in)
        return _TappedInterface(port, tap) if isinstance(port, InterfacePort) else _TappedUsb(port, tap)
    if isinstance(port, AskPort):
        return _TappedService(port, tap)
    if isinstance(port, KeyPort):
        return _TappedKeys(port, tap)
    if isinstance(port, SpeedPort):
        return _TappedSpeed(port, tap)
    if isinstance(port, BytePort):
        return _TappedBytes(port, tap)
    tap.is_blind = True
    return port


class _Tapped:
    def __init__(self, port: Any, tap: Tap) -> None:
        self._port = port
        self._tap = tap

    async def close(self) -> None:
        self._tap.event("close")
        await self._port.close()

    def _note(self, way: Any, data: bytes, endpoint: int | None = None) -> None:
        if data:
            self._tap.note(Transfer(self._tap.now_s(), way, bytes(data), endpoint=endpoint))


class _TappedBytes(_Tapped):
    async def write(self, data: bytes, *, timeout_s: float) -> None:
        # Noted before it is sent: the answer may be there before this call returns.
        self._note(">", data)
        await self._port.write(data, timeout_s=timeout_s)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        data: bytes = await self._port.read(max_bytes=max_bytes, timeout_s=timeout_s)
        self._note("<", data)
        return data


class _TappedSpeed(_TappedBytes):
    async def set_baud(self, baud: int) -> None:
        self._tap.event("speed")
        await self._port.set_baud(baud)


class _TappedUsb(_TappedBytes):
    @property
    def endpoints_out(self) -> tuple[int, ...]:
        return tuple(self._port.endpoints_out)

    @property
    def endpoints_in(self) -> tuple[int, ...]:
        return tuple(self._port.endpoints_in)

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self._note(">", data, next(iter(self.endpoints_out), None))
        await self._port.write(data, timeout_s=timeout_s)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        data: bytes = await self._port.read(max_bytes=max_bytes, timeout_s=timeout_s)
        self._note("<", data, next(iter(self.endpoints_in), None))
        return data

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        self._note(">", data, endpoint)
        await self._port.write_to(endpoint, data, timeout_s=timeout_s)

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        data: bytes = await self._port.read_from(endpoint, max_bytes=max_bytes, timeout_s=timeout_s)
        self._note("<", data, endpoint)
        return data

    async def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, *, timeout_s: float
    ) -> bytes:
        numbers = (request_type, request, value, index, length)
        asked_s = self._tap.now_s()
        try:
            data: bytes = await self._port.control_in(*numbers, timeout_s=timeout_s)
        except PortError:
            self._tap.note(Transfer(asked_s, "?", None, request=numbers))
            raise
        self._tap.note(Transfer(asked_s, "?", bytes(data), request=numbers))
        return data


class _TappedInterface(_TappedUsb):
    @property
    def bulk_out(self) -> tuple[int, ...]:
        return tuple(self._port.bulk_out)

    @property
    def bulk_in(self) -> tuple[int, ...]:
        return tuple(self._port.bulk_in)

    @property
    def interrupt_in(self) -> tuple[int, ...]:
        return tuple(self._port.interrupt_in)

    def class_descriptor(self, kind: int) -> bytes:
        return bytes(self._port.class_descriptor(kind))

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None:
        numbers = (request_type, request, value, index, len(data))
        self._tap.note(Transfer(self._tap.now_s(), ">", bytes(data), request=numbers))
        await self._port.control_out(request_type, request, value, index, data, timeout_s=timeout_s)

    async def clear_halt(self, endpoint: int) -> None:
        self._tap.event("clear halt")
        await self._port.clear_halt(endpoint)

    async def reset(self) -> None:
        self._tap.event("reset")
        await self._port.reset()


class _TappedService(_Tapped):
    @property
    def address(self) -> str:
        return str(self._port.address)

    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        self._note(">", message)
        data: bytes = await self._port.ask(message, max_bytes=max_bytes, timeout_s=timeout_s)
        self._note("<", data)
        return data


class _TappedKeys(_Tapped):
    async def read_events(self, *, timeout_s: float) -> Sequence[InputEvent]:
        events: Sequence[InputEvent] = await self._port.read_events(timeout_s=timeout_s)
        self._tap.key_events += len(events)
        return events

    async def pressed_keys(self) -> frozenset[int]:
        pressed: frozenset[int] = await self._port.pressed_keys()
        return pressed
