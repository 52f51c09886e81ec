from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edge_agent.sd_notify import Notifier


def test_datagrams(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        notifier = Notifier.of_environment({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}, 7)
        notifier.ready()
        notifier.status("two\nlines")
        notifier.alive()
        notifier.stopping()
        got = [systemd.recv(100) for _ in range(4)]
    assert got == [b"READY=1", b"STATUS=two lines", b"WATCHDOG=1", b"STOPPING=1"]
    assert notifier.watchdog_s == 30


def test_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(b"\0kf-test-notify")
        systemd.settimeout(5)
        Notifier("@kf-test-notify").ready()
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "7"}, 1.0),
    ],
)
def test_watchdog_interval(environment: dict[str, str], watchdog_s: float | None) -> None:
    assert Notifier.of_environment(environment, 7).watchdog_s == watchdog_s


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Notifier().ready()
    Notifier(str(tmp_path / "nobody")).ready()
