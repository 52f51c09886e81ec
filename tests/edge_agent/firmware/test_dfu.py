"""dfu-util: the exact call, what its words mean, time limits, and a missing program. The stand-in prints what dfu-util 0.11 prints."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest

from edge_agent.firmware import dfu
from edge_agent.firmware.errors import FlashFailed
from protocols.profile.firmware import DfuOptions
from protocols.profile.places import UsbId
from protocols.profile.schema import Profile, parse_profile
from simulators.models.flash_unit import FlashUnit, make_image
from tests.edge_agent.firmware.bench import APP, BOOT, UNIT, FlashBench
from tests.support.processes import programs_with
from tests.support.waiting import until

IMAGE = make_image("FU-100", "3.0.0", 4096)
RUNTIME, BOOTLOADER = UsbId(vid=0x1234, pid=1), UsbId(vid=0x1234, pid=0xDF)
GOOD = r"""printf 'Copying data from PC to DFU device\nDownload\t[=====     ]  50%%         2048 bytes\r'
printf 'Download\t[==========] 100%%         4096 bytes\nDownload done.\n'
printf 'DFU state(7) = dfuMANIFEST, status(0) = No error condition is present\nDone!\n'"""


def job(**changes: object) -> dfu.DfuJob:
    fields: dict[str, object] = {
        "usb_path": "1-1.4",
        "runtime": RUNTIME,
        "bootloader": BOOTLOADER,
        "options": DfuOptions(),
        "image": IMAGE,
        "timeout_s": 10.0,
    }
    return dfu.DfuJob(**(fields | changes))  # type: ignore[arg-type]


def stand_in(folder: Path, body: str) -> str:
    path = folder / "dfu-util"
    path.write_text(
        f'#!/bin/sh\nprintf \'%s\\n\' "$@" > {folder}/args\nfor last in "$@"; do :; done\ncat "$last" > {folder}/image\n{body}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_the_call_names_port_and_both_identities() -> None:
    assert dfu.arguments(job(), Path("/tmp/x/firmware.bin")) == [
        "--device", "1234:0001,1234:00df", "--path", "1-1.4", "--alt", "0", "--reset", "--download", "/tmp/x/firmware.bin",
    ]  # fmt: skip
    st = job(runtime=None, options=DfuOptions(alt=2, address=0x08004000))
    assert dfu.arguments(st, Path("f"))[:8] == [
        "--device", "1234:00df", "--path", "1-1.4", "--alt", "2", "--dfuse-address", "0x08004000:leave",
    ]  # fmt: skip


def test_the_installed_program_knows_every_argument() -> None:
    """Run against no device at all: it must complain about that and not about its arguments."""
    if shutil.which("dfu-util") is None:
        pytest.skip("dfu-util is not installed")
    with pytest.raises(FlashFailed, match="no device in its boot loader") as caught:
        asyncio.run(dfu.flash(job(usb_path="99-9", timeout_s=30.0)))
    assert caught.value.reason == "bootloader"


def test_it_gets_the_verified_bytes_and_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[int] = []
    asyncio.run(dfu.flash(job(), tool=stand_in(tmp_path, GOOD), progress=seen.append))
    assert (tmp_path / "image").read_bytes() == IMAGE
    assert seen[-1] == 4096
    assert (tmp_path / "args").read_text().splitlines()[:4] == ["--device", "1234:0001,1234:00df", "--path", "1-1.4"]


@pytest.mark.parametrize(
    ("words", "code", "reason", "final"),
    [
        ("No DFU capable USB device available", 74, "bootloader", False),
        ("Error: File ID 1234:00df does not match device (aaaa:bbbb or cccc:dddd)", 65, "wrongPart", True),
        ("Cannot open DFU device 1234:00df found on devnum 5 (LIBUSB_ERROR_ACCESS)", 74, "bootloader", True),
        ("More than one DFU capable USB device found!", 69, "bootloader", False),
        ("DFU suffix CRC does not match", 65, "differs", True),
        ("Error during download get_status (LIBUSB_ERROR_PIPE)", 74, "transfer", False),
        ("", 0, "transfer", False),
    ],
)
def test_what_its_words_mean(tmp_path: Path, words: str, code: int, reason: str, final: bool) -> None:
    with pytest.raises(FlashFailed) as caught:
        asyncio.run(dfu.flash(job(), tool=stand_in(tmp_path, f"echo 'dfu-util: {words}' >&2; exit {code}")))
    assert (caught.value.reason, caught.value.final) == (reason, final)


def test_a_failed_reset_after_a_stored_image_is_left_to_reading_back(tmp_path: Path) -> None:
    body = f"{GOOD}; echo 'error resetting after download: LIBUSB_ERROR_NOT_FOUND' >&2; exit 74"
    asyncio.run(dfu.flash(job(), tool=stand_in(tmp_path, body)))


@pytest.mark.parametrize(("timeout_s", "silent_s", "match"), [(0.3, 60.0, "did not end within"), (60.0, 0.3, "said nothing for")])
def test_a_program_that_hangs_is_ended(tmp_path: Path, timeout_s: float, silent_s: float, match: str) -> None:
    tool = stand_in(tmp_path, f"tail -f {tmp_path}/image > /dev/null; :")
    with pytest.raises(FlashFailed, match=match):
        asyncio.run(dfu.flash(job(timeout_s=timeout_s), tool=tool, silent_s=silent_s))
    assert programs_with(tmp_path) == []


async def test_a_program_that_runs_when_the_agent_ends_is_ended(tmp_path: Path) -> None:
    tool = stand_in(tmp_path, f"tail -f {tmp_path}/image; :")
    flashing = asyncio.ensure_future(dfu.flash(job(timeout_s=600.0), tool=tool))
    await until(lambda: len(programs_with(tmp_path)) == 2, "the program and its child run")
    flashing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flashing
    assert programs_with(tmp_path) == []


def test_a_missing_program_is_told_as_such() -> None:
    with pytest.raises(FlashFailed, match="dfu-util is not installed on this terminal") as caught:
        asyncio.run(dfu.flash(job(), tool="dfu-util-that-is-not-there"))
    assert caught.value.final


def dfu_profile() -> Profile:
    start = UNIT.index("[firmware.identify]")
    text = UNIT[:start] + UNIT[UNIT.index("[firmware.part]") :]
    text = text.replace('method = "xmodem"', f'method = "usb-dfu"\nbootloader = {{ vid = {BOOT.vid}, pid = {BOOT.pid} }}')
    text = text.replace("pad = 0x00\n", "").replace(
        '[[match]]\nbus = "serial"\nby_slot = true', f'[[match]]\nbus = "cdc"\nvid = {APP.vid}\npid = {APP.pid}'
    )
    return parse_profile(text.encode(), "acme-fu100")


def test_a_unit_is_flashed_by_dfu_and_read_back(tmp_path: Path) -> None:
    """Enter, re-plug under the boot loader's ids, dfu-util, re-plug, version and part number."""

    async def story() -> None:
        unit = FlashUnit(boot=BOOT)
        calls: list[dfu.DfuJob] = []

        async def run(one: dfu.DfuJob, progress: object) -> None:
            calls.append(one)
            await dfu.flash(one, tool=stand_in(tmp_path, GOOD))
            if len(calls) == 1:
                raise FlashFailed("transfer", "the first one fails")
            unit.version, unit.in_bootloader = "3.0.0", False
            unit._restart(asyncio.get_running_loop().time())

        async with FlashBench(tmp_path, unit, profile=dfu_profile(), dfu_run=run) as bench:
            bench.drop(IMAGE, "3.0.0")
            await bench.service.step()
            assert bench.told()[-1] == ("done", "none")
            assert (tmp_path / "image").read_bytes() == IMAGE
        assert [(call.usb_path, call.runtime, call.bootloader) for call in calls] == [("1-1.1", None, BOOTLOADER)] * 2
        assert msgspec.structs.asdict(calls[0].options) == {"alt": 0, "address": None, "reset": True}

    asyncio.run(story())
