"""Planned maintenance is in no rate, and told apart; nobody can make a rate better by hiding it."""

from __future__ import annotations

import random

import pytest

from fleet_server.figures.behind import behind
from fleet_server.figures.facts import weigh_contact
from fleet_server.figures.opening import OpenTime
from fleet_server.figures.question import Period
from fleet_server.terminals import maintenance
from fleet_server.usage.days import Observed, tally, without
from tests.fleet_server.figures.conftest import HOUR, Town, at

TUESDAY = Period("2026-06-09", "2026-06-09")
OPEN_S = int(6.5 * 3600)


def under_repair(town: Town, terminal: str, start: str, end: str) -> None:
    maintenance.start(town.conn, terminal, by="wang", reason="换打印头", until_ms=at(start) + 24 * HOUR, now_ms=at(start))
    maintenance.end(town.conn, terminal, by="wang", now_ms=at(end))


def test_maintenance_is_neither_online_nor_offline(town: Town) -> None:
    town.terminal("a")
    town.presence("a", ("online", "06-01 00:00"), ("offline", "06-09 10:00"), ("online", "06-09 15:00"))
    under_repair(town, "a", "06-09 10:30", "06-09 14:30")
    figure = town.board(TUESDAY).online_rate()
    # Offline 10:00-10:30 and 14:30-15:00; 10:30-12:00 and 13:30-14:30 are maintenance.
    assert figure.shown == {"offline_s": 3600, "maintenance_s": 9000}
    assert (figure.numerator, figure.denominator) == (OPEN_S - 9000 - 3600, OPEN_S - 9000)


def test_availability_leaves_it_out_whatever_was_observed(town: Town) -> None:
    town.terminal("a")
    town.presence("a", ("online", "06-01 00:00"))
    under_repair(town, "a", "06-09 11:00", "06-09 20:00")
    town.served("a", "06-09 09:00", "06-09 11:00", usable_s=7200)
    town.served("a", "06-09 11:00", "06-09 12:00", usable_s=0, unusable_s=3600)
    town.settle()
    figure = town.board(TUESDAY).availability()
    assert (figure.numerator, figure.denominator) == (7200, 7200)
    assert figure.shown == {"maintenance_s": 3600 + int(3.5 * 3600)}


def test_a_check_during_maintenance_is_not_counted(town: Town) -> None:
    town.terminal("a")
    town.presence("a", ("online", "06-01 00:00"))
    town.fault("a", "06-09 08:00", "06-09 20:00")
    under_repair(town, "a", "06-09 14:00", "06-09 16:00")
    board = town.board(TUESDAY)
    figure = board.intact_rate()
    assert (figure.numerator, figure.denominator, figure.shown) == (0, 1, {"maintenance": 1})
    rows = list(behind(town.conn, board, figure, "maintenance"))
    assert [row.at_ms for row in rows] == [at("06-09 15:00")]


@pytest.mark.parametrize("part", ["maintenance"])
def test_rows_behind_maintenance_add_up(town: Town, part: str) -> None:
    for name in ("a", "b"):
        town.terminal(name)
        town.presence(name, ("online", "06-01 00:00"))
    under_repair(town, "a", "06-09 10:00", "06-09 11:00")
    town.whole_period(TUESDAY)
    board = town.board(TUESDAY)
    for figure in (board.online_rate(), board.availability()):
        rows = list(behind(town.conn, board, figure, part))  # type: ignore[arg-type]
        assert [(row.terminal, row.weight) for row in rows] == [("a", 3600)]
        assert figure.shown["maintenance_s"] == 3600


def test_parts_of_contact_add_up_with_maintenance_anywhere() -> None:
    rng = random.Random(7)
    for _ in range(300):
        edges = sorted(rng.sample(range(0, 100_000, 500), 12))
        open_time = OpenTime([(edges[0], edges[3]), (edges[6], edges[9])])
        cut = [(edges[n], edges[n] + 500 * rng.randrange(1, 9)) for n in (1, 7)]
        states = ["online", "offline", "unknown", "suspect", "stopped"]
        intervals, start = [], rng.randrange(0, 20_000, 500)
        for n in range(8):
            end = start + 500 * rng.randrange(1, 30)
            intervals.append((n, start, end, rng.choice(states)))
            start = end
        found = weigh_contact(intervals, open_time, 5_000, 90_000, maintained=cut)
        parts = found.online_s + found.offline_s + found.blind_s + found.unwatched_s + found.maintenance_s
        assert abs(parts - open_time.within_ms(5_000, 90_000) // 1000) <= 8  # each part is cut to whole seconds


def test_spans_less_spans() -> None:
    assert without([(0, 10), (20, 30)], []) == [(0, 10), (20, 30)]
    assert without([(0, 10), (20, 30)], [(5, 25)]) == [(0, 5), (25, 30)]
    assert without([(0, 10)], [(2, 3), (4, 5), (9, 12)]) == [(0, 2), (3, 4), (5, 9)]
    assert without([(0, 10)], [(-5, 20)]) == []
    assert without([(0, 10), (20, 30), (40, 50)], [(0, 10), (40, 50)]) == [(20, 30)]


def test_a_day_without_maintenance_is_tallied_as_before() -> None:
    told = [Observed(0, 10_000, 8, 0, 2)]
    assert tally([(0, 10_000)], told, ()) == tally([(0, 10_000)], told, (), [(20_000, 30_000)])
    cut = tally([(0, 10_000)], told, (), [(0, 5_000)])
    assert (cut.scheduled_s, cut.maintenance_s, cut.usable_s, cut.unusable_s) == (5, 5, 4, 1)
