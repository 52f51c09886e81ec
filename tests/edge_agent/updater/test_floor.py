"""The time floor: only signed statements move it, newer ones replace older ones, and a poisoned one ends with the key that told it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from edge_agent.clock import BUILD_FLOOR_MS
from edge_agent.updater.floor import LAST_MS, TimeFloor, as_datetime, as_ms

pytestmark = pytest.mark.spec("U-108")

DAY_MS = 24 * 3600 * 1000
LATER = BUILD_FLOOR_MS + 100 * DAY_MS


def test_nothing_known_is_the_day_this_was_made(tmp_path: Path) -> None:
    floor = TimeFloor(tmp_path / "floor")
    assert floor.ms == BUILD_FLOOR_MS
    assert floor.now_ms(0) == BUILD_FLOOR_MS
    assert floor.now_ms(LATER) == LATER
    assert not (tmp_path / "floor").exists()


def test_the_servers_word_lasts(tmp_path: Path) -> None:
    TimeFloor(tmp_path / "floor").hear_server(7, LATER)
    floor = TimeFloor(tmp_path / "floor")
    assert floor.ms == LATER and floor.now_ms(0) == LATER


def test_the_newer_word_counts_and_not_the_later_time(tmp_path: Path) -> None:
    floor = TimeFloor(tmp_path / "floor")
    floor.hear_server(7, LATER + 3000 * DAY_MS)  # the server's clock was wrong
    floor.hear_server(8, LATER)
    assert floor.ms == LATER
    floor.hear_server(7, LATER + 3000 * DAY_MS)  # replayed
    floor.hear_server(8, LATER + 3000 * DAY_MS)
    assert floor.ms == LATER


@pytest.mark.parametrize("wrong_ms", [-1, 2**53, 2**63])
def test_a_time_that_is_none_is_not_heard(tmp_path: Path, wrong_ms: int) -> None:
    floor = TimeFloor(tmp_path / "floor")
    floor.hear_server(1, wrong_ms)
    assert floor.ms == BUILD_FLOOR_MS


def test_a_repositorys_word_counts_for_itself_and_its_keys(tmp_path: Path) -> None:
    floor = TimeFloor(tmp_path / "floor")
    floor.hear_repository("image", "keys-1", version=5, issued_ms=LATER, expires_ms=LATER + 9 * DAY_MS)
    floor = TimeFloor(tmp_path / "floor")
    assert floor.now_for_ms("image", "keys-1", 0) == LATER
    assert floor.now_for_ms("image", "keys-2", 0) == BUILD_FLOOR_MS
    assert floor.now_for_ms("director", "keys-1", 0) == BUILD_FLOOR_MS
    assert floor.now_for_ms("image", "keys-1", LATER + DAY_MS) == LATER + DAY_MS


def test_a_time_after_its_own_end_counts_as_its_end(tmp_path: Path) -> None:
    floor = TimeFloor(tmp_path / "floor")
    floor.hear_repository("image", "k", version=2**60, issued_ms=LATER + 999 * DAY_MS, expires_ms=LATER)
    assert floor.now_for_ms("image", "k", 0) == LATER
    assert TimeFloor(tmp_path / "floor").now_for_ms("image", "k", 0) == LATER


@pytest.mark.parametrize(
    "spoiled", [b"", b"\0" * 64, b"[]", b'{"server":{"counter":-1,"ms":1}}', b'{"repositories":7}', b"[" * 4000]
)
def test_a_spoiled_file_counts_as_nothing(tmp_path: Path, spoiled: bytes) -> None:
    (tmp_path / "floor").write_bytes(spoiled)
    floor = TimeFloor(tmp_path / "floor")
    assert floor.ms == BUILD_FLOOR_MS
    floor.hear_server(1, LATER)
    assert TimeFloor(tmp_path / "floor").ms == LATER


@pytest.mark.parametrize("ms", [0, 1, 2**31 * 1000 - 1, 2**31 * 1000, 2**32 * 1000, LAST_MS])
def test_every_clock_is_a_moment(tmp_path: Path, ms: int) -> None:
    """1970, the last second of 32 bits and the first after it, and the end of the calendar."""
    assert as_ms(as_datetime(ms)) == ms
    assert as_datetime(TimeFloor(tmp_path / "floor").now_ms(2**60)) == as_datetime(LAST_MS)
    assert as_datetime(-5) == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
