"""UPS with a contact to the host after Megatec's protocol: on a serial line (2400 8N1) or behind a Cypress HID bridge.

Written from the protocol's own description and from what drivers of Network UPS Tools send and expect. The battery is a small model: it empties with
the load, fills on the mains, and its voltage follows; a worn one does not hold the charger's voltage and is empty in minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, Model, UsbIdentity

USB_CYPRESS = UsbIdentity(
    0x0665,
    0x5161,
    (Endpoint(0x81, 8, 3),),
    interface_class=3,
    manufacturer="Cypress Semiconductor",
    product="USB to Serial",
    kernel_driver="usbhid",
)
FULL_RUN_S = 1800.0
"""A sound battery under the usual load."""
WORN_RUN_S = 150.0
CHARGE_S = 7200.0
LOW_BELOW = 0.2


class Ups(Model):
    """One unit. `online`: a double-conversion unit, else line-interactive. `per_cell`: tells the voltage of one cell."""

    kind: ClassVar[str] = "ups"
    own_faults: ClassVar[Mapping[str, str]] = {
        "mains-lost": "the mains fails: the battery empties with the load, at the end the unit goes dark",
        "battery-low": "the battery is nearly empty",
        "battery-worn": "the battery no longer holds the charger's voltage",
        "ups-failed": "the unit reports itself failed",
        "overload": "more load than the unit is built for",
        "bypass": "the load is fed past the inverter",
        "wrong-length": "every status answer lacks its last character",
        "other-dialect": "the unit sends every question back: it speaks another protocol",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "load": "set the load in percent: load 35",
        "self-test": "run a ten-second test on the battery, as its own button does",
    }

    def __init__(
        self,
        *,
        usb: UsbIdentity | None = None,
        baud: int = 2400,
        cells: int = 12,
        online: bool = False,
        per_cell: bool = False,
        tells_identity: bool = True,
        refuses_with: bytes = b"",
        latency_s: float = 0.05,
        seed: int = 0,
    ) -> None:
        """`refuses_with`: what an unknown question is answered with, empty for sending it back."""
        super().__init__(latency_s=latency_s, baud=None if usb else baud, usb=usb, seed=seed)
        self.cells = cells
        self.online = online
        self.per_cell = per_cell
        self.tells_identity = tells_identity
        self.refuses_with = refuses_with
        self.load_pct = 14
        self.charge = 1.0
        self.commands: list[bytes] = []
        """Whatever came that is no question: a monitor must leave this empty."""
        self._line = bytearray()
        self._counted_s: float | None = None
        self._test_until_s = 0.0

    # ------------------------------------------------------------------ host side

    def on_bytes(self, data: bytes, now: float) -> None:
        for byte in data:
            if byte == 0x0D:
                line, self._line = bytes(self._line), bytearray()
                self._obey(line, now)
            elif byte and len(self._line) < 32:
                self._line.append(byte)

    def on_control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        if (request_type, request, value) != (0x21, 0x09, 0x0200) or len(data) > 8:
            return None
        self.on_bytes(data, now)
        return b""

    def on_power_cycle(self, now: float) -> None:
        self._line.clear()

    def on_fault(self, name: str, active: bool, now: float) -> None:
        self._count(now)
        if name == "battery-low":
            self.charge = 0.1 if active else 1.0
        elif name == "overload":
            self.load_pct = 118 if active else 14

    def on_action(self, name: str, now: float, *args: str) -> None:
        self._count(now)
        if name == "load":
            self.load_pct = max(0, min(199, int((args or ("14",))[0])))
        else:
            self._test_until_s = now + 10

    # ------------------------------------------------------------------ inside

    def _obey(self, line: bytes, now: float) -> None:
        self._count(now)
        if self.has("mains-lost") and self.charge <= 0:
            return  # dark: nothing is left to answer with
        if self.has("other-dialect"):
            self._say(line, now)
        elif line == b"Q1":
            self._say(self._status(now), now)
        elif line == b"F":
            self._say(b"#220.0 005 %s 50.0" % (b"%05.1f" % (2 * self.cells)), now)
        elif line == b"I" and self.tells_identity:
            self._say(b"#%-15s %-10s %-10s" % (b"SIMULATED", b"SIM-1K", b"V1.20"), now)
        else:
            if line not in (b"I", b""):
                self.commands.append(line)
            self._say(self.refuses_with or line, now)

    def _say(self, line: bytes, now: float) -> None:
        raw = line + b"\r"
        if self.usb is None:
            self.emit(raw, now)
            return
        for at in range(0, len(raw), 8):
            self.emit(raw[at : at + 8].ljust(8, b"\x00"), now)

    def _status(self, now: float) -> bytes:
        lost, testing = self.has("mains-lost"), now < self._test_until_s
        on_battery = lost or testing
        bits = (
            lost,
            self.charge < LOW_BELOW,
            self.has("bypass") and not lost,
            self.has("ups-failed"),
            not self.online,
            testing,
            False,
            lost,
        )
        mains = 0.0 if lost else 226.0
        battery = self._cell_v(on_battery) * (1 if self.per_cell else self.cells)
        line = b"(%05.1f %05.1f %05.1f %03d %04.1f %s %04.1f %s" % (
            mains,
            195.0,
            0.0 if self.has("ups-failed") else 226.0,
            self.load_pct,
            50.0,
            (b"%4.2f" if self.per_cell else b"%04.1f") % battery,
            30.0,
            b"".join(b"1" if bit else b"0" for bit in bits),
        )
        return line[:-1] if self.has("wrong-length") else line

    def _cell_v(self, on_battery: bool) -> float:
        if on_battery:
            return 1.75 + 0.33 * self.charge - (0.1 if self.has("battery-worn") else 0.0)
        return 2.06 if self.has("battery-worn") else 2.29

    def _count(self, now: float) -> None:
        """Charge at `now`: what went out at this load, or came in."""
        elapsed, self._counted_s = now - (self._counted_s if self._counted_s is not None else now), now
        if self.has("mains-lost"):
            run_s = WORN_RUN_S if self.has("battery-worn") else FULL_RUN_S
            self.charge = max(0.0, self.charge - elapsed * max(1, self.load_pct) / 14 / run_s)
        elif not self.has("battery-low"):
            self.charge = min(1.0, self.charge + elapsed / CHARGE_S)
