"""The models of a UPS and of a position receiver against what their makers print, and a van's simulated past."""

from __future__ import annotations

import datetime as dt

import pytest
from pynmeagps import NMEAReader

from protocols.contract.records import Position
from simulators.history import Inventory, day_records
from simulators.models.gps import GpsReceiver, Stop
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.population import plan_fleet
from simulators.traffic import Case, terminal_history

EPOCH_S = dt.datetime(2026, 5, 5, 2, 0, tzinfo=dt.UTC).timestamp()
INVENTORY = Inventory(frozenset({"id-reader", "gps"}), frozenset({"id-reader"}))


def asked(model: Ups, line: bytes, now: float = 1.0) -> bytes:
    model.feed(line, now)
    return model.take(now + 5, 500)


def test_a_status_has_its_47_characters() -> None:
    assert asked(Ups(), b"Q1\r") == b"(226.0 195.0 226.0 014 50.0 27.5 30.0 00001000\r"
    assert asked(Ups(online=True, per_cell=True), b"Q1\r") == b"(226.0 195.0 226.0 014 50.0 2.29 30.0 00000000\r"
    for fault in ("mains-lost", "battery-worn", "overload", "ups-failed", "bypass", "battery-low"):
        model = Ups()
        model.set(fault, 0.0)
        assert len(asked(model, b"Q1\r")) == 47
    model = Ups()
    model.set("wrong-length", 0.0)
    assert len(asked(model, b"Q1\r")) == 46


def test_ratings_identity_and_the_rest_is_sent_back() -> None:
    assert asked(Ups(), b"F\r") == b"#220.0 005 024.0 50.0\r"
    assert len(asked(Ups(), b"I\r")) == 39
    model = Ups(tells_identity=False)
    assert asked(model, b"I\r") == b"I\r"
    assert asked(model, b"S.5R0003\r", 10.0) == b"S.5R0003\r"
    assert model.commands == [b"S.5R0003"]


def test_the_bridge_takes_and_gives_eight_bytes_at_a_time() -> None:
    model = Ups(usb=USB_CYPRESS)
    assert model.control(0x21, 0x09, 0x0200, 0, 0, b"Q1\r".ljust(8, b"\x00"), 1.0) == b""
    first = model.take(5.0, 8, endpoint=0x81)
    assert first == b"(226.0 1"
    rest = model.take(5.0, 100, endpoint=0x81)
    assert (first + rest).rstrip(b"\x00").endswith(b"00001000\r")
    assert len(first + rest) == 48
    assert model.control(0x21, 0x09, 0x0300, 0, 0, b"Q1\r", 6.0) is None


def test_a_receiver_says_what_another_decoder_reads() -> None:
    model = GpsReceiver(epoch_s=EPOCH_S, route=(Stop(-29.123456, 119.654321),))
    model.take(99.5, 10_000)
    found = {
        message.msgID: message for line in model.take(101.2, 10_000).splitlines() if (message := NMEAReader.parse(line + b"\r\n"))
    }
    assert found["RMC"].status == "A"
    assert (found["GGA"].lat, found["GGA"].lon) == (pytest.approx(-29.123456, abs=1e-6), pytest.approx(119.654321, abs=1e-6))
    assert (found["RMC"].date, found["RMC"].time.minute) == (dt.date(2026, 5, 5), 1)
    assert (found["GGA"].numSV, found["GGA"].HDOP) == (12, 0.8)


def test_a_route_is_driven_and_stood_at() -> None:
    here, there = Stop(29.0, 119.0, 600), Stop(29.1, 119.0, 600)
    model = GpsReceiver(epoch_s=EPOCH_S, route=(here, there), speed_m_s=11.1195)  # 1,000 s for 0.1 degrees
    assert model.place_at(0) == (29.0, 119.0, 0.0)
    assert model.place_at(599)[:2] == (29.0, 119.0)
    assert model.place_at(1100)[0] == pytest.approx(29.05)
    assert model.place_at(1700)[:2] == (29.1, 119.0)
    assert model.place_at(3200 + 100)[:2] == (29.0, 119.0)


@pytest.mark.parametrize(("fault", "date"), [("rollover", dt.date(2006, 9, 19)), ("clock-1980", dt.date(1980, 1, 6))])
def test_dates_that_are_wrong(fault: str, date: dt.date) -> None:
    model = GpsReceiver(epoch_s=EPOCH_S)
    model.take(99.5, 10_000)
    model.set(fault, 99.6)
    line = model.take(101.2, 10_000).splitlines()[0]
    assert NMEAReader.parse(line + b"\r\n").date == date


@pytest.mark.spec("C-211")
def test_a_vans_past_has_places_between_its_cases() -> None:
    plan = next(one for one in plan_fleet().terminals if one.kind == "van")
    told = 0
    for day in terminal_history(plan, dt.date(2026, 5, 6), 5):
        records = day_records(plan, INVENTORY, day).told
        assert [one.at_ms for one in records] == sorted(one.at_ms for one in records)
        cases = [event for event in day.events if isinstance(event, Case)]
        for one in records:
            if isinstance(one.body, Position):
                told += 1
                assert not any(case.began_ms <= one.at_ms <= case.at_ms for case in cases)
    assert 20 < told < 120
    other = next(one for one in plan_fleet().terminals if one.kind == "kiosk")
    (day,) = terminal_history(other, dt.date(2026, 5, 6), 1)
    assert not any(isinstance(one.body, Position) for one in day_records(other, INVENTORY, day).told)
