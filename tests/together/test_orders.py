"""Orders from the request's row to the terminal and back: real server, real broker, real agent with simulated devices."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fleet_server.channel import transact
from fleet_server.orders import keys, logs, requests
from protocols.contract.orders import OrderBody, PullLogs, Restart, SelfTest
from tests.support.processes import Processes
from tests.support.server import RunningServer, now_ms
from tests.support.terminal import RealTerminal
from tests.support.waiting import wait_until

pytestmark = pytest.mark.broker
DAY = 86_400_000
TERMINAL = "kf-0001"
T = TypeVar("T")


@pytest.fixture
def server(tmp_path: Path, processes: Processes) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path / "server", processes)
    made.init()
    for name in ("wang", "li"):
        made.add_account(name, "river-stone-4711")
    yield made.start()
    made.stop()


@pytest.fixture
def terminal(tmp_path: Path, processes: Processes, server: RunningServer) -> Iterator[RealTerminal]:
    made = RealTerminal(tmp_path / "terminals", processes, server, TERMINAL)
    made.plug_in()
    made.write_config()
    made.enrol()
    made.start()
    wait_until(lambda: server.rows("SELECT birth_ms FROM terminal_live WHERE birth_ms IS NOT NULL"), "the terminal has greeted")
    yield made
    made.close()


def work(server: RunningServer, do: Callable[[sqlite3.Connection], T]) -> T:
    """What the console does inside its transaction."""
    with server.database() as conn:
        return transact(conn, do)


def ask(server: RunningServer, body: OrderBody) -> bytes:
    return work(
        server,
        lambda conn: requests.request_order(conn, [TERMINAL], body, by="wang", expires_ms=now_ms() + DAY, now_ms=now_ms()),
    )


def state(server: RunningServer, request: bytes) -> tuple[str, str]:
    row = server.rows("SELECT state, reason FROM order_item WHERE request = ?", (request,))[0]
    return row[0], row[1]


def becomes(server: RunningServer, request: bytes, wanted: str) -> None:
    try:
        wait_until(lambda: state(server, request)[0] == wanted, f"the order is {wanted}", timeout_s=30)
    except AssertionError as err:
        raise AssertionError(f"{err}; it is {state(server, request)}, told {told(server, request)}") from None


def told(server: RunningServer, request: bytes) -> list[str]:
    sql = (
        "SELECT r.state FROM order_report r JOIN order_item i ON i.order_id = r.order_id WHERE i.request = ?"
        " AND NOT (r.state = 'refused' AND r.reason = 'replayed') ORDER BY r.at_ms, r.id"
    )
    return [row[0] for row in server.rows(sql, (request,))]


def slot(server: RunningServer) -> str:
    return str(server.rows("SELECT slot FROM device WHERE terminal = ? ORDER BY slot LIMIT 1", (TERMINAL,))[0][0])


def test_orders_reach_a_terminal_and_come_back_done(server: RunningServer, terminal: RealTerminal) -> None:
    wait_until(lambda: server.rows("SELECT 1 FROM device WHERE terminal = ?", (TERMINAL,)), "devices are known")
    test = ask(server, SelfTest(slot=slot(server)))
    becomes(server, test, "done")
    assert told(server, test)[0] == "received" and told(server, test)[-1] == "done"
    sealed_ms, heard_ms, asked_ms = server.rows(
        "SELECT i.sealed_ms, i.heard_ms, r.at_ms FROM order_item i JOIN order_request r ON r.id = i.request WHERE i.request = ?",
        (test,),
    )[0]
    # Half a second is allowed to the signature and half a second to the delivery; the rest is a loaded machine and the terminal itself.
    assert sealed_ms - asked_ms < 5_000
    assert heard_ms - sealed_ms < 10_000

    reboot = ask(server, Restart(what="host"))
    assert state(server, reboot) == ("asked", "")
    work(server, lambda conn: requests.reject(conn, reboot, by="li", now_ms=now_ms()))

    locked = work(server, lambda conn: requests.lock(conn, [TERMINAL], "设备检修", "Maintenance", by="wang", now_ms=now_ms()))
    becomes(server, locked, "done")
    assert "设备检修" in repr(terminal.api.request("GET", "/v1/status")[1])
    opened = work(server, lambda conn: requests.unlock(conn, [TERMINAL], by="wang", now_ms=now_ms()))
    becomes(server, opened, "done")
    assert "设备检修" not in repr(terminal.api.request("GET", "/v1/status")[1])

    pulled = ask(server, PullLogs(from_ms=now_ms() - 3_600_000, to_ms=now_ms()))
    becomes(server, pulled, "done")
    order_id, lines = server.rows("SELECT order_id, lines FROM pulled_log")[0]
    text = b"".join(logs.text_of(server.settings.layout.logs, bytes(order_id)))
    assert len(text.splitlines()) == lines > 0


def test_kills_of_dispatch_and_ingest_neither_lose_nor_repeat_an_order(server: RunningServer, terminal: RealTerminal) -> None:
    wait_until(lambda: server.rows("SELECT 1 FROM device WHERE terminal = ?", (TERMINAL,)), "devices are known")
    test = SelfTest(slot=slot(server))
    asked = []
    for part in ("dispatch", "ingest", "dispatch", "broker"):
        asked.append(ask(server, test))
        old = server.kill(part)
        asked.append(ask(server, test))
        server.wait_restarted(part, old)
    for request in asked:
        becomes(server, request, "done")
    for request in asked:
        assert told(server, request).count("done") == 1
        assert told(server, request).count("running") <= 1
    counters = [row[0] for row in server.rows("SELECT counter FROM order_item ORDER BY counter")]
    assert len(set(counters)) == len(asked)


def test_a_rotated_key_is_believed_and_a_withdrawn_one_is_not(
    server: RunningServer, terminal: RealTerminal, processes: Processes
) -> None:
    wait_until(lambda: server.rows("SELECT 1 FROM device WHERE terminal = ?", (TERMINAL,)), "devices are known")
    test = SelfTest(slot=slot(server))
    becomes(server, ask(server, test), "done")
    first = server.rows("SELECT kid FROM order_key")[0][0]

    def command(*words: str) -> str:
        child = server.command("order-key", *words)
        assert child.popen.wait(30) == 0, child.output()
        return child.output()

    assert "signs from now on" in command("rotate")
    becomes(server, ask(server, test), "done")
    assert "is withdrawn" in command("withdraw", first.hex()[:12])
    becomes(server, ask(server, test), "done")
    listed = command()
    assert listed.count("withdrawn") == 1 and listed.count("in use") == 1
    with server.database() as conn:
        assert keys.current(conn) != first
    refusals = server.rows("SELECT reason, count FROM order_report WHERE order_id IS NULL")
    assert refusals == [], "no order was signed by a key that the terminal did not know"


def test_an_order_waits_for_a_terminal_that_is_away(server: RunningServer, terminal: RealTerminal) -> None:
    wait_until(lambda: server.rows("SELECT 1 FROM device WHERE terminal = ?", (TERMINAL,)), "devices are known")
    agent: Any = terminal.agent
    agent.stop()
    request = ask(server, SelfTest(slot=slot(server)))
    becomes(server, request, "sent")
    time_before = time.monotonic()
    terminal.start()
    becomes(server, request, "done")
    assert time.monotonic() - time_before < 60
