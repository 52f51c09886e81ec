"""What is read from rows that ingest and people wrote."""

from __future__ import annotations

from fleet_server.faults.platform import open_platform_fault, retire_faults
from fleet_server.notifications import reading
from fleet_server.notifications.planner import PlatformState, Seen
from fleet_server.notifications.reading import BEHIND_BATCHES, read
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS
from tests.fleet_server.notifications.city import City
from tests.support.facts import FactBench


def look(city: City, *told: str) -> Seen:
    return read(city.conn, told, watching_since_ms=0, now_ms=city.now_ms)


def test_open_faults_are_read_with_where_they_are(city: City) -> None:
    key = city.open_fault("kf-5", claimed_by="wang", muted_until_ms=city.now_ms + 1, false_alarm=1)
    city.open_fault("kf-6", disputed=1)
    city.clear_fault(city.open_fault("kf-7"))
    seen = look(city)
    (fault,) = seen.faults
    assert (fault.id, fault.terminal, fault.code, fault.severity, fault.impact) == (key, "kf-5", "PRN.JAM", "P2", "noService")
    assert (fault.claimed, fault.false_alarm, fault.cleared_ms, fault.known_ms) == (True, True, None, fault.opened_ms)
    assert seen.mutes == {key: city.now_ms + 1}
    place = seen.places["kf-5"]
    assert (place.label, place.site, place.site_zh, place.areas, place.behind) == ("KF-5", "S1", "大厅 1", ("A1", "city"), False)
    assert "wang" not in repr(seen)


def test_of_what_was_told_the_last_end_is_read(city: City) -> None:
    city.clear_fault(city.open_fault("kf-1", ago_ms=3 * HOUR_MS), ago_ms=2 * HOUR_MS)
    last = city.open_fault("kf-1", ago_ms=HOUR_MS)
    city.clear_fault(last, ago_ms=MINUTE_MS)
    seen = look(city, "kf-1|PRN.JAM", "kf-2|PRN.JAM", "platform")
    assert [(fault.id, fault.cleared_ms) for fault in seen.faults] == [(last, city.now_ms - MINUTE_MS)]


def test_what_opened_again_is_not_read_as_over(city: City) -> None:
    city.clear_fault(city.open_fault("kf-1", ago_ms=3 * HOUR_MS), ago_ms=2 * HOUR_MS)
    again = city.open_fault("kf-1")
    assert [fault.id for fault in look(city, "kf-1|PRN.JAM").faults] == [again]


def test_a_terminal_that_left_service_is_known_to_have(city: City) -> None:
    city.open_fault("kf-1")
    retire_faults(city.conn, "kf-1", city.now_ms)
    (fault,) = look(city, "kf-1|PRN.JAM").faults
    assert fault.retired


def test_maintenance_and_a_backlog_are_read(city: City) -> None:
    city.open_fault("kf-1")
    city.open_fault("kf-2")
    city.conn.execute("UPDATE terminal SET maintenance_until_ms = ? WHERE id = 'kf-1'", (city.now_ms + 5,))
    for terminal, depth in (("kf-1", BEHIND_BATCHES - 1), ("kf-2", BEHIND_BATCHES)):
        city.conn.execute("INSERT INTO terminal_live (terminal, connected, outbox_depth) VALUES (?, 1, ?)", (terminal, depth))
    seen = look(city)
    assert seen.maintenance == {"kf-1": city.now_ms + 5}
    assert seen.locked == frozenset()
    assert [seen.places[name].behind for name in ("kf-1", "kf-2")] == [False, True]


def test_a_lock_is_the_terminals_own_newest_word(city: City) -> None:
    for terminal in ("kf-1", "kf-2"):
        city.open_fault(terminal)
    report = (
        "INSERT INTO desired_report (terminal, counter, state, reason, config_version, locked, at_ms, received_ms, batch, idx, disputed)"
        " VALUES (?, ?, ?, 'none', 0, ?, ?, ?, 1, ?, 0)"
    )
    told = [
        ("kf-1", 1, "applied", 0),
        ("kf-1", 2, "applied", 1),
        ("kf-1", 3, "refused", 0),
        ("kf-2", 4, "applied", 1),
        ("kf-2", 5, "applied", 0),
    ]
    for n, (terminal, counter, state, locked) in enumerate(told):
        city.conn.execute(report, (terminal, counter, state, locked, city.now_ms + n, city.now_ms + n, n))
    assert look(city).locked == {"kf-1"}


def test_a_fault_is_known_since_it_was_committed(bench: FactBench) -> None:
    bench.conn.execute(
        "INSERT INTO batch (id, terminal, stream, no, kind, envelope, received_ms, committed_ms, records, class, disputed)"
        " VALUES (7, 'kf-1', x'00', 1, 'data', x'00', 900, 950, 1, 'event', 0)"
    )
    bench.conn.execute(
        "INSERT INTO fault (id, terminal, code, severity, mandatory, opened_ms, since_ms, open_batch, disputed, late, false_alarm)"
        " VALUES ('kf-1:a', 'kf-1', 'PRN.JAM', 'P2', 1, 100, 100, 7, 0, 1, 0)"
    )
    (fault,) = read(bench.conn, (), watching_since_ms=0, now_ms=1_000).faults
    assert (fault.opened_ms, fault.known_ms, fault.late) == (100, 950, True)


def test_a_ring_of_areas_ends(city: City) -> None:
    city.conn.execute("UPDATE area SET parent = 'A1' WHERE code = 'city'")
    city.open_fault("kf-1")
    assert look(city).places["kf-1"].areas == ("A1", "city")


def test_a_terminal_without_site_or_row_is_read_by_its_id(city: City) -> None:
    city.conn.execute("UPDATE terminal SET site = 'gone', code = '' WHERE id = 'kf-1'")
    city.open_fault("kf-1")
    city.open_fault("stranger")
    seen = look(city)
    assert seen.places["kf-1"].label == "kf-1"
    assert "stranger" not in seen.places
    assert {fault.terminal for fault in seen.faults} == {"kf-1", "stranger"}


def test_the_platforms_sight_is_read(city: City) -> None:
    assert look(city).platform == PlatformState()
    city.now_ms += 59_999
    assert look(city).platform.blind_since_ms is None
    city.now_ms += 1
    platform = look(city).platform
    assert (platform.blind_since_ms, platform.cause) == (city.now_ms - 60_000, "ingest")

    city.mark()
    city.conn.execute(
        "INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (1, 2, 'ingest'), (5, NULL, 'silence'), (3, 4, 'broker')"
    )
    platform = look(city).platform
    assert (platform.blind_since_ms, platform.silence_since_ms, platform.last_gap_ms) == (None, 5, (3, 4))
    city.conn.execute("INSERT INTO platform_gap (from_ms, cause) VALUES (6, 'broker')")
    assert (look(city).platform.blind_since_ms, look(city).platform.cause) == (6, "broker")


def test_alarms_of_the_server_itself_are_read(city: City) -> None:
    open_platform_fault(city.conn, "kf-1", "NET.OFFLINE", city.now_ms, since_ms=city.now_ms - HOUR_MS)
    (fault,) = look(city).faults
    assert (fault.code, fault.impact, fault.known_ms) == ("NET.OFFLINE", "noService", city.now_ms)


def test_the_end_of_what_was_told_is_found_by_terminal(city: City) -> None:
    """A fault code has thousands of rows after a year, a terminal some dozens."""
    plan = city.rows("EXPLAIN QUERY PLAN " + reading.LAST_OF_SUBJECT, "kf-1", "PRN.JAM")
    assert "fault_terminal (terminal=?)" in str(plan)
