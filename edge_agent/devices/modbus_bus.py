"""Climate and contact modules on one RS-485 pair (Modbus RTU): one driver per bus, one slot per address. Reads only.

Silence, a bad check value, a refusal and text on the bus are four different troubles and end in four different faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Measured, Observation, SlotBinding, judged_tails, poll_interval_s, silent
from edge_agent.devices.window import RateWindow
from edge_agent.faults import Condition
from edge_agent.transports.base import BytePort, PortStalled
from protocols.canon.faults import FAULTS
from protocols.canon.words import CoverState, DeviceState, SuggestedAction
from protocols.codecs import modbus
from protocols.contract.records import Evidence
from protocols.errors import DeviceRefused, LineError, ProtocolError, UnexpectedReply
from protocols.profile.options.modbus import ModbusOptions
from protocols.profile.schema import Kind

WRITE_TIMEOUT_S = 0.5
READ_BYTES = 512
FROZEN_AFTER_MS = 6 * 3_600_000
"""Chosen: no cabinet keeps temperature and humidity to a tenth for six hours."""
NOISE_KEPT_MS = int(FAULTS["ENV.BUS_CRC"].clear_s * 1000)
"""So long after the last errors of the module that tells them another may tell its own: the fault does not wander while it is open."""
_INPUT_CODES = {
    "door": "ENV.DOOR_OPEN",
    "tamper": "ENV.TAMPER",
    "water": "ENV.WATER",
    "smoke": "ENV.SMOKE",
    "mains": "PWR.MAINS_LOST",
}
_VALUE_TAILS = {"temperature": "TEMP", "humidity": "HUMIDITY"}
_IMPOSSIBLE = {"temperature": modbus.TEMP_RANGE_TENTHS, "humidity": (0, 1000)}


@dataclass(slots=True)
class _Module:
    bound: SlotBinding
    options: ModbusOptions
    address: int
    every_ms: int
    due_ms: int = 0
    misses: int = 0
    spoiled: int = 0
    noise: RateWindow = field(default_factory=RateWindow)
    same_since_ms: int | None = None
    same_values: tuple[int, ...] = ()


class ModbusBus:
    """All modules behind one port."""

    def __init__(self, port: BytePort, modules: Sequence[SlotBinding]) -> None:
        self._port = port
        self._modules = [_module(bound) for bound in modules if bound.profile.modbus is not None]
        self._noise_teller: _Module | None = None
        self._noise_told_ms = 0
        serial = modules[0].profile.transport.serial
        self._timeout_s = serial.read_timeout_ms / 1000 if serial else modbus.ANSWER_TIMEOUT_S

    def due_now(self, slot: str) -> None:
        for module in self._modules:
            if module.bound.slot == slot:
                module.due_ms = 0

    @property
    def poll_every_s(self) -> float:
        return min(module.every_ms for module in self._modules) / 1000

    @property
    def poll_budget_s(self) -> float:
        questions = sum(len(module.options.read) for module in self._modules)
        return 2 * questions * (self._timeout_s + WRITE_TIMEOUT_S + modbus.TURNAROUND_S) + 1.0

    async def poll(self, now: ClockReading) -> list[Observation]:
        found = []
        for module in self._modules:
            if now.boot_ms >= module.due_ms:
                module.due_ms = now.boot_ms + module.every_ms * 9 // 10  # the schedule's jitter must not skip a turn
                found.append(await self._poll_module(module, now))
        return found

    async def listen(self, timeout_s: float) -> list[Observation]:
        """Modules speak when asked; what they say by themselves is found at the next question."""
        await asyncio.sleep(timeout_s)
        return []

    async def stop(self) -> None:
        return

    async def _poll_module(self, module: _Module, now: ClockReading) -> Observation:
        answers: list[modbus.Registers | modbus.Bits] = []
        for read in module.options.read:
            request = read.request(module.address)
            try:
                answer = await self._read(request, module)
            except ProtocolError as err:
                return self._failed(module, request, err, now)
            answers.append(answer)
        module.misses = module.spoiled = 0
        try:
            return self._observation(module, answers, now)
        except ProtocolError as err:
            return self._failed(module, module.options.read[0].request(module.address), err, now)

    async def _read(self, request: modbus.ReadRequest, module: _Module) -> modbus.Registers | modbus.Bits:
        """One question with one retry after a spoiled or missing answer."""
        try:
            answer = await self._ask(request)
        except LineError as err:
            module.noise.add(not isinstance(err, modbus.Silence))
            await asyncio.sleep(modbus.TURNAROUND_S)
            try:
                answer = await self._ask(request)
            except LineError as again:
                module.noise.add(not isinstance(again, modbus.Silence))
                raise
        module.noise.add(False)
        await asyncio.sleep(modbus.TURNAROUND_S)
        return answer

    async def _ask(self, request: modbus.ReadRequest) -> modbus.Registers | modbus.Bits:
        await self._drop_stale()
        reader = modbus.ReplyReader(request)
        try:
            await self._port.write(modbus.encode_read(request), timeout_s=WRITE_TIMEOUT_S)
        except PortStalled:
            raise modbus.Silence(f"address {request.address} cannot be asked") from None
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            reader.feed(await self._port.read(max_bytes=READ_BYTES, timeout_s=left_s))
            answer = reader.next_event()
            if answer is not None:
                return answer
        raise reader.give_up()

    async def _drop_stale(self) -> None:
        for _ in range(8):
            if not await self._port.read(max_bytes=READ_BYTES, timeout_s=0.001):
                return

    def _failed(self, module: _Module, request: modbus.ReadRequest, err: ProtocolError, now: ClockReading) -> Observation:
        seen = err.evidence[:512]
        blanked = ((0, len(seen)),) if seen and not seen.strip(b"\x00") else ()
        evidence = Evidence(codec=modbus.CODEC, query=modbus.encode_read(request), reply=seen, masked=blanked)
        bound = module.bound
        if isinstance(err, DeviceRefused | UnexpectedReply) and not self._is_drowned_out(module, err):
            return Observation(
                slot=bound.slot,
                device=DeviceState.HARDWARE_ERROR,
                cover=CoverState.UNKNOWN if bound.profile.kind is Kind.CONTACTS else CoverState.NOT_SUPPORTED,
                action=SuggestedAction.CONFIGURATION,
                evidence=evidence,
                conditions=(Condition(bound.code("WRONG_MODULE"), evidence),),
                judged=judged_tails(bound, "WRONG_MODULE"),
            )
        if isinstance(err, LineError) and not isinstance(err, modbus.Silence):
            observation = self._spoiled(module, evidence)
        else:
            module.misses, module.spoiled = module.misses + 1, 0
            observation = silent(bound, module.misses, evidence)
        if self._tells_noise(module, now):
            noise = Condition(bound.code("BUS_CRC"), evidence)
            observation = replace(observation, conditions=(*observation.conditions, noise))
        return observation

    def _tells_noise(self, module: _Module, now: ClockReading) -> bool:
        """Errors on a pair of wires are one fault, however many modules they meet: it stands at the module that met them first."""
        if not module.noise.is_high:
            return False
        if self._noise_teller is None or now.boot_ms - self._noise_told_ms >= NOISE_KEPT_MS:
            self._noise_teller = module
        if module is self._noise_teller:
            self._noise_told_ms = now.boot_ms
        return module is self._noise_teller

    def _spoiled(self, module: _Module, evidence: Evidence) -> Observation:
        """Something answers and cannot be understood. That is not silence: cable and power are there, and somebody should look at the wiring."""
        module.misses, module.spoiled = 0, module.spoiled + 1
        bound = module.bound
        needed = bound.profile.poll.offline_after_misses if bound.profile.poll else 3
        return Observation(
            slot=bound.slot,
            device=DeviceState.UNKNOWN,
            cover=CoverState.UNKNOWN if bound.profile.kind is Kind.CONTACTS else CoverState.NOT_SUPPORTED,
            action=SuggestedAction.MAINTENANCE,
            holds_state=module.spoiled < needed,
            evidence=evidence,
            judged=judged_tails(bound, "BUS_CRC"),
        )

    def _is_drowned_out(self, module: _Module, err: ProtocolError) -> bool:
        """Text on the bus comes from a climate module that was switched to talk by itself; its neighbours are only not heard."""
        talkers = [one for one in self._modules if one.bound.profile.kind is Kind.CLIMATE]
        return isinstance(err, modbus.StreamingText) and bool(talkers) and module not in talkers

    def _observation(self, module: _Module, answers: Sequence[modbus.Registers | modbus.Bits], now: ClockReading) -> Observation:
        bound = module.bound
        requests = [read.request(module.address) for read in module.options.read]
        evidence = [
            Evidence(codec=modbus.CODEC, query=modbus.encode_read(request), reply=answer.reply)
            for request, answer in zip(requests, answers, strict=True)
        ]
        conditions: list[Condition] = []
        measured = self._measure(module, answers, evidence, conditions, now)
        cover = self._contacts(module, answers, evidence, conditions)
        if self._tells_noise(module, now):
            conditions.append(Condition(bound.code("BUS_CRC"), evidence[0]))
        return Observation(
            slot=bound.slot,
            device=DeviceState.HARDWARE_ERROR if any(c.code.endswith(".FROZEN") for c in conditions) else DeviceState.ONLINE,
            cover=cover,
            evidence=evidence[0],
            conditions=tuple(conditions),
            measured=tuple(measured),
        )

    def _measure(
        self,
        module: _Module,
        answers: Sequence[modbus.Registers | modbus.Bits],
        evidence: Sequence[Evidence],
        conditions: list[Condition],
        now: ClockReading,
    ) -> list[Measured]:
        measured, raw = [], []
        frozen = False
        for value in module.options.value:
            word = int(answers[value.read].values[value.register])
            tenths = modbus.signed16(word) if value.signed else word
            raw.append(tenths)
            low, high = _IMPOSSIBLE[value.quantity]
            if not low <= tenths <= high:
                frozen = True
                continue
            measured.append(Measured(value.quantity, tenths))
            below, above = value.alarm_below_tenths, value.alarm_above_tenths
            if (below is not None and tenths < below) or (above is not None and tenths > above):
                conditions.append(Condition(module.bound.code(_VALUE_TAILS[value.quantity]), evidence[value.read]))
        if raw and tuple(raw) != module.same_values:
            module.same_values, module.same_since_ms = tuple(raw), now.boot_ms
        elif raw and module.same_since_ms is not None:
            frozen = frozen or now.boot_ms - module.same_since_ms >= FROZEN_AFTER_MS
        # A dead element may also deliver a plain zero for everything.
        if raw and (frozen or (len(raw) > 1 and not any(raw))):
            conditions.append(Condition(module.bound.code("FROZEN"), evidence[module.options.value[0].read]))
        return measured

    def _contacts(
        self,
        module: _Module,
        answers: Sequence[modbus.Registers | modbus.Bits],
        evidence: Sequence[Evidence],
        conditions: list[Condition],
    ) -> CoverState:
        cover = CoverState.CLOSED if any(contact.name in ("door", "tamper") for contact in module.options.input) else None
        for contact in module.options.input:
            closed = modbus.inputs_of(answers[contact.read], contact.index + 1)[contact.index]
            if closed == (contact.ok_when == "closed"):
                continue
            conditions.append(Condition(_INPUT_CODES[contact.name], evidence[contact.read]))
            if contact.name == "tamper":
                cover = CoverState.TAMPERED
            elif contact.name == "door" and cover is not CoverState.TAMPERED:
                cover = CoverState.OPEN
        return cover or CoverState.NOT_SUPPORTED


def _module(bound: SlotBinding) -> _Module:
    options = bound.profile.modbus
    assert options is not None
    every_s = poll_interval_s(bound, 30.0)
    return _Module(bound, options, bound.address if bound.address is not None else options.address, max(1, int(every_s * 1000)))
