"""A port has no name: a scanner in the socket of another device is heard by that device's driver, and what it reads stays out of every record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from protocols.codecs import card_f2, card_stx
from protocols.codecs.common import xor8
from protocols.contract.records import Device
from simulators.models.base import Model
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.rating import PadForm, RatingPad
from simulators.models.ups import Ups
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import Bench, Records, in_virtual_time

PLANTED = (b"330106199001011234", b"(330106199001011234 ZHANG", b"ZHANGSAN")


MODELS: dict[str, Callable[[], Model]] = {
    "ups": Ups,
    "evaluator": RatingPad,
    "evaluator-frames": lambda: RatingPad(form=PadForm(framed=True)),
    "sensors": lambda: ModbusBus(ClimateModule(1), DoorModule(2)),
}


def parts(planted: bytes) -> list[bytes]:
    return [planted[at : at + 6] for at in range(len(planted) - 5)]


def holds(records: Records, planted: bytes) -> bool:
    return any(part in records.encoded for part in parts(planted))


@pytest.mark.parametrize("end", [b"\r", b"\n", b""])
@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("place", ["ups", "evaluator", "evaluator-frames", "sensors"])
def test_what_a_scanner_reads_in_another_devices_socket_is_in_no_record(place: str, planted: bytes, end: bytes) -> None:
    async def story() -> None:
        model: Model = MODELS[place]()
        profile = {"evaluator": "evaluator-serial-byte", "evaluator-frames": "evaluator-serial-frame"}.get(place)
        slot = Slot(place.split("-", maxsplit=1)[0], model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340, profile=profile)
        heard = []
        model.on_bytes = lambda data, now: heard.append(data)  # type: ignore[method-assign]  # somebody else is plugged in
        async with Bench(slot) as bench:
            for _ in range(30):
                await asyncio.sleep(7.03)
                model.emit(planted + end, asyncio.get_running_loop().time())
            assert bench.records.of(Device)
            assert not holds(bench.records, planted)

    in_virtual_time(story())


def framed(head: bytes, body: bytes) -> bytes:
    whole = head + body + b"\x03"
    return whole + bytes((xor8(whole),))


def test_the_longest_answer_of_a_card_unit_fits_into_a_record() -> None:
    f2 = card_f2.F2Reader()
    body = b"\x50" + b"10" + b"000" + b"7" * (card_f2.LEN_MAX - 6)
    f2.feed(framed(bytes((0xF2, 0)) + len(body).to_bytes(2, "big"), body))
    stx = card_stx.StxReader()
    said = b"10" + b"N" * (card_stx.LEN_MAX - 2)
    stx.feed(framed(bytes((card_stx.START,)) + len(said).to_bytes(2, "big"), said))
    for reader in (f2, stx):
        answer = reader.next_event()
        assert answer is not None
        assert len(answer.evidence) <= 512  # type: ignore[union-attr]  # no handshake byte
