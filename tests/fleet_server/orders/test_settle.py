"""What terminals report about orders, desired states, versions and plays, through projection: in any order, taken back, disputed."""

from __future__ import annotations

import random

import pytest

from fleet_server.channel import transact
from fleet_server.facts.project import reproject, unproject
from fleet_server.orders import requests
from protocols.contract import records
from protocols.contract.records import ClockQuality, Installed, Play, Plays, Update, Versions
from tests.support.facts import Run
from tests.support.ordering import DAY, NOW, REBOOT, OrderBench


def report(city: OrderBench, request: bytes, state: str, reason: str = "none", terminal: str = "kf-1") -> records.Order:
    order = city.order(request, terminal)
    return records.Order(id=order.id, counter=order.counter, kind="restart", state=state, reason=reason)  # type: ignore[arg-type]


def sent(city: OrderBench, *terminals: str) -> bytes:
    request = city.ask(*terminals)
    city.sign()
    return request


def test_the_way_of_an_order_is_told_step_by_step(city: OrderBench) -> None:
    request = sent(city)
    seen = []
    for state, reason in (("received", "none"), ("waiting", "session"), ("running", "none"), ("done", "none")):
        city.report(report(city, request, state, reason))
        seen.append(city.state(request))
    assert seen == [("received", ""), ("waiting", "session"), ("running", ""), ("done", "")]
    timeline = city.facts.rows("SELECT state, reason FROM order_report ORDER BY at_ms")
    assert timeline == [("received", "none"), ("waiting", "session"), ("running", "none"), ("done", "none")]
    refs = [row[0] for row in city.facts.rows("SELECT ref FROM change WHERE kind = 'order' AND ref IS NOT NULL")]
    assert set(refs) == {request.hex()} and len(refs) >= 6


def test_waiting_for_what_since_when(city: OrderBench) -> None:
    request = sent(city)
    city.report(report(city, request, "waiting", "session"))
    since = city.facts.one("SELECT since_ms FROM order_item")[0]
    city.report(report(city, request, "waiting", "session"))
    assert city.facts.one("SELECT since_ms, state_ms > since_ms, heard_ms FROM order_item")[:2] == (since, 1)


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_arrival_ends_the_same(city: OrderBench, seed: int) -> None:
    request = sent(city)
    order = city.order(request)
    run_bodies = [
        report(city, request, "received"),
        report(city, request, "waiting", "session"),
        report(city, request, "running"),
        report(city, request, "failed", "device"),
        records.Order(id=order.id, counter=order.counter, kind="restart", state="refused", reason="replayed"),
    ]
    random.Random(seed).shuffle(run_bodies)
    for body in run_bodies:
        city.report(body)
    assert city.state(request) == ("failed", "device")
    assert city.facts.one("SELECT heard_ms IS NOT NULL FROM order_item") == (1,)


def test_a_repeat_changes_nothing_and_taking_back_takes_it_back(city: OrderBench) -> None:
    request = sent(city)
    first = city.report(report(city, request, "received"))
    second = city.report(report(city, request, "done"))
    before = (
        city.facts.rows("SELECT * FROM order_item"),
        city.facts.rows("SELECT terminal, state, at_ms, batch, idx FROM order_report"),
    )
    reproject(city.conn, [first, second])
    after = (
        city.facts.rows("SELECT * FROM order_item"),
        city.facts.rows("SELECT terminal, state, at_ms, batch, idx FROM order_report"),
    )
    assert after == before
    unproject(city.conn, [second])
    assert city.state(request) == ("received", "")
    unproject(city.conn, [first])
    assert city.state(request) == ("sent", "")
    assert city.facts.one("SELECT heard_ms FROM order_item") == (None,)


def test_disputed_reports_are_kept_and_do_not_count(city: OrderBench) -> None:
    request = sent(city)
    city.report(report(city, request, "done"), disputed=True)
    assert city.state(request) == ("sent", "")
    assert city.facts.one("SELECT state, disputed FROM order_report") == ("done", 1)


def test_a_terminal_cannot_tell_of_anothers_order(city: OrderBench) -> None:
    request = sent(city, "kf-1", "kf-2")
    order = city.order(request, "kf-1")
    city.report(records.Order(id=order.id, counter=order.counter, kind="restart", state="done"), terminal="kf-2")
    assert city.state(request, "kf-1") == ("sent", "")
    assert city.state(request, "kf-2") == ("sent", "")


