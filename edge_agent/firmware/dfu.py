"""USB DFU through the program dfu-util: which arguments, what its words mean, and an end to it in any case.

dfu-util 0.11 is told the device by USB port path and by both identities, so that it cannot take another unit. It reads a sealed copy of the image.
Messages and exit codes after its source (dfu_load.c, dfuse.c, main.c); 64 to 78 are those of sysexits(3).
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.children import child
from edge_agent.firmware.errors import FlashFailed
from edge_agent.firmware.transfer import Progress, sealed_copy
from protocols.profile.firmware import DfuOptions
from protocols.profile.places import UsbId

TOOL = "dfu-util"
OUTPUT_MAX_BYTES = 64 * 1024
SILENT_S = 60.0
"""Without a word for so long it hangs: it draws its progress bar anew for each block."""
_PROGRESS = re.compile(rb"(\d{1,3})%\s+(\d+) bytes")
_DONE = ("Download done.", "File downloaded successfully")


@dataclass(frozen=True, slots=True)
class DfuJob:
    """`runtime`: ids of the unit as it runs now; None when it is in its boot loader already."""

    usb_path: str
    runtime: UsbId | None
    bootloader: UsbId
    options: DfuOptions
    image: bytes
    timeout_s: float


def arguments(job: DfuJob, image: Path) -> list[str]:
    """Exactly what is run, without the program."""
    boot = _ids(job.bootloader)
    who = boot if job.runtime is None else f"{_ids(job.runtime)},{boot}"
    words = ["--device", who, "--path", job.usb_path, "--alt", str(job.options.alt)]
    if job.options.address is not None:
        leave = ":leave" if job.options.reset else ""
        words += ["--dfuse-address", f"{job.options.address:#010x}{leave}"]
    elif job.options.reset:
        words.append("--reset")
    return [*words, "--download", str(image)]


def verdict(code: int, output: str) -> None:
    """Returns if the image was stored; else FlashFailed. A reset that fails after that is settled by reading back."""
    if any(word in output for word in _DONE):
        return
    for pattern, reason, sentence, final in _MEANINGS:
        if pattern in output:
            raise FlashFailed(reason, f"dfu-util: {sentence}", final=final)  # type: ignore[arg-type]  # the table holds words of the list
    raise FlashFailed("transfer", f"dfu-util ended with code {code} before the image was stored")


_MEANINGS = (
    ("does not match device", "wrongPart", "the image's suffix names another device", True),
    ("DFU suffix CRC does not match", "differs", "the image's suffix is damaged", True),
    ("More than one DFU capable USB device found", "bootloader", "the port path fits more than one device", False),
    ("No DFU capable USB device available", "bootloader", "no device in its boot loader at this port", False),
    ("LIBUSB_ERROR_ACCESS", "bootloader", "the agent's user may not open the device; a udev rule is missing", True),
    ("Cannot open DFU device", "bootloader", "the device cannot be opened", False),
    ("Cannot open device", "bootloader", "the device cannot be opened", False),
)


async def flash(job: DfuJob, *, tool: str = TOOL, progress: Progress = lambda _: None, silent_s: float = SILENT_S) -> None:
    """Run dfu-util to its end. FlashFailed says what it said; a program that is missing is told as such and final."""
    program = shutil.which(tool)
    if program is None:
        raise FlashFailed("bootloader", f"{TOOL} is not installed on this terminal (package dfu-util)", final=True)
    with sealed_copy(job.image) as image:
        command, env = [program, *arguments(job, image)], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
        try:
            async with asyncio.timeout(job.timeout_s), child(*command, output=asyncio.subprocess.PIPE, env=env) as process:
                output = await _listen(process, progress, silent_s)
                code = await process.wait()
        except TimeoutError:
            raise FlashFailed("transfer", f"dfu-util did not end within {job.timeout_s:g} s") from None
    verdict(code, output)


async def _listen(process: asyncio.subprocess.Process, progress: Callable[[int], None], silent_s: float) -> str:
    assert process.stdout is not None
    kept = bytearray()
    while True:
        try:
            async with asyncio.timeout(silent_s):
                data = await process.stdout.read(4096)
        except TimeoutError:
            raise FlashFailed("transfer", f"dfu-util said nothing for {silent_s:g} s") from None
        if not data:
            return kept.decode("utf-8", "replace")
        kept += data
        del kept[:-OUTPUT_MAX_BYTES]
        found = _PROGRESS.findall(bytes(kept[-512:]))
        if found:
            progress(int(found[-1][1]))


def _ids(usb: UsbId) -> str:
    return f"{usb.vid:04x}:{usb.pid:04x}"
