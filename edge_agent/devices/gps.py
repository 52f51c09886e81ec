"""Position receivers (NMEA 0183): does it speak, does it know where it is, does it know what day it is. Never sends a byte.

Coordinates are rounded here, to a street and not to a doorstep, so nothing behind this driver can tell more.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, Place, SlotBinding, poll_interval_s, silent
from edge_agent.devices.gps_fix import Fix, FixTracker, date_is_wrong
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, SpeedPort
from protocols.canon.words import DeviceState
from protocols.codecs import nmea
from protocols.contract.records import ClockQuality, Evidence
from protocols.errors import ProtocolError
from protocols.profile.options.nmea import NmeaOptions

READ_BYTES = 1024
FIRST_LISTEN_S = 1.5
"""Receivers speak once a second."""
BURST_GAP_S = 0.3
SPEED_AFTER_MISSES = 2
GRID = 10
"""Units of 0.0001 degrees: about 100 m."""


class Gps:
    """One receiver on one port."""

    def __init__(self, port: BytePort, bound: SlotBinding) -> None:
        self._port = port
        self._bound = bound
        self._options = bound.profile.nmea or NmeaOptions()
        self._reader = nmea.NmeaReader()
        self._tracker = FixTracker(self._options.poor_above_hdop_tenths)
        self._noise = RateWindow()
        self._misses = 0
        self._speed = 0
        self._spoiled: bytes = b""

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 5.0)

    @property
    def poll_budget_s(self) -> float:
        return FIRST_LISTEN_S + 2.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        if not self._tracker.sentences:
            await self._hear(FIRST_LISTEN_S, at_most_once=True)
        if not self._tracker.sentences:
            self._misses += 1
            await self._try_another_speed()
            return [self._silent()]
        self._misses = 0
        status, quality = _evidence(self._tracker.last_rmc), _evidence(self._tracker.last_gga)
        return [self._observation(self._tracker.take(), status, quality, now)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        await self._hear(timeout_s, at_most_once=False)
        return []

    async def stop(self) -> None:
        return

    async def _hear(self, seconds: float, *, at_most_once: bool) -> None:
        """Take in what comes. `at_most_once`: until the first burst of sentences is over."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + seconds
        while (left_s := deadline_s - loop.time()) > 0:
            burst = at_most_once and self._tracker.sentences
            data = await self._port.read(max_bytes=READ_BYTES, timeout_s=min(left_s, BURST_GAP_S) if burst else left_s)
            self._decode(data)
            if at_most_once and self._tracker.sentences and not data:
                return

    def _decode(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                sentence = self._reader.next_event()
            except ProtocolError as err:
                self._noise.add(True)
                self._spoiled = err.evidence[:512]
                continue
            if sentence is None:
                return
            self._noise.add(False)
            self._tracker.feed(sentence)

    async def _try_another_speed(self) -> None:
        """Somebody may have set another one, and a receiver cannot be asked."""
        if isinstance(self._port, SpeedPort) and self._misses >= SPEED_AFTER_MISSES and len(self._options.bauds) > 1:
            self._speed = (self._speed + 1) % len(self._options.bauds)
            await self._port.set_baud(self._options.bauds[self._speed])
            self._reader.reset()

    def _silent(self) -> Observation:
        evidence = Evidence(codec=nmea.CODEC, reply=self._spoiled, masked=_mask(self._spoiled))
        self._spoiled = b""
        return self._with_noise(silent(self._bound, self._misses, evidence), evidence)

    def _with_noise(self, observation: Observation, evidence: Evidence) -> Observation:
        if not self._noise.is_high:
            return observation
        return replace(observation, conditions=(*observation.conditions, Condition(self._bound.code("LINK_NOISE"), evidence)))

    def _observation(self, fix: Fix | None, status: Evidence, quality: Evidence, now: ClockReading) -> Observation:
        if not status.reply:
            status = quality  # a receiver that sends no RMC
        conditions = []
        if fix is None:
            conditions.append(Condition("VAN.GPS_LOST", status))
        elif fix.grade == "poor":
            conditions.append(Condition(self._bound.code("POOR_FIX"), quality))
        sure = now.quality is ClockQuality.SYNCED
        if fix is not None and fix.date is not None and date_is_wrong(fix.date, now.wall_ms, wall_is_sure=sure):
            conditions.append(Condition(self._bound.code("CLOCK_WRONG"), status))
        observation = Observation(
            slot=self._bound.slot,
            device=DeviceState.ONLINE,
            evidence=status,
            conditions=tuple(conditions),
            place=None if fix is None else coarse(fix),
        )
        return self._with_noise(observation, status)


def coarse(fix: Fix) -> Place:
    """The fix on a grid of 0.001 degrees."""
    return Place(_on_grid(fix.latitude), _on_grid(fix.longitude), fix.grade, fix.satellites)


def _evidence(sentence: nmea.Sentence | None) -> Evidence:
    reply, masked = nmea.blanked(b"" if sentence is None else sentence.raw)
    return Evidence(codec=nmea.CODEC, reply=reply, masked=masked)


def _on_grid(degrees: float) -> int:
    return round(degrees * 10_000 / GRID) * GRID


def _mask(spoiled: bytes) -> tuple[tuple[int, int], ...]:
    """What the codec blanked of a spoiled line: everything behind its name."""
    start = next((at for at, byte in enumerate(spoiled) if byte == 0), len(spoiled))
    return ((start, len(spoiled)),) if start < len(spoiled) else ()
