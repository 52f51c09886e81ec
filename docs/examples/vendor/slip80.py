"""The invented receipt printer “Slip 80”, as its vendor would model it from the manual: three real-time questions, 19200 baud, nothing else.

python slip80.py /tmp/slip80        the printer is at /tmp/slip80 until Ctrl-C
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from simulators.kit import Kit
from simulators.models.base import Model

DLE, EOT = 0x10, 0x04


class Slip80(Model):
    """Answers DLE EOT 1, 2 and 4; has no sensor for the end of the roll, no error byte and no identity."""

    kind: ClassVar[str] = "receipt-printer"
    own_faults: ClassVar[Mapping[str, str]] = {
        "paper-out": "the roll is empty",
        "cover-open": "the cover stands open",
    }

    def __init__(self, *, baud: int = 19200, seed: int = 0) -> None:
        super().__init__(latency_s=0.004, baud=baud, seed=seed)
        self._last = b""

    def on_bytes(self, data: bytes, now: float) -> None:
        """Picks real-time questions out of whatever is printed."""
        for byte in data:
            self._last = (self._last + bytes((byte,)))[-3:]
            if len(self._last) == 3 and self._last[:2] == bytes((DLE, EOT)):
                self._answer(byte, now)

    def _answer(self, n: int, now: float) -> None:
        paper, cover = self.has("paper-out"), self.has("cover-open")
        if n == 1:
            self.emit(bytes((0x12 | (0x08 if paper or cover else 0),)), now)
        elif n == 2:
            self.emit(bytes((0x12 | (0x04 if cover else 0) | (0x20 if paper else 0),)), now)
        elif n == 4:
            self.emit(bytes((0x12 | (0x60 if paper else 0),)), now)


def main() -> None:
    """Run it where the first argument says."""
    link = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, Kit(Path(folder)) as kit:
        device = kit.pty(Slip80())
        link.unlink(missing_ok=True)
        link.symlink_to(device.path)
        sys.stdout.write(f"The Slip 80 is at {link}. Ctrl-C ends it.\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            link.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
