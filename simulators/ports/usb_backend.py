"""A backend for pyusb that enumerates device models instead of a bus: `usb.core.find(backend=SimulatedUsbBackend(...))`.

It raises what libusb raises: 110 for a time-out, 32 for a stalled endpoint until its halt is cleared, 19 after an unplug, 16 while a kernel driver
or another program has the interface, 75 when the buffer is smaller than the packet. A replugged device keeps its port path and gets a new address.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import usb.backend
import usb.core

from simulators.models.base import Endpoint, Model, UsbIdentity
from simulators.ports.slots import Slot

STRING_LANGUAGE = 0x0409
GET_DESCRIPTOR, GET_STATUS = 0x06, 0x00
HIGH_SPEED = 3
NAK_S = 0.01
"""A device that takes nothing now is asked again so soon."""


class _Device:
    """One place on the simulated bus, and what the host did to it."""

    def __init__(self, model: Model, identity: UsbIdentity, bus: int, address: int, port_numbers: tuple[int, ...]) -> None:
        self.model = model
        self.identity = identity
        self.bus = bus
        self.address = address
        self.port_numbers = port_numbers
        self.driver = identity.kernel_driver
        self.claimed_by: object | None = None
        self.configured = True
        self.changed = threading.Condition()
        self.strings = [text for text in (identity.manufacturer, identity.product, identity.serial) if text]
        model.subscribe(self._wake)

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def string_index(self, text: str) -> int:
        return self.strings.index(text) + 1 if text else 0

    def replugged(self, address: int) -> None:
        """The kernel binds its driver again and forgets who had claimed what."""
        self.address = address
        self.driver = self.identity.kernel_driver
        self.claimed_by = None


class SimulatedUsbBackend(usb.backend.IBackend):  # type: ignore[misc]  # pyusb ships no types
    """Device models as a USB bus. Thread-safe: transfers block the calling thread only."""

    def __init__(self, slots: Sequence[Slot] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._devices: list[_Device] = []
        self._next_address = 4
        for slot in slots:
            if slot.model.usb is not None and slot.bus == "usb":
                bus, _, ports = (slot.usb_path or "1-1").partition("-")
                self.attach(slot.model, bus=int(bus), port_numbers=tuple(int(number) for number in ports.split(".")))

    def attach(self, model: Model, *, bus: int = 1, port_numbers: tuple[int, ...] = (1,)) -> None:
        """Put `model` on the bus at the given place."""
        assert model.usb is not None, "only devices with a USB identity go on the bus"
        device = _Device(model, model.usb, bus, self._new_address(), port_numbers)
        self._devices.append(device)
        was_plugged = [model.plugged]

        def follow() -> None:
            if model.plugged and not was_plugged[0]:
                device.replugged(self._new_address())
            was_plugged[0] = model.plugged

        model.subscribe(follow)

    def _new_address(self) -> int:
        self._next_address += 1
        return self._next_address

    # ------------------------------------------------------------------ enumeration and descriptors

    def enumerate_devices(self) -> Iterator[_Device]:
        return iter([device for device in self._devices if device.model.plugged])

    def get_parent(self, dev: _Device) -> None:
        return None

    def get_device_descriptor(self, dev: _Device) -> Any:
        identity = dev.identity
        return SimpleNamespace(
            bLength=18,
            bDescriptorType=1,
            bcdUSB=0x0200,
            bDeviceClass=identity.device_class,
            bDeviceSubClass=0,
            bDeviceProtocol=0,
            bMaxPacketSize0=64,
            idVendor=identity.vid,
            idProduct=identity.pid,
            bcdDevice=identity.bcd_device,
            iManufacturer=dev.string_index(identity.manufacturer),
            iProduct=dev.string_index(identity.product),
            iSerialNumber=dev.string_index(identity.serial),
            bNumConfigurations=1,
            address=dev.address,
            bus=dev.bus,
            port_number=dev.port_numbers[-1],
            port_numbers=dev.port_numbers,
            speed=HIGH_SPEED,
        )

    def get_configuration_descriptor(self, dev: _Device, config: int) -> Any:
        _within(config, 1)
        return SimpleNamespace(
            bLength=9,
            bDescriptorType=2,
            wTotalLength=18 + 7 * len(dev.identity.endpoints),
            bNumInterfaces=1,
            bConfigurationValue=1,
            iConfiguration=0,
            bmAttributes=0xC0,
            bMaxPower=1,
            extra_descriptors=[],
        )

    def get_interface_descriptor(self, dev: _Device, intf: int, alt: int, config: int) -> Any:
        _within(config, 1)
        _within(intf, 1)
        _within(alt, 1)
        identity = dev.identity
        return SimpleNamespace(
            bLength=9,
            bDescriptorType=4,
            bInterfaceNumber=0,
            bAlternateSetting=0,
            bNumEndpoints=len(identity.endpoints),
            bInterfaceClass=identity.interface_class,
            bInterfaceSubClass=identity.interface_subclass,
            bInterfaceProtocol=identity.interface_protocol,
            iInterface=0,
            extra_descriptors=list(b"".join(identity.class_descriptors)),
        )

    def get_endpoint_descriptor(self, dev: _Device, ep: int, intf: int, alt: int, config: int) -> Any:
        self.get_interface_descriptor(dev, intf, alt, config)
        _within(ep, len(dev.identity.endpoints))
        endpoint = dev.identity.endpoints[ep]
        return SimpleNamespace(
            bLength=7,
            bDescriptorType=5,
            bEndpointAddress=endpoint.address,
            bmAttributes=endpoint.transfer,
            wMaxPacketSize=endpoint.max_packet,
            bInterval=0,
            bRefresh=0,
            bSynchAddress=0,
            extra_descriptors=[],
        )

    # ------------------------------------------------------------------ handles

    def open_device(self, dev: _Device) -> _Handle:
        self._require(dev)
        if dev.model.has("refused"):
            raise _error(errno.EACCES)
        return _Handle(dev, dev.address)

    def close_device(self, dev_handle: _Handle) -> None:
        dev = dev_handle.device
        if dev.claimed_by is dev_handle:
            dev.claimed_by = None

    def set_configuration(self, dev_handle: _Handle, config_value: int) -> None:
        self._device(dev_handle).configured = config_value == 1

    def get_configuration(self, dev_handle: _Handle) -> int:
        return 1 if self._device(dev_handle).configured else 0

    def set_interface_altsetting(self, dev_handle: _Handle, intf: int, altsetting: int) -> None:
        self._device(dev_handle)
        if (intf, altsetting) != (0, 0):
            raise _error(errno.EINVAL)

    def claim_interface(self, dev_handle: _Handle, intf: int) -> None:
        dev = self._device(dev_handle)
        if intf != 0:
            raise _error(errno.ENOENT)
        if dev.driver is not None or dev.model.has("in-use") or dev.claimed_by not in (None, dev_handle):
            raise _error(errno.EBUSY)
        dev.claimed_by = dev_handle

    def release_interface(self, dev_handle: _Handle, intf: int) -> None:
        dev = self._device(dev_handle)
        if dev.claimed_by is not dev_handle:
            raise _error(errno.ENOENT)
        dev.claimed_by = None

    def is_kernel_driver_active(self, dev_handle: _Handle, intf: int) -> bool:
        return self._device(dev_handle).driver is not None

    def detach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:
        dev = self._device(dev_handle)
        if dev.driver is None:
            raise _error(errno.ENOENT)
        dev.driver = None

    def attach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:
        dev = self._device(dev_handle)
        if dev.claimed_by is not None:
            raise _error(errno.EBUSY)
        dev.driver = dev.identity.kernel_driver

    def clear_halt(self, dev_handle: _Handle, ep: int) -> None:
        self._device(dev_handle).model.halted = False

    def reset_device(self, dev_handle: _Handle) -> None:
        dev = self._device(dev_handle)
        dev.model.usb_reset(self._clock())

    # ------------------------------------------------------------------ transfers

    def bulk_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:
        dev = self._claimed(dev_handle)
        self._endpoint(dev, ep)
        left, sent = bytes(data), 0
        deadline_s = self._clock() + timeout / 1000 if timeout else None
        while True:
            now = self._clock()
            with dev.model.lock:
                dev.model.advance(now)
                size = dev.model.takes(len(left))
            if size or not left:
                dev.model.feed(left[:size], now, endpoint=ep)
                left, sent = left[size:], sent + size
                with dev.changed:
                    dev.changed.notify_all()
            if not left:
                return sent
            if deadline_s is not None and now >= deadline_s:
                raise usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)
            with dev.changed:
                dev.changed.wait(NAK_S)
            dev = self._claimed(dev_handle)  # it may have been pulled meanwhile

    def bulk_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:
        dev = self._claimed(dev_handle)
        endpoint = self._endpoint(dev, ep)
        packet = self._next_packet(dev_handle, endpoint, len(buff) * buff.itemsize, timeout)
        buff[: len(packet)] = type(buff)("B", packet)
        return len(packet)

    intr_write = bulk_write
    intr_read = bulk_read

    def ctrl_transfer(
        self,
        dev_handle: _Handle,
        request_type: int,
        request: int,
        value: int,
        index: int,
        data: Any,
        timeout: int,
    ) -> int:
        dev = self._device(dev_handle)
        if request_type & 0x80:
            answer = self._standard_answer(dev, request_type, request, value, len(data))
            if answer is None:
                answer = dev.model.control(request_type, request, value, index, len(data), b"", self._clock())
            if answer is None:
                raise self._refusal(dev)
            data[: len(answer)] = type(data)("B", answer)
            return len(answer)
        answer = dev.model.control(request_type, request, value, index, 0, bytes(data), self._clock())
        if answer is None:
            raise self._refusal(dev)
        return len(data)

    # ------------------------------------------------------------------ private

    def _next_packet(self, handle: _Handle, endpoint: Endpoint, size_bytes: int, timeout_ms: int) -> bytes:
        """Everything due on the endpoint, whole packets only, as one transfer."""
        dev = handle.device
        deadline = self._clock() + timeout_ms / 1000
        with dev.changed:
            while True:
                now = self._clock()
                data = dev.model.take(now, max(size_bytes, endpoint.max_packet), endpoint=endpoint.address)
                if len(data) > size_bytes:
                    raise _error(errno.EOVERFLOW)
                if data:
                    return data
                if timeout_ms and now >= deadline:
                    raise usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)
                due = dev.model.next_due(endpoint=endpoint.address)
                until = min(moment for moment in (deadline if timeout_ms else None, due, now + 1.0) if moment is not None)
                dev.changed.wait(max(until - now, 0.0005))
                self._claimed(handle)
                self._endpoint(dev, endpoint.address)

    def _standard_answer(self, dev: _Device, request_type: int, request: int, value: int, length: int) -> bytes | None:
        if request_type == 0x80 and request == GET_DESCRIPTOR and value >> 8 == 3:
            index = value & 0xFF
            if index == 0:
                text = STRING_LANGUAGE.to_bytes(2, "little")
            elif index <= len(dev.strings):
                text = dev.strings[index - 1].encode("utf-16-le")
            else:
                raise _error(errno.EPIPE)
            return (bytes((len(text) + 2, 3)) + text)[:length]
        if request_type & 0x60 == 0 and request == GET_STATUS:
            return b"\x01\x00"[:length]
        return None

    def _refusal(self, dev: _Device) -> Exception:
        if dev.model.is_mute:
            timeout: Exception = usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)
            return timeout
        return _error(errno.EPIPE)

    def _endpoint(self, dev: _Device, address: int) -> Endpoint:
        endpoint = next((known for known in dev.identity.endpoints if known.address == address), None)
        if endpoint is None:
            raise _error(errno.ENOENT)
        if dev.model.halted:
            raise _error(errno.EPIPE)
        return endpoint

    def _require(self, dev: _Device) -> None:
        if not dev.model.plugged:
            raise _error(errno.ENODEV)

    def _device(self, handle: _Handle) -> _Device:
        """The device, if the handle still belongs to it: after a replug old handles are dead."""
        self._require(handle.device)
        if handle.address != handle.device.address:
            raise _error(errno.ENODEV)
        return handle.device

    def _claimed(self, handle: _Handle) -> _Device:
        dev = self._device(handle)
        if dev.claimed_by is not handle:
            raise _error(errno.EBUSY)
        return dev


class _Handle:
    """One open of a device."""

    def __init__(self, device: _Device, address: int) -> None:
        self.device = device
        self.address = address


_TEXTS = {
    errno.EPIPE: "Pipe error",
    errno.ENODEV: "No such device (it may have been disconnected)",
    errno.EBUSY: "Resource busy",
    errno.ENOENT: "Entity not found",
    errno.EINVAL: "Invalid parameter",
    errno.EOVERFLOW: "Overflow",
}


def _error(number: int) -> Exception:
    error: Exception = usb.core.USBError(_TEXTS[number], -1, number)
    return error


def _within(index: int, count: int) -> None:
    """pyusb finds the end of a descriptor list by IndexError."""
    if not 0 <= index < count:
        raise IndexError(index)
