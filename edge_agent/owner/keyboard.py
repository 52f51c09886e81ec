"""Keyboard of XFS4IoT (CWA 17852, part 7) on a plain numeric keypad: DataEntry and the layout. No PIN: such a pad has no secure element."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import KeyPort, Port, PortRefused
from protocols.content.key_entry import DIGITS, KEYS, KeyEntry, Pressed

DATA_ENTRY, GET_LAYOUT = "Keyboard.DataEntry", "Keyboard.GetLayout"
SETTLE_S = 0.05
DRAIN_WITHIN_S = 2.0


class Keyboard:
    """One keypad."""

    @property
    def commands(self) -> frozenset[str]:
        return frozenset({DATA_ENTRY, GET_LAYOUT})

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        silent = {"activeAvailable": False, "activeSelectable": False, "inactiveAvailable": False, "inactiveSelectable": False}
        return {"keyboard": {"autoBeep": silent, "etsCaps": None}}

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        """Keys are told as they are pressed (`Keyboard.KeyEvent`); what was pressed before the command is thrown away."""
        if request.name == GET_LAYOUT:
            return {"layout": {"data": [{"keys": [{"key": name} for name in sorted(KEYS)]}]}}
        if not isinstance(port, KeyPort):
            raise PortRefused("a keypad's port is not one of keys")
        entry = _entry_of(request.payload)
        loop = asyncio.get_running_loop()
        deadline_s, drained_s = loop.time() + request.timeout_s, loop.time() + min(request.timeout_s, DRAIN_WITHIN_S)
        while await port.read_events(timeout_s=SETTLE_S) and loop.time() < drained_s:
            pass
        tell("Keyboard.EnterDataEvent", {})
        last: Pressed | None = None
        while entry.ended is None:
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise CommandFailed("timeOut", plain=True)
            for last in entry.feed(await port.read_events(timeout_s=left_s)):
                tell("Keyboard.KeyEvent", {"completion": last.completion, "digit": last.digit})
            if entry.dropped:
                raise CommandFailed("hardwareError", plain=True)
        keys = [{"completion": "continue", "digit": digit} for digit in entry.digits]
        if last is not None and entry.ended == "auto":
            keys[-1] = {"completion": "auto", "digit": last.digit}
        elif last is not None:
            keys.append({"completion": entry.ended, "digit": last.digit})
        return {"keys": len(entry.digits), "pinKeys": keys, "completion": entry.ended}


def _entry_of(payload: Mapping[str, Any]) -> KeyEntry:
    """Raises CommandFailed `noActivekeys`, `keyNotSupported`."""
    asked: Mapping[str, Any] = payload.get("activeKeys") or {}
    active = {name: bool((rule or {}).get("terminate")) for name, rule in asked.items()}
    if not active:
        raise CommandFailed("noActivekeys")
    if active.keys() - KEYS:
        raise CommandFailed("keyNotSupported")
    max_len, auto_end = payload.get("maxLen") or 0, bool(payload.get("autoEnd"))
    can_end = any(active.values()) or (auto_end and max_len > 0 and bool(active.keys() & DIGITS))
    if not can_end:
        raise CommandFailed("noActivekeys")
    return KeyEntry(active, max_len, auto_end)
