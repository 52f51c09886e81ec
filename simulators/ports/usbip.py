"""Device models as USB devices on a wire (USB/IP), for a kernel with vhci-hcd: a virtual machine, or a test bench's own.

    server = UsbIpServer({"1-1": RawDevice(model, model.usb, time.monotonic)})
    port = server.start()                      # the other side: usbip --tcp-port PORT attach -r ADDRESS -b 1-1

The format of the wire is the package usbip's (Documentation/usb/usbip_protocol.rst of the kernel); what the devices answer is ours. That package is
young, so the project asks for one version of it and uses it here only. One thread reads each connection, another answers what had to wait.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from usbip import core, protocol

from simulators.ports.usb_raw import RawDevice

LOOK_AGAIN_S = 0.05
SHORTEST_WAIT_S = 0.0005
JOIN_S = 2.0


class UsbIpServer:
    """Exports devices under their bus ids. A model that is unplugged drops its connection; attach it again after it was plugged in."""

    def __init__(self, devices: Mapping[str, RawDevice], *, host: str = "127.0.0.1") -> None:
        self._exports = [_Export(busid, number, raw) for number, (busid, raw) in enumerate(devices.items(), 2)]
        self._host = host
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def start(self, port: int = 0) -> int:
        """Listen; returns the port."""
        self._listener = socket.create_server((self._host, port))
        self._run(self._accept)
        bound: int = self._listener.getsockname()[1]
        return bound

    def close(self) -> None:
        """Ends every connection, as if all cables were pulled."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        for export in self._exports:
            export.close()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._run(partial(self._serve, connection))

    def _serve(self, connection: socket.socket) -> None:
        present = [_Session(export, connection) for export in self._exports if export.raw.model.plugged]
        try:
            protocol.serve_connection(connection, present)
        finally:
            for session in present:
                session.close()

    def _run(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name="usbip", daemon=True)
        self._threads.append(thread)
        thread.start()


class _Export:
    """A device that may be attached, by one host at a time."""

    def __init__(self, busid: str, number: int, raw: RawDevice) -> None:
        self.busid = busid
        self.number = number
        self.raw = raw
        self.attached: socket.socket | None = None
        self.changed = threading.Condition()
        raw.model.subscribe(self._follow)

    def close(self) -> None:
        connection, self.attached = self.attached, None
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self.changed:
            self.changed.notify_all()

    def _follow(self) -> None:
        if not self.raw.model.plugged:
            self.close()
        with self.changed:
            self.changed.notify_all()


class _Session:
    """One connection to a device, in the shape that `usbip.protocol` asks for."""

    busnum = 1
    speed = core.SPEED_FULL
    device_subclass = device_protocol = 0

    def __init__(self, export: _Export, connection: socket.socket) -> None:
        self._export = export
        self._connection = connection
        self._raw = export.raw
        self._waiting: list[tuple[Any, Callable[[Any], None]]] = []
        self.busid = export.busid
        self.devnum = export.number
        self.vid, self.pid, self.bcdDevice = export.raw.identity.vid, export.raw.identity.pid, export.raw.identity.bcd_device
        self.device_class = export.raw.device_descriptor()[4]
        self.num_interfaces = len(export.raw.interfaces)

    def interface_triples(self) -> list[tuple[int, int, int]]:
        return [interface.triple for interface in self._raw.interfaces]

    def is_iso(self, endpoint: int, direction: int) -> bool:
        return False

    def reset_io(self) -> None:
        """The host has taken the device."""
        self._export.attached = self._connection
        threading.Thread(target=self._answer_later, name=f"usbip-{self.busid}", daemon=True).start()

    def cancel_urb(self, number: int) -> None:
        with self._export.changed:
            self._waiting = [entry for entry in self._waiting if entry[0].seqnum != number]

    def handle_urb(self, urb: Any, respond: Callable[[Any], None]) -> Any:
        """The transfer with its answer, or None if it has to wait."""
        if not self._is_attached:
            urb.buffer, urb.actual, urb.status = b"", 0, -errno.ENODEV
            return urb
        if self._attempt(urb):
            return urb
        with self._export.changed:
            self._waiting.append((urb, respond))
            self._export.changed.notify_all()
        return None

    @property
    def _is_attached(self) -> bool:
        return self._export.attached is self._connection

    def close(self) -> None:
        if self._export.attached is self._connection:
            self._export.attached = None
        with self._export.changed:
            self._export.changed.notify_all()

    def _attempt(self, urb: Any) -> bool:
        """Try to finish a transfer; False while the device has no answer."""
        if urb.ep == 0:
            answer = self._raw.control(urb.setup, urb.buffer)
            if answer == "mute":
                return False
            return _finish(urb, answer)
        if urb.direction == core.OUT:
            sent = len(urb.buffer)
            return _finish(urb, b"" if self._raw.write(urb.ep, urb.buffer) else "stall", sent)
        got = self._raw.read(urb.ep_addr, urb.length)
        return False if got is None or got == "mute" else _finish(urb, got)

    def _answer_later(self) -> None:
        """Waiting transfers, in order for each endpoint, when the model has something to say."""
        changed = self._export.changed
        while self._is_attached:
            with changed:
                if not self._is_attached:
                    return  # pulled while waiting: what comes next belongs to the next host
                busy: set[int] = set()
                done = []
                for entry in list(self._waiting):
                    if entry[0].ep_addr in busy:
                        continue
                    if self._attempt(entry[0]):
                        self._waiting.remove(entry)
                        done.append(entry)
                    else:
                        busy.add(entry[0].ep_addr)
                if not done:
                    changed.wait(self._pause_s())
            for urb, respond in done:
                respond(urb)

    def _pause_s(self) -> float:
        due = [self._raw.due(urb.ep_addr) for urb, _ in self._waiting if urb.ep]
        soonest = min((moment for moment in due if moment is not None), default=None)
        return LOOK_AGAIN_S if soonest is None else min(LOOK_AGAIN_S, max(SHORTEST_WAIT_S, soonest - self._raw.clock()))


def _finish(urb: Any, answer: bytes | str, sent: int | None = None) -> bool:
    if isinstance(answer, str):
        urb.buffer, urb.actual, urb.status = b"", 0, -errno.EPIPE
    else:
        given = answer[: urb.length] if urb.direction == core.IN else b""
        urb.actual = len(given) if urb.direction == core.IN else (urb.length if sent is None else sent)
        urb.buffer, urb.status = given, -errno.EOVERFLOW if len(answer) > urb.length and urb.direction == core.IN else 0
    return True
