"""Flashing through the real monitor and service, against a unit that receives by its own code. What goes wrong ends with a word."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_agent.transports.openers import SystemOpener
from protocols.contract.records import Fault
from simulators.models.flash_unit import FlashUnit, make_image
from simulators.ports.pty import AsyncPty
from tests.edge_agent.devices.bench import KIT, Memory
from tests.edge_agent.firmware.bench import APP, BOOT, FlashBench, profile

NEW = make_image("FU-100", "2.1.0", 9000)


@pytest.mark.parametrize("boot", [False, True], ids=["same-port", "re-plugged"])
@pytest.mark.parametrize("method", ["xmodem", "xmodem-1k", "ymodem"])
def test_a_new_version_is_written_and_read_back(tmp_path: Path, method: str, boot: bool) -> None:
    async def story() -> None:
        unit = FlashUnit(protocol=method, boot=BOOT if boot else None)  # type: ignore[arg-type]
        async with FlashBench(tmp_path, unit, profile=profile(method, boot=boot)) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert (unit.version, unit.in_bootloader, unit.transfers) == ("2.1.0", False, 1)
            assert unit.flashed[: len(NEW)] == NEW
            if method == "ymodem":
                assert unit.flashed == NEW, "the receiver was told the true length"
            assert bench.told() == [("installing", "none"), ("done", "none")]
            assert (bench.end().state, bench.end().version) == ("done", "2.1.0")
            # Afterwards the driver has its port again, and nothing is flashed twice.
            await bench.until(lambda: bench.slots[0].opened)
            await bench.service.step()
            assert unit.begun == 1
            assert bench.records.of(Fault) == []

    asyncio.run(story())


def test_a_receiver_without_crc_gets_checksums(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit(crc=False)
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert unit.version == "2.1.0"

    asyncio.run(story())


@pytest.mark.parametrize("method", ["xmodem", "xmodem-1k", "ymodem"])
def test_spoiled_blocks_are_sent_again(tmp_path: Path, method: str) -> None:
    async def story() -> None:
        unit = FlashUnit(protocol=method)  # type: ignore[arg-type]
        unit.set("spoiled-blocks", 0)
        async with FlashBench(tmp_path, unit, profile=profile(method)) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert unit.version == "2.1.0"
            assert unit.flashed[: len(NEW)] == NEW

    asyncio.run(story())


def test_lost_acknowledgements_do_not_double_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.firmware.transfer.ACK_WITHIN_S", 0.3)

    async def story() -> None:
        unit = FlashUnit(protocol="xmodem-1k")
        unit.set("lost-acks", 0)
        async with FlashBench(tmp_path, unit, profile=profile("xmodem-1k")) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert unit.version == "2.1.0"
            assert unit.flashed[: len(NEW)] == NEW

    asyncio.run(story())


@pytest.mark.spec("U-308")
def test_power_cut_in_the_middle_is_taken_up_from_the_stored_image_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.firmware.transfer.ACK_WITHIN_S", 0.3)

    async def story() -> None:
        unit, memory = FlashUnit(), Memory()
        unit.set("power-cut", 0)
        async with FlashBench(tmp_path, unit, profile=profile(), memory=memory) as bench:
            bench.drop(NEW, "2.1.0")
            step = asyncio.create_task(bench.service.step())
            await bench.until(lambda: unit.cuts == 1)
            step.cancel()  # the terminal lost its power as well
            await asyncio.gather(step, return_exceptions=True)
        unit.clear("power-cut", 1)
        assert unit.in_bootloader, "half a firmware does not start"
        async with FlashBench(tmp_path, unit, profile=profile(), memory=memory) as bench:
            await bench.service.step()
            assert (unit.version, unit.in_bootloader) == ("2.1.0", False)
            assert bench.told()[-1] == ("done", "none")
            assert bench.tries() == 2

    asyncio.run(story())


@pytest.mark.spec("U-308")
def test_after_three_cut_attempts_it_is_left_alone_with_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.firmware.transfer.ACK_WITHIN_S", 0.2)

    async def story() -> None:
        unit, memory = FlashUnit(), Memory()
        for attempt in (1, 2, 3):
            unit.set("power-cut", 0)
            async with FlashBench(tmp_path, unit, profile=profile(), memory=memory) as bench:
                bench.drop(NEW, "2.1.0")
                step = asyncio.create_task(bench.service.step())
                await bench.until(lambda attempt=attempt: unit.cuts == attempt)  # type: ignore[misc]
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
            unit.clear("power-cut", 1)
        async with FlashBench(tmp_path, unit, profile=profile(), memory=memory) as bench:
            await bench.service.step()
            assert unit.begun == 3
            assert bench.told()[-1] == ("failed", "interrupted")
            await bench.until(lambda: "APP.FIRMWARE_FAILED" in bench.records.open_codes())

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "reason", "begun"),
    [
        ("boot-dead", "bootloader", 0),
        ("other-version", "readBack", 3),
        ("no-return", "readBack", 3),
        ("stops-receiving", "transfer", 3),
        ("cancels", "transfer", 3),
    ],
)
def test_what_does_not_work_is_tried_three_times_and_then_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str, begun: int
) -> None:
    monkeypatch.setattr("edge_agent.firmware.transfer.ACK_WITHIN_S", 0.1)
    monkeypatch.setattr("edge_agent.firmware.transfer.XMODEM_RETRIES", 2)

    async def story() -> None:
        unit = FlashUnit(ask_every_s=0.1)
        unit.set(fault, 0)
        short = profile("xmodem", replace={"replug_timeout_s = 3": "replug_timeout_s = 1"})
        async with FlashBench(tmp_path, unit, profile=short) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert bench.told()[-1] == ("failed", reason)
            assert bench.tries() == 3
            assert unit.begun == begun
            assert bench.records.open_codes() >= {"APP.FIRMWARE_FAILED"}
            assert (bench.end().state, bench.end().reason) == ("failed", reason)
            # The next order for the slot starts afresh, and the fault goes when it succeeds.
            unit.clear(fault, 1)
            bench.drop(make_image("FU-100", "2.2.0", 4000), "2.2.0")
            await bench.service.step()
            assert bench.told()[-1] == ("done", "none")
            await bench.until(lambda: not bench.records.open_codes())

    asyncio.run(story())


def test_another_part_is_never_written_to(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit()
        unit.set("other-part", 0)
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert (unit.begun, unit.in_bootloader, unit.version) == (0, False, "1.0.0")
            assert bench.told()[-1] == ("failed", "wrongPart")
            assert bench.tries() == 1, "trying again cannot help"

    asyncio.run(story())


def test_an_image_for_other_hardware_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit()
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0", hardware=("acme-other",))
            await bench.service.step()
            assert bench.told() == [("failed", "wrongHardware")]
            assert unit.begun == 0

    asyncio.run(story())


def test_a_version_below_the_least_is_not_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit(version="1.9.0")
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0", min_from="1.10")
            await bench.service.step()
            assert (unit.begun, bench.told()[-1]) == (0, ("failed", "wrongHardware"))
            unit.version = "1.10.0"
            bench.drop(make_image("FU-100", "2.1.1"), "2.1.1", min_from="1.10")
            await bench.service.step()
            assert unit.version == "2.1.1"

    asyncio.run(story())


def test_the_version_that_runs_already_is_not_written_again(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit(version="2.1.0")
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert (unit.begun, bench.told()[-1]) == (0, ("done", "none"))

    asyncio.run(story())


def test_bytes_that_were_exchanged_after_verification_are_refused(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit()
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0")
            (file,) = (bench.updates / "artifacts").iterdir()
            file.write_bytes(NEW[:-1] + b"\xff")
            await bench.service.step()
            assert (unit.begun, bench.told()) == (0, [("failed", "hash")])
            bench.drop(NEW, "2.1.2")
            file.write_bytes(NEW + b"\x00")
            await bench.service.step()
            assert bench.told()[-1] == ("failed", "length")
            bench.drop(NEW, "2.1.3")
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
            await bench.service.step()
            assert (unit.begun, bench.told()[-1]) == (0, ("failed", "notFound"))
            # What the updater left untouched is taken.
            file.unlink()
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert unit.version == "2.1.0"

    asyncio.run(story())


def test_nothing_is_flashed_while_somebody_is_served_or_without_the_grant(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit()
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.granted = False
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            await bench.service.step()
            assert (unit.begun, bench.told()) == (0, [("waiting", "inUse")])
            bench.granted = True
            await bench.service.step()
            assert unit.version == "2.1.0"

    asyncio.run(story())


@pytest.mark.spec("U-308")
def test_two_units_are_flashed_one_after_the_other(tmp_path: Path) -> None:
    async def story() -> None:
        units = FlashUnit(), FlashUnit()
        async with FlashBench(tmp_path, *units, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0", "flash-1", "flash-2")
            overlap = []

            async def watch() -> None:
                while True:
                    overlap.append(sum(unit.receiver is not None for unit in units))
                    await asyncio.sleep(0.005)

            watching = asyncio.create_task(watch())
            await bench.service.step()
            assert bench.told("flash-2")[0] == ("waiting", "otherFirmware")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            assert [unit.version for unit in units] == ["2.1.0", "2.1.0"]
            assert max(overlap) == 1

    asyncio.run(story())


def test_a_port_that_another_program_holds_is_waited_for_without_using_up_an_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.firmware.flasher.OPEN_WITHIN_S", 0.3)

    async def story() -> None:
        unit = FlashUnit()
        unit.set("in-use", 0)
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            bench.drop(NEW, "2.1.0")
            await bench.service.step()
            assert bench.told()[-1] == ("waiting", "inUse")
            unit.clear("in-use", 1)
            await bench.service.step()
            assert bench.tries() == 1
            assert unit.version == "2.1.0"

    asyncio.run(story())


def test_over_a_real_tty_with_the_agents_own_serial_port(tmp_path: Path) -> None:
    """The way of a kiosk: termios, descriptor, advisory lock."""

    async def story() -> None:
        unit = FlashUnit(protocol="xmodem-1k")
        link = tmp_path / "tty"
        pty = AsyncPty(unit, link)
        try:
            async with FlashBench(
                tmp_path, unit, profile=profile("xmodem-1k"), opener=SystemOpener(), places=(str(link),)
            ) as bench:
                bench.drop(NEW, "2.1.0")
                await bench.service.step()
                assert unit.flashed[: len(NEW)] == NEW
                assert bench.told()[-1] == ("done", "none")
        finally:
            pty.close()

    asyncio.run(story())


def test_a_claimed_slot_is_nobody_elses_and_its_absence_is_no_fault(tmp_path: Path) -> None:
    async def story() -> None:
        unit = FlashUnit()
        async with FlashBench(tmp_path, unit, profile=profile()) as bench:
            await bench.until(lambda: bench.slots[0].opened)
            async with bench.monitor.claim("flash-1"):
                assert not bench.slots[0].opened
                with pytest.raises(KIT.busy("").__class__):
                    async with bench.monitor.claim("flash-1"):
                        pass
                unit.set("unplug", 0)
                await asyncio.sleep(0.5)
                unit.clear("unplug", 0)
                assert not bench.slots[0].opened
            await bench.until(lambda: bench.slots[0].opened)
            assert bench.records.of(Fault) == []
            with pytest.raises(KIT.busy("").__class__):
                async with bench.monitor.claim("no-such-slot"):
                    pass

    asyncio.run(story())


assert APP.vid == BOOT.vid
