from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import clock
from edge_agent.clock import BUILD_FLOOR_MS, ClockReading, ClockWatch, SystemClock, TimeFloor
from protocols.contract.records import Clock as ClockBody
from protocols.contract.records import ClockQuality, encode_record

UNSET, HOLDOVER, SYNCED = ClockQuality.UNSET, ClockQuality.HOLDOVER, ClockQuality.SYNCED
DAY_MS = 86_400_000


def reading(boot_ms: int, wall_at_boot_ms: int, quality: ClockQuality) -> ClockReading:
    return ClockReading(wall_ms=wall_at_boot_ms + boot_ms, boot_ms=boot_ms, quality=quality)


class TestClockWatch:
    def test_unset_clock_is_no_fixed_point(self) -> None:
        watch = ClockWatch()
        assert watch.observe(reading(1000, 0, UNSET)) is None
        assert watch.observe(reading(61_000, 0, UNSET)) is None

    def test_synchronised_at_start_is_written(self) -> None:
        got = ClockWatch().observe(reading(1000, BUILD_FLOOR_MS, SYNCED))
        assert got == ClockBody(boot_ms=1000, wall_ms=BUILD_FLOOR_MS + 1000, quality=SYNCED, step_ms=0)

    @pytest.mark.spec("C-701")
    def test_1970_until_synchronisation(self) -> None:
        watch = ClockWatch()
        watch.observe(reading(1000, 0, UNSET))
        got = watch.observe(reading(90_000, BUILD_FLOOR_MS, SYNCED))
        assert got is not None
        assert got.step_ms == BUILD_FLOOR_MS
        assert watch.observe(reading(95_000, BUILD_FLOOR_MS, SYNCED)) is None

    @pytest.mark.parametrize(
        ("step_ms", "written"), [(1000, False), (-1000, False), (1001, True), (-1001, True), (-DAY_MS, True)]
    )
    @pytest.mark.spec("C-701")
    def test_steps_over_a_second(self, step_ms: int, written: bool) -> None:
        watch = ClockWatch()
        watch.observe(reading(0, BUILD_FLOOR_MS, SYNCED))
        got = watch.observe(reading(5000, BUILD_FLOOR_MS + step_ms, SYNCED))
        assert (got is not None) is written
        if got is not None:
            assert got.step_ms == step_ms

    def test_small_steps_add_up(self) -> None:
        watch = ClockWatch()
        watch.observe(reading(0, BUILD_FLOOR_MS, SYNCED))
        written = [watch.observe(reading(5000 * i, BUILD_FLOOR_MS + 400 * i, SYNCED)) for i in range(1, 7)]
        assert [body.step_ms if body else 0 for body in written] == [0, 0, 1200, 0, 0, 1200]

    def test_loss_of_synchronisation_is_not_a_fixed_point_but_its_return_is(self) -> None:
        watch = ClockWatch()
        watch.observe(reading(0, BUILD_FLOOR_MS, SYNCED))
        assert watch.observe(reading(5000, BUILD_FLOOR_MS, HOLDOVER)) is None
        assert watch.observe(reading(10_000, BUILD_FLOOR_MS, SYNCED)) is not None

    @given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-3000, 3000), st.sampled_from(list(ClockQuality)))))
    def test_known_offset_is_never_off_by_more_than_the_limit(self, moves: list[tuple[int, int, ClockQuality]]) -> None:
        watch, boot_ms, offset_ms, known_ms = ClockWatch(), 0, BUILD_FLOOR_MS, None
        for passed_ms, moved_ms, quality in moves:
            boot_ms, offset_ms = boot_ms + passed_ms, offset_ms + moved_ms
            now = reading(boot_ms, offset_ms, quality)
            if (body := watch.observe(now)) is not None:
                encode_record(body, wall_ms=now.wall_ms, quality=quality, boot_ms=boot_ms)
                if known_ms is not None:
                    assert body.step_ms == offset_ms - known_ms
                known_ms = body.wall_ms - body.boot_ms
            elif known_ms is not None:
                assert abs(offset_ms - known_ms) <= 1000


class TestSystemClock:
    def test_reads_the_host(self) -> None:
        host = SystemClock()
        assert abs(host.wall_ms() - time.time() * 1000) < 5000
        assert abs(host.boot_ms() - time.clock_gettime(time.CLOCK_BOOTTIME) * 1000) < 5000
        assert host.quality() in ClockQuality

    @pytest.mark.parametrize(
        ("kernel", "mark", "before", "quality"),
        [
            (True, False, False, SYNCED),
            (False, False, False, UNSET),
            (None, False, False, UNSET),
            (False, True, False, HOLDOVER),
            (False, False, True, HOLDOVER),
            (None, True, False, HOLDOVER),
        ],
    )
    def test_quality(self, tmp_path: Path, kernel: bool | None, mark: bool, before: bool, quality: ClockQuality) -> None:
        if mark:
            (tmp_path / "synchronized").touch()
        host = SystemClock(synced_before=before, synchronised=lambda: kernel, timesync_mark=tmp_path / "synchronized")
        assert host.quality() is quality

    def test_holdover_after_synchronisation(self, tmp_path: Path) -> None:
        answers = iter([True, False])

        class Stepped(SystemClock):
            now_ms = 0

            def boot_ms(self) -> int:
                return self.now_ms

        host = Stepped(synchronised=lambda: next(answers), timesync_mark=tmp_path / "none")
        assert host.quality() is SYNCED
        host.now_ms = 999
        assert host.quality() is SYNCED, "asked at most once a second"
        host.now_ms = 1000
        assert host.quality() is HOLDOVER


def test_boot_id(tmp_path: Path) -> None:
    path = tmp_path / "boot_id"
    path.write_text("289fb591-464a-4f82-95a3-0ed2c388c3a0\n")
    assert clock.read_boot_id(path).hex() == "289fb591464a4f8295a30ed2c388c3a0"
    assert clock.read_boot_id(tmp_path / "missing") == bytes(16)
    path.write_text("garbage")
    assert clock.read_boot_id(path) == bytes(16)
    assert len(clock.read_boot_id()) == 16


class TestTimeFloor:
    def test_never_below_the_build(self) -> None:
        assert TimeFloor(0).floor_ms == BUILD_FLOOR_MS
        assert TimeFloor(BUILD_FLOOR_MS + 5).floor_ms == BUILD_FLOOR_MS + 5

    def test_learns_only_upward(self) -> None:
        floor = TimeFloor()
        assert floor.learn(BUILD_FLOOR_MS + DAY_MS)
        assert not floor.learn(BUILD_FLOOR_MS + DAY_MS)
        assert not floor.learn(0)
        assert floor.floor_ms == BUILD_FLOOR_MS + DAY_MS

    def test_the_servers_newest_word_replaces_a_wrong_one(self) -> None:
        """A server that was ten years ahead for an hour would otherwise leave every terminal's clock wrong for ten years."""
        floor = TimeFloor()
        floor.hear(BUILD_FLOOR_MS + 3650 * DAY_MS)
        assert floor.behind_ms(BUILD_FLOOR_MS + DAY_MS) == 3649 * DAY_MS
        floor.hear(BUILD_FLOOR_MS + DAY_MS)
        assert floor.floor_ms == BUILD_FLOOR_MS + DAY_MS
        floor.hear(0)
        assert floor.floor_ms == BUILD_FLOOR_MS

    def test_says_how_far_behind(self) -> None:
        assert TimeFloor().behind_ms(0) == BUILD_FLOOR_MS
        assert TimeFloor().behind_ms(BUILD_FLOOR_MS + 1) == 0
