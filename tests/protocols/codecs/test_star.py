"""Star's automatic status: headers and bits as in "STAR Line Mode Command Specifications"."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.canon.words import CoverState, DeviceState, PaperState
from protocols.codecs import star
from protocols.codecs.star import StarReader, StarStatus
from protocols.errors import FrameError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

IDLE = h("23 06 00 00 00 00 00 00 00")


def test_questions() -> None:
    assert star.encode_status_query() == h("1B 06 01")
    assert star.encode_auto_status(on=True) == h("1B 1E 61 01")
    assert star.encode_auto_status(on=False) == h("1B 1E 61 00")
    assert star.encode_mark() == h("17")
    assert star.encode_clear_marks() == h("1B 1E 45 00")


@pytest.mark.parametrize(("header", "length"), [(0x0F, 7), (0x21, 8), (0x23, 9), (0x25, 10), (0x2F, 15)])
def test_the_first_header_says_the_length(header: int, length: int) -> None:
    assert star.length_of(header) == length
    assert only(every_cut(StarReader, bytes((header, 0x06)) + bytes(length - 2))).status[0] == header


@pytest.mark.parametrize(
    ("status", "conditions", "device", "paper", "cover"),
    [
        ("23 06 00 00 00 00 00 00 00", (), DeviceState.ONLINE, PaperState.FULL, CoverState.CLOSED),
        ("23 06 28 00 00 00 00 00 00", ("COVER_OPEN",), DeviceState.USER_ERROR, PaperState.FULL, CoverState.OPEN),
        ("23 06 08 40 00 00 00 00 00", ("HEAD_HOT",), DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED),
        ("23 06 08 08 00 00 00 00 00", ("CUTTER",), DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED),
        ("23 06 08 20 00 00 00 00 00", ("HARDWARE",), DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED),
        ("23 06 08 00 04 00 00 00 00", ("JAM",), DeviceState.HARDWARE_ERROR, PaperState.JAMMED, CoverState.CLOSED),
        ("23 06 08 00 08 00 00 00 00", ("BLACK_MARK",), DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED),
        ("23 06 00 00 00 04 00 00 00", ("PAPER_NEAR_END",), DeviceState.ONLINE, PaperState.LOW, CoverState.CLOSED),
        ("23 06 08 00 00 0C 00 00 00", ("PAPER_OUT",), DeviceState.ONLINE, PaperState.OUT, CoverState.CLOSED),
        ("0F 02 08 00 00 08 00", ("PAPER_OUT",), DeviceState.ONLINE, PaperState.OUT, CoverState.CLOSED),
        ("23 06 08 00 00 00 00 00 00", ("OFFLINE",), DeviceState.OFFLINE, PaperState.FULL, CoverState.CLOSED),
    ],
)
def test_meaning(status: str, conditions: tuple[str, ...], device: DeviceState, paper: PaperState, cover: CoverState) -> None:
    reading = star.reading_of(only(every_cut(StarReader, h(status))).status)
    assert (reading.conditions, reading.device, reading.paper, reading.cover) == (conditions, device, paper, cover)
    assert bool(reading.explanations) == bool(conditions)


def test_the_counter_of_marks() -> None:
    assert StarStatus(h("23 06 00 00 00 00 00 02 00")).marks == 1
    assert StarStatus(h("23 06 00 00 00 00 00 6E 00")).marks == 31
    assert StarStatus(h("0F 02 00 00 00 00 00")).marks is None


def test_flow_control_may_stand_anywhere() -> None:
    assert every_cut(StarReader, h("23 13 06 00 00 11 00 00 00 00 00")) == [StarStatus(IDLE)]


def test_a_status_that_is_cut_costs_only_itself() -> None:
    first, second = every_cut(StarReader, IDLE[:5] + IDLE)
    assert isinstance(first, FrameError)
    assert second == StarStatus(IDLE)


def test_a_header_of_no_known_length_in_the_middle() -> None:
    found = feed(StarReader(), [h("21 05 00") + IDLE])
    assert isinstance(found[0], FrameError)
    assert found[1:] == [StarStatus(IDLE)]


def test_noise_before_and_after() -> None:
    decoder = StarReader()
    assert feed(decoder, [h("80 00 7E") + IDLE + h("04")]) == [StarStatus(IDLE)]
    assert decoder.noise_bytes == 4


statuses = st.builds(
    lambda header, rest: bytes((header, 0x06)) + bytes(byte & 0x6E for byte in rest[: star.length_of(header) - 2]),
    st.sampled_from([0x0F, 0x21, 0x23]),
    st.binary(min_size=7, max_size=7),
)


@settings(deadline=None)
@given(st.lists(statuses, max_size=8))
def test_any_number_of_statuses_comes_apart(sent: list[bytes]) -> None:
    data = b"".join(sent)
    decoder = StarReader()
    decoder.feed(data)
    assert [event.status for event in drain(decoder)] == sent
    assert decoder.noise_bytes == 0


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    for item in feed(StarReader(), pieces):
        if isinstance(item, StarStatus):
            star.reading_of(item.status)
