"""UPSes (Megatec's Q1), on a serial line or behind a USB HID bridge: is there mains, how long can it go on, is the battery worn.

Only asks. The commands of the same protocol that start a test or switch the load off do not exist in the codec.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import (
    Measured,
    Observation,
    SlotBinding,
    judged_tails,
    link_codes,
    poll_interval_s,
    silent,
    version_of,
)
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, InterfacePort, PortStalled, UsbPort
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import megatec
from protocols.contract.records import Evidence, Quantity
from protocols.errors import DeviceRefused, FrameError, LineError, ProtocolError, UnexpectedReply
from protocols.profile.options.megatec import MegatecOptions

WRITE_TIMEOUT_S = 1.0
READ_BYTES = 256
FLOAT_AFTER_MS = 15 * 60_000
"""So long on the mains before the battery's voltage is judged. Chosen: a charger lifts a sound battery above its resting voltage in minutes."""
TELL_TRIES = 3
"""So often ratings and identity are asked for, should an answer be lost."""


class Ups:
    """One unit on one port."""

    def __init__(self, port: BytePort | UsbPort, bound: SlotBinding) -> None:
        self._port = port
        self._bound = bound
        self._options = bound.profile.megatec or MegatecOptions()
        self._hid = port if isinstance(port, InterfacePort) else None
        self._reader = megatec.MegatecReader()
        self._noise = RateWindow()
        self._misses = 0
        self._garbled = 0
        self._flags: megatec.Flags | None = None
        self._mains_since_ms: int | None = None
        self._nominal_tenths = self._options.battery_nominal_tenths
        self._version: str | None = None
        self._untold = {megatec.Query.RATING: TELL_TRIES, megatec.Query.IDENTITY: TELL_TRIES}

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 5.0, soon=bool(self._misses or self._garbled))

    @property
    def poll_budget_s(self) -> float:
        write_s = megatec.USB_WRITE_TIMEOUT_S if self._hid is not None else WRITE_TIMEOUT_S
        return 5 * (megatec.ANSWER_TIMEOUT_S + write_s) + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        try:
            answer = await self._believed()
        except (LineError, UnexpectedReply) as err:
            self._noise.add(True)
            return [self._spoiled(err)]
        except DeviceRefused as err:
            self._noise.add(False)
            return [self._refused(err)]
        if answer is None:
            self._misses += 1
            self._garbled = 0
            return [self._silent()]
        self._noise.add(False)
        self._misses = self._garbled = 0
        await self._learn()
        return [self._observation(answer, now)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """A UPS speaks when asked; what it says by itself is dropped at the next question."""
        await asyncio.sleep(timeout_s)
        return []

    async def stop(self) -> None:
        return

    async def _believed(self) -> megatec.Status | None:
        """A status. The protocol has no check value and one flipped bit makes a 1 of a 0, so other flags than before count when said twice."""
        first = await self._ask(megatec.Query.STATUS)
        if not isinstance(first, megatec.Status) or first.flags == self._flags:
            return first if isinstance(first, megatec.Status) else None
        second = await self._ask(megatec.Query.STATUS)
        if not isinstance(second, megatec.Status):
            return None
        if second.flags != first.flags:
            raise FrameError("flags that were not repeated", evidence=second.reply)
        self._flags = second.flags
        return second

    async def _learn(self) -> None:
        """The facts that do not change, until they are known or the unit has shown that it does not tell them."""
        for query, left in self._untold.items():
            if left == 0:
                continue
            self._untold[query] = left - 1
            try:
                answer = await self._ask(query)
            except DeviceRefused:
                self._untold[query] = 0
                continue
            except ProtocolError:
                continue
            if isinstance(answer, megatec.Rating):
                self._nominal_tenths = answer.battery_tenths or self._nominal_tenths
                self._untold[query] = 0
            elif isinstance(answer, megatec.Identity):
                self._version = version_of(answer.version)
                self._untold[query] = 0

    async def _ask(self, query: megatec.Query) -> megatec.Status | megatec.Rating | megatec.Identity | None:
        """The answer, None for silence; raises what the codec raises."""
        try:
            await self._drop_stale()
            self._reader.expect(query)
            await self._write(query)
            loop = asyncio.get_running_loop()
            deadline_s = loop.time() + megatec.ANSWER_TIMEOUT_S
            while (left_s := deadline_s - loop.time()) > 0:
                self._reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s))
                answer = self._reader.next_event()
                if answer is not None:
                    return answer
        except PortStalled:
            return None
        unfinished = self._reader.give_up()
        if unfinished is not None:
            raise unfinished
        return None

    async def _write(self, query: megatec.Query) -> None:
        if self._hid is None:
            await self._port.write(megatec.encode(query), timeout_s=WRITE_TIMEOUT_S)
            return
        for chunk in megatec.usb_chunks(query):
            await self._hid.control_out(*megatec.SET_REPORT, chunk, timeout_s=megatec.USB_WRITE_TIMEOUT_S)

    async def _drop_stale(self) -> None:
        """Bytes of an earlier question; bounded, so that a stream without end cannot hold us."""
        for _ in range(8):
            if not await self._port.read(max_bytes=READ_BYTES, timeout_s=0.001):
                return

    def _silent(self) -> Observation:
        observation = silent(self._bound, self._misses, Evidence(codec=megatec.CODEC, query=_STATUS))
        return self._with_noise(observation, observation.evidence)

    def _spoiled(self, err: ProtocolError) -> Observation:
        """Something answers and cannot be understood: not silence, and no word about the mains either."""
        self._misses = 0
        self._garbled += 1
        seen = err.evidence[:512]
        blanked = ((0, len(seen)),) if seen and not seen.strip(b"\x00") else ()
        evidence = Evidence(codec=megatec.CODEC, query=_STATUS, reply=seen, masked=blanked)
        needed = self._bound.profile.poll.offline_after_misses if self._bound.profile.poll else 3
        observation = Observation(
            slot=self._bound.slot,
            device=DeviceState.UNKNOWN,
            action=SuggestedAction.MAINTENANCE,
            holds_state=self._garbled < needed,
            evidence=evidence,
            judged=judged_tails(self._bound, "LINK_NOISE"),
        )
        return self._with_noise(observation, evidence)

    def _refused(self, err: DeviceRefused) -> Observation:
        """A unit that does not know `Q1` speaks another dialect."""
        evidence = Evidence(codec=megatec.CODEC, query=_STATUS, reply=err.evidence[:512])
        return Observation(
            slot=self._bound.slot,
            device=DeviceState.UNKNOWN,
            action=SuggestedAction.CONFIGURATION,
            evidence=evidence,
            conditions=(Condition(link_codes(self._bound.profile.kind).cannot_open, evidence),),
            judged=judged_tails(self._bound, "LINK_NOISE"),
        )

    def _with_noise(self, observation: Observation, evidence: Evidence | None) -> Observation:
        if not self._noise.is_high:
            return observation
        return replace(observation, conditions=(*observation.conditions, Condition(self._bound.code("LINK_NOISE"), evidence)))

    def _observation(self, status: megatec.Status, now: ClockReading) -> Observation:
        evidence = Evidence(codec=megatec.CODEC, query=_STATUS, reply=status.reply)
        tails = list(megatec.conditions_of(status, overload_above_pct=self._options.overload_above_pct))
        pack_mv, cell_mv = megatec.battery_of(status, self._nominal_tenths)
        if self._is_worn(status, cell_mv, now):
            tails.append("BATTERY_REPLACE")
        failed = "UPS_FAILED" in tails
        observation = Observation(
            slot=self._bound.slot,
            device=DeviceState.HARDWARE_ERROR if failed else DeviceState.ONLINE,
            action=SuggestedAction.MAINTENANCE if failed else SuggestedAction.NONE,
            evidence=evidence,
            conditions=tuple(Condition(self._bound.code(tail), evidence) for tail in tails),
            measured=_measured(status, pack_mv),
            firmware=self._version,
        )
        return self._with_noise(observation, evidence)

    def _is_worn(self, status: megatec.Status, cell_mv: int | None, now: ClockReading) -> bool:
        if status.flags.utility_fail or status.flags.testing:
            self._mains_since_ms = None
            return False
        if self._mains_since_ms is None:
            self._mains_since_ms = now.boot_ms
        charged = now.boot_ms - self._mains_since_ms >= FLOAT_AFTER_MS
        return charged and cell_mv is not None and cell_mv < self._options.worn_below_mv_per_cell


def _measured(status: megatec.Status, pack_mv: int | None) -> tuple[Measured, ...]:
    """The pack's voltage where it can be known, and what else the unit measures."""
    found: tuple[tuple[Quantity, int | None], ...] = (
        ("load", None if status.load_pct is None else status.load_pct * 10),
        ("batteryVoltage", None if pack_mv is None else round(pack_mv / 100)),
        ("inputVoltage", status.input_tenths),
        ("temperature", status.temperature_tenths),
    )
    return tuple(Measured(quantity, tenths) for quantity, tenths in found if tenths is not None)


_STATUS = megatec.encode(megatec.Query.STATUS)
