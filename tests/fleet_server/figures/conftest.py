"""A small city with facts that came in as records: three districts, six sites, terminals that come and go."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import pytest

from fleet_server.figures.board import Board
from fleet_server.figures.question import FLEET, Period, Question, Scope
from fleet_server.usage.days import recompute_some
from protocols.canon.words import Severity
from protocols.contract.records import Body, Fault, Queue, Rating, Serviceability, Session
from tests.support.facts import WORK_HOURS, FactBench, Run

SHANGHAI = timezone(timedelta(hours=8))
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
JUNE = Period("2026-06-01", "2026-06-30")
"""In 2026: 30 days with 21 working days; the Dragon Boat Festival is the 19th to the 21st."""
ITEMS = ("tax.print", "social.proof", "house.record-query")


def at(text: str) -> int:
    """Beijing time, `06-09 10:30` or with the year, in ms."""
    full = text if text.startswith("20") else f"2026-{text}"
    return int(datetime.fromisoformat(full).replace(tzinfo=SHANGHAI).timestamp() * 1000)


NOW = at("07-10 08:00")


class Town:
    """A FactBench with places, and records on their way in."""

    def __init__(self, bench: FactBench) -> None:
        self.bench, self.conn = bench, bench.conn
        self._runs: dict[str, Run] = {}
        self._cases = self._faults = 0
        self.conn.execute("DELETE FROM site")
        self.conn.execute("DELETE FROM terminal")
        for code, parent, n in (("city", None, 0), ("east", "city", 1), ("west", "city", 2), ("far-east", "east", 3)):
            self.conn.execute(
                "INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES (?, ?, ?, ?, ?)",
                (code, parent, f"{code}区", code, n),
            )
        self.site("hall-e", "east")
        self.site("hall-w", "west")
        self.site("far", "far-east")
        self.site("zone24", "west", '{"always": true}')

    def site(self, code: str, area: str, hours: str = WORK_HOURS, zone: str = "Asia/Shanghai") -> None:
        self.conn.execute(
            "INSERT INTO site (code, area, name_zh, name_en, kind, hours, timezone) VALUES (?, ?, ?, ?, 'hall', ?, ?)",
            (code, area, f"{code}厅", code, hours, zone),
        )

    def terminal(
        self,
        id: str,  # noqa: A002 - the column's name
        site: str = "hall-e",
        *,
        since: str = "2026-01-01 00:00",
        until: str | None = None,
        type: str = "kiosk",  # noqa: A002 - the column's name
    ) -> None:
        self.bench.add_terminal(id, site, enrolled_ms=at(since))
        self.conn.execute(
            "UPDATE terminal SET revoked_ms = ?, type = ? WHERE id = ?", (None if until is None else at(until), type, id)
        )

    def tell(self, terminal: str, *told: tuple[Body, int], disputed: bool = False, late_ms: int = 200) -> None:
        """Records of one batch, captured at their times under a right clock."""
        run = self._runs.setdefault(terminal, Run(terminal, 1, up_ms=at("2026-01-01 00:00")))
        if disputed:
            run = Run(terminal, 1000 + len(self._runs), up_ms=at("2026-01-01 00:00"))
            self._runs[f"{terminal}/{len(self._runs)}"] = run
        records = [run.capture(body, at_ms) for body, at_ms in told]
        self.bench.arrive(run.send(records, max(at_ms for _, at_ms in told) + late_ms, disputed=disputed))

    def case(
        self,
        terminal: str,
        when: str | int,
        outcome: Literal["success", "failed", "abandoned"] = "success",
        item: str = ITEMS[0],
        *,
        disputed: bool = False,
    ) -> None:
        self._cases += 1
        began_ms = when if isinstance(when, int) else at(when)
        body = Session(id=self._cases.to_bytes(16, "big"), item=item, outcome=outcome, began_ms=began_ms, duration_ms=90_000)
        self.tell(terminal, (body, began_ms + 90_000), disputed=disputed)

    def served(self, terminal: str, start: str, end: str, *, usable_s: int, partial_s: int = 0, unusable_s: int = 0) -> None:
        """The terminal's own summary of a span."""
        body = Serviceability(
            from_ms=at(start), to_ms=at(end), observed_s=usable_s + partial_s + unusable_s, usable_s=usable_s, partial_s=partial_s,
            unusable_s=unusable_s,
        )  # fmt: skip
        self.tell(terminal, (body, at(end)))

    def fault(
        self,
        terminal: str,
        since: str,
        until: str | None,
        *,
        code: str = "PRN.PAPER_OUT",
        slot: str | None = "receipt-printer",
        mandatory: bool = True,
        severity: Severity = Severity.P2,
    ) -> None:
        self._faults += 1
        ends: tuple[tuple[Literal["open", "clear"], str | None], ...] = (("open", since), ("clear", until))
        for change, when in ends:
            if when is not None:
                body = Fault(
                    id=self._faults.to_bytes(8, "big"), code=code, change=change, severity=severity, slot=slot, mandatory=mandatory,
                    since_ms=at(since),
                )  # fmt: skip
                self.tell(terminal, (body, at(when)))

    def rated(self, terminal: str, when: str, *levels: int) -> None:
        self.tell(terminal, *((Rating(level=level), at(when) + n) for n, level in enumerate(levels)))

    def called(self, terminal: str, when: str, *actions: str) -> None:
        keys = ((Queue(slot="call-pad-1", action=action), at(when) + n) for n, action in enumerate(actions))  # type: ignore[arg-type]
        self.tell(terminal, *keys)

    def presence(self, terminal: str, *spans: tuple[str, str]) -> None:
        """(state, from), each until the next, the last still lasting."""
        for (state, start), after in zip(spans, [*spans[1:], None], strict=True):
            self.conn.execute(
                "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, ?, ?, 'test')",
                (terminal, at(start), None if after is None else at(after[1]), state),
            )

    def settle(self, now_ms: int = NOW) -> None:
        """Compute the days that records have touched."""
        while recompute_some(self.conn, 50, now_ms):
            pass

    def whole_period(self, period: Period = JUNE) -> None:
        """Mark every day of every terminal, as the presence watch does at each day's end."""
        self.conn.executemany(
            "INSERT OR IGNORE INTO dirty_day (terminal, day) SELECT id, ? FROM terminal", [(day,) for day in period.each_day()]
        )
        self.settle()

    def board(self, period: Period = JUNE, scope: Scope = FLEET, now_ms: int = NOW) -> Board:
        return Board(self.conn, Question(period, scope), now_ms)


