"""Guards and fixtures for every test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support import guards
from tests.support.processes import Processes
from tests.support.processes import free_port as ask_for_port

# pytest's log handler raises on a message whose arguments do not fit, so ours are all let through to it; these libraries only make noise.
NOISY_LOGGERS = (
    "aiosqlite",
    "amqtt",
    "asyncio",
    "hypothesis",
    "httpcore",
    "httpx",
    "litestar",
    "transitions",
    "uvicorn",
    "websockets",
)


def pytest_configure() -> None:
    guards.only_loopback()
    guards.watch_tasks()
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    yield
    if tasks := guards.take_left_behind():
        pytest.fail(
            "tasks were pending when their loop closed; whoever starts a task awaits it:\n" + "\n".join(tasks), pytrace=False
        )


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A command that a test runs in this process sets logging up for good; the next test must not write to this one's closed output."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that gives a new free port on 127.0.0.1 at each call."""
    return ask_for_port


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts child processes, and ends those (and only those) after the test."""
    folder = tmp_path / "process-logs"
    folder.mkdir()
    started = Processes(folder)
    yield started
    started.end_all()
