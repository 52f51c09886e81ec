"""Why a channel was not told is what the planner itself goes by, said in one word and a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet_server.notifications.filters import Filters
from fleet_server.notifications.planner import GATHER_MS, LATE_MS, Hold, Listener, PlatformState, why
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, NOON_MS, ZONE, Desk, kinds


def why_of(desk: Desk, subject: str) -> Hold:
    rows = [fault for fault in desk.faults.values() if fault.subject == subject and fault.cleared_ms is None]
    return why(desk.now_ms, desk.seen(), Listener(id=1, filters=desk.filters, zone=ZONE), desk.sent, rows)


JAM = "kf-1|PRN.JAM"


def test_a_muted_fault_is_told_when_its_mute_ends_and_it_still_lasts() -> None:
    desk = Desk(filters=Filters(quiet={}, escalate_min={}))
    key = desk.opened("kf-1", ago_ms=MINUTE_MS)
    desk.mutes[key] = desk.now_ms + HOUR_MS
    assert why_of(desk, JAM) == Hold("muted", NOON_MS + HOUR_MS)
    assert desk.settle(59 * MINUTE_MS, step_ms=30_000) == []
    assert [kinds(digest) for digest in desk.settle(3 * MINUTE_MS)] == [[("opened", JAM)]]
    assert why_of(desk, JAM).word == "told"


def test_a_muted_fault_that_is_over_before_its_mute_is_never_told() -> None:
    desk = Desk(filters=Filters(quiet={}, escalate_min={}))
    key = desk.opened("kf-1", ago_ms=MINUTE_MS)
    desk.mutes[key] = desk.now_ms + HOUR_MS
    desk.settle(30 * MINUTE_MS, step_ms=30_000)
    desk.clear(key)
    assert desk.settle(60 * MINUTE_MS, step_ms=30_000) == []


def test_of_two_places_with_one_fault_the_one_that_is_not_muted_is_told() -> None:
    desk = Desk(filters=Filters(quiet={}))
    muted, loud = desk.opened("kf-1", ago_ms=MINUTE_MS), desk.opened("kf-1", ago_ms=MINUTE_MS)
    desk.mutes[muted] = desk.now_ms + HOUR_MS
    told = desk.look()
    assert told is not None
    assert told.events[0].fault_ids == (loud,)


def test_each_reason_is_named_with_its_time() -> None:
    desk = Desk(filters=Filters(severities=("P1", "P2", "P3"), quiet={"P3": ("11:00", "13:30")}))
    desk.opened("kf-1", ago_ms=MINUTE_MS)
    assert why_of(desk, JAM) == Hold("next")
    desk.sent = replace(desk.sent, waiting=True)
    assert why_of(desk, JAM) == Hold("waiting")
    desk.sent = replace(desk.sent, waiting=False, paused_until_ms=NOON_MS + HOUR_MS)
    assert why_of(desk, JAM) == Hold("resting", NOON_MS + HOUR_MS)
    desk.sent = replace(desk.sent, paused_until_ms=0, last_ms=NOON_MS - 20_000)
    assert why_of(desk, JAM) == Hold("digest", NOON_MS + 40_000)
    desk.locked.add("kf-1")
    assert why_of(desk, JAM) == Hold("locked")
    desk.maintenance["kf-1"] = NOON_MS + MINUTE_MS
    assert why_of(desk, JAM) == Hold("maintenance", NOON_MS + MINUTE_MS)
    desk.platform = replace(desk.platform, blind_since_ms=NOON_MS - 5)
    assert why_of(desk, JAM) == Hold("blind", NOON_MS - 5)
    desk.platform = PlatformState()
    desk.opened("kf-2", severity="P4", ago_ms=MINUTE_MS)
    assert why_of(desk, "kf-2|PRN.JAM") == Hold("severity")
    desk.opened("kf-3", severity="P3", ago_ms=MINUTE_MS)
    assert why_of(desk, "kf-3|PRN.JAM") == Hold("quiet", NOON_MS + 90 * MINUTE_MS)
    desk.opened("kf-4", "NET.OFFLINE", ago_ms=MINUTE_MS)
    desk.platform = PlatformState(silence_since_ms=NOON_MS)
    assert why_of(desk, "kf-4|NET.OFFLINE") == Hold("silence")
    late = desk.opened("kf-5", late=True)
    desk.change(late, known_ms=NOON_MS - 10_000)
    assert why_of(desk, "kf-5|PRN.JAM") == Hold("late", NOON_MS - 10_000 + LATE_MS)
    desk.change(desk.opened("kf-6", ago_ms=MINUTE_MS), false_alarm=True)
    assert why_of(desk, "kf-6|PRN.JAM") == Hold("falseAlarm")
    desk.opened("kf-7")
    assert why_of(desk, "kf-7|PRN.JAM") == Hold("gathering", NOON_MS + GATHER_MS)
    desk.filters = Filters(areas=("A1",))
    desk.opened("kf-8", ago_ms=MINUTE_MS)
    assert why_of(desk, "kf-8|PRN.JAM") == Hold("area")
    desk.filters = Filters(kinds=("NET", "LSR"))
    assert why_of(desk, "kf-8|PRN.JAM") == Hold("kind")


def test_a_channel_hears_only_its_kinds_of_fault() -> None:
    desk = Desk(filters=Filters(kinds=("NET",), quiet={}))
    desk.opened("kf-1", "NET.OFFLINE", ago_ms=MINUTE_MS)
    desk.opened("kf-2", "PRN.JAM", ago_ms=MINUTE_MS)
    assert [kinds(digest) for digest in desk.settle(5 * MINUTE_MS)] == [[("opened", "kf-1|NET.OFFLINE")]]


def test_a_longer_rhythm_gathers_all_but_the_worst() -> None:
    desk = Desk(filters=Filters(every_min=30, quiet={}, escalate_min={}))
    desk.opened("kf-1", ago_ms=MINUTE_MS)
    assert kinds(desk.look()) == [("opened", JAM)]
    desk.pass_ms(2 * MINUTE_MS)
    for number in range(2, 5):
        desk.opened(f"kf-{number}", ago_ms=MINUTE_MS)
    assert desk.settle(20 * MINUTE_MS, step_ms=30_000) == []
    assert why_of(desk, "kf-2|PRN.JAM") == Hold("digest", NOON_MS + 30 * MINUTE_MS)
    desk.opened("kf-9", "ENV.SMOKE", "P1", ago_ms=MINUTE_MS)
    assert why_of(desk, "kf-9|ENV.SMOKE") == Hold("next")
    told = desk.look()
    assert [subject for _, subject in kinds(told)] == ["kf-9|ENV.SMOKE", *(f"kf-{number}|PRN.JAM" for number in range(2, 5))]


def test_the_platforms_blindness_waits_for_no_rhythm_and_is_told_once() -> None:
    desk = Desk(filters=Filters(every_min=60, kinds=("NET",), areas=("A0",), severities=("P1",)))
    desk.opened("kf-2", "NET.OFFLINE", "P1", ago_ms=MINUTE_MS)
    assert desk.look() is not None
    desk.pass_ms(2 * MINUTE_MS)
    desk.platform = replace(desk.platform, blind_since_ms=desk.now_ms, cause="ingest")
    for number in range(40):
        desk.opened(f"kf-{number}", "NET.OFFLINE", "P1")
    assert [kinds(digest) for digest in desk.settle(20 * MINUTE_MS, step_ms=30_000)] == [[("blind", "platform")]]


@pytest.mark.parametrize(
    ("at", "until_min"), [("20:00", 12 * 60), ("23:59", 8 * 60 + 1), ("00:00", 8 * 60), ("07:59", 1), ("08:00", None)]
)
def test_quiet_hours_over_midnight_end_in_the_morning(at: str, until_min: int | None) -> None:
    desk = Desk(filters=Filters(quiet={"P3": ("20:00", "08:00")}))
    hour, minute = map(int, at.split(":"))
    desk.now_ms += ((hour - 12) * 60 + minute) * MINUTE_MS
    desk.opened("kf-1", severity="P3", ago_ms=MINUTE_MS)
    expected = Hold("next") if until_min is None else Hold("quiet", desk.now_ms + until_min * MINUTE_MS)
    assert why_of(desk, JAM) == expected
