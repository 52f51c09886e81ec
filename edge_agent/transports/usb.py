"""USB devices through pyusb: one interface, its bulk pipes and its control pipe, with one worker thread per open device.

libusb's calls block, so they run one after the other in the port's own thread. Endpoints are discovered: the same printer ships with different
endpoint numbers under one VID:PID. No call is made with pyusb's time-out 0, which means "for ever".
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, TypeVar

import usb.core
import usb.util

from edge_agent.transports.base import PortGone, PortRefused, PortStalled, Sighting, port_error

T = TypeVar("T")

OPEN_TIMEOUT_S = 6.0
CLOSE_TIMEOUT_S = 6.0
"""A transfer in progress ends by its own time-out before the device can be released."""
READ_SLICE_S = 0.5
"""A long wait is made of short ones, so that closing never waits longer."""
BACKLOG_MAX_BYTES = 64 * 1024
DESCRIPTORS_MAX_BYTES = 1024
"""Of one interface; the longest honest ones (audio) have a few hundred."""
HUB_CLASS = 0x09


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbSetting:
    """Which interface to claim, and how. None: discover it."""

    interface: int | None = None
    alternate: int | None = None
    interface_class: int | None = None
    """Only an interface of this class: a composite device has others."""
    out_endpoint: int | None = None
    in_endpoint: int | None = None
    detach_kernel_driver: bool = False
    """Owner mode only. The driver is given back on close."""


class UsbDevicePort:
    """A claimed interface. All methods may be called from one task at a time per direction; they are serialised on the device's thread."""

    def __init__(self, device: Any, claimed: _Claim, worker: ThreadPoolExecutor, name: str) -> None:
        self._device = device
        self._claim = claimed
        self._worker = worker
        self._name = name
        self._backlog: dict[int, bytearray] = {}
        self._closed = False

    @property
    def endpoints_out(self) -> tuple[int, ...]:
        return self._claim.endpoints_out

    @property
    def endpoints_in(self) -> tuple[int, ...]:
        return self._claim.endpoints_in

    @property
    def bulk_out(self) -> tuple[int, ...]:
        return tuple(address for address in self.endpoints_out if address in self._claim.bulk)

    @property
    def bulk_in(self) -> tuple[int, ...]:
        return tuple(address for address in self.endpoints_in if address in self._claim.bulk)

    @property
    def interrupt_in(self) -> tuple[int, ...]:
        return tuple(address for address in self.endpoints_in if address in self._claim.interrupt)

    @property
    def interface(self) -> int:
        return self._claim.interface

    def class_descriptor(self, kind: int) -> bytes:
        return _find_descriptor(self._claim.extra, kind)

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        await self.write_to(self._first(self.endpoints_out), data, timeout_s=timeout_s)

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        return await self.read_from(self._first(self.endpoints_in), max_bytes=max_bytes, timeout_s=timeout_s)

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        """All of `data`, or PortStalled if the device does not take it in time."""
        await self._run(lambda: _write(self._device, endpoint, data, _millis(timeout_s), self._name))

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        """Whole packets are read, because a shorter buffer overflows in libusb; what was not asked for waits for the next call."""
        backlog = self._backlog.setdefault(endpoint, bytearray())
        packet = self._claim.packet_sizes.get(endpoint, 64)
        size = min(BACKLOG_MAX_BYTES, -(-max_bytes // packet) * packet)
        left_s = timeout_s
        while not backlog:
            slice_ms = _millis(min(left_s, READ_SLICE_S))
            backlog += await self._run(partial(_read, self._device, endpoint, size, slice_ms, self._name))
            left_s -= slice_ms / 1000
            if left_s <= 0:
                break
        taken = bytes(backlog[:max_bytes])
        del backlog[:max_bytes]
        return taken

    async def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, *, timeout_s: float
    ) -> bytes:
        return await self._run(
            lambda: _control(self._device, (request_type, request, value, index, length), _millis(timeout_s), self._name)
        )

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None:
        await self._run(
            lambda: _control_out(self._device, (request_type, request, value, index), data, _millis(timeout_s), self._name)
        )

    async def clear_halt(self, endpoint: int) -> None:
        """Also forgets what was read ahead from the pipe."""
        await self._run(partial(_clear_halt, self._device, endpoint, self._name))
        self._backlog.pop(endpoint, None)

    async def reset(self) -> None:
        """Re-plug by software. What was read ahead is forgotten."""
        await self._run(partial(_reset, self._device, self._claim.interface, self._name))
        self._backlog.clear()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        future = asyncio.get_running_loop().run_in_executor(self._worker, _release, self._device, self._claim)
        self._worker.shutdown(wait=False)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(future)
        except TimeoutError:
            pass  # the thread ends with the transfer it is in

    def _first(self, endpoints: tuple[int, ...]) -> int:
        if not endpoints:
            raise PortRefused(f"{self._name}: the interface has no such pipe")
        return endpoints[0]

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise PortGone(f"{self._name}: closed")
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


async def open_usb(sighting: Sighting, setting: UsbSetting, *, backend: Any = None) -> UsbDevicePort:
    """Find the device at the sighting's place and claim its interface. Raises PortGone, PortBusy (a driver or program holds it), PortRefused."""
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"usb-{sighting.place}")
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(worker, _open, sighting, setting, backend)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            device, claimed = await asyncio.shield(future)
    except BaseException as err:
        future.add_done_callback(lambda late: _release_late(late, worker))
        if isinstance(err, TimeoutError):
            raise PortStalled(f"{sighting.place}: does not open") from err
        raise
    return UsbDevicePort(device, claimed, worker, sighting.place)


