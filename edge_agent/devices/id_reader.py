"""Resident-ID readers (SDT modules): status and module number, over a serial line, whole frames on one USB pair, or split over two.

Never searches, selects or reads: the codec has no such question. What a late answer to somebody else's question carries is blanked by the codec
before this driver sees it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Observation, SlotBinding, judged_tails, poll_interval_s, silent
from edge_agent.devices.sdt_port import WRITE_TIMEOUT_S, SdtPort
from edge_agent.devices.speeds import SpeedSearch
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortStalled, UsbPort
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.codecs import sdt
from protocols.contract.records import Evidence
from protocols.errors import LineError, ProtocolError
from protocols.profile.options.sdt import SdtOptions


class IdReader:
    """One reader on one port."""

    def __init__(self, port: BytePort | UsbPort, bound: SlotBinding) -> None:
        self._port = port
        self._line = SdtPort(port)
        self._bound = bound
        self._options = bound.profile.sdt or SdtOptions()
        self._reader = sdt.SdtReader()
        self._noise = RateWindow()
        self._misses = 0
        self._speeds = SpeedSearch(port, self._options.bauds, self._options.bauds[0])
        self._asset: str | None = None
        self._asset_asked = False

    @property
    def poll_every_s(self) -> float:
        return poll_interval_s(self._bound, 30.0, soon=bool(self._misses))

    @property
    def poll_budget_s(self) -> float:
        return (len(self._options.bauds) + 2) * (sdt.ANSWER_TIMEOUT_S + WRITE_TIMEOUT_S)

    async def poll(self, now: ClockReading) -> list[Observation]:
        answer = await self._ask(sdt.Command.STATUS)
        if answer is None:
            answer = await self._speeds.find(lambda: self._ask(sdt.Command.STATUS), misses=self._misses, now=now)
        if answer is None:
            self._misses += 1
            return [self._silent()]
        self._misses = 0
        await self._learn_asset(answer)
        return [self._observation(answer)]

    async def listen(self, timeout_s: float) -> list[Observation]:
        """A reader says nothing by itself; what still comes is dropped at the next question."""
        await asyncio.sleep(timeout_s)
        return []

    async def stop(self) -> None:
        return

    async def _learn_asset(self, status: sdt.Answer) -> None:
        if self._asset_asked or status.verdict is not sdt.Sw3Class.OK:
            return
        self._asset_asked = True
        answer = await self._ask(sdt.Command.MODULE_NUMBER)
        self._asset = None if answer is None else answer.module_number

    async def _ask(self, command: sdt.Command) -> sdt.Answer | None:
        self._reader.reset()
        try:
            await self._line.drain()
            self._reader.expect(command)
            await self._line.write(sdt.encode(command))
            return await self._answer()
        except PortStalled:
            return None

    async def _answer(self) -> sdt.Answer | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + sdt.ANSWER_TIMEOUT_S
        while (left_s := deadline_s - loop.time()) > 0:
            data = await self._line.read(timeout_s=left_s)
            self._reader.feed(data)
            try:
                answer = self._reader.next_event()
            except LineError:
                self._noise.add(True)
                continue
            except ProtocolError:
                continue
            if answer is not None:
                self._noise.add(answer.verdict is sdt.Sw3Class.LINK)
                return answer
            if data:
                self._line.to_body()
        return None

    def _silent(self) -> Observation:
        observation = silent(self._bound, self._misses, Evidence(codec=sdt.CODEC, query=sdt.encode_status()))
        if not self._noise.is_high:
            return observation
        noise = Condition(self._bound.code("LINK_NOISE"), observation.evidence)
        return replace(observation, conditions=(*observation.conditions, noise))

    def _observation(self, answer: sdt.Answer) -> Observation:
        evidence = Evidence(codec=sdt.CODEC, query=sdt.encode_status(), reply=answer.evidence, masked=answer.masked)
        device, action, conditions = DeviceState.ONLINE, SuggestedAction.NONE, []
        if answer.verdict is sdt.Sw3Class.HARDWARE:
            device, action = DeviceState.HARDWARE_ERROR, SuggestedAction.MAINTENANCE
            conditions.append(Condition(self._bound.code("SELF_TEST"), evidence))
        elif answer.verdict is sdt.Sw3Class.LICENCE:
            device, action = DeviceState.HARDWARE_ERROR, SuggestedAction.CONFIGURATION
            conditions.append(Condition(self._bound.code("NOT_AUTHORISED"), evidence))
        elif answer.verdict is sdt.Sw3Class.UNKNOWN:
            device = DeviceState.UNKNOWN
        if self._noise.is_high:
            conditions.append(Condition(self._bound.code("LINK_NOISE"), evidence))
        return Observation(
            slot=self._bound.slot,
            device=device,
            action=action,
            evidence=evidence,
            conditions=tuple(conditions),
            judged=judged_tails(self._bound, "SELF_TEST", "NOT_AUTHORISED", "LINK_NOISE"),
            asset=self._asset,
        )