def test_an_order_that_was_never_signed_cannot_be_done(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    order_id = city.facts.one("SELECT order_id FROM order_item")[0]
    assert isinstance(order_id, bytes)
    city.report(records.Order(id=order_id, counter=1, kind="restart", state="done"))
    assert city.state(request) == ("asked", "")


def test_strangers_orders_are_on_record(city: OrderBench) -> None:
    city.report(records.Order(state="refused", reason="notAuthentic", count=7))
    assert city.facts.one("SELECT order_id, state, reason, count FROM order_report") == (None, "refused", "notAuthentic", 7)


def test_a_clock_that_is_set_later_corrects_when_it_was_done(city: OrderBench) -> None:
    request = sent(city)
    true_ms = city.now_ms + 5_000
    run = Run("kf-1", 1, up_ms=NOW - 30_000, error_ms=-10 * 365 * DAY, quality=ClockQuality.UNSET)
    first = run.send([run.capture(report(city, request, "done"), true_ms)], true_ms + 60_000)
    boot_ms = true_ms + 50_000 - run.up_ms
    clock = records.Clock(boot_ms=boot_ms, wall_ms=true_ms + 50_000, quality=ClockQuality.SYNCED)
    run.error_ms, run.quality = 0, ClockQuality.SYNCED
    second = run.send([run.capture(clock, true_ms + 50_000)], true_ms + 61_000)
    city.facts.arrive(first, second)
    assert city.facts.rows("SELECT at_ms FROM order_report") == [(true_ms,)]
    assert city.facts.one("SELECT state, state_ms FROM order_item") == ("done", true_ms)


# Desired states --------------------------------------------------------------------------------------------------------------------------


def lock(city: OrderBench) -> bytes:
    request = transact(city.conn, lambda conn: requests.lock(conn, ["kf-1"], "停用", by="wang", now_ms=city.now_ms))
    city.sign()
    return request


def configure(city: OrderBench) -> bytes:
    request = transact(
        city.conn,
        lambda conn: requests.request_configuration(
            conn, ["kf-1"], {"items": []}, by="wang", expires_ms=city.now_ms + DAY, now_ms=city.now_ms
        ),
    )
    city.approve(request)
    city.sign()
    return request


def told(counter: int, state: str, reason: str = "none") -> records.Desired:
    return records.Desired(counter=counter, state=state, reason=reason)  # type: ignore[arg-type]


def test_a_lock_that_was_applied_is_done(city: OrderBench) -> None:
    request = lock(city)
    city.report(told(1, "applied"))
    assert city.state(request) == ("done", "")
    assert city.facts.one("SELECT state FROM desired_state") == ("applied",)
    assert city.facts.one("SELECT desired_held FROM terminal_counter") == (1,)


def test_a_state_that_contains_an_earlier_wish_fulfils_it(city: OrderBench) -> None:
    first, second = lock(city), configure(city)
    city.report(told(2, "applied"))
    assert city.state(first) == city.state(second) == ("done", "")


def test_a_refused_configuration_does_not_undo_a_lock_that_holds(city: OrderBench) -> None:
    first, second = lock(city), configure(city)
    city.report(told(1, "applied"))
    city.report(told(2, "refused", "configuration"))
    assert city.state(first) == ("done", "")
    assert city.state(second) == ("refused", "configuration")


@pytest.mark.parametrize("turned", [False, True])
def test_a_configuration_that_could_not_start_failed(city: OrderBench, turned: bool) -> None:
    request = configure(city)
    bodies = [told(1, "applied"), told(1, "rolledBack", "startFailed")]
    for body in reversed(bodies) if turned else bodies:
        city.report(body)
    assert city.state(request) == ("failed", "startFailed")
    assert city.facts.one("SELECT state, reason FROM desired_state") == ("rolledBack", "startFailed")


def test_a_repeat_of_a_desired_state_is_no_news(city: OrderBench) -> None:
    request = lock(city)
    city.report(told(1, "refused", "replayed"))
    assert city.state(request) == ("sent", "")
    city.report(told(1, "applied"))
    assert city.state(request) == ("done", "")


def test_taking_a_report_back_opens_the_wish_again(city: OrderBench) -> None:
    request = lock(city)
    batch = city.report(told(1, "applied"))
    unproject(city.conn, [batch])
    assert city.state(request) == ("sent", "")
    assert city.facts.one("SELECT state FROM desired_state") == ("sent",)


# Updates, versions, plays ----------------------------------------------------------------------------------------------------------------


def test_steps_of_an_update_are_on_record(city: OrderBench) -> None:
    step = Update(
        bundle=b"b" * 16, rollout=b"r" * 16, component="agent", state="downloading", since_ms=city.now_ms, to_version="1.2",
        via="delta", bytes_done=5, bytes_total=9, tries=1, resumed=2,
    )  # fmt: skip
    batch = city.report(step)
    row = city.facts.one(
        "SELECT bundle, rollout, component, state, via, bytes_done, bytes_total, resumed, disputed FROM update_step"
    )
    assert row == (b"b" * 16, b"r" * 16, "agent", "downloading", "delta", 5, 9, 2, 0)
    assert city.facts.one("SELECT terminal, ref FROM change WHERE kind = 'update'") == ("kf-1", (b"r" * 16).hex())
    reproject(city.conn, [batch])
    assert city.facts.one("SELECT count(*) FROM update_step") == (1,)
    unproject(city.conn, [batch])
    assert city.facts.rows("SELECT 1 FROM update_step") == []


def test_what_runs_is_what_the_newest_report_says(city: OrderBench) -> None:
    def installed() -> list[tuple[object, ...]]:
        return city.facts.rows("SELECT component, version, release, sha256 FROM installed_version ORDER BY component")

    city.report(Versions(installed=(Installed("agent", "1.0", 1, bytes(32)), Installed("profiles", "3", 3))))
    second = city.report(Versions(installed=(Installed("agent", "1.1", 2, b"\x01" * 32),)))
    assert installed() == [("agent", "1.1", 2, b"\x01" * 32)]
    unproject(city.conn, [second])
    assert installed() == [("agent", "1.0", 1, bytes(32)), ("profiles", "3", 3, None)]
    reproject(city.conn, [second])
    assert installed() == [("agent", "1.1", 2, b"\x01" * 32)]
    city.report(Versions(installed=(Installed("agent", "9.9", 9),)), disputed=True)
    assert installed() == [("agent", "1.1", 2, b"\x01" * 32)]


def test_plays_are_counted_once(city: OrderBench) -> None:
    plays = Plays(
        component="content/guide",
        version="1",
        from_ms=NOW,
        to_ms=NOW + 1_000,
        pages=(Play("social.pension", 3, 40), Play("house.deed", 1, 5)),
    )
    batch = city.report(plays)
    reproject(city.conn, [batch])
    rows = city.facts.rows("SELECT page, count, seconds FROM play ORDER BY page")
    assert rows == [("house.deed", 1, 5), ("social.pension", 3, 40)]
