"""CUPS and its tools, unmodified, see the A4 printer model and print on it: a scheduler of its own in a private directory, at a socket there."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocols.canon.words import PaperState
from protocols.codecs import ipp
from scripts.system_packages import SEARCH_PATH, missing
from simulators.models.ipp import IppPrinter
from simulators.ports.http import IppServer

WITHIN_S = 20.0
FASTER = 20
"""The printer's time runs so much faster, so its pages take no time here."""

_CONFIGURATION = """\
LogLevel warn
Listen {place}/socket
Browsing Off
WebInterface No
DefaultAuthType None
<Location />
  Order deny,allow
</Location>
<Policy default>
  <Limit All>
    Order deny,allow
  </Limit>
</Policy>
"""
_FILES = """\
ServerRoot {place}
RequestRoot {place}/spool
CacheDir {place}/cache
StateDir {place}/run
TempDir {place}/tmp
ErrorLog {place}/error.log
AccessLog {place}/access.log
PageLog {place}/page.log
Printcap {place}/printcap
"""


@pytest.fixture(autouse=True)
def _tools() -> None:
    needs = missing(["printing"])
    if needs:
        pytest.fail(
            f"not on this machine: {', '.join(need.package for need in needs)}; python -m scripts.system_packages printing installs them"
        )


async def run(*command: str) -> str:
    """Output of a tool that must succeed."""
    program = shutil.which(command[0], path=SEARCH_PATH)
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, *command[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"}
    )
    async with asyncio.timeout(WITHIN_S):
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():
            await asyncio.sleep(0.02)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where everybody may look: the scheduler's backends run as another user."""
    folder = Path(tempfile.mkdtemp(prefix="cups"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@asynccontextmanager
async def scheduler(place: Path) -> AsyncIterator[str]:
    """A cupsd of its own; the path of its socket."""
    for folder in ("spool", "cache", "run", "tmp"):
        (place / folder).mkdir()
    (place / "cupsd.conf").write_text(_CONFIGURATION.format(place=place))
    (place / "cups-files.conf").write_text(_FILES.format(place=place))
    program = shutil.which("cupsd", path=SEARCH_PATH)
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program, "-f", "-c", str(place / "cupsd.conf"), "-s", str(place / "cups-files.conf"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until((place / "socket").is_socket)
        yield str(place / "socket")
    finally:
        process.terminate()
        await process.wait()


def has_printed(model: IppPrinter, impressions: int) -> bool:
    model.advance(fast())
    return model.impressions == impressions


def fast() -> float:
    return time.monotonic() * FASTER


async def test_ipptool_finds_every_attribute_that_it_asks_for() -> None:
    async with IppServer(IppPrinter(), clock=fast) as server:
        said = await run("ipptool", "-tv", server.uri, "get-printer-attributes.test")
        assert "[PASS]" in said
        assert "printer-state (enum) = idle" in said
        assert "[FAIL]" not in said


async def test_a_queue_prints_on_it_and_says_idle_while_the_device_is_jammed(place: Path) -> None:
    """Which is why the agent asks the device and never a queue."""
    model = IppPrinter()
    async with IppServer(model, clock=fast) as server, scheduler(place) as cups:
        await run("lpadmin", "-h", cups, "-p", "desk", "-E", "-v", server.uri, "-m", "everywhere")
        document = place / "two pages"
        document.write_bytes(b"first\x0csecond\x0c")
        before = model.impressions
        await run("lp", "-h", cups, "-d", "desk", "-o", "raw", str(document))
        await until(lambda: has_printed(model, before + 2))
        assert model.documents == 1

        model.set("jam", fast())
        async with asyncio.timeout(WITHIN_S):
            while "printer desk is idle" not in await run("lpstat", "-h", cups, "-p"):
                await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection(*server.uri.removeprefix("ipp://").partition("/")[0].split(":"))
        query = ipp.encode_status_query(server.uri, 1)
        head = f"POST /ipp/print HTTP/1.1\r\nHost: x\r\nContent-Type: application/ipp\r\nContent-Length: {len(query)}\r\n\r\n"
        writer.write(head.encode() + query)
        answered = await reader.readuntil(b"\r\n\r\n")
        size = int(answered.lower().partition(b"content-length: ")[2].split()[0])
        reading = ipp.reading_of(ipp.decode_status(await reader.readexactly(size), 1))
        assert reading.paper is PaperState.JAMMED
        writer.close()
        await writer.wait_closed()
