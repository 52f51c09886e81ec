"""pymodbus, unmodified, reads the sensor bus: climate, contacts, a relay board, a module that starts elsewhere, a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus, RelayBoard
from simulators.ports.pty import ThreadPty


@pytest.fixture
def bus() -> ModbusBus:
    return ModbusBus(ClimateModule(1), DoorModule(2), DoorModule(3, first_input=0x10, inputs=4), RelayBoard(4))


@pytest.fixture
def client(bus: ModbusBus, tmp_path: Path) -> Iterator[Any]:
    from pymodbus.client import ModbusSerialClient

    with ThreadPty(bus, tmp_path / "bus"):
        client = ModbusSerialClient(str((tmp_path / "bus").resolve()), baudrate=9600, timeout=1, retries=1)
        assert client.connect()
        try:
            yield client
        finally:
            client.close()  # type: ignore[no-untyped-call]


def test_climate(client: Any) -> None:
    answer = client.read_input_registers(1, count=2, device_id=1)
    assert not answer.isError()
    assert answer.registers[0] in (256, 257)
    assert answer.registers[1] in (512, 513)
    corrections = client.read_holding_registers(0x101, count=4, device_id=1)
    assert corrections.registers == [1, 0, 0, 0]


def test_contacts_where_each_module_has_them(client: Any, bus: ModbusBus) -> None:
    bus.modules[2].set("water", time.monotonic())
    assert client.read_discrete_inputs(0, count=8, device_id=2).bits[:5] == [True, False, True, True, False]
    assert client.read_discrete_inputs(0x10, count=4, device_id=3).bits[:4] == [True, False, True, False]
    refused = client.read_discrete_inputs(0, count=4, device_id=3)
    assert refused.isError()
    assert refused.exception_code == 2
    bus.modules[4].set("smoke", time.monotonic())
    assert client.read_holding_registers(0, count=8, device_id=4).registers[:5] == [1, 0, 1, 0, 1]


def test_an_empty_address_is_silent(client: Any) -> None:
    from pymodbus.exceptions import ModbusException

    with pytest.raises(ModbusException):
        client.read_input_registers(1, count=2, device_id=9)
