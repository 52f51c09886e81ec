"""A virtual terminal for agents in processes of their own: ptys under stable names, a description of the ports, a control socket.

DIR/ports/receipt-printer → /dev/pts/7      one link per byte line
DIR/ports.json                              what is where, for an agent's configuration
DIR/control.sock                            see simulators.control
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulators.control import ControlServer
from simulators.ports.pty import AsyncPty
from simulators.ports.slots import Slot
from simulators.terminal import Ticker, VirtualTerminal

PORTS_DIR = "ports"
PORTS_FILE = "ports.json"


class TerminalServer:
    """Keeps one terminal reachable in `directory` until closed. Needs a running event loop."""

    def __init__(self, terminal: VirtualTerminal, directory: Path) -> None:
        self.terminal = on_ptys(terminal, directory)
        self.directory = directory
        self.control = ControlServer(self.terminal, directory)
        self._ptys: list[AsyncPty] = []
        self._ticker: Ticker | None = None

    async def start(self) -> None:
        """Returns when every port can be opened and the description is written."""
        (self.directory / PORTS_DIR).mkdir(parents=True, exist_ok=True)
        self._ptys = [AsyncPty(slot.model, Path(slot.path)) for slot in self.terminal.slots.values() if slot.bus == "serial"]
        self._ticker = Ticker([self.terminal])
        await self.control.start()
        _write_whole(self.directory / PORTS_FILE, describe(self.terminal))

    async def close(self) -> None:
        await self.control.close()
        if self._ticker is not None:
            self._ticker.close()
        for pty in self._ptys:
            pty.close()
        (self.directory / PORTS_FILE).unlink(missing_ok=True)


def on_ptys(terminal: VirtualTerminal, directory: Path) -> VirtualTerminal:
    """The same devices, serial ones with their ptys' links as places. USB devices and keyboards stay reachable inside this process only."""
    slots = [_on_pty(slot, directory) if slot.bus == "serial" else slot for slot in terminal.slots.values()]
    return VirtualTerminal(terminal.kind, slots, name=terminal.name, clock=terminal.clock)


def describe(terminal: VirtualTerminal) -> dict[str, Any]:
    """What PORTS_FILE holds."""
    return {"schema": 1, "type": terminal.kind, "name": terminal.name, "ports": terminal.ports()}


def _on_pty(slot: Slot, directory: Path) -> Slot:
    return replace(slot, bus="serial", path=str(directory / PORTS_DIR / slot.name), usb_path=None, adapter=None)


def _write_whole(path: Path, tree: dict[str, Any]) -> None:
    """Readers wait for the file to appear, so it appears complete."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(tree, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
