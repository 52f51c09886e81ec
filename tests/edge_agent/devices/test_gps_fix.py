"""When a position is believed: only where the receiver itself says that it has one."""

from __future__ import annotations

import datetime as dt

import pytest

from edge_agent.devices.gps import coarse
from edge_agent.devices.gps_fix import Fix, FixTracker, date_is_wrong
from protocols.codecs.nmea import NmeaReader

WALL_MS = int(dt.datetime(2026, 1, 21, 2, 34, tzinfo=dt.UTC).timestamp() * 1000)
WHERE = "3112.3456,N,12128.7654,E"
RMC = f"GNRMC,023456.00,A,{WHERE},12.34,056.7,210126,,,A"
GGA = f"GNGGA,023456.00,{WHERE},1,12,0.80,15.2,M,8.0,M,,"


def take(*sentences: str) -> Fix | None:
    tracker, reader = FixTracker(), NmeaReader()
    for body in sentences:
        check = 0
        for byte in body.encode():
            check ^= byte
        reader.feed(f"${body}*{check:02X}\r\n".encode())
        sentence = reader.next_event()
        assert sentence is not None
        tracker.feed(sentence)
    return tracker.take()


def test_the_published_pair() -> None:
    fix = take(RMC, GGA)
    assert fix is not None
    assert (fix.grade, fix.satellites, fix.hdop_tenths, fix.date) == ("gps", 12, 8, dt.date(2026, 1, 21))
    place = coarse(fix)
    assert (place.lat_e4, place.lon_e4) == (312_060, 1_214_790)
    assert "31" not in repr(fix).replace("hdop_tenths", "") or "121" not in repr(fix)


@pytest.mark.spec("C-212")
@pytest.mark.parametrize(
    "sentences",
    [
        ("GPRMC,,V,,,,,,,,,,N",),
        ("GNRMC,,V,,,,,,,,,,N", "GNGGA,,,,,,0,00,99.99,,,,,,"),
        (f"GNRMC,023456.00,V,{WHERE},,,210126,,,N", GGA.replace("E,1,", "E,0,")),  # the last known place, told as void
        (f"GNRMC,023456.00,V,{WHERE},,,210126,,,N", GGA),  # the two contradict each other
        (RMC, GGA.replace("E,1,", "E,0,")),
        (RMC.replace(",A", ",E", 1).replace(",,,A", ",,,E"), GGA.replace("E,1,", "E,6,")),  # guessed from wheels and gyroscope
        (RMC.replace(",,,A", ",,,M"), GGA.replace("E,1,", "E,7,")),  # typed in
        (RMC.replace(",,,A", ",,,S"), GGA.replace("E,1,", "E,8,")),  # simulated
        (RMC.replace(WHERE, ",,,"), GGA.replace(WHERE, ",,,")),
        (RMC.replace(WHERE, "0000.0000,N,00000.0000,E"), GGA.replace(WHERE, "0000.0000,N,00000.0000,E")),
        (RMC.replace("3112.3456", "9912.3456"), GGA.replace("3112.3456", "9912.3456")),
        ("GNGSV,1,1,00",),
    ],
)
def test_no_fix_yields_no_position(sentences: tuple[str, ...]) -> None:
    assert take(*sentences) is None


def test_a_receiver_that_sends_rmc_only() -> None:
    fix = take(RMC.replace("GN", "BD", 1))
    assert fix is not None
    assert (fix.grade, fix.satellites, fix.hdop_tenths) == ("gps", 0, None)


@pytest.mark.parametrize(
    ("quality", "hdop", "grade"), [("1", "5.00", "gps"), ("1", "5.10", "poor"), ("2", "0.90", "dgps"), ("4", "0.60", "rtk")]
)
def test_grades(quality: str, hdop: str, grade: str) -> None:
    fix = take(RMC, GGA.replace("E,1,", f"E,{quality},").replace("0.80", hdop))
    assert fix is not None
    assert fix.grade == grade


def test_nothing_is_kept_from_one_look_to_the_next() -> None:
    tracker, reader = FixTracker(), NmeaReader()
    reader.feed(b"$GNGGA,023456.00,3112.3456,N,12128.7654,E,1,12,0.80,15.2,M,8.0,M,,*4C\r\n")
    sentence = reader.next_event()
    assert sentence is not None
    tracker.feed(sentence)
    assert tracker.take() is not None
    assert tracker.take() is None


@pytest.mark.parametrize(
    ("date", "sure", "wrong"),
    [
        (dt.date(2026, 1, 21), True, False),
        (dt.date(2026, 1, 22), True, False),  # midnight passed between the two
        (dt.date(2026, 1, 23), True, True),
        (dt.date(2026, 1, 23), False, False),  # our own clock may be the wrong one
        (dt.date(2006, 6, 7), False, True),  # 1,024 weeks ago
        (dt.date(1980, 1, 6), False, True),
        (dt.date(2079, 1, 6), False, True),  # two digits of 1979
    ],
)
def test_dates(date: dt.date, sure: bool, wrong: bool) -> None:
    assert date_is_wrong(date, WALL_MS, wall_is_sure=sure) is wrong


def test_the_poles_and_the_other_hemispheres() -> None:
    fix = take(RMC.replace(WHERE, "3412.3456,S,05822.1000,W"))
    assert fix is not None
    place = coarse(fix)
    assert (place.lat_e4, place.lon_e4) == (-342_060, -583_680)
