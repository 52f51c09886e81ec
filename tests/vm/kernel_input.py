"""The agent's input transport on the kernel's own evdev, fed through uinput. Runs inside the virtual machine, on the release's interpreter."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import evdev
from evdev import ecodes

from edge_agent.transports.base import PortBusy, PortGone
from edge_agent.transports.input import open_input

SYN_DROPPED = 3
FLOOD = 400
"""Pairs of events; the kernel keeps 64 for a keyboard's reader."""


async def node_of(keys: Any) -> str:
    for _ in range(100):
        path = keys.device.path if keys.device is not None else None
        if path and Path(path).exists():
            return str(path)
        await asyncio.sleep(0.1)
    raise AssertionError("no node")


async def check() -> None:
    keys = evdev.UInput({ecodes.EV_KEY: [ecodes.KEY_A, ecodes.KEY_B]}, name="kiosk-fleet test keys")
    path = await node_of(keys)
    began = time.monotonic()

    def press(code: int, value: int) -> None:
        keys.write(ecodes.EV_KEY, code, value)
        keys.syn()

    # A key that is down when the device is opened: no grab until it is up.
    press(ecodes.KEY_A, 1)
    port = await open_input(path, grab=True)
    assert await port.pressed_keys() == {ecodes.KEY_A}
    other = evdev.InputDevice(path)
    other.grab()
    other.ungrab()  # nobody had it
    press(ecodes.KEY_A, 0)
    seen = [(event.type, event.code, event.value) for _ in range(3) for event in await port.read_events(timeout_s=1.0)]
    assert (ecodes.EV_KEY, ecodes.KEY_A, 0) in seen, seen
    assert (ecodes.EV_SYN, SYN_DROPPED, 0) in seen, "the look at the bitmap was not told"
    try:
        await open_input(path, grab=True)
    except PortBusy:
        pass
    else:
        raise AssertionError("two grabs")
    await port.close()

    # More events than the kernel keeps: it says so, and the bitmap tells what is down.
    port = await open_input(path, grab=True)
    for _ in range(FLOOD):
        press(ecodes.KEY_B, 1)
        press(ecodes.KEY_B, 0)
    press(ecodes.KEY_B, 1)
    seen = [(event.type, event.code, event.value) for _ in range(20) for event in await port.read_events(timeout_s=0.1)]
    assert (ecodes.EV_SYN, SYN_DROPPED, 0) in seen, f"{len(seen)} events, none was dropped"
    assert await port.pressed_keys() == {ecodes.KEY_B}

    keys.close()
    try:
        for _ in range(20):
            await port.read_events(timeout_s=0.2)
    except PortGone:
        pass
    else:
        raise AssertionError("the device left and nobody noticed")
    await port.close()
    sys.stdout.write(f"held key, second grab, SYN_DROPPED after {FLOOD} presses, unplug: {time.monotonic() - began:.1f} s\n")


asyncio.run(check())
