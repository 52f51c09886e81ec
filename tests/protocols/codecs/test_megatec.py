"""UPS status: the published examples, every length but the right one, refusals, and that nothing can be switched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import megatec
from protocols.codecs.megatec import Echo, Identity, MegatecReader, NotKnown, Query, Rating, Status
from protocols.errors import EncodeError, FrameError, ProtocolError, UnexpectedReply
from tests.protocols.codecs.feeding import drain, every_cut, feed, only

# Network UPS Tools, drivers/nutdrv_qx_megatec.c prints these three answers as examples.
STATUS = b"(226.0 195.0 226.0 014 49.0 27.5 30.0 00001000\r"
RATING = b"#220.0 000 024.0 50.0\r"
IDENTITY = b"#NOT_A_LIVE_UPS  TESTING    TESTING   \r"


def asking(query: Query) -> MegatecReader:
    reader = MegatecReader()
    reader.expect(query)
    return reader


def test_questions() -> None:
    assert [megatec.encode(query) for query in Query] == [b"Q1\r", b"F\r", b"I\r"]
    assert megatec.usb_chunks(Query.STATUS) == (b"Q1\r\x00\x00\x00\x00\x00",)


@pytest.mark.parametrize("command", ["T", "TL", "T10", "CT", "S.5R0003", "S01", "C", "Q", "Q1", b"S.2\r"])
def test_nothing_that_tests_or_switches_can_be_asked(command: object) -> None:
    with pytest.raises(EncodeError):
        megatec.encode(command)  # type: ignore[arg-type]
    assert not [name for name in dir(megatec) if name.startswith("encode_")]


def test_a_healthy_unit() -> None:
    assert len(STATUS) == 47
    status = only(every_cut(lambda: asking(Query.STATUS), STATUS))
    assert (status.input_tenths, status.fault_tenths, status.output_tenths, status.load_pct) == (2260, 1950, 2260, 14)
    assert (status.frequency_tenths, status.battery_mv, status.per_cell, status.temperature_tenths) == (490, 27_500, False, 300)
    assert status.flags == megatec.Flags(
        utility_fail=False,
        battery_low=False,
        bypass_or_boost=False,
        failed=False,
        line_interactive=True,
        testing=False,
        shutting_down=False,
        beeper=False,
    )
    assert megatec.conditions_of(status) == ()


def test_ratings_and_identity() -> None:
    rating = only(every_cut(lambda: asking(Query.RATING), RATING))
    assert (rating.voltage_tenths, rating.current_a, rating.battery_tenths, rating.frequency_tenths) == (2200, 0, 240, 500)
    identity = only(every_cut(lambda: asking(Query.IDENTITY), IDENTITY))
    assert (identity.maker, identity.model, identity.version) == ("NOT_A_LIVE_UPS", "TESTING", "TESTING")


@pytest.mark.parametrize(
    ("flags", "tails"),
    [
        (b"10001001", ("ON_BATTERY",)),
        (b"11001001", ("ON_BATTERY", "BATTERY_LOW")),
        (b"00100000", ("BYPASS",)),
        (b"00101000", ()),  # line-interactive: boost or buck, which is what it is for
        (b"10100000", ("ON_BATTERY",)),
        (b"00010000", ("UPS_FAILED",)),
        (b"00000100", ()),  # its own test
    ],
)
def test_flags(flags: bytes, tails: tuple[str, ...]) -> None:
    assert megatec.conditions_of(only(feed(asking(Query.STATUS), [STATUS.replace(b"00001000", flags)]))) == tails


def test_overload() -> None:
    status = only(feed(asking(Query.STATUS), [STATUS.replace(b"014", b"112")]))
    assert megatec.conditions_of(status) == ("OVERLOAD",)
    assert megatec.conditions_of(status, overload_above_pct=120) == ()


def test_voltage_of_a_cell_or_of_the_pack() -> None:
    pack = only(feed(asking(Query.STATUS), [STATUS]))
    cell = only(feed(asking(Query.STATUS), [STATUS.replace(b"27.5", b"2.27")]))
    assert megatec.battery_of(pack, 240) == (27_500, 2_292)
    assert megatec.battery_of(cell, 240) == (27_240, 2_270)
    assert megatec.battery_of(pack, None) == (27_500, None)
    assert megatec.battery_of(cell, None) == (None, 2_270)


def test_what_is_not_measured() -> None:
    status = only(feed(asking(Query.STATUS), [STATUS.replace(b"30.0", b"--.-").replace(b"195.0", b"---.-")]))
    assert (status.temperature_tenths, status.fault_tenths, status.input_tenths) == (None, None, 2260)


@pytest.mark.parametrize(
    "spoiled", [STATUS[:-2] + b"\r", STATUS[1:], STATUS[:-1] + b"0\r", STATUS.replace(b".", b",", 1), b"(\r"]
)
def test_an_answer_counts_only_whole(spoiled: bytes) -> None:
    assert isinstance(only(every_cut(lambda: asking(Query.STATUS), spoiled)), FrameError)


@pytest.mark.parametrize(("said", "error"), [(b"Q1\r", Echo), (b"N\r", NotKnown), (b"(NAK\r", NotKnown), (b"NAK\r", NotKnown)])
def test_refusals_are_no_noise(said: bytes, error: type[Exception]) -> None:
    assert type(only(every_cut(lambda: asking(Query.STATUS), said))) is error


def test_a_late_answer_to_another_question() -> None:
    assert isinstance(only(feed(asking(Query.RATING), [STATUS])), UnexpectedReply)


def test_padding_of_the_usb_bridge_is_nothing() -> None:
    padded = b"".join(STATUS[at : at + 8].ljust(8, b"\x00") for at in range(0, 47, 8))
    assert isinstance(only(feed(asking(Query.STATUS), [padded])), Status)


def test_a_line_without_end_is_dropped_and_the_next_is_read() -> None:
    reader = asking(Query.STATUS)
    found = feed(reader, [b"7" * 4000, b"\r", STATUS])
    assert isinstance(found[-1], Status)
    assert {type(item) for item in found[:-1]} == {FrameError}
    assert reader.pending_bytes == 0


def test_silence_and_half_a_line_differ() -> None:
    reader = asking(Query.STATUS)
    assert reader.give_up() is None
    reader.feed(STATUS[:20])
    assert drain(reader) == []
    half = reader.give_up()
    assert half is not None
    assert half.evidence == STATUS[:20]


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([STATUS, RATING, IDENTITY, b"Q1\r"])), max_size=12))
def test_any_bytes(pieces: list[bytes]) -> None:
    for item in feed(MegatecReader(), pieces):
        assert isinstance(item, Status | Rating | Identity | ProtocolError)
