"""In-memory ports for agents that run in the same process: no descriptor, no thread and no task per device.

They have the shape of the agent's ports without importing the agent: the error and value classes to use come in a `PortKit`. Answers are computed
when the host writes or reads; a read that finds nothing sleeps on one future and one timer until something is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from simulators.errors import SimulatorError
from simulators.models.base import Model
from simulators.models.ipp import IppPrinter
from simulators.models.keys import KeyDevice
from simulators.models.pcsc import PcscService
from simulators.models.presence import SeenDevice
from simulators.ports.slots import Found, Slot

Clock = Callable[[], float]
WHOLE_BYTES = 1 << 24
"""A message is taken whole."""


class PortFailed(SimulatorError):
    """Base of the errors a simulated port raises when no other classes were given."""


class PortGone(PortFailed):
    """The device is unplugged."""


class PortBusy(PortFailed):
    """Somebody else holds the port."""


class PortRefused(PortFailed):
    """The port cannot be used that way."""


class PortStalled(PortFailed):
    """The device takes or gives nothing."""


@dataclass(frozen=True)
class InputEvent:
    """One input event, without its key in the repr: it is what a citizen typed."""

    sec: int
    usec: int
    type: int
    code: int
    value: int

    def __repr__(self) -> str:
        return f"InputEvent(type={self.type})"


@dataclass(frozen=True)
class CardReaders:
    """Result code of a PC/SC service, and the event state of each reader by name."""

    code: int
    states: tuple[tuple[str, int], ...] = ()


STALLED = 0x80100001
"""A service that does not answer in time."""


def declared_baud(profile: object) -> int | None:
    """`profile.transport.serial.baud`, None where the profile says nothing about a line speed."""
    serial = getattr(getattr(profile, "transport", None), "serial", None)
    baud = getattr(serial, "baud", None)
    return baud if isinstance(baud, int) else None


@dataclass(frozen=True)
class PortKit:
    """The classes that the using side knows ports by."""

    gone: Callable[[str], Exception] = PortGone
    busy: Callable[[str], Exception] = PortBusy
    refused: Callable[[str], Exception] = PortRefused
    stalled: Callable[[str], Exception] = PortStalled
    sighting: Callable[..., Any] = Found
    input_event: Callable[[int, int, int, int, int], Any] = InputEvent
    baud: Callable[[object], int | None] = declared_baud
    card_readers: Callable[..., Any] = CardReaders

    @classmethod
    def of(cls, module: Any) -> PortKit:
        """From a module that has PortGone, PortBusy, PortRefused, PortStalled, Sighting and InputEvent."""
        return cls(
            module.PortGone,
            module.PortBusy,
            module.PortRefused,
            module.PortStalled,
            module.Sighting,
            module.InputEvent,
            declared_baud,
            module.CardReaders,
        )


class _Waker:
    """Wakes one waiting reader; remembers a wake that came while nobody waited."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def wake_from_anywhere(self) -> None:
        """Models may be steered from another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.wake)

    async def wait(self, timeout_s: float) -> None:
        if not self._woken and timeout_s > 0:
            future = self._future = self._loop.create_future()
            timer = self._loop.call_later(timeout_s, self.wake)
            try:
                await future
            finally:
                timer.cancel()
                self._future = None
        self._woken = False


class _Port:
    """What all pipes share: presence, closing, waiting until a model has something."""

    def __init__(self, slot: Slot, kit: PortKit, clock: Clock) -> None:
        self._slot = slot
        self._model: Model = slot.model
        self._kit = kit
        self._clock = clock
        self._waker = _Waker()
        self._unsubscribe = slot.model.subscribe(self._waker.wake_from_anywhere)
        self._closed = False
        slot.opened = True

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._slot.opened = False
            self._unsubscribe()
            self._waker.wake()

    def _require(self) -> float:
        """The current time, if the device can still be reached."""
        now = self._clock()
        if self._closed:
            raise self._kit.gone(f"{self._slot.place} is closed")
        if not self._model.plugged:
            raise self._kit.gone(f"{self._slot.place} is gone")
        return now

    async def _wait(self, now: float, deadline: float, endpoint: int | None) -> None:
        due = self._model.next_due(endpoint=endpoint)
        until = deadline if due is None else min(deadline, due)
        await self._waker.wait(max(until - now, 0.0005))


class PipePort(_Port):
    """A serial line. Structurally the agent's BytePort with `set_baud`."""

    def __init__(self, slot: Slot, kit: PortKit, clock: Clock, baud: int | None = None) -> None:
        super().__init__(slot, kit, clock)
        self._line_baud = baud

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self._model.feed(data, self._require(), line_baud=self._line_baud)
        self._waker.wake()

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        deadline = self._require() + timeout_s
        while True:
            now = self._require()
            data = self._model.take(now, max_bytes, line_baud=self._line_baud)
            if data or now >= deadline:
                return data
            await self._wait(now, deadline, 0)

    async def set_baud(self, baud: int) -> None:
        now = self._require()
        self._line_baud = baud
        self._model.take(now, 1 << 16)


