"""At ten random moments of a storm every number on the overview is the number of rows behind its link, and the sums hold."""

from __future__ import annotations

import html
import random
import re
from pathlib import Path

import pytest

from fleet_server.console.listing import PER_PAGE
from fleet_server.terminals.state import WORST_FIRST, StateCode
from tests.support.person import Person, operator_of
from tests.support.seed import MINUTE, NOW_MS, OPERATOR, seed
from tests.support.storm import Storm

MOMENTS = 10
TILE = re.compile(r'<a class="tile[^"]*" href="([^"]+)"[^>]*>.*?data-tile="(\w+)">\s*([\d,]+)\s*<.*?</a>', re.DOTALL)
LINKED_NUMBER = re.compile(r'<a href="(/terminals\?state=\w+)">([\d,]+)</a>')
LEGEND = re.compile(r'<a class="s-\w+" href="(/terminals\?state=\w+)">.*?<b>([\d,]+)</b></a>', re.DOTALL)


def whole(text: str) -> int:
    return int(text.replace(",", ""))


async def behind(person: Person, address: str) -> list[str]:
    """The terminals of a list, all its pages."""
    found: list[str] = []
    for page in range(1, 100):
        sign = "&" if "?" in address else "?"
        rows = re.findall(r'<tr [^>]*id="row-([^"]+)"', await person.get(f"{html.unescape(address)}{sign}page={page}"))
        found += rows
        if len(rows) < PER_PAGE:
            return found
        assert len(set(found)) == len(found), f"{address}: a row stands on two pages"
    raise AssertionError(address)


async def check(person: Person) -> dict[StateCode, int]:
    overview = await person.get("/")
    tiles = {name: (href, whole(number)) for href, name, number in TILE.findall(overview)}
    assert {"total", "online", "abnormal", "offline", "cases"} <= set(tiles)
    for name in ("total", "online", "abnormal", "offline"):
        href, number = tiles[name]
        assert len(await behind(person, href)) == number, name
    of = {state: len(await behind(person, f"/terminals?state={state}")) for state in WORST_FIRST}
    online = of[StateCode.NORMAL] + of[StateCode.UNUSABLE] + of[StateCode.PARTIAL] + of[StateCode.SUSPECT]
    out_of_play = of[StateCode.CLOSED] + of[StateCode.MAINTENANCE] + of[StateCode.NOT_ENROLLED] + of[StateCode.UNKNOWN]
    assert tiles["abnormal"][1] == of[StateCode.UNUSABLE] + of[StateCode.PARTIAL]
    assert tiles["online"][1] == online
    assert tiles["offline"][1] == of[StateCode.OFFLINE]
    assert tiles["total"][1] == online + of[StateCode.OFFLINE] + out_of_play
    for href, number in LINKED_NUMBER.findall(overview) + LEGEND.findall(overview):
        assert whole(number) == of[StateCode(href.rpartition("=")[2])], href
    assert len(LEGEND.findall(overview)) == sum(count > 0 for count in of.values())
    listed = await person.get("/terminals")
    for state, count in of.items():
        chip = re.search(rf'href="[^"]*state={state}[^"]*"[^>]*>(?:(?!</a>).)*<b>([\d,]+)</b>', listed, re.DOTALL)
        assert (whole(chip.group(1)) if chip else 0) == count, state
    return of


async def check_faults(person: Person) -> None:
    """The number beside "faults" is the number of rows behind it."""
    page = await person.get("/faults")
    badge = re.search(r"data-open-faults[^>]*>(\d+)<", page)
    assert badge
    assert len(re.findall(r'<tr [^>]*data-severity="', page)) == int(badge.group(1))


@pytest.mark.parametrize("number", range(3))
async def test_every_number_is_the_rows_behind_its_link(tmp_path: Path, number: int) -> None:
    seeded = seed(tmp_path / "fleet.sqlite", count=120, days=3)
    storm, rng = Storm(seeded.path, seeded.machines, seed=number), random.Random(number)
    now_ms = NOW_MS
    seen: set[StateCode] = set()
    async with operator_of(seeded.path, tmp_path, lambda: now_ms) as person:
        for _ in range(MOMENTS):
            now_ms += rng.randrange(MINUTE, 120 * MINUTE)
            storm.gust(now_ms)
            await person.sign_in(OPERATOR)  # the session of two hours ago is over
            of = await check(person)
            await check_faults(person)
            seen |= {state for state, count in of.items() if count}
    assert seen >= set(WORST_FIRST) - {StateCode.NOT_ENROLLED}, "the storm was too weak to show every state"


async def test_the_cases_of_today_are_those_of_the_rows(tmp_path: Path) -> None:
    seeded = seed(tmp_path / "fleet.sqlite", count=120, days=3)
    async with operator_of(seeded.path, tmp_path, lambda: NOW_MS) as person:
        href, number = next(
            (href, whole(number)) for href, name, number in TILE.findall(await person.get("/")) if name == "cases"
        )
        rows = 0
        for page in range(1, 20):
            table = re.search(r"<tbody.*?</tbody>", await person.get(f"{html.unescape(href)}&page={page}"), re.DOTALL)
            assert table
            shown = table.group(0).count("<tr")
            rows += shown
            if shown < PER_PAGE:
                break
        assert rows == number > 0
