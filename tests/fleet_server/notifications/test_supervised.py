"""Notifications as part of a whole server: real processes, real broker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fleet_server.notifications.secrets import SecretBox
from tests.support.channels import add_local_channel
from tests.support.fakes.http import serve
from tests.support.fakes.receiver import Receiver
from tests.support.processes import Processes
from tests.support.server import RunningServer, now_ms
from tests.support.waiting import wait_until

pytestmark = pytest.mark.broker
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def add_channel(server: RunningServer, url: str) -> None:
    with server.database() as connection:
        add_local_channel(connection, SecretBox(server.settings.layout.authority), url, SECRET, now_ms=now_ms())


def open_fault(server: RunningServer, terminal: str) -> None:
    with server.database() as connection:
        connection.execute(
            "INSERT INTO fault (id, terminal, code, severity, mandatory, opened_ms, since_ms, disputed, late, false_alarm)"
            " VALUES (?, ?, 'PRN.JAM', 'P1', 1, ?, ?, 0, 0, 0)",
            (f"{terminal}:1", terminal, now_ms() - 60_000, now_ms() - 60_000),
        )


@pytest.mark.slow
def test_the_process_begins_with_the_first_channel_comes_back_after_kill_9_and_ends_with_the_server(
    tmp_path: Path, processes: Processes
) -> None:
    server = RunningServer(tmp_path, processes).start()
    receiver = Receiver(SECRET)
    with serve(receiver) as served:
        assert "notifications" not in server.health()["parts"]
        server.add_terminal("kf-1")
        server.add_terminal("kf-2")
        open_fault(server, "kf-1")
        add_channel(server, served.url("/"))
        wait_until(lambda: receiver.events("opened") == ["kf-1|PRN.JAM"], "the fault is told", timeout_s=40)
        wait_until(lambda: server.rows("SELECT 1 FROM notification WHERE state = 'sent'"), "the delivery is noted")
        server.wait_restarted("notifications", server.kill("notifications"))
        assert len(receiver.received) == 1

        archive = tmp_path / "backup.tar"
        assert server.command("backup", archive).popen.wait(60) == 0
        pid = server.pid("notifications")
        assert server.stop() == 0
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

        done = server.command("restore", "--replace", archive)
        assert done.popen.wait(60) == 0, done.output()
        tested = server.command("channel", "test", "duty")
        assert tested.popen.wait(60) == 0, tested.output()
    assert receiver.received[-1][1]["type"] == "fleet.test"
