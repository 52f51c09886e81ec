from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from evdev import ecodes
from evdev.events import InputEvent as EvdevEvent

from edge_agent.transports.base import KeyPort, PortBusy, PortGone, PortRefused, PortStalled
from edge_agent.transports.input import open_input
from protocols.codecs.keys import InputEvent, pack_event


class FakeDevice:
    """The part of evdev.InputDevice that the port uses, on a pipe that carries real `struct input_event` bytes."""

    def __init__(self) -> None:
        self.fd, self.kernel = os.pipe2(os.O_NONBLOCK)
        self.down: set[int] = set()
        self.grabbed = 0
        self.foreign_grab = False
        self.gone = False
        self.fails: type[BaseException] | None = None

    def press(self, code: int, value: int = 1) -> None:
        os.write(self.kernel, pack_event(InputEvent(1, 2, ecodes.EV_KEY, code, value)))

    def read(self) -> list[EvdevEvent]:
        if self.fails is not None:
            raise self.fails
        if self.gone:
            raise OSError(errno.ENODEV, "No such device")
        data = os.read(self.fd, 24 * 64)
        return [EvdevEvent(*fields) for fields in struct.iter_unpack("<qqHHi", data)]

    def active_keys(self) -> list[int]:
        return sorted(self.down)

    def grab(self) -> None:
        if self.foreign_grab:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.grabbed += 1

    def ungrab(self) -> None:
        self.grabbed -= 1

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def free(self) -> None:
        self.close()
        os.close(self.kernel)


@pytest.fixture
def device() -> Iterator[FakeDevice]:
    device = FakeDevice()
    yield device
    device.free()


async def test_events_arrive_and_hide_their_keys(device: FakeDevice) -> None:
    port = await open_input("/dev/input/event5", grab=False, opener=lambda _: device)
    assert isinstance(port, KeyPort)
    assert await port.read_events(timeout_s=0.01) == ()
    device.press(30)
    events = await port.read_events(timeout_s=1)
    assert [(event.type, event.code, event.value) for event in events] == [(ecodes.EV_KEY, 30, 1)]
    assert "30" not in repr(events)
    device.down = {30}
    assert await port.pressed_keys() == {30}
    assert device.grabbed == 0
    await port.close()


async def test_a_grab_waits_until_no_key_is_down(device: FakeDevice) -> None:
    device.down = {30}
    port = await open_input("/dev/input/event5", grab=True, opener=lambda _: device)
    assert device.grabbed == 0
    device.down = set()
    device.press(30, 0)
    events = await port.read_events(timeout_s=1)
    assert device.grabbed == 1
    # Looking at the bitmap took what was queued: told as a loss, so that nobody waits for a key that came up meanwhile.
    assert [(event.type, event.code, event.value) for event in events] == [(1, 30, 0), (0, 3, 0), (0, 0, 0)]
    await port.close()
    assert device.grabbed == 0


async def test_a_key_that_came_up_between_open_and_the_first_look_does_not_keep_the_grab_waiting(device: FakeDevice) -> None:
    device.down = {30}
    port = await open_input("/dev/input/event5", grab=True, opener=lambda _: device)
    device.down = set()
    assert await port.pressed_keys() == frozenset()
    assert device.grabbed == 1
    await port.close()


async def test_a_grab_by_another_program_is_busy(device: FakeDevice) -> None:
    device.foreign_grab = True
    with pytest.raises(PortBusy):
        await open_input("/dev/input/event5", grab=True, opener=lambda _: device)


async def test_an_unplugged_device_is_gone(device: FakeDevice) -> None:
    port = await open_input("/dev/input/event5", grab=False, opener=lambda _: device)
    device.press(30)
    device.gone = True
    with pytest.raises(PortGone):
        await port.read_events(timeout_s=1)
    await port.close()
    with pytest.raises(PortGone):
        await port.read_events(timeout_s=1)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (FileNotFoundError(errno.ENOENT, "x"), PortGone),
        (OSError(errno.ENODEV, "x"), PortGone),
        (PermissionError(errno.EACCES, "x"), PortRefused),
        (SystemError("returned NULL without setting an exception"), PortStalled),
    ],
)
async def test_every_way_of_failing_to_open_has_its_word(raised: BaseException, expected: type[Exception]) -> None:
    def opener(_: str) -> Any:
        raise raised

    with pytest.raises(expected):
        await open_input("/dev/input/event5", grab=False, opener=opener)


async def test_the_librarys_missing_exception_while_reading_is_caught(device: FakeDevice) -> None:
    port = await open_input("/dev/input/event5", grab=False, opener=lambda _: device)
    device.fails = SystemError
    device.press(30)
    with pytest.raises(PortStalled):
        await port.read_events(timeout_s=1)
    await port.close()
