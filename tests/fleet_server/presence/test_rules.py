"""What silence means: of one terminal, of many, and of nobody when the platform does not listen."""

from __future__ import annotations

import pytest

from fleet_server.presence.rules import (
    THRESHOLDS,
    PresenceState,
    Quiet,
    Sight,
    Verdict,
    judge,
    mass_silence,
    platform_blind_since,
    silence_ms,
    silent_sites,
)

T = 1_780_020_000_000
OURS, PARTNER = THRESHOLDS["government"], THRESHOLDS["social"]
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("silent_ms", "state", "from_ms"),
    [
        (0, "online", T),
        (89_999, "online", T),
        (90_000, "suspect", T + 90_000),
        (120_000, "suspect", T + 90_000),
        (299_999, "suspect", T + 90_000),
        (300_000, "offline", T + 300_000),
        (900_000, "offline", T + 300_000),
    ],
)
def test_thresholds_of_our_terminals(silent_ms: int, state: PresenceState, from_ms: int) -> None:
    found = judge(Sight(seen_ms=T), None, OURS, T + silent_ms)
    assert (found.state, found.from_ms) == (state, from_ms)


def test_partner_machines_report_hours_apart() -> None:
    assert judge(Sight(seen_ms=T), None, PARTNER, T + HOUR_MS).state == "online"
    assert judge(Sight(seen_ms=T), None, PARTNER, T + 4 * HOUR_MS - 1).state == "suspect"
    assert judge(Sight(seen_ms=T), None, PARTNER, T + 4 * HOUR_MS).state == "offline"


def test_a_broken_connection_is_suspect_at_once_and_offline_no_sooner() -> None:
    sight = Sight(seen_ms=T, broken_ms=T + 5000)
    assert judge(sight, None, OURS, T + 5000) == Verdict("suspect", "broken", T + 5000)
    assert judge(sight, None, OURS, T + 300_000).state == "offline"


def test_time_in_which_nobody_listened_is_no_silence() -> None:
    sight = Sight(seen_ms=T, excused_ms=3_600_000)
    assert silence_ms(sight, T + 3_600_000 + 10_000) == 10_000
    assert judge(sight, None, OURS, T + 3_600_000 + 89_999).state == "online"


def test_a_held_verdict_stands_until_terminals_had_time_to_reconnect() -> None:
    before = Verdict("unknown", "broker", T)
    sight = Sight(seen_ms=T, held_until_ms=T + 500_000)
    assert judge(sight, before, OURS, T + 499_999) is before
    assert judge(sight, before, OURS, T + 500_000).state == "offline"


def test_an_announced_stop_stays_one() -> None:
    assert judge(Sight(seen_ms=T, stopped_ms=T + 1), None, OURS, T + 10 * HOUR_MS) == Verdict("stopped", "announced", T + 1)


def test_a_terminal_that_was_never_heard_counts_from_its_enrolment() -> None:
    never = Sight(seen_ms=T, ever_seen=False)
    assert judge(never, None, OURS, T + 1000) == Verdict("suspect", "neverSeen", T)
    assert judge(never, None, OURS, T + 300_000) == Verdict("offline", "neverSeen", T + 300_000)


def quiet(*starts_s: int, sites: int = 2) -> list[Quiet]:
    return [Quiet(f"kf-{n}", f"S{n % sites}", T + start * 1000) for n, start in enumerate(starts_s)]


@pytest.mark.parametrize(
    ("silent", "heard", "blind"),
    [
        pytest.param(quiet(0, 20, 40, 60), 6, True, id="4 of 10 within a minute"),
        pytest.param(quiet(0, 20, 40), 7, False, id="3 of 10 are not more than 30 %"),
        pytest.param(quiet(0, 20, 40, 61), 6, False, id="not within one minute"),
        pytest.param(quiet(0, 20, 40, 60, sites=1), 6, False, id="one site is the site's affair"),
        pytest.param(quiet(0, 0), 0, False, id="two terminals prove nothing"),
        pytest.param(quiet(0, 500, 520, 540, 560), 5, True, id="an older silence does not hide it"),
    ],
)
def test_silence_of_many_sites_at_once_is_the_platforms(silent: list[Quiet], heard: int, blind: bool) -> None:
    assert (mass_silence(silent, heard) is not None) is blind


def test_the_gap_begins_with_the_first_of_those_that_fell_silent_together() -> None:
    assert mass_silence(quiet(0, 500, 520, 540, 560), 5) == T + 500_000


def test_sites_that_fall_silent_as_one() -> None:
    silent = [
        *(Quiet(f"a{n}", "A", T + n * 1000) for n in range(5)),
        *(Quiet(f"b{n}", "B", T) for n in range(2)),
        *(Quiet(f"c{n}", "C", T + n * 100_000) for n in range(2)),
        Quiet("d0", "D", T),
    ]
    assert silent_sites(silent, {"A": 9, "B": 2, "C": 2, "D": 1}) == {"A", "B"}
    assert silent_sites(silent, {"A": 9, "B": 3, "C": 2, "D": 1}) == {"A"}


@pytest.mark.parametrize(
    ("mark_ms", "gaps", "expected"),
    [
        (T, [], None),
        (T - 59_999, [], None),
        (T - 60_000, [], (T - 60_000, "ingest")),
        (T, [(T - 5, "silence")], None),
        (T, [(T - 5, "broker")], (T - 5, "broker")),
        (None, [], None),
    ],
)
def test_blindness_of_the_whole_platform(mark_ms: int | None, gaps: list[tuple[int, str]], expected: object) -> None:
    assert platform_blind_since(mark_ms, gaps, T) == expected
