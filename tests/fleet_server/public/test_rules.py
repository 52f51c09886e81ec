"""What citizens are told, rule by rule."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fleet_server.public.opening import opening, readable, week_lines
from fleet_server.public.rows import AreaRow, DeviceRow, FaultRow, Live, Places, SiteRow, SlotRow, TerminalRow
from fleet_server.public.rules import View, Word, blocks, chosen, is_position, judge, neighbours
from fleet_server.public.services import SERVICES, function_of, offered, topics_of
from fleet_server.sites.calendar import builtin_calendar
from fleet_server.sites.distance import distance_km
from protocols.canon.faults import FAULTS

ZONE = ZoneInfo("Asia/Shanghai")
HALL = json.dumps({day: [["09:00", "12:00"], ["13:30", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")})
ALWAYS = '{"always": true}'
KIOSK = (SlotRow("id-reader", "id-reader"), SlotRow("laser-printer", "a4-printer"), SlotRow("scanner", "scanner"))
FINE = DeviceRow("online", "full", "full", "closed", False)
MINUTE = 60_000


def at(day: int, hour: int, minute: int = 0) -> int:
    """November 2026; the 18th is a Wednesday."""
    return int(datetime(2026, 11, day, hour, minute, tzinfo=ZONE).timestamp() * 1000)


NOW = at(18, 10, 42)


def terminal(**changes: Any) -> TerminalRow:
    values: dict[str, Any] = {
        "site": "s1",
        "type": "kiosk",
        "slots": KIOSK,
        "created_ms": 1,
        "enrolled_ms": 2,
        "maintenance_until_ms": None,
        "heard_ms": NOW - 5_000,
        "presence": "online",
        "presence_cause": "heard",
        "presence_ms": NOW - 3_600_000,
        "devices": {slot.name: FINE for slot in KIOSK},
    }
    return TerminalRow(**{**values, **changes})


def site(code: str = "s1", **changes: Any) -> SiteRow:
    values: dict[str, Any] = {
        "area": "a1", "name_zh": "大厅", "name_en": "Hall", "kind": "hall", "address_zh": "", "lat": 29.0, "lon": 119.0, "hours": ALWAYS,
        "timezone": "Asia/Shanghai", "phone": "",
    }  # fmt: skip
    return SiteRow(code=code, **{**values, **changes})


AREAS = {
    "city": AreaRow(code="city", parent=None, name_zh="市", name_en="City", sort=0),
    "a1": AreaRow(code="a1", parent="city", name_zh="一区", name_en="One", sort=1),
}


def see(
    *terminals: TerminalRow, sites: tuple[SiteRow, ...] = (site(),), now_ms: int = NOW, items: Any = None, **live: Any
) -> View:
    rows = Live(read_ms=now_ms, terminals=terminals, **{"mark_ms": now_ms, "gaps": (), **live})
    return judge(rows, Places(sites=sites, areas=AREAS, calendar=builtin_calendar()), items or {}, now_ms)


def words(view: View, code: str = "s1") -> dict[str, str]:
    return {one.service.code: one.word.value for one in view.by_code[code].services}


def test_a_terminal_that_is_heard_and_whole_is_available() -> None:
    seen = see(terminal())
    assert seen.by_code["s1"].word is Word.AVAILABLE
    assert words(seen) == {"print-certificates": "available", "read-id": "available", "scan-code": "available"}


def test_a_fault_takes_away_only_what_needs_the_faulty_device() -> None:
    seen = see(terminal(faults=(FaultRow("LSR.PAPER_OUT", "P2", "laser-printer"),)))
    assert words(seen) == {"print-certificates": "unavailable", "read-id": "available", "scan-code": "available"}
    assert seen.by_code["s1"].word is Word.PARTIAL


def test_another_terminal_of_the_site_steps_in() -> None:
    broken = terminal(faults=(FaultRow("LSR.PAPER_OUT", "P2", "laser-printer"),))
    seen = see(broken, terminal())
    assert words(seen)["print-certificates"] == "available"
    assert seen.by_code["s1"].word is Word.AVAILABLE


def test_a_service_stays_away_while_its_device_says_so_before_any_fault_opens() -> None:
    for bad in (
        DeviceRow("online", "out", "full", "closed", False),
        DeviceRow("online", "jammed", "full", "closed", False),
        DeviceRow("online", "full", "out", "closed", False),
        DeviceRow("online", "full", "full", "open", False),
        DeviceRow("noDevice", "unknown", "unknown", "unknown", False),
    ):
        devices = {slot.name: FINE for slot in KIOSK} | {"laser-printer": bad}
        assert words(see(terminal(devices=devices)))["print-certificates"] == "unavailable", bad


def test_a_device_nobody_heard_of_is_unknown_and_a_taciturn_one_is_believed() -> None:
    assert words(see(terminal(devices={})))["print-certificates"] == "unknown"
    silent = {slot.name: FINE for slot in KIOSK} | {"laser-printer": DeviceRow("unknown", "unknown", "unknown", "unknown", True)}
    assert words(see(terminal(devices=silent)))["print-certificates"] == "available"


@pytest.mark.parametrize("code", ["APP.NOT_RUNNING", "TCH.NO_RESPONSE", "DSP.NO_SIGNAL", "NET.OFFLINE", "ENV.SMOKE", "SEC.CLONE"])
def test_some_faults_take_everything_away(code: str) -> None:
    seen = see(terminal(faults=(FaultRow(code, FAULTS[code].severity.value, None),)))
    assert seen.by_code["s1"].word is Word.UNAVAILABLE


@pytest.mark.parametrize(
    "code", ["LSR.TONER_LOW", "PRN.PAPER_NEAR_END", "USE.IDLE_14D", "HOST.CPU_HIGH", "EVA.BUS_DOWN", "KPD.STUCK_KEY"]
)
def test_some_faults_take_nothing_away(code: str) -> None:
    seen = see(terminal(faults=(FaultRow(code, FAULTS[code].severity.value, "evaluator"),)))
    assert seen.by_code["s1"].word is Word.AVAILABLE


def test_every_fault_of_the_catalogue_has_a_verdict_and_every_grave_one_of_a_device_takes_it_away() -> None:
    for code, kind in FAULTS.items():
        verdict = blocks(FaultRow(code, kind.severity.value, "laser-printer"))
        if kind.severity.value == "P2":
            assert verdict is not None, code
        if kind.severity.value == "P4":
            assert verdict is None, code
    assert blocks(FaultRow("SCN.UNPLUGGED", "P3", "scanner")) == "device"
    assert blocks(FaultRow("LSR.OUTPUT_NOT_TAKEN", "P3", "laser-printer")) is None


def test_a_service_behind_the_terminal_takes_its_function_away() -> None:
    seen = see(terminal(faults=(FaultRow("SVC.AUTH_SERVICE", "P2", None),)))
    assert words(seen) == {"print-certificates": "available", "read-id": "unavailable", "scan-code": "available"}


def test_silence_is_never_available() -> None:
    for presence, wanted in (
        ("suspect", Word.UNKNOWN),
        ("unknown", Word.UNKNOWN),
        ("offline", Word.UNAVAILABLE),
        ("stopped", Word.UNAVAILABLE),
    ):
        seen = see(terminal(presence=presence, heard_ms=NOW - 10 * MINUTE))
        assert seen.by_code["s1"].word is wanted, presence
    assert see(terminal(presence=None)).by_code["s1"].word is Word.UNKNOWN


def test_a_silent_site_says_when_it_was_last_heard_and_a_fresh_one_leaves_that_to_the_page() -> None:
    assert see(terminal()).by_code["s1"].heard_ms is None
    assert see(terminal(presence="offline", heard_ms=NOW - 10 * MINUTE - 17_000)).by_code["s1"].heard_ms == at(18, 10, 31)


def test_maintenance_is_unavailable_with_its_end() -> None:
    seen = see(terminal(maintenance_until_ms=at(18, 12)), terminal(maintenance_until_ms=at(18, 15)))
    assert (seen.by_code["s1"].word, seen.by_code["s1"].back_ms) == (Word.UNAVAILABLE, at(18, 12))
    assert {(one.word, one.back_ms) for one in seen.by_code["s1"].services} == {(Word.UNAVAILABLE, at(18, 12))}
    assert see(terminal(maintenance_until_ms=at(18, 12)), terminal()).by_code["s1"].word is Word.AVAILABLE
    assert see(terminal(maintenance_until_ms=at(18, 10))).by_code["s1"].word is Word.AVAILABLE, "maintenance that is over"


def test_a_blind_platform_knows_nothing_but_hours() -> None:
    sites = (site(), site("s2", hours='{"mon": [["09:00", "12:00"]]}'))
    for blind in ({"mark_ms": NOW - 61_000}, {"gaps": ((NOW - 90_000, "broker"),)}, {"gaps": ((NOW - 90_000, "ingest"),)}):
        seen = see(terminal(), terminal(site="s2"), sites=sites, **blind)
        assert seen.blind
        assert seen.by_code["s1"].word is Word.UNKNOWN
        assert set(words(seen).values()) == {"unknown"}
        assert seen.by_code["s2"].word is Word.CLOSED
    assert not see(terminal(), gaps=((NOW - 90_000, "silence"),)).blind


def test_rows_that_grow_old_become_unknown() -> None:
    rows = Live(read_ms=NOW, terminals=(terminal(),), mark_ms=None, gaps=())
    places = Places(sites=(site(),), areas=AREAS, calendar=builtin_calendar())
    assert judge(rows, places, {}, NOW + 30_000).by_code["s1"].word is Word.AVAILABLE
    old = judge(rows, places, {}, NOW + 60_000)
    assert (old.by_code["s1"].word, old.blind) == (Word.UNKNOWN, True)
    assert old.minute_ms == NOW, "and they do not pretend to be of now"


def test_hours_come_first() -> None:
    sites = (site(hours=HALL),)
    assert see(terminal(), sites=sites, now_ms=at(18, 12, 30)).by_code["s1"].word is Word.CLOSED
    assert see(terminal(presence="offline"), sites=sites, now_ms=at(21, 10)).by_code["s1"].word is Word.CLOSED, "a Saturday"
    assert see(terminal(heard_ms=at(18, 9)), sites=sites, now_ms=at(18, 9)).by_code["s1"].word is Word.AVAILABLE


def test_hours_that_nobody_entered_hide_nothing() -> None:
    for hours in ("{}", "not json", '{"mon": [["17:00", "09:00"]]}'):
        seen = see(terminal(), sites=(site(hours=hours),)).by_code["s1"]
        assert (seen.word, seen.opening.known) == (Word.AVAILABLE, False), hours


def test_only_places_with_terminals_are_shown() -> None:
    assert [one.code for one in see(terminal(), sites=(site(), site("empty"))).sites] == ["s1"]


def test_the_version_follows_what_is_shown_and_nothing_else() -> None:
    first = see(terminal())
    assert see(terminal(heard_ms=NOW - 1_000)).version == first.version, "a heartbeat changes nothing that is shown"
    assert see(terminal(presence="offline")).version != first.version
    assert see(terminal(heard_ms=NOW + 50_000), now_ms=NOW + MINUTE).version != first.version, "the age is shown to the minute"


# Opening --------------------------------------------------------------------------------------------------------------------------------


def test_opening_says_until_when_and_from_when() -> None:
    calendar = builtin_calendar()
    hours = readable(HALL)
    morning = opening(hours, calendar, "Asia/Shanghai", at(18, 10))
    assert (morning.is_open, morning.until_ms, morning.again_ms, morning.next_ms) == (True, at(18, 12), at(18, 13, 30), None)
    noon = opening(hours, calendar, "Asia/Shanghai", at(18, 12))
    assert (noon.is_open, noon.next_ms) == (False, at(18, 13, 30))
    evening = opening(hours, calendar, "Asia/Shanghai", at(20, 17))
    assert evening.next_ms == at(23, 9), "after a Friday comes Monday"
    assert morning.today == ((540, 720), (810, 1020))


def test_opening_over_midnight_is_one_time() -> None:
    nights = json.dumps({"wed": [["18:00", "24:00"]], "thu": [["00:00", "02:00"]]})
    late = opening(readable(nights), builtin_calendar(), "Asia/Shanghai", at(18, 23))
    assert late.until_ms == at(19, 2)


def test_a_holiday_and_a_moved_working_day() -> None:
    hours, calendar = readable(HALL), builtin_calendar()
    national_day = int(datetime(2026, 10, 1, 10, tzinfo=ZONE).timestamp() * 1000)
    assert not opening(hours, calendar, "Asia/Shanghai", national_day).is_open
    assert opening(hours, calendar, "Asia/Shanghai", national_day).next_ms is not None
    make_up = next(day for day in sorted(calendar.work) if day.year == 2026)
    worked = int(datetime(make_up.year, make_up.month, make_up.day, 10, tzinfo=ZONE).timestamp() * 1000)
    assert make_up.weekday() >= 5
    assert opening(hours, calendar, "Asia/Shanghai", worked).is_open


def test_week_lines_join_equal_days() -> None:
    hours = readable(HALL)
    assert hours is not None
    assert [(line.days, bool(line.spans)) for line in week_lines(hours)] == [
        ((0, 1, 2, 3, 4), True),
        ((5, 6), False),
        ((), False),
    ]


# The catalogue --------------------------------------------------------------------------------------------------------------------------


def test_what_a_slot_is_for() -> None:
    assert function_of("laser-printer", "a4-printer") == "laser-printer"
    assert function_of("laser-printer-2", "vendor-word") == "laser-printer"
    assert function_of("printer", "id_reader") == "id-reader"
    assert function_of("door", "contacts") is None


def test_items_decide_where_devices_do_not() -> None:
    fitted = {one.code for one in offered(frozenset({"id-reader"}), "kiosk", ())}
    assert fitted == {"read-id"}
    seen = {one.code for one in offered(frozenset({"id-reader"}), "kiosk", ("tax.balance.query", "appointment.hall.book"))}
    assert seen == {"read-id", "enquire", "book"}
    assert "video-help" in {one.code for one in offered(frozenset(), "booth", ())}
    assert [topic.code for topic in topics_of(("tax.payment.print", "strange.thing"))] == ["tax"]


def test_the_catalogue_is_whole() -> None:
    codes = [service.code for service in SERVICES]
    assert len(set(codes)) == len(codes)
    functions = {function for service in SERVICES for function in service.needs}
    assert functions <= {"id-reader", "laser-printer", "receipt-printer", "scanner"}
    assert all(service.items for service in SERVICES if service.shown == "used")


# Places ---------------------------------------------------------------------------------------------------------------------------------


def test_distance_is_the_great_circle() -> None:
    # Jinhua to Yiwu by the divisions' seats, from the angle between the two unit vectors on a sphere of the same radius.
    assert distance_km(29.0863, 119.5716, 29.3063, 120.0751) == pytest.approx(54.654, abs=0.001)
    assert distance_km(29.0, 119.0, 29.0, 119.0) == 0
    assert distance_km(0.0, 0.0, 0.0, 180.0) == pytest.approx(20015.1, abs=0.2), "half of the way around"


def test_positions_that_are_none() -> None:
    assert not is_position(None, 119.0)
    assert not is_position(0.0, 0.0)
    assert not is_position(129.0, 29.0)
    assert is_position(29.0, 119.0)


def test_choosing_and_neighbours() -> None:
    sites = (site(), site("s2", name_zh="车站", lat=29.01), site("s3", area="city", lat=29.5), site("s4", lat=None, lon=None))
    seen = see(*(terminal(site=one.code) for one in sites), sites=sites)
    assert {one.code for one in chosen(seen, area="a1")} == {"s1", "s2", "s4"}
    assert {one.code for one in chosen(seen, area="city")} == {"s1", "s2", "s3", "s4"}
    assert [one.code for one in chosen(seen, words="车站 一区")] == ["s2"]
    assert [one.code for one, _ in neighbours(seen, seen.by_code["s1"], most=5)] == ["s2", "s3"]
    assert neighbours(seen, seen.by_code["s4"], most=5) == []


@pytest.mark.parametrize(
    ("phone", "shown"),
    [("0579-8246 0000", "0579-8246 0000"), ("12345", "12345"), ("ask Mr X", ""), ("+86 (579) 8246", "+86 (579) 8246")],
)
def test_only_what_is_a_telephone_number_is_shown_as_one(phone: str, shown: str) -> None:
    assert see(terminal(), sites=(site(phone=phone),)).by_code["s1"].phone == shown
