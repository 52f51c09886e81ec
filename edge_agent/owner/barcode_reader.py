"""BarcodeReader of XFS4IoT (CWA 17852, part 10) on a code scanner: one reading, from the command to the code or the end of its time.

What was held in front of the scanner before the command is thrown away: it may be the citizen's before. A scanner that knows a trigger command is
triggered; others read by themselves.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import BytePort, KeyPort, Port, PortError, PortRefused
from protocols.codecs.scanner import FLUSH_AFTER_S
from protocols.content.scan import Code, Found, KeyScan, LineScan, encode_trigger
from protocols.errors import BufferOverflow
from protocols.profile.options.scanner import ScannerOptions

READ = "BarcodeReader.Read"
WRITE_TIMEOUT_S = 1.0
READ_BYTES = 4096
SETTLE_S = 0.05
"""What is still on its way of an earlier code comes without a longer pause."""
DRAIN_WITHIN_S = 2.0
TRIGGER_AGAIN_S = 4.0
"""A trigger ends by itself after some seconds (5 by default in Newland's manuals)."""


class BarcodeReader:
    """One scanner, as a keyboard or on a line."""

    @property
    def commands(self) -> frozenset[str]:
        return frozenset({READ})

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        return {"barcodeReader": {"canFilterSymbologies": False, "symbologies": None}}

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        """`barcodeInvalid`: something was read and its end is missing, or it is no text; `timeOut`: nothing was."""
        options = bound.profile.scanner or ScannerOptions()
        if isinstance(port, KeyPort):
            found = await _read_keys(port, options, request.timeout_s)
        elif isinstance(port, BytePort):
            found = await _read_line(port, options, request.timeout_s)
        else:
            raise PortRefused("a scanner's port is neither keys nor bytes")
        if found is None:
            raise CommandFailed("timeOut", plain=True)
        if not isinstance(found, Code):
            raise CommandFailed("barcodeInvalid")
        data = base64.b64encode(found.data).decode("ascii")
        return {"readOutput": [{"symbology": "symbologyUnknown", "barcodeData": data, "symbologyName": None}]}


async def _read_keys(port: KeyPort, options: ScannerOptions, timeout_s: float) -> Found | None:
    loop = asyncio.get_running_loop()
    deadline_s, drained_s = loop.time() + timeout_s, loop.time() + min(timeout_s, DRAIN_WITHIN_S)
    while await port.read_events(timeout_s=SETTLE_S) and loop.time() < drained_s:
        pass
    scan = KeyScan(options.terminators)
    while (left_s := deadline_s - loop.time()) > 0:
        events = await port.read_events(timeout_s=min(left_s, FLUSH_AFTER_S) if scan.pending else left_s)
        if found := scan.feed(events, loop.time()):
            return found[0]
    return None


async def _read_line(port: BytePort, options: ScannerOptions, timeout_s: float) -> Found | None:
    loop = asyncio.get_running_loop()
    deadline_s, drained_s = loop.time() + timeout_s, loop.time() + min(timeout_s, DRAIN_WITHIN_S)
    while await port.read(max_bytes=READ_BYTES, timeout_s=SETTLE_S) and loop.time() < drained_s:
        pass
    scan = LineScan(options.terminators)
    triggers = options.dialect == "unified"
    trigger_at_s = loop.time()
    try:
        while (left_s := deadline_s - loop.time()) > 0:
            if triggers and loop.time() >= trigger_at_s and not scan.pending:
                scan.expect_answer()
                await port.write(encode_trigger(on=True), timeout_s=WRITE_TIMEOUT_S)
                trigger_at_s = loop.time() + TRIGGER_AGAIN_S
            wait_s = FLUSH_AFTER_S if scan.pending else max(0.001, trigger_at_s - loop.time()) if triggers else left_s
            data = await port.read(max_bytes=READ_BYTES, timeout_s=min(left_s, wait_s))
            try:
                scan.feed(data, loop.time())
            except BufferOverflow:
                raise CommandFailed("barcodeInvalid") from None
            if (found := scan.next(loop.time())) is not None:
                return found
        return None
    finally:
        if triggers:
            await _trigger_off(port)


async def _trigger_off(port: BytePort) -> None:
    """The light goes out, and the answer is taken off the line, so that the driver does not count it."""
    with suppress(PortError):
        await port.write(encode_trigger(on=False), timeout_s=WRITE_TIMEOUT_S)
        await port.read(max_bytes=READ_BYTES, timeout_s=SETTLE_S)