def default_backend() -> Any:
    """libusb of the system, else the one that the package libusb-package brings; PortRefused if there is none.

    One for the life of the process. pyusb lets go of a backend before the devices that came from it, and libusb then reads what it has freed:
    with a backend for each opening, unplugging devices ended the process now and then (SIGSEGV in libusb_unref_device).
    """
    with _BACKEND_LOCK:
        return _system_backend()


_BACKEND_LOCK = threading.Lock()
"""Ports are opened in threads of their own; `cache` alone may make two."""


@cache
def _system_backend() -> Any:
    import usb.backend.libusb1

    backend = usb.backend.libusb1.get_backend()
    if backend is None:
        try:
            import libusb_package

            backend = libusb_package.get_libusb1_backend()
        except ImportError:
            backend = None
    if backend is None:
        raise PortRefused("no libusb on this machine: install libusb-1.0-0 or the package libusb-package")
    return backend


def usb_sightings(backend: Any) -> list[Sighting]:
    """All devices but hubs, as the backend enumerates them. Strings are not read: that would need rights on the device."""
    found = []
    with usb_errors("usb bus"):
        for device in usb.core.find(find_all=True, backend=backend) or ():
            if device.bDeviceClass == HUB_CLASS:
                continue
            place = port_path(device)
            found.append(Sighting(bus="usb", path=place, vid=device.idVendor, pid=device.idProduct, usb_path=place))
    return found


class BackendDiscoverer:
    """Finds USB devices by enumerating a backend every `every_s`, for machines without udev and for simulated buses."""

    def __init__(self, backend: Any, *, every_s: float = 1.0) -> None:
        self._backend = backend
        self._every_s = every_s
        self._known: list[Sighting] | None = None

    def sightings(self) -> Sequence[Sighting]:
        self._known = usb_sightings(self._backend)
        return self._known

    async def changes(self) -> None:
        known = self._known
        while True:
            await asyncio.sleep(self._every_s)
            if usb_sightings(self._backend) != known:
                return


def port_path(device: Any) -> str:
    """The kernel's name of the place in the USB tree: bus number and port numbers, `1-1.4`."""
    ports = device.port_numbers
    tail = ".".join(str(number) for number in ports) if ports else str(device.address)
    return f"{device.bus}-{tail}"


@contextmanager
def usb_errors(name: str) -> Iterator[None]:
    """Every USBError inside becomes a PortError."""
    try:
        yield
    except usb.core.NoBackendError as err:
        raise PortRefused("no libusb on this machine") from err
    except usb.core.USBError as err:
        if err.errno in (errno.ETIMEDOUT, errno.EPIPE, errno.EOVERFLOW):
            raise PortStalled(f"{name}: {'does not take bytes' if err.errno == errno.ETIMEDOUT else 'stalled'}") from err
        raise port_error(err.errno, name) from err


