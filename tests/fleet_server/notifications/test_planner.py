"""What is told, when, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet_server.notifications.digest import MANY_AT_SITE, SiteGroup, group
from fleet_server.notifications.filters import Filters
from fleet_server.notifications.planner import (
    DIGEST_EVERY_MS,
    EVENTS_MAX,
    GATHER_MS,
    LATE_BEHIND_MS,
    LATE_MS,
    SETTLE_MS,
    PlatformState,
    Sent,
)
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, Desk, kinds


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Once ------------------------------------------------------------------------------------------------------------------------------------


def test_a_fault_is_told_when_it_has_lasted_and_then_never_again(desk: Desk) -> None:
    desk.opened("kf-1")
    assert desk.look() is None
    desk.pass_ms(GATHER_MS)
    assert kinds(desk.look()) == [("opened", "kf-1|PRN.JAM")]
    desk.filters = Filters(escalate_min={})
    assert desk.settle(3 * HOUR_MS, step_ms=30_000) == []


def test_a_blip_is_not_told(desk: Desk) -> None:
    key = desk.opened("kf-1")
    desk.pass_ms(GATHER_MS - 1)
    desk.clear(key)
    assert desk.settle() == []


def test_the_same_fault_of_two_slots_is_one(desk: Desk) -> None:
    first, second = desk.opened("kf-1", ago_ms=HOUR_MS), desk.opened("kf-1", ago_ms=HOUR_MS)
    digest = desk.look()
    assert digest is not None
    assert [event.fault_ids for event in digest.events] == [tuple(sorted((first, second)))]
    desk.clear(first)
    assert desk.settle() == []


def test_what_comes_within_the_minute_waits_for_the_next_digest(desk: Desk) -> None:
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    for number in range(2, 5):
        desk.opened(f"kf-{number}", ago_ms=HOUR_MS)
    desk.pass_ms(DIGEST_EVERY_MS - 1)
    assert desk.look() is None
    desk.pass_ms(1)
    assert kinds(desk.look()) == [("opened", f"kf-{number}|PRN.JAM") for number in range(2, 5)]


def test_what_is_young_goes_along_with_what_is_ripe(desk: Desk) -> None:
    desk.opened("kf-1", ago_ms=GATHER_MS)
    desk.opened("kf-2")
    assert len(kinds(desk.look())) == 2


def test_flapping_is_one_story(desk: Desk) -> None:
    desk.filters = Filters(escalate_min={})
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    for _ in range(20):
        desk.clear(next(key for key, fault in desk.faults.items() if fault.cleared_ms is None))
        assert desk.settle(SETTLE_MS - 5_000) == []
        desk.opened("kf-1")
        assert desk.settle(2 * MINUTE_MS) == []


def test_a_channel_that_is_not_reached_gets_one_digest_later_not_a_queue(desk: Desk) -> None:
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.sent = Sent(waiting=True, last_ms=desk.now_ms - HOUR_MS)
    assert desk.settle(HOUR_MS, step_ms=60_000) == []
    desk.opened("kf-2", ago_ms=HOUR_MS)
    desk.sent = replace(desk.sent, waiting=False)
    assert len(kinds(desk.look())) == 2


def test_a_channel_that_refuses_for_good_rests(desk: Desk) -> None:
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.sent = Sent(last_ms=desk.now_ms - HOUR_MS, paused_until_ms=desk.now_ms + 1)
    assert desk.look() is None
    desk.pass_ms(1)
    assert desk.look() is not None


def test_a_clock_that_was_set_back_silences_nobody(desk: Desk) -> None:
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    desk.pass_ms(-2 * HOUR_MS)
    desk.opened("kf-2", ago_ms=HOUR_MS)
    assert desk.look() is not None


def test_more_than_fits_waits_for_the_next_minute_and_the_worst_goes_first(desk: Desk) -> None:
    for number in range(EVENTS_MAX + 10):
        desk.opened(f"kf-{number}", severity="P3", ago_ms=HOUR_MS)
    desk.opened("kf-9999", severity="P1", ago_ms=HOUR_MS)
    first, second = desk.look(), None
    desk.pass_ms(DIGEST_EVERY_MS)
    second = desk.look()
    assert first is not None and second is not None
    assert (len(first.events), len(second.events)) == (EVENTS_MAX, 11)
    assert first.events[0].terminal == "kf-9999"
    assert not {event.subject for event in first.events} & {event.subject for event in second.events}


# Worse, unclaimed, over -------------------------------------------------------------------------------------------------------------------


def test_a_fault_that_worsens_is_told_again_and_one_that_eases_is_not(desk: Desk) -> None:
    key = desk.opened("kf-1", severity="P3", ago_ms=HOUR_MS)
    desk.look()
    desk.pass_ms(DIGEST_EVERY_MS)
    desk.change(key, severity="P2")
    assert kinds(desk.look()) == [("worsened", "kf-1|PRN.JAM")]
    desk.pass_ms(DIGEST_EVERY_MS)
    desk.change(key, severity="P3")
    assert desk.look() is None


def test_what_nobody_takes_is_told_again_three_times_at_growing_distance(desk: Desk) -> None:
    desk.filters = Filters(escalate_min={"P1": 10})
    desk.opened("kf-1", severity="P1", ago_ms=GATHER_MS)
    first = desk.look()
    assert first is not None
    again = desk.settle(4 * HOUR_MS, step_ms=MINUTE_MS)
    assert [(kinds(digest), digest.events[0].level) for digest in again] == [
        ([("unclaimed", "kf-1|PRN.JAM")], level) for level in (1, 2, 3)
    ]
    assert [(digest.at_ms - first.at_ms) // MINUTE_MS for digest in again] == [10, 20, 40]


def test_what_somebody_takes_is_not_told_again(desk: Desk) -> None:
    key = desk.opened("kf-1", severity="P1", ago_ms=GATHER_MS)
    desk.look()
    desk.change(key, claimed=True)
    assert desk.settle(2 * HOUR_MS, step_ms=MINUTE_MS) == []


def test_only_what_is_set_to_be_told_again_is(desk: Desk) -> None:
    desk.filters = Filters(escalate_min={"P1": 10})
    desk.opened("kf-1", severity="P2", ago_ms=GATHER_MS)
    desk.look()
    assert desk.settle(2 * HOUR_MS, step_ms=MINUTE_MS) == []


def test_a_recovery_is_told_once_when_it_has_lasted(desk: Desk) -> None:
    key = desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    desk.pass_ms(DIGEST_EVERY_MS)
    desk.clear(key)
    assert desk.look() is None
    desk.pass_ms(SETTLE_MS)
    digest = desk.look()
    assert kinds(digest) == [("recovered", "kf-1|PRN.JAM")]
    assert digest is not None
    assert digest.events[0].until_ms == desk.faults[key].cleared_ms
    assert desk.settle(HOUR_MS, step_ms=MINUTE_MS) == []


def test_a_recovery_of_what_was_never_told_is_no_news(desk: Desk) -> None:
    desk.clear(desk.opened("kf-1", severity="P4", ago_ms=HOUR_MS))
    assert desk.settle() == []


def test_recoveries_can_be_left_out(desk: Desk) -> None:
    desk.filters = Filters(recoveries=False)
    key = desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    desk.clear(key)
    assert desk.settle() == []
    desk.opened("kf-1", ago_ms=GATHER_MS)
    assert kinds(desk.look()) == [("opened", "kf-1|PRN.JAM")]


def test_it_is_told_anew_after_a_recovery_that_was_told(desk: Desk) -> None:
    key = desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    desk.clear(key)
    desk.settle()
    desk.opened("kf-1", ago_ms=GATHER_MS)
    assert kinds(desk.look()) == [("opened", "kf-1|PRN.JAM")]


# Silence -----------------------------------------------------------------------------------------------------------------------------------


def test_a_muted_fault_says_nothing_until_the_mute_ends(desk: Desk) -> None:
    key = desk.opened("kf-1", severity="P1", ago_ms=HOUR_MS)
    desk.mutes[key] = desk.now_ms + HOUR_MS
    assert desk.settle(HOUR_MS - 5_000, step_ms=5_000) == []
    desk.pass_ms(5_000)
    assert kinds(desk.look()) == [("opened", "kf-1|PRN.JAM")]


def test_a_fault_muted_after_it_was_told_is_neither_told_again_nor_over(desk: Desk) -> None:
    key = desk.opened("kf-1", severity="P1", ago_ms=GATHER_MS)
    desk.look()
    desk.mutes[key] = desk.now_ms + 5 * HOUR_MS
    assert desk.settle(HOUR_MS, step_ms=MINUTE_MS) == []
    desk.clear(key)
    assert desk.settle(HOUR_MS, step_ms=MINUTE_MS) == []
    assert desk.sent.standing == {}


def test_a_terminal_in_maintenance_says_nothing_and_what_still_holds_afterwards_is_told(desk: Desk) -> None:
    told = desk.opened("kf-1", severity="P1", ago_ms=HOUR_MS)
    desk.look()
    desk.maintenance["kf-1"] = desk.now_ms + HOUR_MS
    desk.opened("kf-1", "LSR.PAPER_OUT")
    desk.clear(told)
    assert desk.settle(HOUR_MS - 5_000) == []
    desk.pass_ms(5_000)
    assert kinds(desk.look()) == [("opened", "kf-1|LSR.PAPER_OUT"), ("recovered", "kf-1|PRN.JAM")]


def test_a_locked_terminal_is_no_news_but_danger_and_recovery_are(desk: Desk) -> None:
    told = desk.opened("kf-1", severity="P2", ago_ms=HOUR_MS)
    desk.look()
    desk.locked.add("kf-1")
    for code in ("NET.OFFLINE", "LSR.PAPER_OUT", "APP.CRASHED"):
        desk.opened("kf-1", code, severity="P1", ago_ms=MINUTE_MS)
    assert desk.settle(HOUR_MS, step_ms=MINUTE_MS) == [], "not even that nobody has claimed what was told before"
    smoke = desk.opened("kf-1", "ENV.SMOKE", severity="P1", ago_ms=MINUTE_MS)
    assert kinds(desk.look()) == [("opened", "kf-1|ENV.SMOKE")]
    desk.clear(smoke, ago_ms=HOUR_MS)
    desk.clear(told, ago_ms=HOUR_MS)
    desk.pass_ms(MINUTE_MS)
    assert sorted(kinds(desk.look())) == [("recovered", "kf-1|ENV.SMOKE"), ("recovered", "kf-1|PRN.JAM")]
    desk.locked.clear()
    desk.pass_ms(MINUTE_MS)
    subjects = {subject for _, subject in kinds(desk.look())}
    assert subjects == {"kf-1|APP.CRASHED", "kf-1|LSR.PAPER_OUT", "kf-1|NET.OFFLINE"}, "what still holds is told then"


def test_a_false_alarm_says_nothing_not_even_that_it_is_over(desk: Desk) -> None:
    desk.opened("kf-1", severity="P1", ago_ms=HOUR_MS, false_alarm=True)
    told = desk.opened("kf-2", severity="P1", ago_ms=HOUR_MS)
    assert kinds(desk.look()) == [("opened", "kf-2|PRN.JAM")]
    desk.change(told, false_alarm=True)
    assert desk.settle(2 * HOUR_MS, step_ms=MINUTE_MS) == []
    desk.clear(told)
    assert desk.settle() == []
    assert desk.sent.standing == {}


def test_a_terminal_that_leaves_service_recovers_from_nothing(desk: Desk) -> None:
    key = desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    desk.clear(key)
    desk.change(key, retired=True)
    assert desk.settle() == []
    assert desk.sent.standing == {}


def test_rows_that_are_gone_are_forgotten(desk: Desk) -> None:
    key = desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.look()
    del desk.faults[key]
    assert desk.settle() == []
    assert desk.sent.standing == {}


# Whom it concerns ---------------------------------------------------------------------------------------------------------------------------


def test_severities_and_areas_are_filtered(desk: Desk) -> None:
    desk.filters = Filters(severities=("P1", "P2"), areas=("A1",))
    desk.opened("kf-1", severity="P2", ago_ms=HOUR_MS)
    desk.opened("kf-1", "LSR.TONER_LOW", severity="P3", ago_ms=HOUR_MS)
    desk.opened("kf-2", severity="P1", ago_ms=HOUR_MS)
    assert kinds(desk.look()) == [("opened", "kf-1|PRN.JAM")]


def test_an_area_holds_everything_below_it(desk: Desk) -> None:
    desk.filters = Filters(areas=("city",))
    desk.opened("kf-1", ago_ms=HOUR_MS)
    desk.opened("kf-2", ago_ms=HOUR_MS)
    assert len(kinds(desk.look())) == 2


def test_quiet_hours_hold_back_their_severity_and_nothing_is_lost(desk: Desk) -> None:
    desk.filters = Filters(quiet={"P3": ("20:00", "08:00")}, escalate_min={})
    desk.now_ms += 9 * HOUR_MS  # 21:00
    desk.opened("kf-1", severity="P3", ago_ms=GATHER_MS)
    desk.opened("kf-2", severity="P1", ago_ms=GATHER_MS)
    assert kinds(desk.look()) == [("opened", "kf-2|PRN.JAM")]
    assert desk.settle(10 * HOUR_MS, step_ms=MINUTE_MS) == []
    assert [kinds(digest) for digest in desk.settle(HOUR_MS + MINUTE_MS, step_ms=MINUTE_MS)] == [[("opened", "kf-1|PRN.JAM")]]


def test_a_recovery_in_quiet_hours_is_told_in_the_morning(desk: Desk) -> None:
    desk.filters = Filters(quiet={"P3": ("20:00", "08:00")})
    desk.now_ms += 7 * HOUR_MS + 59 * MINUTE_MS  # 19:59
    key = desk.opened("kf-1", severity="P3", ago_ms=GATHER_MS)
    desk.look()
    desk.pass_ms(2 * HOUR_MS)
    desk.clear(key)
    assert desk.settle(9 * HOUR_MS, step_ms=MINUTE_MS) == []
    assert [kinds(digest) for digest in desk.settle(2 * HOUR_MS, step_ms=MINUTE_MS)] == [[("recovered", "kf-1|PRN.JAM")]]


# Many --------------------------------------------------------------------------------------------------------------------------------------


def test_more_than_five_terminals_of_one_site_are_one_line(desk: Desk) -> None:
    for number in range(6):
        desk.opened(f"kf-{number * 8}", "NET.OFFLINE", ago_ms=HOUR_MS)  # all at S0
    desk.opened("kf-1", ago_ms=HOUR_MS)
    digest = desk.look()
    assert digest is not None
    lines = group(digest.events)
    assert [isinstance(line, SiteGroup) for line in lines] == [True, False]
    assert isinstance(lines[0], SiteGroup)
    assert len(lines[0].terminals) == 6


def test_five_terminals_of_one_site_and_six_faults_of_one_terminal_are_named(desk: Desk) -> None:
    for number in range(MANY_AT_SITE):
        desk.opened(f"kf-{number * 8}", "NET.OFFLINE", ago_ms=HOUR_MS)
    for code in ("PRN.JAM", "PRN.PAPER_OUT", "IDR.OPEN_FAIL", "SCN.UNPLUGGED", "LSR.PAPER_OUT", "LSR.JAM"):
        desk.opened("kf-1", code, ago_ms=HOUR_MS)
    digest = desk.look()
    assert digest is not None
    assert not any(isinstance(line, SiteGroup) for line in group(digest.events))


# The platform -------------------------------------------------------------------------------------------------------------------------------


def blind(desk: Desk, cause: str = "ingest") -> None:
    desk.platform = replace(desk.platform, blind_since_ms=desk.now_ms, cause=cause)


def test_while_the_platform_is_blind_there_is_one_message_and_no_storm(desk: Desk) -> None:
    blind(desk, "broker")
    for number in range(400):
        desk.opened(f"kf-{number}", "NET.OFFLINE")
    told = desk.settle(3 * HOUR_MS, step_ms=5_000)
    assert [kinds(digest) for digest in told] == [[("blind", "platform")]]
    assert told[0].platform is not None
    assert told[0].platform.cause == "broker"


def test_after_blindness_one_message_says_how_long_it_was(desk: Desk) -> None:
    blind(desk)
    start_ms = desk.now_ms
    desk.settle(HOUR_MS, step_ms=60_000)
    desk.platform = PlatformState(last_gap_ms=(start_ms, desk.now_ms))
    told = desk.settle(HOUR_MS, step_ms=5_000)
    assert [kinds(digest) for digest in told] == [[("sighted", "platform")]]
    assert told[0].platform is not None
    assert (told[0].platform.since_ms, told[0].platform.until_ms) == (start_ms, start_ms + HOUR_MS)


def test_blindness_that_comes_back_within_a_minute_is_the_same(desk: Desk) -> None:
    blind(desk)
    desk.settle(HOUR_MS, step_ms=60_000)
    for _ in range(5):
        desk.platform = PlatformState(last_gap_ms=(desk.now_ms - HOUR_MS, desk.now_ms))
        assert desk.settle(50_000) == []
        blind(desk)
        assert desk.settle(5 * MINUTE_MS) == []


def test_what_is_over_before_anybody_looked_for_a_minute_is_no_news(desk: Desk) -> None:
    """The server starts, and ingest with it: its mark is from yesterday until it has written the first one."""
    desk.platform = PlatformState(blind_since_ms=desk.now_ms - 10 * HOUR_MS, cause="ingest", watching_since_ms=desk.now_ms)
    assert desk.settle(55_000) == []
    desk.platform = PlatformState(last_gap_ms=(desk.now_ms - 10 * HOUR_MS, desk.now_ms), watching_since_ms=desk.now_ms)
    assert desk.settle() == []


def test_silence_of_many_is_told_once_and_hides_no_other_fault(desk: Desk) -> None:
    desk.platform = replace(desk.platform, silence_since_ms=desk.now_ms)
    desk.opened("kf-1", "NET.OFFLINE", ago_ms=HOUR_MS)
    desk.opened("kf-2", "LSR.PAPER_OUT", ago_ms=HOUR_MS)
    assert kinds(desk.look()) == [("opened", "kf-2|LSR.PAPER_OUT")]
    assert [kinds(digest) for digest in desk.settle(20 * MINUTE_MS)] == [[("blind", "platform")]]
    blind(desk)
    assert desk.settle(20 * MINUTE_MS) == [], "the silence became blindness of all: that is no second message"


def test_every_channel_is_told_about_the_platform(desk: Desk) -> None:
    desk.filters = Filters(severities=("P1",), areas=("nowhere",))
    blind(desk)
    assert len(desk.settle()) == 1


# Late ----------------------------------------------------------------------------------------------------------------------------------------


def test_what_comes_out_of_a_backlog_waits_for_its_end(desk: Desk) -> None:
    over = desk.opened("kf-1", late=True)
    still = desk.opened("kf-2", late=True)
    desk.change(over, opened_ms=desk.now_ms - HOUR_MS)
    desk.change(still, opened_ms=desk.now_ms - HOUR_MS)
    assert desk.settle(LATE_MS - 5_000) == []
    desk.clear(over)
    assert [kinds(digest) for digest in desk.settle()] == [[("opened", "kf-2|PRN.JAM")]]


def test_as_long_as_the_terminal_still_sends_its_backlog_it_waits_longer(desk: Desk) -> None:
    desk.opened("kf-1", late=True)
    desk.places["kf-1"] = replace(desk.place("kf-1"), behind=True)
    assert desk.settle(LATE_BEHIND_MS - 5_000) == []
    assert len(desk.settle()) == 1
