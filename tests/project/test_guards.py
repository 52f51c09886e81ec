from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

import pytest

from tests.support import guards
from tests.support.processes import Processes
from tests.support.waiting import until, wait_until

# TEST-NET-1 (RFC 5737): leads nowhere, should the guard ever fail.
ELSEWHERE = "192.0.2.1"


def test_a_socket_cannot_leave_the_machine() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(guards.LeftTheMachine, match=ELSEWHERE):
            sock.connect((ELSEWHERE, 9))
        with pytest.raises(guards.LeftTheMachine):
            sock.sendto(b"", (ELSEWHERE, 9))
        with pytest.raises(guards.LeftTheMachine, match=r"0\.0\.0\.0"):
            sock.bind(("0.0.0.0", 0))
    with pytest.raises(guards.LeftTheMachine, match=r"example\.org"):
        socket.getaddrinfo("example.org", 443)


async def test_asyncio_cannot_leave_the_machine() -> None:
    with pytest.raises(guards.LeftTheMachine):
        await asyncio.open_connection(ELSEWHERE, 9)


async def test_loopback_is_open(free_port: Callable[[], int]) -> None:
    port = free_port()
    served = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        reader, writer = await asyncio.open_connection("localhost", port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(served.wait(), 5)


def test_a_forgotten_task_is_noticed() -> None:
    async def forgetful() -> None:
        forgotten = asyncio.create_task(asyncio.Event().wait(), name="nobody-awaits-me")
        await asyncio.sleep(0)
        assert not forgotten.done()

    asyncio.run(forgetful())
    left = guards.take_left_behind()
    assert len(left) == 1
    assert "nobody-awaits-me" in left[0]


def test_a_broken_log_message_fails(caplog: pytest.LogCaptureFixture) -> None:
    assert caplog.handler in logging.getLogger().handlers
    with pytest.raises(TypeError, match="not all arguments converted"):
        logging.getLogger("edge_agent.anything").debug("one placeholder: %s", "one", "two")  # noqa: PLE1205 (it is the point)


async def test_waiting_has_a_deadline_and_says_what_for() -> None:
    with pytest.raises(AssertionError, match="the sky to fall"):
        wait_until(lambda: 0, "the sky to fall", timeout_s=0.05)

    async def answer() -> int:
        return 42

    assert await until(answer, "an answer") == 42
    with pytest.raises(AssertionError, match="the sky to rise"):
        await until(lambda: None, "the sky to rise", timeout_s=0.05)


def test_processes_end_what_they_started_and_nothing_else(processes: Processes) -> None:
    bystander = Processes(processes.folder / "..")
    other = bystander.start_python("-c", "import time; print('here', flush=True); time.sleep(60)")
    stubborn = processes.start_python(
        "-c",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
    )
    try:
        other.wait_for_output("here")
        stubborn.wait_for_output("deaf")
        assert stubborn.stop(timeout_s=0.2) == -9
        processes.end_all()
        assert not stubborn.running
        assert other.running
    finally:
        bystander.end_all()
    assert not other.running


def test_a_process_that_ends_early_says_why(processes: Processes) -> None:
    child = processes.start([sys.executable, "-c", "print('no such kiosk'); raise SystemExit(3)"])
    with pytest.raises(AssertionError, match="ended with 3"):
        child.wait_for_output("ready")
    assert "no such kiosk" in child.output()
