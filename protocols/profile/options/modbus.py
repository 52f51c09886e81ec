"""Modules on a Modbus RTU bus."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.codecs.modbus import ReadRequest
from protocols.errors import EncodeError
from protocols.profile.tables import Table, Word16


class ModbusRead(Table, frozen=True, kw_only=True):
    """One question; `start` is the address on the wire, counted from 0."""

    function: Literal[1, 2, 3, 4]
    start: Word16
    count: Annotated[int, Meta(ge=1, le=2000)]

    def __post_init__(self) -> None:
        try:
            self.request(1)
        except EncodeError as err:
            raise ValueError(str(err)) from None

    def request(self, address: int) -> ReadRequest:
        return ReadRequest(address, self.function, self.start, self.count)


class ModbusValue(Table, frozen=True, kw_only=True):
    """A quantity in tenths of its unit; outside [alarm_below_tenths, alarm_above_tenths] it is a fault."""

    quantity: Literal["temperature", "humidity"]
    read: Annotated[int, Meta(ge=0, le=15)] = 0
    register: Annotated[int, Meta(ge=0, le=124)]
    """Index in the answer, from 0."""
    signed: bool = True
    alarm_below_tenths: int | None = None
    alarm_above_tenths: int | None = None


class ModbusInput(Table, frozen=True, kw_only=True):
    """A contact. `ok_when` tells the state of the healthy wire: closed, so that a cut wire raises the alarm."""

    name: Literal["door", "tamper", "water", "smoke", "mains"]
    read: Annotated[int, Meta(ge=0, le=15)] = 0
    index: Annotated[int, Meta(ge=0, le=1999)]
    ok_when: Literal["closed", "open"] = "closed"


class ModbusOptions(Table, frozen=True, kw_only=True):
    address: Annotated[int, Meta(ge=1, le=247)] = 1
    """Factory address, where the inventory names none."""
    read: Annotated[tuple[ModbusRead, ...], Meta(min_length=1, max_length=16)]
    value: Annotated[tuple[ModbusValue, ...], Meta(max_length=8)] = ()
    input: Annotated[tuple[ModbusInput, ...], Meta(max_length=32)] = ()
