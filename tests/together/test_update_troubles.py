"""What may befall a terminal in the middle of an update: it goes on serving, says why it waits, and goes on where it was."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import launcher
from edge_agent.clock import SystemClock
from edge_agent.updater import install
from edge_agent.updater.handover import UpdaterSide
from edge_agent.updater.service import Service
from protocols.contract.records import ClockQuality
from tests.support import packages
from tests.support.packages import Package
from tests.support.processes import programs_with
from tests.support.updating import Terminal, terminal
from tests.support.waiting import wait_until
from tests.together.power_cut import NoPowerSwitch
from tests.together.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.spec("U-201 U-303")]
ENDS = ("committed", "rolledBack", "failed", "refused")
SLOW_S = 0.2
"""Before each 64 KiB: an image takes a quarter of a minute, so that a busy machine finds the middle too."""


class TestClock(SystemClock):
    """The machine's clock, with a wall that the test moves and a quality that it sets."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.quality_now = ClockQuality.SYNCED
        self.wall_now_ms: int | None = None

    def wall_ms(self) -> int:
        return super().wall_ms() if self.wall_now_ms is None else self.wall_now_ms

    def quality(self) -> ClockQuality:
        return self.quality_now


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return packages.real(tmp_path_factory.mktemp("factory"), "1.0.0")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return packages.real(tmp_path_factory.mktemp("new"), "1.1.0", release=2)


@pytest.fixture
def kiosk(tmp_path: Path, factory: Package) -> Iterator[Terminal]:
    with terminal(tmp_path) as one:
        one.lay_out(factory)
        one.server.start()
        yield one


@pytest.fixture
def services() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def begin(kiosk: Terminal, services: ExitStack, clock: TestClock | None = None) -> Service:
    """Agent and launcher as processes, the updater here."""
    kiosk.start_agent()
    service = kiosk.updater(clock or TestClock())
    services.callback(service.close)
    return service


def tick_until(service: Service, what: Callable[[], object], name: str, *, timeout_s: float = 40.0) -> None:
    def look() -> object:
        service.tick()
        return what()

    wait_until(look, f"{name}; work: {service.work and (service.work.state, service.work.reason)}", timeout_s=timeout_s)


def reason_is(service: Service, *reasons: str) -> Callable[[], object]:
    return lambda: service.work is not None and service.work.reason in reasons


def half_way(kiosk: Terminal, service: Service, new: Package) -> None:
    """Some of the image is on the disk, the rest is on its way, slowly."""
    kiosk.server.slow_s = SLOW_S
    tick_until(service, lambda: 200_000 < kiosk.server.sent_bytes, "some of the image")
    assert kiosk.server.sent_bytes < len(new.raw)


def hurry(service: Service) -> None:
    """The wait before the next try is over: the test's time is not the terminal's."""
    work = service.work
    assert work is not None
    import msgspec

    service._memory = msgspec.structs.replace(service._memory, work=msgspec.structs.replace(work, retry_ms=0))


def ends_well(kiosk: Terminal, service: Service) -> None:
    kiosk.server.slow_s = 0.0
    hurry(service)
    assert kiosk.wait_for_end(*ENDS, tick=service.tick) == ("committed", "none")
    kiosk.wait_until_running("1.1.0")


def test_the_server_goes_in_the_middle_and_the_transfer_goes_on_where_it_was(
    kiosk: Terminal, services: ExitStack, new: Package
) -> None:
    service = begin(kiosk, services)
    kiosk.want(kiosk.release(new))
    half_way(kiosk, service, new)
    kiosk.server.stop()
    tick_until(service, reason_is(service, "unreachable"), "the server's absence noticed")
    wait_until(lambda: ("downloading", "unreachable") in kiosk.states(), "it is told")
    kiosk.wait_until_running("1.0.0")
    before = kiosk.server.sent_bytes
    kiosk.server.start()
    ends_well(kiosk, service)
    assert kiosk.server.sent_bytes - before < len(new.raw), "only the rest was fetched"
    assert kiosk.told()[-1].resumed >= 1


