"""Disks that come back from the past: the server's from a backup, an agent's from a copy, and a terminal that lives twice.

Nothing that was confirmed may be missing or doubled, nothing may be refused, and what cannot be told apart waits for a person's word.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from protocols.contract import records
from tests.support.server import RunningServer
from tests.support.waiting import until, wait_until
from tests.together.road import (
    Cases,
    LeanTerminal,
    Sender,
    check_cases,
    check_chain,
    check_evidence,
    enrolled,
    make_lean,
    open_alarms,
    stored_bodies,
    stored_cases,
    stored_numbers,
    wait_cases,
    whole_server,
)

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("restores")) as running:
        yield running


def command(server: RunningServer, *words: str | Path) -> str:
    child = server.command(*words)
    assert child.popen.wait(60) == 0, child.output()
    return child.output()


# The server -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-407", "C-408", "C-311", "C-401")
@pytest.mark.timeout(180)
def test_a_server_restored_from_yesterday_s_backup_ends_complete(tmp_path: Path) -> None:
    with whole_server(tmp_path / "whole") as server:
        terminal = make_lean(tmp_path, server, "restored-server")
        cases = Cases(terminal)
        cases.enter(6)
        wait_cases(server, terminal.terminal, 6)
        command(server, "backup", tmp_path / "yesterday.tar")

        # Today: more batches of yesterday's stream, then a restart of the agent and a second stream that the backup has never heard of.
        cases.enter(5)
        wait_cases(server, terminal.terminal, 11)
        terminal.kill()
        terminal.start()
        cases.enter(4)
        wait_cases(server, terminal.terminal, 15)
        before = server.rows("SELECT stream, no, digest FROM batch ORDER BY stream, no")
        wait_until(lambda: terminal.depth() == 0, "everything is acknowledged, so the terminal believes it safe")

        server.stop()
        said = command(server, "restore", tmp_path / "yesterday.tar", "--replace")
        assert "terminals will send again" in said
        assert stored_cases(server, terminal.terminal) == 6
        server.start()
        wait_cases(server, terminal.terminal, 15)
        cases.enter(2)
        wait_cases(server, terminal.terminal, 17)
        check_cases(server, cases)
        check_chain(server, terminal.terminal)
        assert open_alarms(server, terminal.terminal) == []
        after = server.rows("SELECT stream, no, digest FROM batch ORDER BY stream, no")
        assert set(before) <= set(after), "what came again is what was there, byte for byte"
        check_evidence(server, terminal.terminal, tmp_path)
        terminal.close()


# The agent's disk -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-508", "C-512", "C-514", "C-301")
@pytest.mark.timeout(180)
def test_an_agent_s_disk_restored_from_a_copy(server: RunningServer, tmp_path: Path) -> None:
    """Both lives are stored, the second waits for a verdict, the alarm stands until then, and nothing at all is refused."""
    terminal = make_lean(tmp_path, server, "restored-disk")
    name, cases = terminal.terminal, Cases(terminal)
    cases.enter(5)
    wait_cases(server, name, 5)
    # Copied at a bad moment: with cases that are confirmed and not sealed yet, so that both lives seal them, each in its own way.
    cases.enter(3)
    terminal.kill()
    pending = unsealed(terminal)
    shutil.copytree(terminal.state_dir, tmp_path / "copy")

    terminal.start()
    cases.enter(6)
    wait_cases(server, name, 14)
    check_chain(server, name)
    assert open_alarms(server, name) == []
    terminal.kill()

    shutil.rmtree(terminal.state_dir)
    shutil.copytree(tmp_path / "copy", terminal.state_dir)
    terminal.start()
    cases.enter(4)
    wait_until(lambda: open_alarms(server, name) == ["SEC.CLONE"], "the alarm")
    wait_until(lambda: terminal.depth() == 0, "the second life is acknowledged as well", timeout_s=40)

    assert server.rows("SELECT reason FROM quarantine_count WHERE terminal = ?", (name,)) == []
    everything = Counter(body.id for body in stored_bodies(server, name, records.Session, aside=True))
    assert set(everything) == cases.hidden(), "every confirmed case of both lives is kept"
    doubled = {case for case, count in everything.items() if count > 1}
    assert len(doubled) == min(pending, 3), "only what both lives sealed is there in two versions"
    counted = stored_cases(server, name)
    assert counted <= 14, "the second life does not count yet"
    assert ", 1 forks" in check_evidence(server, name, tmp_path)

    for (stream,) in server.rows("SELECT stream FROM stream WHERE terminal = ? AND disputed = 1 ORDER BY boot_no", (name,)):
        command(server, "settle-stream", stream.hex(), "restored")
    assert stored_cases(server, name) == 18
    assert stored_cases(server, name, disputed=1) == 0
    check_cases(server, cases)
    assert open_alarms(server, name) == []
    # And life goes on.
    cases.enter(1)
    wait_cases(server, name, 19)
    terminal.close()


def unsealed(terminal: LeanTerminal) -> int:
    with closing(sqlite3.connect(terminal.outbox)) as db:
        return int(db.execute("SELECT count(*) FROM pending WHERE kind = 'session'").fetchone()[0])


@pytest.mark.spec("C-513")
@pytest.mark.timeout(120)
def test_an_agent_that_lost_its_disk_starts_anew_under_its_old_key(server: RunningServer, tmp_path: Path) -> None:
    terminal = make_lean(tmp_path, server, "lost-disk")
    name, cases = terminal.terminal, Cases(terminal)
    cases.enter(3)
    wait_cases(server, name, 3)
    terminal.kill()
    shutil.rmtree(terminal.state_dir)
    terminal.start()
    later = Cases(terminal)
    later.enter(2)
    wait_cases(server, name, 5)
    check_chain(server, name)
    assert open_alarms(server, name) == []
    notices = server.rows("SELECT notice FROM stream WHERE terminal = ? ORDER BY first_ms", (name,))
    assert notices == [(None,), ("spoolLost",)]
    terminal.close()


# A terminal that lives twice ------------------------------------------------------------------------------------------------------------


@pytest.mark.spec("C-508", "C-512", "C-503")
@pytest.mark.timeout(120)
async def test_a_live_copy_of_a_terminal(server: RunningServer, tmp_path: Path) -> None:
    """A running machine was copied: same keys, same stream, same number next. They take the connection from each other; both stories are kept."""
    me = enrolled(server, tmp_path, "lives-twice")
    first = Sender(me)
    async with first.running():
        first.capture(2)
        await first.drained()
        copy = me.folder / "copy.db"
        with closing(sqlite3.connect(copy)) as target, closing(sqlite3.connect(first.path)) as source:
            source.backup(target)
        second = Sender(me, path=copy, seed=2, first=1001, goes_on=True)
        async with second.running():
            for _ in range(12):
                first.capture()
                second.capture(2)
                both = len(first.links) + len(second.links)
                await until(lambda both=both: len(first.links) + len(second.links) > both, "the connection changes hands")  # type: ignore[misc]
            await until(lambda: open_alarms(server, me.terminal) == ["SEC.CLONE"], "the alarm")
            assert {first.links.count("down"), second.links.count("down")} != {0}, "they took the connection from one another"
        # With the connection to itself each of them gets rid of everything.
        await first.drained()
    async with second.running():
        await second.drained()
    assert server.rows("SELECT reason FROM quarantine_count WHERE terminal = ?", (me.terminal,)) in ([], [("staleNonce",)])
    everything = Counter(stored_numbers(server, me.terminal, aside=True))
    assert sorted(everything.elements()) == sorted(first.captured + second.captured), "every record of both, each once"
    await asyncio.to_thread(settle_all, server, me.terminal, "copied")
    assert open_alarms(server, me.terminal) == []
    await asyncio.to_thread(check_evidence, server, me.terminal, tmp_path)


def settle_all(server: RunningServer, terminal: str, verdict: str) -> None:
    for (stream,) in server.rows("SELECT stream FROM stream WHERE terminal = ? AND disputed = 1", (terminal,)):
        command(server, "settle-stream", stream.hex(), verdict)


@pytest.mark.timeout(180)
def test_a_copied_terminal_that_both_sides_started_anew(server: RunningServer, tmp_path: Path) -> None:
    """As an image of a machine that was set up once: two agents, each with a start of its own, over the same past."""
    terminal = make_lean(tmp_path, server, "twins")
    name, cases = terminal.terminal, Cases(terminal)
    cases.enter(3)
    wait_cases(server, name, 3)
    wait_until(lambda: terminal.depth() == 0, "nothing waits")
    terminal.kill()
    twin = LeanTerminal(tmp_path / "elsewhere", server.processes, server, name)
    shutil.copytree(terminal.identity_dir, twin.identity_dir)
    shutil.copytree(terminal.state_dir, twin.state_dir)
    twin.plug_in()
    twin.write_config()
    twins_cases = Cases(twin)
    terminal.start()
    twin.start()
    for _ in range(6):
        cases.enter(2)
        twins_cases.enter(2)
    wait_until(lambda: open_alarms(server, name) == ["SEC.CLONE"], "the alarm", timeout_s=40)
    assert terminal.agent is not None
    assert terminal.agent.running
    twin.kill()
    wait_until(lambda: terminal.depth() == 0, "the first has said everything", timeout_s=60)
    terminal.kill()
    twin.start()
    wait_until(lambda: twin.depth() == 0, "the second has said everything", timeout_s=60)
    assert set(server.rows("SELECT reason FROM quarantine_count WHERE terminal = ?", (name,))) <= {("staleNonce",)}
    told = Counter(body.id for body in stored_bodies(server, name, records.Session, aside=True))
    assert set(told) == cases.hidden() | twins_cases.hidden()
    assert set(told.values()) == {1}
    for one in (terminal, twin):
        one.close()
