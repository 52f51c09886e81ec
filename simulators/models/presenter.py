"""Kiosk receipt printer with a presenter: the slip is cut, held in the mouth until somebody takes it, and can be thrown out or drawn back.

Written from Custom's command references (KPM150H: DLE EOT 20 "FULL status" and its four tables; KPM210/216: GS e, ejector commands), which the
VKP80 family shares. The rest is the ESC/POS printer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Endpoint, UsbIdentity
from simulators.models.escpos import EscposPrinter

FULL_STATUS = 20
GS_E_RETRACT, GS_E_PRESENT, GS_E_EJECT, GS_E_STATUS = 2, 3, 5, 6
TAKEN_AFTER_S = 4.0
"""A citizen needs about so long to notice the slip and pull it."""

USB_VKP80 = UsbIdentity(
    0x0DD4, 0x0205, (Endpoint(0x02), Endpoint(0x81)), 7, 1, 2, "CUSTOM SPA", "VKP80III", "VKP80III_PRN", kernel_driver="usblp"
)


class PresenterPrinter(EscposPrinter):
    """The presenter holds one slip; a following one pushes it out."""

    kind: ClassVar[str] = "receipt-printer"
    own_faults: ClassVar[Mapping[str, str]] = {
        **EscposPrinter.own_faults,
        "not-taken": "slips stay in the presenter; clearing it lets somebody take what is there",
        "presenter-jam": "a slip is stuck in the presenter",
        "head-up": "the print head is lifted",
    }
    own_actions: ClassVar[Mapping[str, str]] = {**EscposPrinter.own_actions, "take": "take the slip out of the presenter"}

    def __init__(self, *, usb: UsbIdentity | None = None, baud: int | None = 115200, seed: int = 0) -> None:
        super().__init__(
            usb=usb,
            baud=baud,
            seed=seed,
            maker="CUSTOM",
            model_name="VKP80III",
            firmware="1.12",
            has_process_id=False,
            has_counters=False,
        )
        self.slip_out = False
        self.taken = 0
        self.retracted = 0
        self.thrown_out = 0
        self._out_since = 0.0

    @property
    def in_error(self) -> bool:
        return super().in_error or self.has("presenter-jam") or self.has("head-up")

    def real_time_answer(self, n: int) -> bytes | None:
        return self.full_status() if n == FULL_STATUS else super().real_time_answer(n)

    def full_status(self) -> bytes:
        """10 0F, paper, user, recoverable, unrecoverable."""
        paper = (0x01 if self.paper_out else 0) | (0x04 if self.paper_low else 0) | (0x20 if self.slip_out else 0) | 0x80
        user = (0x01 if self.has("head-up") else 0) | (0x02 if self.has("cover-open") else 0)
        jam = self.has("presenter-jam") or "jam" in self._latched
        recoverable = (0x01 if self.has("head-hot") else 0) | (0x08 if self.has("voltage") else 0) | (0x40 if jam else 0)
        unrecoverable = 0x01 if "cutter" in self._latched else 0
        return bytes((0x10, 0x0F, paper, user, recoverable, unrecoverable))

    def on_power_cycle(self, now: float) -> None:
        super().on_power_cycle(now)
        self._out_since = now

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "not-taken":
            if active and not self.slip_out:
                self._present(now)
            self._out_since = now
        super().on_fault(name, active, now)

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "take":
            self._leave(now, "taken")
        super().on_action(name, now, *args)

    def run_mechanism(self, now: float) -> None:
        super().run_mechanism(now)
        if self._will_be_taken and now >= self._out_since + TAKEN_AFTER_S:
            self._leave(now, "taken")

    def mechanism_due(self) -> float | None:
        own = self._out_since + TAKEN_AFTER_S if self._will_be_taken and not self.has("usb-only") else None
        return min((due for due in (own, super().mechanism_due()) if due is not None), default=None)

    @property
    def _will_be_taken(self) -> bool:
        return self.slip_out and not self.has("not-taken") and not self.has("presenter-jam")

    def _command_size(self, buffer: bytearray) -> int:
        if buffer[:2] == b"\x1d\x65":
            return 0 if len(buffer) < 3 else (4 if buffer[2] == GS_E_PRESENT else 3)
        return super()._command_size(buffer)

    def _run_gs(self, command: bytes, now: float) -> None:
        if command[1] != 0x65:
            super()._run_gs(command, now)
        elif command[2] == GS_E_RETRACT:
            self._leave(now, "retracted")
        elif command[2] == GS_E_EJECT:
            self._leave(now, "thrown_out")
        elif command[2] == GS_E_STATUS:
            self._reply(bytes((self._ejector_byte(),)), now)

    def _ejector_byte(self) -> int:
        jam = 0xC0 if self.has("presenter-jam") else 0
        return (0x01 if self.paper_low else 0) | (0x04 if self.paper_out else 0) | (0x08 if self.slip_out else 0) | jam

    def _cut(self, now: float) -> None:
        super()._cut(now)
        self._present(max(now, self._busy_until))

    def _present(self, now: float) -> None:
        if self.slip_out:
            self.thrown_out += 1
        self.slip_out = True
        self._out_since = now

    def _leave(self, now: float, way: str) -> None:
        if self.slip_out and not self.has("presenter-jam"):
            self.slip_out = False
            setattr(self, way, getattr(self, way) + 1)
            self._report_change(now)