def test_a_certificate_that_has_expired_in_the_middle(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    service = begin(kiosk, services)
    kiosk.want(kiosk.release(new))
    half_way(kiosk, service, new)
    kiosk.server.stop()
    kiosk.server.start(begin=dt.datetime.now(dt.UTC) - dt.timedelta(days=40), days=30)
    tick_until(service, reason_is(service, "unreachable", "certificate"), "the cut noticed")
    hurry(service)
    tick_until(service, reason_is(service, "certificate"), "the expired certificate noticed")
    wait_until(lambda: ("downloading", "certificate") in kiosk.states(), "it is told")
    kiosk.wait_until_running("1.0.0")
    kiosk.server.stop()
    kiosk.server.start()
    ends_well(kiosk, service)


def test_a_clock_at_1970_is_no_reason_to_stay_old(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    clock = TestClock()
    clock.wall_now_ms, clock.quality_now = 5_000, ClockQuality.UNSET
    service = begin(kiosk, services, clock)
    kiosk.want(kiosk.release(new))
    assert kiosk.wait_for_end(*ENDS, tick=service.tick) == ("committed", "none")
    kiosk.wait_until_running("1.1.0")
    assert all(one.since_ms > 1_700_000_000_000 for one in kiosk.told()), "told with the time that is surely past"


def test_a_clock_at_1970_does_not_guess_a_window(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    clock = TestClock()
    clock.wall_now_ms, clock.quality_now = 5_000, ClockQuality.UNSET
    service = begin(kiosk, services, clock)
    now_ms = time.time_ns() // 1_000_000
    kiosk.want(kiosk.release(new), windows=((now_ms - 3_600_000, now_ms + 3_600_000),))
    tick_until(service, reason_is(service, "clock"), "it says that it needs a clock")
    clock.wall_now_ms, clock.quality_now = None, ClockQuality.SYNCED
    ends_well(kiosk, service)


def test_an_updater_that_is_killed_in_the_middle_resumes(kiosk: Terminal, new: Package) -> None:
    kiosk.server.slow_s = SLOW_S
    kiosk.start_agent()
    updater = kiosk.start_updater()
    kiosk.want(kiosk.release(new))
    wait_until(lambda: kept_bytes(kiosk) > 0, "some of the image is kept")
    updater.kill_group()  # the launcher of the updater
    for process in programs_with(kiosk.updater_toml):
        os.kill(process, signal.SIGKILL)
    before = kiosk.server.sent_bytes
    assert before < len(new.raw)
    kiosk.server.slow_s = 0.0
    kiosk.start_updater()
    assert kiosk.wait_for_end(*ENDS) == ("committed", "none")
    kiosk.wait_until_running("1.1.0")
    assert kiosk.server.sent_bytes - before < len(new.raw), "only the rest was fetched"
    assert kiosk.told()[-1].resumed >= 1


def kept_bytes(kiosk: Terminal) -> int:
    """Of what is on its way: as much of it is there after a power cut."""
    return sum(json.loads(ledger.read_bytes())["synced"] for ledger in (kiosk.root / "downloads").glob("*.ledger"))


def test_an_abort_in_the_middle_of_the_transfer(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    service = begin(kiosk, services)
    kiosk.want(kiosk.release(new))
    half_way(kiosk, service, new)
    kiosk.desire(None)
    assert kiosk.wait_for_end("cancelled", *ENDS, tick=service.tick) == ("cancelled", "aborted")
    assert kiosk.server.sent_bytes < len(new.raw)
    kiosk.wait_until_running("1.0.0")


def test_a_desired_state_that_nobody_signed_is_no_order(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    service = begin(kiosk, services)
    kiosk.certificate = b"another"
    path = kiosk.release(new)
    kiosk.want(path)
    for _ in range(20):
        service.tick()
    assert service.work is None
    assert not kiosk.server.requests, "nobody was even asked"


@pytest.mark.parametrize("step", ["downloading", "verifying", "unpacking"])
def test_a_full_disk_is_told_and_left_as_soon_as_there_is_room(
    tmp_path: Path, factory: Package, new: Package, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Full before the transfer, before there is unpacked, or in the middle of it: the old version goes on, and nothing half done stays."""
    try:
        with on_a_small_disk(tmp_path, factory) as (disk, kiosk, service):
            if step == "downloading":
                disk.fill()
            if step == "unpacking":
                fill_after_the_look_at_the_room(monkeypatch, disk)
            kiosk.want(kiosk.release(new))
            if step == "verifying":
                tick_until(service, state_is(service, "verifying"), "the image is there")
                disk.fill()
            tick_until(service, reason_is(service, "noSpace"), "the full disk noticed")
            told = "downloading" if step == "downloading" else "verifying"
            wait_until(lambda: (told, "noSpace") in kiosk.states(), "it is told")
            kiosk.wait_until_running("1.0.0")
            assert launcher.count(kiosk.root) == kiosk.layout.state().factory
            assert [path.name for path in kiosk.layout.versions.iterdir()] == [kiosk.layout.state().factory], "nothing half done"
            disk.empty()
            ends_well(kiosk, service)
    except NoPowerSwitch as err:
        pytest.skip(str(err))


def test_a_disk_that_is_full_when_the_version_is_switched(tmp_path: Path, factory: Package, new: Package) -> None:
    """The reserve is enough to put the new version in charge and to make it the good one: an update that has come so far ends."""
    try:
        with on_a_small_disk(tmp_path, factory) as (disk, kiosk, service):
            kiosk.want(kiosk.release(new))
            tick_until(service, state_is(service, "installing"), "all is unpacked")
            disk.fill()
            tick_until(service, state_is(service, "probation", *ENDS), "it is switched on a full disk")
            kiosk.wait_until_running("1.1.0")
            name = launcher.count(kiosk.root)
            assert name is not None and kiosk.layout.complete(name)
            assert disk.free_bytes < 1024 * 1024, "it was full all the time"
            disk.empty()
            ends_well(kiosk, service)
    except NoPowerSwitch as err:
        pytest.skip(str(err))


@contextmanager
def on_a_small_disk(tmp_path: Path, factory: Package) -> Iterator[tuple[SmallDisk, Terminal, Service]]:
    """A terminal whose versions and downloads lie on a disk that can be filled; the rest of it is elsewhere."""
    with small_disk(tmp_path, "tmpfs", mib=120) as disk, terminal(tmp_path) as kiosk, ExitStack() as services:
        kiosk.root = disk.mount / "root"
        kiosk.layout = type(kiosk.layout)(kiosk.root)
        kiosk.write_settings()
        kiosk.lay_out(factory)
        kiosk.server.start()
        yield disk, kiosk, begin(kiosk, services)


def fill_after_the_look_at_the_room(monkeypatch: pytest.MonkeyPatch, disk: SmallDisk) -> None:
    """Somebody else takes the room, once, after it was counted: some files still fit."""
    look = install.preflight

    def filled(*args: Any, **more: Any) -> None:
        look(*args, **more)
        monkeypatch.setattr(install, "preflight", look)
        disk.fill(leave_bytes=300_000)

    monkeypatch.setattr(install, "preflight", filled)


def state_is(service: Service, *states: str) -> Callable[[], object]:
    return lambda: service.work is not None and service.work.state in states


def test_a_read_only_disk_is_told(tmp_path: Path, factory: Package, new: Package) -> None:
    try:
        with small_disk(tmp_path, "tmpfs", mib=100) as disk, terminal(tmp_path) as kiosk, ExitStack() as services:
            kiosk.root = disk.mount / "root"
            kiosk.layout = type(kiosk.layout)(kiosk.root)
            kiosk.write_settings()
            kiosk.lay_out(factory)
            kiosk.server.start()
            service = begin(kiosk, services)
            kiosk.wait_until_running("1.0.0")
            subprocess.run(["mount", "-o", "remount,ro", str(disk.mount)], check=True)
            kiosk.want(kiosk.release(new))
            tick_until(service, reason_is(service, "readOnly"), "the read-only disk noticed")
            wait_until(lambda: ("downloading", "readOnly") in kiosk.states(), "it is told")
            kiosk.wait_until_running("1.0.0")
            assert launcher.count(kiosk.root) == kiosk.layout.state().factory, "what is there is started all the same"
            subprocess.run(["mount", "-o", "remount,rw", str(disk.mount)], check=True)
            ends_well(kiosk, service)
    except NoPowerSwitch as err:
        pytest.skip(str(err))


def test_what_the_other_side_writes_cannot_stop_the_updater(kiosk: Terminal, services: ExitStack, new: Package) -> None:
    """A broken or hostile agent: nonsense in every file, a pipe, a link to something large."""
    service = begin(kiosk, services)
    kiosk.wait_until_running("1.0.0")
    for name in ("grant.json", "applied.json"):
        (kiosk.requests / name).write_bytes(b'{"want": ' + b"[" * 5000)
    (kiosk.requests / "desired.cose").write_bytes(b"\xff" * 1000)
    (kiosk.requests / "order-keys.json").symlink_to("/dev/zero")
    for _ in range(10):
        service.tick()
    assert service.work is None
    (kiosk.requests / "order-keys.json").unlink()
    (kiosk.requests / "applied.json").unlink()
    kiosk.want(kiosk.release(new))
    assert kiosk.wait_for_end(*ENDS, tick=service.tick) == ("committed", "none")
    assert UpdaterSide(kiosk.requests, kiosk.updates).health() is not None
