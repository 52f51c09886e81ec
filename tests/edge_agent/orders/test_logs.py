"""The agent's own log: what stands in it, what cannot, how much of it there is, whose line goes where, and the excerpt that an order gets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_agent import logs
from edge_agent.logs import FILES, LINES_PER_MINUTE, LogBook, scrubbed
from edge_agent.orders import excerpt, hooks
from protocols.contract.limits import LOG_MAX_BYTES
from tests.support.contract import NOW_MS, StepClock
from tests.support.processes import programs_with
from tests.support.waiting import until

log = logging.getLogger("edge_agent.tests")
ORDER = bytes(16)


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


def book_of(folder: Path, clock: StepClock, max_bytes: int = 1 << 20) -> LogBook:
    return LogBook(folder / "log", clock, max_bytes=max_bytes)


def lines(book: LogBook) -> list[dict[str, Any]]:
    return [json.loads(line) for path in book.files() for line in path.read_bytes().splitlines()]


def test_a_line_has_both_times_level_place_message_and_fields(tmp_path: Path, clock: StepClock) -> None:
    book = book_of(tmp_path, clock)
    with logs.kept_in(book):
        log.warning("a port is refused", extra={"slot": "scanner", "held": True})
    assert lines(book) == [
        {
            "t": NOW_MS,
            "b": 1000,
            "l": "warning",
            "n": "edge_agent.tests",
            "m": "a port is refused",
            "f": {"slot": "scanner", "held": True},
        }
    ]


@pytest.mark.spec("O-401")
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("card 11010519491231002X read", "card # read"),
        ("call 138 0013 8000 now", "call # now"),
        ("6222-0210-0111-2233", "#"),
        ("uid 04A1B2C3D4", "uid #"),
        ("姓名张三", "?"),
        ("line\r\nbreak\x1b[2J", "line?break?[2J"),
        ("slot call-pad-3, 42 retries, code 0x1f", "slot call-pad-3, 42 retries, code 0x1f"),
        ("version 1.20.3 of 2026", "version 1.20.3 of 2026"),
    ],
)
def test_what_could_be_a_persons_does_not_get_in(text: str, left: str) -> None:
    assert scrubbed(text) == left


@pytest.mark.spec("O-401")
def test_fields_and_exceptions_are_scrubbed_too(tmp_path: Path, clock: StepClock) -> None:
    book = book_of(tmp_path, clock)
    with logs.kept_in(book):
        try:
            raise ValueError("scanned 11010519491231002X")
        except ValueError:
            log.exception("failed for %s", "13800138000", extra={"who": "李四", "n": 11010519491231002})
    raw = b"".join(path.read_bytes() for path in book.files())
    for secret in (b"110105", b"138001", "李四".encode(), b"scanned"):
        assert secret not in raw
    assert lines(book)[0]["f"]["error"] == "ValueError"


def test_the_book_stays_within_its_size_and_keeps_the_newest(tmp_path: Path, clock: StepClock) -> None:
    book = book_of(tmp_path, clock, max_bytes=64 * 1024)
    with logs.kept_in(book):
        for n in range(2000):
            clock.advance(1000)
            log.warning("line %d %s", n, "x" * 50)
    files = book.files()
    assert len(files) <= FILES
    assert sum(path.stat().st_size for path in files) <= 64 * 1024
    kept = lines(book)
    assert kept[-1]["m"].startswith("line 1999 ")
    assert len(kept) > 200


def test_the_next_run_goes_on_in_the_same_book(tmp_path: Path, clock: StepClock) -> None:
    for run in range(3):
        with logs.kept_in(book_of(tmp_path, clock)):
            log.warning("run %d", run)
    book = book_of(tmp_path, clock)
    assert [line["m"] for line in lines(book)] == ["run 0", "run 1", "run 2"]
    assert len(book.files()) == 1


def test_a_part_that_fails_in_a_circle_does_not_fill_the_book(tmp_path: Path, clock: StepClock) -> None:
    book = book_of(tmp_path, clock)
    with logs.kept_in(book):
        for _ in range(LINES_PER_MINUTE + 500):
            log.warning("again")
        clock.advance(60_000)
        log.warning("calm")
    kept = lines(book)
    assert len(kept) == LINES_PER_MINUTE + 1
    assert kept[-1]["f"] == {"dropped": "500"}


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path, clock: StepClock) -> None:
    (tmp_path / "log").write_text("a file where the directory should be")
    with logs.kept_in(book_of(tmp_path, clock)):
        log.warning("lost")
    assert (tmp_path / "log").read_text() == "a file where the directory should be"


async def test_agents_of_one_process_write_into_their_own_books(tmp_path: Path, clock: StepClock) -> None:
    books = [book_of(tmp_path / str(n), clock) for n in range(3)]

    async def agent(n: int) -> None:
        with logs.kept_in(books[n]):
            await asyncio.gather(*(asyncio.create_task(part(n, name)) for name in "ab"))

    async def part(n: int, name: str) -> None:
        for _ in range(3):
            log.warning("agent %d part %s", n, name)
            await asyncio.sleep(0)

    await asyncio.gather(*(agent(n) for n in range(3)))
    log.warning("nobody's")
    for n, book in enumerate(books):
        assert {line["m"] for line in lines(book)} == {f"agent {n} part a", f"agent {n} part b"}
        assert len(lines(book)) == 6


class TestExcerpt:
    def book(self, tmp_path: Path, clock: StepClock, count: int, *, noise: int = 0) -> LogBook:
        book, rng = book_of(tmp_path, clock, 32 << 20), random.Random(1)
        with logs.kept_in(book):
            for n in range(count):
                clock.advance(1000)
                log.warning("n%d %s", n, "".join(rng.choice("ghijklmnopqrstuvwxyz") for _ in range(noise)))
        return book

    def read(self, made: Any) -> list[str]:
        return [json.loads(line)["m"].split()[0] for line in gzip.decompress(made.text).splitlines()]

    def test_a_span_of_time(self, tmp_path: Path, clock: StepClock) -> None:
        book = self.book(tmp_path, clock, 10)
        made = excerpt.make(book.files(), ORDER, NOW_MS + 3000, NOW_MS + 6000)
        assert self.read(made) == ["n2", "n3", "n4"]
        assert (made.lines, made.cut, made.from_ms, made.to_ms) == (3, False, NOW_MS + 3000, NOW_MS + 6000)

    @pytest.mark.spec("O-402")
    def test_the_newest_lines_stay_where_there_is_too_much(self, tmp_path: Path, clock: StepClock) -> None:
        book = self.book(tmp_path, clock, 400, noise=200)
        small = excerpt.make(book.files(), ORDER, 0, 2 * NOW_MS, max_bytes=20_000)
        assert small.cut
        assert len(small.text) <= 20_000
        assert self.read(small)[-1] == "n399"
        short = excerpt.make(book.files(), ORDER, 0, 2 * NOW_MS, max_text_bytes=10_000)
        assert short.cut
        assert len(gzip.decompress(short.text)) <= 10_000
        assert self.read(short)[-1] == "n399"

    def test_nothing_in_the_span_is_an_answer_too(self, tmp_path: Path, clock: StepClock) -> None:
        made = excerpt.make(self.book(tmp_path, clock, 3).files(), ORDER, 0, 1)
        assert (made.lines, gzip.decompress(made.text)) == (0, b"")

    @pytest.mark.spec("O-401")
    def test_what_is_no_line_of_the_agent_is_left_out(self, tmp_path: Path, clock: StepClock) -> None:
        book = self.book(tmp_path, clock, 1)
        with book.files()[0].open("ab") as file:
            file.write(b"free text of somebody\n" + b'{"t":' + str(NOW_MS).encode() + b',"cut off')
        assert excerpt.make(book.files(), ORDER, 0, 2 * NOW_MS).lines == 1
        assert LOG_MAX_BYTES == 4 * 1024 * 1024


class TestHooks:
    async def test_ends(self, tmp_path: Path) -> None:
        mark = tmp_path / "mark"
        assert await hooks.run((sys.executable, "-c", f"open({str(mark)!r}, 'w')"), within_s=20) == "ok"
        assert mark.exists()
        assert await hooks.run((sys.executable, "-c", "raise SystemExit(3)"), within_s=20) == "failed"
        assert await hooks.run((str(tmp_path / "missing"),), within_s=20) == "failed"

    async def test_arguments_are_not_read_by_a_shell(self, tmp_path: Path) -> None:
        code = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
        assert await hooks.run((sys.executable, "-c", code, str(tmp_path / "out"), "$(id); rm -rf *"), within_s=20) == "ok"
        assert (tmp_path / "out").read_text() == "$(id); rm -rf *"

    async def test_one_that_hangs_is_ended_with_its_children(self, tmp_path: Path) -> None:
        assert await hooks.run(hanging(tmp_path), within_s=1.0) == "timeout"
        await until(lambda: programs_with(tmp_path) == [], "they have ended")

    async def test_one_that_runs_when_the_agent_ends_is_ended_with_its_children(self, tmp_path: Path) -> None:
        running = asyncio.ensure_future(hooks.run(hanging(tmp_path), within_s=600.0))
        await until(lambda: len(programs_with(tmp_path)) == 2, "the hook and its child run")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: programs_with(tmp_path) == [], "they have ended")


def hanging(folder: Path) -> tuple[str, ...]:
    """A command that waits for its child, which never ends; both carry the folder's name among their arguments."""
    (folder / "nothing").touch()
    return ("/bin/sh", "-c", 'tail -f "$0"; :', str(folder / "nothing"))