@pytest.fixture
def town(schema: Path) -> Iterator[Town]:
    bench = FactBench(schema)
    yield Town(bench)
    bench.close()


@pytest.fixture
def busy_town(town: Town) -> Town:
    """June at random, from a seed: everything that figures are made of, and what they must leave out."""
    return fill(town, random.Random(20260601))


def fill(town: Town, rng: random.Random) -> Town:
    sites = ("hall-e", "hall-w", "far", "zone24")
    town.site("lost", "nowhere")
    for n in range(14):
        town.terminal(
            f"kf-{n:02}",
            (*sites, "lost")[n % 5],
            since=rng.choice(("2026-01-01 00:00", "2026-06-11 10:00")),
            until=rng.choice((None, None, None, "2026-06-20 12:00")),
            type=rng.choice(("kiosk", "desk")),
        )
    town.terminal("kf-old", until="2026-05-31 23:59")
    town.terminal("kf-new", since="2026-07-01 00:00")
    for n in range(12):
        if n % 4 == 0:
            town.presence(
                f"kf-{n:02}",
                ("online", "05-20 00:00"),
                ("suspect", "06-08 10:00"),
                ("offline", "06-08 10:05"),
                ("online", "06-08 15:30"),
            )
        elif n % 4 == 1:
            town.presence(
                f"kf-{n:02}",
                ("online", "06-12 00:00"),
                ("unknown", "06-16 09:00"),
                ("suspect", "06-16 11:00"),
                ("online", "06-16 11:30"),
            )
    for n in range(260):
        town.case(
            f"kf-{rng.randrange(12):02}",
            at("06-01 00:00") + rng.randrange(30 * DAY),
            rng.choices(("success", "failed", "abandoned"), (90, 6, 4))[0],
            rng.choice(ITEMS),
            disputed=n % 40 == 0,
        )
    town.case("kf-old", "06-02 10:00")
    town.case("kf-13", "05-12 10:00")
    for n in range(40):
        day = 1 + rng.randrange(29)
        start = f"06-{day:02} {9 + rng.randrange(8):02}:00"
        town.fault(
            f"kf-{rng.randrange(14):02}",
            start,
            rng.choice((None, f"06-{day + 1:02} 09:30")),
            severity=rng.choice((Severity.P2, Severity.P3, Severity.P4)),
            mandatory=rng.random() < 0.6,
            code=rng.choice(("PRN.PAPER_OUT", "LSR.JAM")),
        )
        town.rated(f"kf-{rng.randrange(14):02}", start, rng.randrange(6), rng.randrange(6))
        town.called(f"kf-{rng.randrange(14):02}", start, rng.choice(("callNext", "recall", "pause")))
        town.served(
            f"kf-{n % 14:02}",
            f"06-{day:02} 09:00",
            f"06-{day:02} 12:00",
            usable_s=rng.randrange(9_000),
            partial_s=900,
            unusable_s=800,
        )
    town.whole_period()
    return town