@dataclass(frozen=True, slots=True)
class _Claim:
    interface: int
    endpoints_out: tuple[int, ...]
    endpoints_in: tuple[int, ...]
    packet_sizes: dict[int, int]
    gives_driver_back: bool
    bulk: frozenset[int]
    interrupt: frozenset[int]
    extra: bytes
    """Class-specific descriptors of the interface, one behind the other."""


def _open(sighting: Sighting, setting: UsbSetting, backend: Any) -> tuple[Any, _Claim]:
    if backend is None:
        backend = default_backend()
    name = sighting.place
    with usb_errors(name):
        device = _find(sighting, backend)
        if device is None:
            raise PortGone(f"{name}: no device there")
        try:
            return device, _claim(device, setting, name)
        except BaseException:
            usb.util.dispose_resources(device)
            raise


def _find(sighting: Sighting, backend: Any) -> Any | None:
    place = sighting.place
    wanted = [device for device in usb.core.find(find_all=True, backend=backend) or () if port_path(device) == place]
    same = [device for device in wanted if sighting.vid in (None, device.idVendor) and sighting.pid in (None, device.idProduct)]
    return same[0] if same else None


def _claim(device: Any, setting: UsbSetting, name: str) -> _Claim:
    interface = _choose_interface(_configuration(device), setting, name)
    number = interface.bInterfaceNumber
    if device.is_kernel_driver_active(number):
        if not setting.detach_kernel_driver:
            raise port_error(errno.EBUSY, name)
        device.detach_kernel_driver(number)
    usb.util.claim_interface(device, number)
    if interface.bAlternateSetting:
        device.set_interface_altsetting(interface=number, alternate_setting=interface.bAlternateSetting)
    pipes = [endpoint for endpoint in interface if usb.util.endpoint_type(endpoint.bmAttributes) != usb.util.ENDPOINT_TYPE_CTRL]
    bulk_first = sorted(pipes, key=lambda endpoint: usb.util.endpoint_type(endpoint.bmAttributes) != usb.util.ENDPOINT_TYPE_BULK)
    addresses = [endpoint.bEndpointAddress for endpoint in bulk_first]
    return _Claim(
        interface=number,
        endpoints_out=_preferred((a for a in addresses if not a & 0x80), setting.out_endpoint),
        endpoints_in=_preferred((a for a in addresses if a & 0x80), setting.in_endpoint),
        packet_sizes={endpoint.bEndpointAddress: max(1, endpoint.wMaxPacketSize & 0x7FF) for endpoint in pipes},
        # Given back even where none was found: a predecessor that was killed took it, and the kernel does not bring it back by itself.
        gives_driver_back=setting.detach_kernel_driver,
        bulk=_of_type(pipes, usb.util.ENDPOINT_TYPE_BULK),
        interrupt=_of_type(pipes, usb.util.ENDPOINT_TYPE_INTR),
        extra=bytes(interface.extra_descriptors or b"")[:DESCRIPTORS_MAX_BYTES],
    )


def _of_type(pipes: Sequence[Any], kind: int) -> frozenset[int]:
    return frozenset(pipe.bEndpointAddress for pipe in pipes if usb.util.endpoint_type(pipe.bmAttributes) == kind)


def _find_descriptor(extra: bytes, kind: int) -> bytes:
    """The first whole descriptor of type `kind`. Lengths that lead nowhere end the search."""
    at = 0
    while at + 2 <= len(extra):
        length = extra[at]
        if length < 2 or at + length > len(extra):
            break
        if extra[at + 1] == kind:
            return extra[at : at + length]
        at += length
    return b""


def _preferred(addresses: Iterator[int], first: int | None) -> tuple[int, ...]:
    """In the order of the descriptors; an endpoint that the profile names comes first where the device has it."""
    found = list(addresses)
    if first in found:
        found.remove(first)
        found.insert(0, first)
    return tuple(found)


