"""NMEA framing: published sentences, binary between them, half and endless lines; coordinates leave in no evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import nmea
from protocols.codecs.nmea import NmeaReader, Sentence
from protocols.errors import ChecksumError, FrameError, ProtocolError
from tests.protocols.codecs.feeding import every_cut, feed, h, only

# SiRF NMEA Reference Manual, tables 1-3 and 1-10.
GGA = b"$GPGGA,161229.487,3723.2475,N,12158.3416,W,1,07,1.0,9.0,M,,,,0000*18\r\n"
RMC = b"$GPRMC,161229.487,A,3723.2475,N,12158.3416,W,0.13,309.62,120598,,*10\r\n"
NO_FIX = b"$GPRMC,,V,,,,,,,,,,N*53\r\n"
UBX = h("B5 62 06 08 06 00 C8 00 01 00 01 00 DE 6A")
"""u-blox 8 Receiver Description, UBX-CFG-RATE at 5 Hz, as printed in integration notes."""


def test_sentences_of_any_talker() -> None:
    found = every_cut(NmeaReader, GGA + RMC + b"$BDGSV,1,1,00*68\r\n")
    assert [(one.talker, one.kind) for one in found] == [("GP", "GGA"), ("GP", "RMC"), ("BD", "GSV")]


def test_a_position_is_in_no_repr() -> None:
    assert "3723" not in repr(only(feed(NmeaReader(), [RMC])))


def test_binary_messages_are_skipped_wherever_they_stand() -> None:
    reader = NmeaReader()
    assert [one.kind for one in feed(reader, [UBX + GGA + UBX + UBX[:5]])] == ["GGA"]
    assert reader.binary_frames == 2
    assert [one.kind for one in feed(reader, [UBX[5:] + RMC])] == ["RMC"]
    assert reader.noise_bytes == 0


def test_a_binary_head_that_lies_swallows_nothing() -> None:
    assert [one.kind for one in feed(NmeaReader(), [b"\xb5\x62\x01\x07\xff\xff" + GGA])] == ["GGA"]
    spoiled = UBX[:-1] + b"\x00"
    assert [one.kind for one in feed(NmeaReader(), [spoiled + GGA])] == ["GGA"]


def test_a_spoiled_sentence_tells_its_name_and_nothing_else() -> None:
    error = only(every_cut(NmeaReader, RMC.replace(b"3723", b"3724")))
    assert isinstance(error, ChecksumError)
    assert error.evidence.startswith(b"$GPRMC\x00")
    assert not error.evidence[6:].strip(b"\x00")


def test_half_a_line_and_the_one_behind_it() -> None:
    first, second = every_cut(NmeaReader, RMC[:30] + GGA)
    assert isinstance(first, FrameError)
    assert b"3723" not in first.evidence
    assert second.kind == "GGA"


def test_a_line_without_end() -> None:
    found = feed(NmeaReader(), [b"$GPRMC,1", b"2" * 5000, b"\r\n", GGA])
    assert isinstance(found[0], FrameError)
    assert b"2" not in found[0].evidence
    assert found[-1].kind == "GGA"


@pytest.mark.spec("C-213")
def test_coordinates_and_what_narrows_them_down_are_blanked() -> None:
    place = [b"3723.2475", b"N", b"12158.3416", b"W"]
    for sentence, more in ((RMC, [b"0.13", b"309.62"]), (GGA, [b"9.0"])):
        reply, spans = nmea.blanked(sentence)
        assert [sentence[start:end] for start, end in spans] == [*place, *more]
        assert len(reply) == len(sentence)
        assert reply.startswith(sentence[:7])
        assert all(not reply[start:end].strip(b"\x00") for start, end in spans)
    high = b"$GPGGA,161229.487,3723.2475,N,12158.3416,W,1,07,1.0,431.7,M,-25.3,M,,0000*00\r\n"
    assert not {b"431.7", b"-25.3"} & set(nmea.blanked(high)[0].split(b","))
    assert b",1,07,1.0," in nmea.blanked(high)[0]
    assert nmea.blanked(NO_FIX) == (NO_FIX, ())
    for short in (
        b"$GPRMC,1,A,3723.2475,N,12158.3416,W*00\r\n",
        b"$GPRMC,1,A,3723.2475*00\r\n",
        b"$GPGGA,1,3723.2475,N,12158.34",
    ):
        assert not any(part in nmea.blanked(short)[0] for part in (b"3723", b"12158"))
    gll = b"$GPGLL,3723.2475,N,12158.3416,W,161229.487,A*2C\r\n"
    assert b"3723" not in nmea.blanked(gll)[0]


def test_what_is_underlined() -> None:
    (status,) = nmea.explain(b"", NO_FIX)
    assert (status.key, NO_FIX[status.offset : status.offset + 1]) == ("nmea.no_fix", b"V")
    quality, hdop = nmea.explain(b"", nmea.blanked(GGA)[0])
    assert (quality.key, GGA[quality.offset : quality.offset + 1]) == ("nmea.valid", b"1")
    assert GGA[hdop.offset : hdop.offset + hdop.length] == b"1.0"


@given(
    st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([GGA, RMC, NO_FIX, UBX, RMC[:25], b"$", b"\xb5"])), max_size=12)
)
def test_any_bytes(pieces: list[bytes]) -> None:
    for item in feed(NmeaReader(), pieces):
        assert isinstance(item, Sentence | ProtocolError)
        if isinstance(item, ProtocolError):
            assert b"3723" not in item.evidence