class PipeUsbPort(_Port):
    """A claimed USB interface. Structurally the agent's UsbPort; a halted endpoint is cleared after it was reported, as a host does."""

    def __init__(self, slot: Slot, kit: PortKit, clock: Clock) -> None:
        super().__init__(slot, kit, clock)
        identity = slot.model.usb
        assert identity is not None, "only devices with a USB identity get a USB port"
        # Bulk pipes first, as the agent's own port has them: a descriptor may name the interrupt pipe before.
        self.endpoints_out = tuple(sorted(identity.endpoints_out, key=lambda address: address not in identity.bulk_out))
        self.endpoints_in = tuple(sorted(identity.endpoints_in, key=lambda address: address not in identity.bulk_in))
        self.bulk_out, self.bulk_in, self.interrupt_in = identity.bulk_out, identity.bulk_in, identity.interrupt_in
        self._identity = identity

    def class_descriptor(self, kind: int) -> bytes:
        return next((one for one in self._identity.class_descriptors if one[1:2] == bytes((kind,))), b"")

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None:
        if self._model.control(request_type, request, value, index, 0, data, self._require()) is None:
            if self._model.is_mute:
                await asyncio.sleep(timeout_s)
            raise self._kit.stalled(f"{self._slot.place} does not take the request")

    async def clear_halt(self, endpoint: int) -> None:
        self._require()
        self._model.halted = False

    async def reset(self) -> None:
        self._model.usb_reset(self._require())
        self._waker.wake()

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        await self.write_to(self.endpoints_out[0], data, timeout_s=timeout_s)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        return await self.read_from(self.endpoints_in[0], max_bytes=max_bytes, timeout_s=timeout_s)

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        deadline = self._require() + timeout_s
        left = data
        while True:
            now = self._require()
            self._require_running(endpoint, self.endpoints_out)
            self._model.advance(now)
            size = self._model.takes(len(left))
            if size or not data:
                self._model.feed(left[:size], now, endpoint=endpoint)
                self._waker.wake()
                left = left[size:]
                if not left:
                    return
            if now >= deadline:
                raise self._kit.stalled(f"{self._slot.place} takes no bytes")
            if not size:
                await self._wait(now, deadline, None)

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        deadline = self._require() + timeout_s
        while True:
            now = self._require()
            self._require_running(endpoint, self.endpoints_in)
            data = self._model.take(now, max_bytes, endpoint=endpoint)
            if data or now >= deadline:
                return data
            await self._wait(now, deadline, endpoint)

    async def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, *, timeout_s: float
    ) -> bytes:
        now = self._require()
        answer = self._model.control(request_type, request, value, index, length, b"", now)
        if answer is None:
            if self._model.is_mute:
                await asyncio.sleep(timeout_s)
            raise self._kit.stalled(f"{self._slot.place} does not answer the request")
        return answer

    def _require_running(self, endpoint: int, known: tuple[int, ...]) -> None:
        if endpoint not in known:
            raise self._kit.refused(f"{self._slot.place} has no endpoint {endpoint:02x}")
        if self._model.halted:
            self._model.halted = False
            raise self._kit.stalled(f"{self._slot.place} stalled endpoint {endpoint:02x}")


class PipeKeyPort(_Port):
    """An input device. Structurally the agent's KeyPort."""

    def __init__(self, slot: Slot, kit: PortKit, clock: Clock) -> None:
        super().__init__(slot, kit, clock)
        assert isinstance(slot.model, KeyDevice), "only keyboards have key ports"
        self._keys: KeyDevice = slot.model

    async def read_events(self, *, timeout_s: float) -> list[Any]:
        deadline = self._require() + timeout_s
        while True:
            now = self._require()
            events = self._keys.take_events(now)
            if events or now >= deadline:
                return [self._kit.input_event(*_stamp(event.due), event.type, event.code, event.value) for event in events]
            await self._wait(now, deadline, None)

    async def pressed_keys(self) -> frozenset[int]:
        return self._keys.pressed_keys(self._require())