def _configuration(device: Any) -> Any:
    """The active one. Setting it again would reset the device, so it is set only where none is."""
    try:
        return device.get_active_configuration()
    except usb.core.USBError as err:
        if err.errno == errno.ENODEV:
            raise
        device.set_configuration()
        return device.get_active_configuration()


def _choose_interface(configuration: Any, setting: UsbSetting, name: str) -> Any:
    """The profile's, else the first with a bulk pipe in each direction, else the first with any bulk pipe."""
    candidates = [
        interface
        for interface in configuration
        if setting.interface in (None, interface.bInterfaceNumber)
        and setting.alternate in (None, interface.bAlternateSetting)
        and setting.interface_class in (None, interface.bInterfaceClass)
    ]
    if not candidates:
        raise PortRefused(f"{name}: the device has no such interface")
    return max(candidates, key=_pipe_score)


def _pipe_score(interface: Any) -> tuple[int, int]:
    bulk = [e.bEndpointAddress for e in interface if usb.util.endpoint_type(e.bmAttributes) == usb.util.ENDPOINT_TYPE_BULK]
    return len({address & 0x80 for address in bulk}), -interface.bAlternateSetting


def _write(device: Any, endpoint: int, data: bytes, timeout_ms: int, name: str) -> None:
    left = memoryview(data)
    while left:
        with usb_errors(name), _clearing_halt(device, endpoint):
            written = device.write(endpoint, bytes(left), timeout=timeout_ms)
        if written <= 0:
            raise PortStalled(f"{name}: does not take bytes")
        left = left[written:]


def _read(device: Any, endpoint: int, size: int, timeout_ms: int, name: str) -> bytes:
    try:
        with usb_errors(name), _clearing_halt(device, endpoint):
            return bytes(device.read(endpoint, size, timeout=timeout_ms))
    except PortStalled as err:
        if isinstance(err.__cause__, usb.core.USBError) and err.__cause__.errno == errno.ETIMEDOUT:
            return b""
        raise


def _control(device: Any, request: tuple[int, int, int, int, int], timeout_ms: int, name: str) -> bytes:
    request_type, number, value, index, length = request
    with usb_errors(name):
        return bytes(device.ctrl_transfer(request_type, number, value, index, length, timeout=timeout_ms))


def _control_out(device: Any, request: tuple[int, int, int, int], data: bytes, timeout_ms: int, name: str) -> None:
    request_type, number, value, index = request
    with usb_errors(name):
        device.ctrl_transfer(request_type, number, value, index, data, timeout=timeout_ms)


def _clear_halt(device: Any, endpoint: int, name: str) -> None:
    with usb_errors(name):
        device.clear_halt(endpoint)


def _reset(device: Any, interface: int, name: str) -> None:
    """libusb takes the claim up again where the descriptors did not change; claiming once more is harmless then."""
    with usb_errors(name):
        device.reset()
        usb.util.claim_interface(device, interface)


@contextmanager
def _clearing_halt(device: Any, endpoint: int) -> Iterator[None]:
    """A stalled endpoint stays stalled until the host clears it; the transfer itself is the caller's to repeat."""
    try:
        yield
    except usb.core.USBError as err:
        if err.errno == errno.EPIPE:
            with suppress(usb.core.USBError):  # the stall is reported either way
                device.clear_halt(endpoint)
        raise


def _release(device: Any, claim: _Claim) -> None:
    """Each step by itself: the device may be gone, and the kernel may take its driver back on its own."""
    with suppress(usb.core.USBError):
        usb.util.release_interface(device, claim.interface)
    if claim.gives_driver_back:
        with suppress(usb.core.USBError):  # no driver wants it
            device.attach_kernel_driver(claim.interface)
    with suppress(usb.core.USBError):
        usb.util.dispose_resources(device)


def _release_late(late: asyncio.Future[tuple[Any, _Claim]], worker: ThreadPoolExecutor) -> None:
    if not late.cancelled() and late.exception() is None:
        worker.submit(_release, *late.result())
    worker.shutdown(wait=False)


def _millis(timeout_s: float) -> int:
    return max(1, round(timeout_s * 1000))
