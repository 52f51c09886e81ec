"""A real PC/SC service (pcscd with the virtual reader of vsmartcard): the agent watches it, and other programs see the same reader.

The service runs in a mount namespace of its own, because its directory is compiled in; its clients find it by an environment variable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edge_agent.clock import SystemClock
from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from edge_agent.transports import pcsc as transport
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.pcsc import open_pcsc
from edge_agent.transports.udev import UdevDiscoverer
from protocols.canon.words import MediaState
from protocols.codecs import pcsc
from protocols.contract.records import Device, Fault
from scripts.system_packages import SEARCH_PATH, missing
from tests.edge_agent.devices.bench import PROFILES, Memory, Records

pytestmark = pytest.mark.slow

DRIVER = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
ATR = bytes.fromhex("3b65000050 4c4e5444".replace(" ", ""))
"""Historical bytes `PLNTD`: planted, to be found in no record."""


class Service:
    """pcscd with one virtual reader, started and killed at will."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, folder / "run"
        self.run.mkdir()
        self.socket = str(self.run / "pcscd.comm")
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for _ in range(5):
            self.port = _free_port()
            self._configure()
            self._process = subprocess.Popen(self._command(), stdout=self._log(), stderr=subprocess.STDOUT)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self._process.poll() is None:
                if Path(self.socket).exists() and self._listens():
                    return
                time.sleep(0.02)
            self.kill()
        pytest.fail(f"pcscd does not start here:\n{(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """As a crash: the socket stays behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        self.kill()
        for left in self.run.iterdir():
            left.unlink()

    def pause(self, *, on: bool) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def insert(self) -> Card:
        return Card(self.port)

    def _configure(self) -> None:
        (self.folder / "readers").mkdir(exist_ok=True)
        text = f'FRIENDLYNAME "Virtual PCD"\nDEVICENAME /dev/null:0x{self.port:X}\nLIBPATH {DRIVER}\nCHANNELID 0x{self.port:X}\n'
        (self.folder / "readers" / "vpcd").write_text(text)

    def _command(self) -> list[str]:
        inside = f'mkdir -p /run/pcscd && mount --bind "{self.run}" /run/pcscd && exec pcscd --foreground --config "{self.folder / "readers"}"'
        own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
        return [*own, "sh", "-c", f'PATH="{SEARCH_PATH}"; {inside}']

    def _log(self) -> int:
        return os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _listens(self) -> bool:
        """The driver opens its port when the reader is there; asked of the kernel, because to connect is to insert a card."""
        wanted = f":{self.port:04X} "
        return any(wanted in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines())


class Card:
    """A card in the virtual reader: it answers a reset, and whatever is asked then with 6D00."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._task = asyncio.get_running_loop().run_in_executor(None, self._serve)
        self.commands = 0

    def _serve(self) -> None:
        with contextlib.suppress(OSError, struct.error):
            while True:
                (length,) = struct.unpack(">H", self._socket.recv(2, socket.MSG_WAITALL))
                message = self._socket.recv(length, socket.MSG_WAITALL)
                if message == b"\x04":
                    self._answer(ATR)
                elif length > 1:
                    self.commands += 1
                    self._answer(b"\x6d\x00")

    def _answer(self, data: bytes) -> None:
        self._socket.sendall(struct.pack(">H", len(data)) + data)

    async def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        await self._task


def _free_port() -> int:
    """With a free one behind it: the driver's second reader takes that."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """One place for all tests here: the client library looks up its socket once in a process. Short, as socket paths and record fields are."""
    needs = missing(["pcsc"])
    if needs:
        pytest.fail(
            f"not on this machine: {', '.join(need.package for need in needs)}; python -m scripts.system_packages pcsc installs them"
        )
    before = os.environ.get(transport.SOCKET_NAME)
    folder = Path(tempfile.mkdtemp(prefix="pcsc"))
    os.environ[transport.SOCKET_NAME] = str(folder / "run" / "pcscd.comm")
    yield folder
    shutil.rmtree(folder)
    if before is None:
        del os.environ[transport.SOCKET_NAME]
    else:
        os.environ[transport.SOCKET_NAME] = before


@pytest.fixture
def service(place: Path) -> Iterator[Service]:
    shutil.rmtree(place / "run", ignore_errors=True)
    made = Service(place)
    yield made
    made.stop()


@contextlib.asynccontextmanager
async def watching(service: Service) -> AsyncIterator[tuple[Monitor, Records]]:
    records, numbers = Records(), itertools.count(1)
    entry = DeviceEntry(slot="card-reader", family="card-reader", profile="pcsc-reader", port=service.socket)
    monitor = Monitor(
        clock=SystemClock(),
        discoverer=UdevDiscoverer([service.socket], extra_every_s=0.2),
        opener=SystemOpener(),
        recorder=records,
        store=Memory(),
        profiles=PROFILES,
        inventory=[entry],
        new_id=lambda: next(numbers).to_bytes(8, "big"),
        rng=random.Random(1),
    )
    task = asyncio.create_task(monitor.run())
    try:
        yield monitor, records
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(records: Records, device: str, media: MediaState | None = None) -> Device:
    async with asyncio.timeout(25):
        while True:
            told = records.of(Device)
            if told and told[-1].device.value == device and media in (None, told[-1].media):
                return told[-1]
            await asyncio.sleep(0.02)


async def until_open(records: Records, codes: set[str]) -> None:
    async with asyncio.timeout(25):
        while records.open_codes() != codes:
            await asyncio.sleep(0.02)


async def test_the_agent_follows_cards_and_the_services_end_and_return(service: Service) -> None:
    service.start()
    async with watching(service) as (_, records):
        assert (await until(records, "online", MediaState.NOT_PRESENT)).profile == "pcsc-reader"
        card = service.insert()
        await until(records, "online", MediaState.PRESENT)
        await card.remove()
        await until(records, "online", MediaState.NOT_PRESENT)
        assert card.commands == 0, "somebody spoke to the card"
        assert records.of(Fault) == []

        service.kill()
        gone = await until(records, "offline")
        assert gone.evidence is not None
        assert pcsc.explain(b"", gone.evidence.reply)[0].key == "pcsc.no_service"
        await until_open(records, {"CRD.OPEN_FAIL"})
        service.start()
        await until(records, "online", MediaState.NOT_PRESENT)
        await until_open(records, set())
    assert b"PLNTD"[1:] not in bytes(records.encoded)
    assert ATR not in bytes(records.encoded)


async def test_a_service_that_is_not_there_from_the_start_is_a_fault_and_its_coming_is_seen(service: Service) -> None:
    async with watching(service) as (_, records):
        await until_open(records, {"CRD.OPEN_FAIL"})
        service.start()
        await until(records, "online")
        await until_open(records, set())


async def test_a_service_that_hangs_stalls_its_port_only(service: Service) -> None:
    service.start()
    port = open_pcsc(service.socket)
    assert (await port.look(timeout_s=5)).code == pcsc.SUCCESS
    service.pause(on=True)
    started = time.monotonic()
    assert (await port.look(timeout_s=0.3)).code == pcsc.STALLED
    assert (await port.look(timeout_s=0.3)).code == pcsc.STALLED
    assert time.monotonic() - started < 2
    service.pause(on=False)
    async with asyncio.timeout(10):
        while (await port.look(timeout_s=2)).code != pcsc.SUCCESS:
            await asyncio.sleep(0.05)
    await port.close()


async def test_a_card_in_use_by_another_program_is_told_as_in_use(service: Service) -> None:
    service.start()
    card = service.insert()
    async with watching(service) as (_, records):
        await until(records, "online", MediaState.PRESENT)
        tool = await asyncio.create_subprocess_exec(
            "scriptor", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        assert tool.stdin is not None
        assert tool.stdout is not None
        await until(records, "inUse")
        tool.stdin.write(b"00 A4 04 00\n")
        tool.stdin.write_eof()
        async with asyncio.timeout(20):
            said, _ = await tool.communicate()
        assert b"6D 00" in said
        await until(records, "online")
        assert records.of(Fault) == []
    await card.remove()


async def test_the_projects_card_reader_is_seen_by_pcsc_tools(service: Service) -> None:
    service.start()
    card = service.insert()
    tool = await asyncio.create_subprocess_exec(
        "pcsc_scan", "-n", "-q", "-t", "2", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        said, _ = await tool.communicate()
    await card.remove()
    assert b"Virtual PCD 00 00" in said
    assert b"Card inserted" in said
    assert ATR.hex(" ").upper().encode() in said