class PipeReaderPort(_Port):
    """A PC/SC service. Structurally the agent's ReaderPort."""

    def __init__(self, slot: Slot, kit: PortKit, clock: Clock) -> None:
        super().__init__(slot, kit, clock)
        assert isinstance(slot.model, PcscService), "only a PC/SC service is watched so"
        self._service: PcscService = slot.model
        self._seen: Any = None

    async def look(self, *, timeout_s: float) -> Any:
        self._require()
        if self._service.is_mute or self._service.has("stall"):
            await asyncio.sleep(timeout_s)
            return self._kit.card_readers(STALLED, ())
        self._seen = self._service.snapshot()
        return self._kit.card_readers(*self._seen)

    async def changed(self, *, timeout_s: float) -> bool:
        deadline = self._require() + timeout_s
        while (now := self._require()) < deadline:
            if not self._service.is_mute and self._service.snapshot() != self._seen:
                return True
            await self._wait(now, deadline, None)
        return False


class PipeAskPort(_Port):
    """A service that answers messages. Structurally the agent's AskPort; each question has a connection of its own, so late answers are lost."""

    @property
    def address(self) -> str:
        return self._slot.path

    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        now = self._require()
        deadline = now + timeout_s
        self._model.drop_output()
        self._model.feed(message, now)
        self._waker.wake()
        while True:
            now = self._require()
            answer = self._model.take(now, WHOLE_BYTES)
            if len(answer) > max_bytes:
                raise self._kit.stalled(f"{self._slot.place} answers without end")
            if answer or now >= deadline:
                return answer
            await self._wait(now, deadline, 0)


class PipeOpener:
    """Opens what `PipeDiscoverer` sights. Structurally the agent's PortOpener; one holder at a time."""

    def __init__(self, slots: Iterable[Slot], kit: PortKit | None = None, clock: Clock = time.monotonic) -> None:
        self._slots = list(slots)
        self._kit = kit or PortKit()
        self._clock = clock

    async def open(self, sighting: Any, profile: Any) -> PipePort | PipeUsbPort | PipeKeyPort | PipeReaderPort | PipeAskPort:
        place = sighting.usb_path or sighting.path
        slot = next((slot for slot in self._slots if slot.place == place), None)
        if slot is None or slot.model.has("unplug"):
            raise self._kit.gone(f"no device at {place}")
        if slot.switched_identity is not None or not slot.model.plugged:
            raise self._kit.refused(f"{place} is another kind of device now")
        if slot.model.has("refused"):
            raise self._kit.refused(f"the system refuses to open {place}")
        if slot.opened or slot.model.has("in-use"):
            raise self._kit.busy(f"another program holds {place}")
        if isinstance(slot.model, SeenDevice):
            raise self._kit.refused(f"{place} is only looked at")
        if isinstance(slot.model, KeyDevice):
            return PipeKeyPort(slot, self._kit, self._clock)
        if isinstance(slot.model, PcscService):
            return PipeReaderPort(slot, self._kit, self._clock)
        if isinstance(slot.model, IppPrinter):
            return PipeAskPort(slot, self._kit, self._clock)
        if slot.model.usb is not None:
            return PipeUsbPort(slot, self._kit, self._clock)
        return PipePort(slot, self._kit, self._clock, self._kit.baud(profile))


class PipeDiscoverer:
    """Structurally the agent's Discoverer."""

    def __init__(self, slots: Iterable[Slot], kit: PortKit | None = None) -> None:
        self._slots = list(slots)
        self._kit = kit or PortKit()
        self._known: list[Found] | None = None

    def sightings(self) -> list[Any]:
        self._known = self._found()
        return [self._kit.sighting(**vars(found)) for found in self._known]

    async def changes(self) -> None:
        """Returns when something was plugged in or pulled since `sightings` was last asked."""
        waker = _Waker()
        stops = [slot.model.subscribe(waker.wake_from_anywhere) for slot in self._slots]
        try:
            while self._known == self._found():
                await waker.wait(_LONG_S)
        finally:
            for stop in stops:
                stop()

    def _found(self) -> list[Found]:
        return [found for slot in self._slots if (found := slot.found()) is not None]


_LONG_S = 3600.0
"""Plugging always wakes; this only bounds the wait."""


def _stamp(moment_s: float) -> tuple[int, int]:
    seconds = int(moment_s)
    return seconds, int((moment_s - seconds) * 1_000_000)
