"""Sensor bus: Modbus RTU modules on one RS-485 pair (climate after the SHT20/XY-MD02 sheet, digital inputs for doors).

Digital inputs are wired fail-safe: closed means in order, so that a cut wire looks like an open door. The host's frames are recognised by length
and check value; a gap longer than 50 ms starts a new frame (3.5 characters on the wire, more than a pty can time).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from simulators.errors import unknown
from simulators.models.base import Controllable, Model
from simulators.models.checksums import crc16_modbus

GAP_S = 0.05
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 0x01, 0x02, 0x03
STREAM_PERIOD_S = 1.0
MAX_INPUTS = 16

DOOR, CALL_BUTTON, TAMPER, WATER, SMOKE, MAINS = 0, 1, 2, 3, 4, 5
"""Input numbers of the door module. Door, tamper loop and mains relay are closed at rest; button, water and smoke contacts are open at rest."""


class _ModbusException(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code:02x}")
        self.code = code


class Module:
    """One module on the bus; subclasses keep registers."""

    name: ClassVar[str] = "module"
    kind: ClassVar[str] = "module"
    """What an inventory calls it; `name` is what a person calls it."""
    module_faults: ClassVar[Mapping[str, str]] = {}
    module_actions: ClassVar[Mapping[str, str]] = {}
    COMMON: ClassVar[Mapping[str, str]] = {
        "silence": "this module answers nothing",
        "wrong-module": "another module sits at this address: exception 02 on every read",
        "corrupt": "wrong check values from this module",
    }

    def __init__(self, address: int) -> None:
        self.address = address
        self._faults: set[str] = set()
        self.changed: Callable[[], None] = lambda: None

    @property
    def fault_help(self) -> Mapping[str, str]:
        return {**self.COMMON, **self.module_faults}

    @property
    def action_help(self) -> Mapping[str, str]:
        return self.module_actions

    @property
    def active_faults(self) -> frozenset[str]:
        return frozenset(self._faults)

    def set(self, name: str, now: float) -> None:
        if name not in self.fault_help:
            raise unknown(f"fault of the {self.name} module", name, list(self.fault_help))
        self._faults.add(name)
        self.changed()

    def clear(self, name: str, now: float) -> None:
        if name not in self.fault_help:
            raise unknown(f"fault of the {self.name} module", name, list(self.fault_help))
        self._faults.discard(name)
        self.changed()

    def act(self, name: str, now: float, *args: str) -> None:
        if name not in self.action_help:
            raise unknown(f"action of the {self.name} module", name, list(self.action_help))
        self.on_action(name, now, *args)
        self.changed()

    def on_action(self, name: str, now: float, *args: str) -> None:
        """One of `module_actions` happens."""

    def has(self, fault: str) -> bool:
        return fault in self._faults

    def answer(self, function: int, data: bytes, now: float) -> bytes:
        """PDU after the function code; raises _ModbusException."""
        raise _ModbusException(ILLEGAL_FUNCTION)


class ClimateModule(Module):
    """Temperature and humidity, tenths: input registers 1 and 2; holding 0x101 address, 0x102 speed, 0x103/0x104 corrections."""

    name: ClassVar[str] = "climate"
    kind: ClassVar[str] = "climate"
    module_faults: ClassVar[Mapping[str, str]] = {
        "too-hot": "48 °C in the cabinet",
        "too-cold": "−12 °C in the cabinet",
        "too-humid": "97 % humidity",
        "sensor-dead": "the element is dead: 7FFF in both registers",
        "sensor-zero": "the element is dead: 0000 in both registers",
        "frozen": "the value never changes again",
    }
    module_actions: ClassVar[Mapping[str, str]] = {"climate": "set temperature and humidity: climate 30.5 54.6"}

    def __init__(self, address: int = 1, *, temperature_tenths: int = 256, humidity_tenths: int = 512) -> None:
        super().__init__(address)
        self.temperature_tenths = temperature_tenths
        self.humidity_tenths = humidity_tenths
        self._holding = {0x101: address, 0x102: 0, 0x103: 0, 0x104: 0}

    def on_action(self, name: str, now: float, *args: str) -> None:
        temperature, humidity = (*args, "25.6", "51.2")[:2]
        self.temperature_tenths, self.humidity_tenths = round(float(temperature) * 10), round(float(humidity) * 10)

    def answer(self, function: int, data: bytes, now: float) -> bytes:
        start, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if function == 0x04:
            return _registers({1: self._temperature(now), 2: self._humidity(now)}, start, count)
        if function == 0x03:
            return _registers(self._holding, start, count)
        if function == 0x06:
            if start not in self._holding:
                raise _ModbusException(ILLEGAL_ADDRESS)
            self._holding[start] = count
            return data[:4]
        raise _ModbusException(ILLEGAL_FUNCTION)

    @property
    def is_dead(self) -> bool:
        return self.has("sensor-dead") or self.has("sensor-zero")

    def _temperature(self, now: float) -> int:
        if self.is_dead:
            return 0x7FFF if self.has("sensor-dead") else 0
        base = 480 if self.has("too-hot") else -120 if self.has("too-cold") else self.temperature_tenths
        return base + self._holding[0x103] + self._drift(now)

    def _humidity(self, now: float) -> int:
        if self.is_dead:
            return 0x7FFF if self.has("sensor-dead") else 0
        return (970 if self.has("too-humid") else self.humidity_tenths) + self._holding[0x104] + self._drift(now)

    def _drift(self, now: float) -> int:
        """Air is never still: one tenth up and down over ten minutes."""
        return 0 if self.has("frozen") else int(now // 300) % 2


class DoorModule(Module):
    """Eight digital inputs read with function 02 from `first_input` (0000 on most, 0010 on Ebyte E831)."""

    name: ClassVar[str] = "door"
    kind: ClassVar[str] = "contacts"
    module_faults: ClassVar[Mapping[str, str]] = {
        "door-open": "the cabinet door stands open",
        "tamper": "the tamper loop is interrupted",
        "water": "water on the floor",
        "smoke": "the smoke detector has closed",
        "mains-lost": "the relay that the mains holds lets go",
        "chatter": "the door contact bounces",
    }
    module_actions: ClassVar[Mapping[str, str]] = {
        "open-door": "open the cabinet door",
        "close-door": "close the cabinet door",
        "press-button": "press and hold the call button",
        "release-button": "let the call button go",
    }

    def __init__(self, address: int = 2, *, first_input: int = 0, inputs: int = 8, mains: bool = True) -> None:
        """`mains`: a relay that the mains holds is wired to its input."""
        super().__init__(address)
        self.first_input = first_input
        self.inputs = inputs
        self.mains = mains
        self.button_pressed = False
        self._reads = 0

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name in ("open-door", "close-door"):
            (self.set if name == "open-door" else self.clear)("door-open", now)
        else:
            self.button_pressed = name == "press-button"

    def closed_inputs(self) -> int:
        """Bit per input, 1 = contact closed."""
        bits = 0 if self.has("tamper") else 1 << TAMPER
        if not self.has("door-open") and not (self.has("chatter") and self._reads % 2):
            bits |= 1 << DOOR
        bits |= (1 << CALL_BUTTON) if self.button_pressed else 0
        bits |= 1 << MAINS if self.mains and not self.has("mains-lost") else 0
        bits |= (1 << WATER) if self.has("water") else 0
        return bits | ((1 << SMOKE) if self.has("smoke") else 0)

    def answer(self, function: int, data: bytes, now: float) -> bytes:
        if function != 0x02:
            raise _ModbusException(ILLEGAL_FUNCTION)
        start, count = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        if not 1 <= count <= MAX_INPUTS:
            raise _ModbusException(ILLEGAL_VALUE)
        first = start - self.first_input
        if first < 0 or first + count > self.inputs:
            raise _ModbusException(ILLEGAL_ADDRESS)
        self._reads += 1
        bits = (self.closed_inputs() >> first) & ((1 << count) - 1)
        size = (count + 7) // 8
        return bytes((size,)) + bits.to_bytes(size, "little")


class RelayBoard(DoorModule):
    """The same inputs on a relay board that keeps each in a holding register (function 03), 0 open and 1 closed. Its relays are left alone."""

    name: ClassVar[str] = "relay"
    kind: ClassVar[str] = "contacts"

    def answer(self, function: int, data: bytes, now: float) -> bytes:
        if function != 0x03:
            raise _ModbusException(ILLEGAL_FUNCTION)
        self._reads += 1
        bits = self.closed_inputs()
        values = {self.first_input + index: bits >> index & 1 for index in range(self.inputs)}
        return _registers(values, int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"))


class HoldingClimateModule(ClimateModule):
    """A maker that keeps the two values in holding registers 0 and 1 (function 03)."""

    def answer(self, function: int, data: bytes, now: float) -> bytes:
        if function != 0x03:
            raise _ModbusException(ILLEGAL_FUNCTION)
        values = {0: self._temperature(now), 1: self._humidity(now)}
        return _registers(values, int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big"))


class ModbusBus(Model):
    """The pair with its modules, as the host sees it through its adapter."""

    kind: ClassVar[str] = "sensors"
    own_faults: ClassVar[Mapping[str, str]] = {
        "bus-cut": "the pair is cut: no module answers",
        "echo": "the adapter returns every byte the host sends",
        "noise": "one answer in three has a wrong check value",
        "streaming": "somebody switched the climate module to its talking mode: text on the bus every second",
        **ClimateModule.module_faults,
        **DoorModule.module_faults,
    }
    own_actions: ClassVar[Mapping[str, str]] = {**ClimateModule.module_actions, **DoorModule.module_actions}

    def __init__(self, *modules: Module, baud: int = 9600, latency_s: float = 0.015, seed: int = 0) -> None:
        super().__init__(latency_s=latency_s, baud=baud, seed=seed)
        self.modules = {module.address: module for module in modules or (ClimateModule(), DoorModule())}
        for module in self.modules.values():
            module.changed = self.notify
        self._buffer = bytearray()
        self._last_byte_at = 0.0
        self._next_stream = 0.0

    @property
    def units(self) -> Mapping[str, Controllable]:
        by_address: dict[str, Controllable] = {str(address): module for address, module in self.modules.items()}
        return by_address | {module.name: module for module in self.modules.values()}

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "streaming":
            self._next_stream = now
        for module in self.modules.values():
            if name in module.module_faults:
                (module.set if active else module.clear)(name, now)

    def on_action(self, name: str, now: float, *args: str) -> None:
        for module in self.modules.values():
            if name in module.action_help:
                module.act(name, now, *args)

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()

    def run_mechanism(self, now: float) -> None:
        if self.has("streaming") and now >= self._next_stream:
            self._next_stream = now + STREAM_PERIOD_S
            self.emit(b"25.6,51.2%RH\r\n", now)

    def mechanism_due(self) -> float | None:
        return self._next_stream if self.has("streaming") else None

    def on_bytes(self, data: bytes, now: float) -> None:
        if self.has("echo"):
            self.emit(data, now, delay_s=0.0)
        if self.has("bus-cut"):
            return
        if now - self._last_byte_at > GAP_S:
            self._buffer.clear()
        self._last_byte_at = now
        self._buffer += data
        while self._next_frame(now):
            pass

    def _next_frame(self, now: float) -> bool:
        if len(self._buffer) < 2:
            return False
        function = self._buffer[1]
        size = 8
        if function in (0x0F, 0x10):
            if len(self._buffer) < 7:
                return False
            size = 9 + self._buffer[6]
        if len(self._buffer) < size:
            return False
        raw = bytes(self._buffer[:size])
        if crc16_modbus(raw[:-2]) != raw[-2:]:
            del self._buffer[0]
            return True
        del self._buffer[:size]
        module = self.modules.get(raw[0])
        if module is not None and not module.has("silence") and not self.has("streaming"):
            self._answer(module, function, raw[2:-2], now)
        return True

    def _answer(self, module: Module, function: int, data: bytes, now: float) -> None:
        try:
            if module.has("wrong-module"):
                raise _ModbusException(ILLEGAL_ADDRESS)
            pdu = bytes((function,)) + module.answer(function, data, now)
        except _ModbusException as problem:
            pdu = bytes((function | 0x80, problem.code))
        body = bytes((module.address,)) + pdu
        check = crc16_modbus(body)
        if module.has("corrupt") or (self.has("noise") and self._random.random() < 1 / 3):
            check = bytes((check[0] ^ 0x5A, check[1]))
        self.emit(body + check, now)


def _registers(values: Mapping[int, int], start: int, count: int) -> bytes:
    if not 1 <= count <= 125:
        raise _ModbusException(ILLEGAL_VALUE)
    if any(start + offset not in values for offset in range(count)):
        raise _ModbusException(ILLEGAL_ADDRESS)
    words = b"".join((values[start + offset] & 0xFFFF).to_bytes(2, "big") for offset in range(count))
    return bytes((len(words),)) + words
