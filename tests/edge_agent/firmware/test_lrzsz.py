"""Both ends against lrzsz, which neither of us wrote: our sender into `rx` and `rb`, and the simulator's receiver out of `sx` and `sb`.

Over a socket pair: on a pty `rx` flushes the line right after its last acknowledgement (TCFLSH), and with it, now and then, the acknowledgement.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.firmware.errors import FlashFailed
from edge_agent.firmware.transfer import send_file
from edge_agent.transports.base import PortGone
from simulators.models.flash_unit import FlashUnit, Receiver, make_image
from simulators.ports.pipe import PipePort, PortKit
from simulators.ports.slots import Slot

IMAGE = make_image("FU-100", "2.1.0", 20_001)

needs_lrzsz = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("rx", "rb", "sx", "sb")),
    reason="lrzsz is not installed (apt-get install lrzsz)",
)


class SocketPort:
    """One end of a socket pair as a byte port; `spoil` may change what is written."""

    def __init__(self, end: socket.socket, spoil: Callable[[bytes], bytes] = lambda data: data) -> None:
        end.setblocking(False)
        self._end, self._fd, self._spoil = end, end.fileno(), spoil
        self._loop = asyncio.get_running_loop()

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        left = memoryview(self._spoil(data))
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                await asyncio.sleep(0.002)
            except OSError:
                raise PortGone("the program has ended") from None

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        until_s = self._loop.time() + timeout_s
        while True:
            try:
                data = os.read(self._fd, max_bytes)
                if not data:
                    raise PortGone("the program has ended")
                return data
            except BlockingIOError:
                if self._loop.time() >= until_s:
                    return b""
                await asyncio.sleep(0.002)
            except OSError:
                raise PortGone("the program has ended") from None

    async def close(self) -> None:
        self._end.close()


def spoiler(every: int) -> Callable[[bytes], bytes]:
    """Flips a bit in one of `every` packets, somewhere in its data: what a line does, and what the check finds."""
    rng, count = random.Random(7), 0

    def spoil(data: bytes) -> bytes:
        nonlocal count
        if len(data) < 100:
            return data
        count += 1
        if count % every:
            return data
        at = rng.randrange(3, len(data))
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    return spoil


@needs_lrzsz
@pytest.mark.parametrize("every", [10_000, 20], ids=["clean", "spoiled"])
@pytest.mark.parametrize(
    ("method", "command"),
    [("xmodem", ["rx", "-b", "-c"]), ("xmodem-1k", ["rx", "-b", "-c"]), ("xmodem", ["rx", "-b"]), ("ymodem", ["rb", "-b"])],
    ids=["xmodem", "xmodem-1k", "checksum", "ymodem"],
)
def test_our_sender_into_lrzsz(tmp_path: Path, method: str, command: list[str], every: int) -> None:
    async def story() -> None:
        here, there = socket.socketpair()
        names = [] if method == "ymodem" else ["got.bin"]
        process = await asyncio.create_subprocess_exec(
            *command, *names, stdin=there.fileno(), stdout=there.fileno(), stderr=asyncio.subprocess.DEVNULL, cwd=tmp_path
        )
        there.close()
        port = SocketPort(here, spoiler(every))
        seen: list[int] = []
        try:
            await send_file(port, method, IMAGE, pad=0x1A, timeout_s=60, progress=seen.append)  # type: ignore[arg-type]
            async with asyncio.timeout(20):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await port.close()
        got = (tmp_path / ("firmware.bin" if method == "ymodem" else "got.bin")).read_bytes()
        if method == "ymodem":
            assert got == IMAGE, "YMODEM tells the true length"
        else:
            assert got[: len(IMAGE)] == IMAGE
            assert set(got[len(IMAGE) :]) <= {0x1A}
        assert seen == sorted(seen)
        assert seen[-1] == len(IMAGE)

    asyncio.run(story())


@needs_lrzsz
@pytest.mark.parametrize(
    ("protocol", "command"), [("xmodem", ["sx", "-b"]), ("xmodem-1k", ["sx", "-b", "-k"]), ("ymodem", ["sb", "-b"])]
)
def test_lrzsz_into_the_simulators_receiver(tmp_path: Path, protocol: str, command: list[str]) -> None:
    """The receiver that our sender is tested with understands a sender that it was not written for."""

    async def story() -> None:
        (tmp_path / "image.bin").write_bytes(IMAGE)
        here, there = socket.socketpair()
        process = await asyncio.create_subprocess_exec(
            *command, "image.bin", stdin=there.fileno(), stdout=there.fileno(), stderr=asyncio.subprocess.DEVNULL, cwd=tmp_path
        )
        there.close()
        port, loop = SocketPort(here), asyncio.get_running_loop()
        receiver, count = Receiver(protocol, ask_every_s=0.3), 0  # type: ignore[arg-type]

        def spoiled() -> bool:
            nonlocal count
            count += 1
            return count % 6 == 0

        try:
            await port.write(receiver.begin(loop.time()), timeout_s=1)
            async with asyncio.timeout(40):
                while not receiver.done:
                    data = await port.read(max_bytes=4096, timeout_s=0.05)
                    out = receiver.feed(data, loop.time(), spoiled=spoiled) if data else receiver.tick(loop.time())
                    await port.write(out, timeout_s=1)
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await port.close()
        assert receiver.bad_blocks > 0
        assert receiver.image[: len(IMAGE)] == IMAGE
        if protocol == "ymodem":
            assert (receiver.name, receiver.image) == ("image.bin", IMAGE)

    asyncio.run(story())


@pytest.mark.parametrize("method", ["xmodem", "ymodem"])
def test_an_unplugged_unit_ends_the_transfer_at_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The YMODEM library swallows exceptions and would spin for a minute; the bridge takes it out of there."""

    async def story() -> None:
        unit = FlashUnit(protocol=method)  # type: ignore[arg-type]
        unit.in_bootloader = True
        slot = Slot("unit", unit, "serial", "/dev/ttyACM0")
        port, loop = PipePort(slot, PortKit(gone=PortGone), asyncio.get_running_loop().time), asyncio.get_running_loop()
        await port.write(b"L\r", timeout_s=1)

        def pull(done: int) -> None:
            if done > 2000:
                unit.set("unplug", loop.time())

        began = loop.time()
        with pytest.raises(PortGone):
            await send_file(port, method, IMAGE, pad=0, timeout_s=60, progress=pull)  # type: ignore[arg-type]
        assert loop.time() - began < 10

    asyncio.run(story())


@pytest.mark.parametrize("method", ["xmodem", "ymodem"])
def test_a_receiver_that_never_begins_is_given_up_in_time(method: str) -> None:
    async def story() -> None:
        unit = FlashUnit()
        unit.set("silence", 0)
        port, loop = (
            PipePort(Slot("unit", unit, "serial", "/dev/ttyACM0"), PortKit(), asyncio.get_running_loop().time),
            (asyncio.get_running_loop()),
        )
        began = loop.time()
        with pytest.raises(FlashFailed, match="longer than 1 s"):
            await send_file(port, method, IMAGE, pad=0, timeout_s=1, progress=lambda _: None)  # type: ignore[arg-type]
        assert loop.time() - began < 4

    asyncio.run(story())
