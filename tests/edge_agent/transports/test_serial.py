from __future__ import annotations

import asyncio
import os
import pty
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.transports.base import BytePort, PortBusy, PortGone, PortRefused, PortStalled, SpeedPort
from edge_agent.transports.serial import LineSetting, holders, open_serial
from simulators.models.escpos import EscposPrinter
from simulators.ports.pty import AsyncPty


class Pair:
    """A pseudo terminal: the device's end by hand, the agent's end by path."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.path = os.ttyname(slave)
        os.close(slave)

    def pull(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.pull()


async def test_bytes_pass_both_ways(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting(baud=115200))
    assert isinstance(port, BytePort)
    assert isinstance(port, SpeedPort)
    await port.write(b"\x10\x04\x01", timeout_s=1)
    assert os.read(pair.master, 16) == b"\x10\x04\x01"
    os.write(pair.master, b"\x12\x16")
    assert await port.read(max_bytes=1, timeout_s=1) == b"\x12"
    assert await port.read(max_bytes=16, timeout_s=1) == b"\x16"
    assert await port.read(max_bytes=16, timeout_s=0.01) == b""
    await port.close()
    await port.close()


async def test_the_line_is_set_and_the_speed_can_change(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting(baud=115200))
    assert termios.tcgetattr(pair.master)[5] == termios.B115200
    await port.set_baud(9600)
    assert termios.tcgetattr(pair.master)[5] == termios.B9600
    await port.close()


async def test_an_unplug_ends_a_waiting_read(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    reading = asyncio.create_task(port.read(max_bytes=16, timeout_s=10))
    await asyncio.sleep(0)
    pair.pull()
    with pytest.raises(PortGone):
        await reading
    with pytest.raises(PortGone):
        await port.write(b"\x10\x04\x01", timeout_s=1)
    await port.close()


async def test_an_unplug_in_the_middle_of_a_frame_delivers_what_came_first(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    os.write(pair.master, b"\xaa\xaa\xaa\x96")
    assert await port.read(max_bytes=64, timeout_s=1) == b"\xaa\xaa\xaa\x96"
    pair.pull()
    with pytest.raises(PortGone):
        await port.read(max_bytes=64, timeout_s=1)
    await port.close()


async def test_closing_ends_a_waiting_read(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    reading = asyncio.create_task(port.read(max_bytes=16, timeout_s=10))
    await asyncio.sleep(0)
    await port.close()
    with pytest.raises(PortGone):
        await reading


async def test_a_full_line_stalls_and_does_not_hang(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    with pytest.raises(PortStalled):
        await port.write(bytes(1_000_000), timeout_s=0.05)
    await port.close()


async def test_the_second_owner_finds_it_busy(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    with pytest.raises(PortBusy):
        await open_serial(pair.path, LineSetting())
    await port.close()
    again = await open_serial(pair.path, LineSetting())
    await again.close()


async def test_a_setting_that_the_driver_refuses_is_named_as_such(pair: Pair) -> None:
    """A pty takes parity once in silence and then answers EINVAL, which arrives as termios.error, not as an OSError."""
    first = await open_serial(pair.path, LineSetting(parity="even"))
    await first.close()
    with pytest.raises(PortRefused):
        await open_serial(pair.path, LineSetting(parity="even"))


async def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(PortGone):
        await open_serial(str(tmp_path / "ttyUSB0"), LineSetting())


async def test_what_is_no_tty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PortRefused):
        await open_serial(str(tmp_path / "file"), LineSetting())


async def test_other_holders_are_counted_without_counting_ourselves(pair: Pair) -> None:
    port = await open_serial(pair.path, LineSetting())
    assert holders(pair.path) == 0
    holder = await asyncio.create_subprocess_exec("sleep", "60", stdin=os.open(pair.path, os.O_RDWR | os.O_NOCTTY))
    assert holders(pair.path) == 1
    holder.kill()
    await holder.wait()
    await port.close()


async def test_a_simulated_printer_answers_over_a_real_pty(tmp_path: Path) -> None:
    line = AsyncPty(EscposPrinter(), tmp_path / "printer")
    port = await open_serial(str(tmp_path / "printer"), LineSetting(baud=EscposPrinter().baud or 9600))
    await port.write(b"\x10\x04\x01", timeout_s=1)
    assert await port.read(max_bytes=16, timeout_s=2) in (b"\x12", b"\x16")
    await port.close()
    line.close()
