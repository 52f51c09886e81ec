"""Whatever a reader sends to an application's command, it ends in time, in a payload or a word of the standard, and shows nothing of a card."""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.devices.base import SlotBinding
from edge_agent.devices.guard import guarded
from edge_agent.owner.base import CommandFailed, Request
from edge_agent.owner.id_reader import IdReader
from edge_agent.owner.smart_card import SmartCard
from edge_agent.transports.base import PortStalled
from simulators.models.ccid import class_descriptor
from simulators.models.checksums import xor8
from simulators.models.sdt import SyntheticCard, _content
from tests.edge_agent.devices.bench import PROFILES, in_virtual_time

PLANTED = SyntheticCard("PLANTED", item_number=b"PLNT", card_serial=b"PLANTED!")


def framed(sw3: int, data: bytes = b"") -> bytes:
    body = (len(data) + 4).to_bytes(2, "big") + bytes((0, 0, sw3)) + data
    return b"\xaa\xaa\xaa\x96\x69" + body + bytes((xor8(body),))


CARD = framed(0x90, _content(PLANTED, with_fingerprint=False))
SDT = [
    framed(0x9F, b"PLNT"),
    framed(0x90, b"PLANTED!"),
    CARD,
    CARD[:700],
    framed(0x80),
    framed(0x81),
    framed(0x41),
    framed(0x31),
    b"\xaa\x96\x69",
]
CCID = [
    bytes.fromhex(text)
    for text in (
        "81000000000080000000", "81000000000081000000", "81000000000082000000", "80040000000082000000 3b600000", "80000000000083800200",
        "80020000000083000000 9000", "80030000000083000001 504c4e", "8000000000008241fe00", "8000000000008240fb00",
    )
]  # fmt: skip

DESCRIPTORS = [class_descriptor(level="apdu"), class_descriptor(level="tpdu"), class_descriptor(level="extended")]


class Babbling:
    """One stream on whatever pipe; says the next piece at each read, and nothing more at the end."""

    endpoints_out, endpoints_in = (0x02, 0x06), (0x81, 0x85)
    bulk_out, bulk_in, interrupt_in = (0x02, 0x06), (0x81, 0x85), ()

    def __init__(self, said: list[bytes], descriptor: bytes) -> None:
        self._said, self._descriptor = [piece for piece in said if piece], descriptor

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        if self._said and timeout_s > 0.01:
            head = self._said.pop(0)
            if len(head) > max_bytes:
                self._said.insert(0, head[max_bytes:])
            return head[:max_bytes]
        await asyncio.sleep(timeout_s)
        return b""

    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes:
        return await self.read(max_bytes=max_bytes, timeout_s=timeout_s)

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        return

    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None:
        return

    async def control_in(self, *numbers: int, timeout_s: float) -> bytes:
        return b""

    async def control_out(self, *numbers: object, timeout_s: float) -> None:
        return

    def class_descriptor(self, kind: int) -> bytes:
        return self._descriptor

    async def clear_halt(self, endpoint: int) -> None:
        return

    async def reset(self) -> None:
        return

    async def close(self) -> None:
        return


def ends(server: IdReader | SmartCard, profile: str, port: Babbling, commands: list[tuple[str, dict[str, object]]]) -> list[str]:
    async def work() -> list[str]:
        words = []
        for name, payload in commands:
            request = Request(name=name, payload=payload, timeout_s=4.0)
            try:
                async with asyncio.timeout(60):
                    held = guarded(port)
                    await server.serve(held, SlotBinding(slot="reader", profile=PROFILES[profile]), request, lambda *_: None)
                words.append("success")
            except (CommandFailed, PortStalled) as err:
                words.append(str(err))
        return words

    return in_virtual_time(work())


def pieces(fragments: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.one_of(st.sampled_from(fragments), st.binary(max_size=80)), max_size=25)


@pytest.mark.spec("C-206")
@settings(max_examples=60, deadline=None)
@given(said=pieces(SDT), fingerprint=st.booleans())
def test_a_resident_id_reader(said: list[bytes], fingerprint: bool) -> None:
    server = IdReader()
    words = ends(server, "sdt-usb", Babbling(said, b""), [("CardReader.ReadRawData", {"chip": True, "fingerprint": fingerprint})])
    assert set(words) <= {"success", "timeOut", "invalidMedia", "hardwareError", "the reader does not answer"}
    assert len(server.take_steps()) < 500


@pytest.mark.spec("C-206")
@settings(max_examples=60, deadline=None)
@given(said=pieces(CCID), descriptor=st.one_of(st.binary(max_size=60), st.sampled_from(DESCRIPTORS)))
def test_a_smart_card_reader(said: list[bytes], descriptor: bytes) -> None:
    apdu = base64.b64encode(bytes.fromhex("00b0000000")).decode()
    commands: list[tuple[str, dict[str, object]]] = [
        ("CardReader.ReadRawData", {"chip": True}),
        ("CardReader.ChipIO", {"chipData": apdu}),
        ("CardReader.ChipPower", {"chipPower": "cold"}),
        ("CardReader.ChipIO", {"chipData": apdu}),
    ]
    words = ends(SmartCard(), "feitian-r502", Babbling(said, descriptor), commands)
    assert set(words) <= {
        "success", "timeOut", "invalidMedia", "noMedia", "atrNotObtained", "protocolNotSupported", "hardwareError", "deviceNotReady",
        "invalidData", "the reader does not answer",
    }  # fmt: skip
