"""A4 printers by their own IPP service (ipp-usb's loopback port, or the network): the device, never a print queue, which says idle while the
device is jammed. Prints nothing and asks for no job.

Every question has a connection of its own, so nobody who prints there notices; that is why an observer may ask too.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, SlotBinding, Tally, poll_interval_s, printer_observation, silent, version_of
from edge_agent.transports.base import AskPort, PortStalled
from protocols.canon.words import DeviceState
from protocols.codecs import ipp
from protocols.contract.records import Evidence
from protocols.errors import FrameError
from protocols.profile.options.ipp import IppOptions

NO_EVIDENCE = 8
"""Of an answer that cannot be read the head is kept: version, status, number."""
_WORKING = frozenset({DeviceState.ONLINE, DeviceState.BUSY})


class IppPrinter:
    """One printer at one address."""

    def __init__(self, port: AskPort, bound: SlotBinding) -> None:
        profile = bound.profile
        self._port = port
        self._bound = bound
        self._address = port.address
        self._options = profile.ipp or IppOptions()
        self._timeout_s = self._options.answer_timeout_ms / 1000
        wake_ms = profile.poll.wake_timeout_ms if profile.poll else None
        self._wake_timeout_s = max(self._timeout_s, (wake_ms or 0) / 1000)
        self._misses = 0
        self._request = 0

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 30.0, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return self._wake_timeout_s

    async def poll(self, now: ClockReading) -> list[Observation]:
        """The first miss waits as long as a printer may need to wake up."""
        self._request = self._request % 0x7FFFFFFF + 1
        query = ipp.encode_status_query(self._address, self._request)
        timeout_s = self._timeout_s if self._misses else self._wake_timeout_s
        answer = b""
        try:
            answer = await self._port.ask(query, max_bytes=ipp.ANSWER_MAX_BYTES, timeout_s=timeout_s)
            status = ipp.decode_status(answer, self._request) if answer else None
        except (PortStalled, FrameError):
            status = None
        if status is None:
            self._misses += 1
            # Silence and an answer that cannot be read are one fault; the head of the answer tells them apart.
            return [silent(self._bound, self._misses, Evidence(codec=ipp.CODEC, query=query, reply=answer[:NO_EVIDENCE]))]
        self._misses = 0
        evidence = Evidence(codec=ipp.CODEC, query=query, reply=status.reply, masked=status.masked)
        firmware = None if status.firmware is None else version_of(status.firmware, self._bound.profile.firmware.version_format)
        observation = printer_observation(self._bound, ipp.reading_of(status), evidence, judged=None, firmware=firmware)
        observation = replace(observation, toner_percent=ipp.toner_percent(status))
        if self._options.page_count and status.impressions is not None and observation.device in _WORKING:
            observation = replace(observation, tally=Tally(unit_total=status.impressions))
        return [observation]

    async def listen(self, timeout_s: float) -> list[Observation]:
        await asyncio.sleep(timeout_s)
        return []

    async def stop(self) -> None:
        return
