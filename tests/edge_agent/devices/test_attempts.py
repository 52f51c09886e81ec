"""Rates of failed attempts: what visits and hours prove, what they do not, and that a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from edge_agent.clock import ClockReading
from edge_agent.devices.attempts import RULES, AttemptBook, Hour, Met, Outcome, fails_often, finds_nothing
from protocols.contract.records import ClockQuality

HOUR_MS = 3_600_000
START_MS = 1_790_000_000_000 // HOUR_MS * HOUR_MS
WEAK, REFUSED = RULES


def at(ms: int) -> ClockReading:
    return ClockReading(wall_ms=START_MS + ms, boot_ms=ms, quality=ClockQuality.SYNCED)


def codes(book: AttemptBook, family: str = "IDR") -> set[str]:
    return {condition.code for condition in book.conditions("id-reader", family)}


def visit(book: AttemptBook, steps: Iterable[Met], at_ms: int) -> None:
    for number, step in enumerate(steps):
        book.met("id-reader", [step], at(at_ms + 300 * number))


READ = (Met.NONE, Met.NONE, Met.FOUND, Met.OK)
NOT_READ = (Met.NONE, Met.FOUND, Met.WEAK, Met.FOUND, Met.WEAK)
NOT_ACCEPTED = (Met.FOUND, Met.REFUSED)


def test_cards_that_are_found_and_not_read() -> None:
    book = AttemptBook()
    for number in range(20):
        visit(book, NOT_READ if number % 3 == 0 else READ, number * 60_000)
    assert codes(book) == {"IDR.READ_FAIL_RATE"}
    for number in range(20, 45):
        visit(book, READ, number * 60_000)
    assert codes(book) == set()


def test_cards_that_the_module_does_not_accept() -> None:
    book = AttemptBook()
    for number in range(20):
        visit(book, NOT_ACCEPTED if number % 4 == 0 else READ, number * 60_000)
    assert codes(book) == {"IDR.AUTH_FAIL_RATE"}
    assert {condition.code for condition in book.conditions("id-reader", "CRD")} == {"CRD.AUTH_FAIL_RATE"}


def test_one_person_who_tries_often_is_one_visit() -> None:
    book = AttemptBook()
    visit(book, NOT_READ * 30, 0)
    assert codes(book) == set()


def test_a_visit_that_ends_well_is_a_good_one_however_it_began() -> None:
    book = AttemptBook()
    for number in range(30):
        visit(book, (*NOT_READ, *READ), number * 60_000)
    assert codes(book) == set()


def test_the_next_card_after_a_good_read_is_another_visit_without_a_pause() -> None:
    book = AttemptBook()
    for number in range(10):
        visit(book, (*READ, Met.FOUND, Met.WEAK), number * 60_000)
    assert codes(book) == {"IDR.READ_FAIL_RATE"}


def test_no_card_in_a_working_day_of_visits() -> None:
    book = AttemptBook()
    for hour in range(7):
        for number in range(4):
            visit(book, [Met.NONE] * 20, hour * HOUR_MS + number * 600_000)
    assert codes(book) == set()
    for number in range(4):
        visit(book, [Met.NONE] * 20, 7 * HOUR_MS + number * 600_000)
    assert codes(book) == {"IDR.READ_FAIL_RATE"}
    visit(book, READ, 8 * HOUR_MS)
    assert codes(book) == set()


def test_looking_for_cards_all_day_while_nobody_comes_proves_nothing() -> None:
    book = AttemptBook()
    for second in range(0, 3 * 24 * 3600, 5):
        book.met("id-reader", [Met.NONE], at(second * 1000))
    assert codes(book) == set()


def test_a_card_that_stays_on_the_reader_after_a_good_read_proves_nothing() -> None:
    """Such a card is not found again until it left the field."""
    book = AttemptBook()
    for hour in range(24):
        for number in range(4):
            visit(book, READ if number == 0 else [Met.NONE] * 50, hour * HOUR_MS + number * 600_000)
    assert codes(book) == set()


def test_the_applications_own_reports_tell_as_much() -> None:
    book = AttemptBook()
    for hour in range(8):
        for number in range(3):
            book.used("id-reader", ok=False, now=at(hour * HOUR_MS + number))
    assert codes(book) == {"IDR.READ_FAIL_RATE"}
    book.used("id-reader", ok=True, now=at(8 * HOUR_MS))
    assert codes(book) == set()


def test_a_restart_forgets_nothing() -> None:
    book = AttemptBook()
    for number in range(12):
        visit(book, NOT_READ, number * 60_000)
    again = AttemptBook()
    again.restore(book.export())
    assert codes(again) == codes(book) == {"IDR.READ_FAIL_RATE"}
    assert not book.dirty
    with pytest.raises(ValueError, match="not readable"):
        again.restore(b"\x00garbage")
    assert codes(again) == {"IDR.READ_FAIL_RATE"}


def test_what_is_kept_has_an_end() -> None:
    book = AttemptBook()
    for hour in range(2000):
        visit(book, READ, hour * HOUR_MS)
    assert len(book.export()) < 20_000


def test_a_clock_that_jumps_back_begins_a_new_visit() -> None:
    book = AttemptBook()
    visit(book, [Met.FOUND, Met.WEAK], 10 * HOUR_MS)
    visit(book, [Met.FOUND, Met.WEAK], 0)
    assert codes(book) == set()


def test_the_rules_alone() -> None:
    good: list[Outcome] = ["ok"] * 16
    weak: list[Outcome] = ["weak"] * 5
    refused: list[Outcome] = ["refused"] * 4
    assert fails_often(weak, WEAK)
    assert not fails_often(weak[:4], WEAK)
    assert not fails_often(refused * 5, WEAK)
    assert not fails_often(good + refused, REFUSED)
    telling = [Hour(hour=number, visits=3) for number in range(8)]
    assert finds_nothing(telling)
    assert not finds_nothing(telling[:-1])
    assert not finds_nothing([*telling, Hour(hour=9, found=1)])
    assert not finds_nothing([Hour(hour=number, visits=1) for number in range(100)])
    assert finds_nothing([Hour(hour=-1, found=9), *telling, Hour(hour=9, visits=1)])
