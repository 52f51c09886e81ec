"""The ingest desk and orders: what a challenge lists, what follows a birth, and that ingest holds no order key."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fleet_server.ingest
from fleet_server.db import migrate, open_raw
from fleet_server.dispatch.signing import announce
from protocols.contract import certs, messages, topics, wire
from protocols.contract.messages import Birth
from protocols.contract.records import ClockQuality
from tests.fleet_server.evidence.conftest import OTHER, Bench
from tests.fleet_server.ingest.test_desk import A, Table, read
from tests.support.contract import BOOT_ID, FLEET, NOW_MS, ORDERS, RECORD, ROOT, STRANGER, TERMINAL


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    path = tmp_path / "fleet.sqlite"
    migrate(path)
    bench = Bench(path)
    bench.enrol(TERMINAL, RECORD)
    bench.enrol(OTHER, STRANGER)
    yield Table(bench)
    bench.conn.close()


def certify(table: Table, kid: bytes = ORDERS.kid) -> bytes:
    raw = certs.seal_order_key_cert(certs.OrderKeyCert(kid=ORDERS.kid, public_key=ORDERS.public, issued_ms=0), ROOT, FLEET)
    # As dispatch does it, from a process of its own.
    other = open_raw(table.bench.path)
    other.execute("INSERT INTO order_key (kid, certificate, created_ms) VALUES (?, ?, 0)", (kid, raw))
    other.close()
    return raw


def sign(table: Table, terminal: str = TERMINAL, counter: int = 1) -> None:
    other = open_raw(table.bench.path)
    other.execute(
        "INSERT INTO order_item (request, terminal, order_id, kind, expires_ms, state, counter, envelope, sealed_ms)"
        " VALUES (?, ?, ?, 'restart', ?, 'sent', ?, ?, ?)",
        (bytes([counter]), terminal, bytes([counter]) * 16, NOW_MS + 60_000, counter, b"order %d" % counter, NOW_MS),
    )
    announce(other, terminal, NOW_MS)
    other.close()


def born(table: Table, command_counter: int = 0, desired_counter: int = 0) -> None:
    message = Birth(
        nonce=table.hello().nonce, agent="0.1.0", boot_no=1, boot_id=BOOT_ID, stream=A, wall_ms=NOW_MS, boot_ms=1,
        quality=ClockQuality.SYNCED, held=(), command_counter=command_counter, desired_counter=desired_counter,
    )  # fmt: skip
    table.send("birth", wire.seal(message, RECORD, messages.BIRTH_CONTEXT, FLEET, TERMINAL))


@pytest.mark.spec("O-102")
def test_a_challenge_lists_the_keys_that_are_valid_now(table: Table) -> None:
    assert table.hello().order_keys == ()
    raw = certify(table)
    assert table.hello().order_keys == (raw,)
    table.bench.conn.execute("UPDATE order_key SET withdrawn_ms = 1")
    assert table.hello().order_keys == ()


@pytest.mark.spec("O-212")
def test_orders_follow_a_birth_and_come_as_they_are_signed(table: Table) -> None:
    sign(table)
    assert table.desk.deliver() == ([], False)
    born(table)
    answers, more = table.desk.deliver()
    assert [(one.topic, one.payload) for one in answers] == [(topics.down(TERMINAL, "order"), b"order 1")]
    assert not more
    sign(table, counter=2)
    sign(table, OTHER, counter=3)
    assert [one.payload for one in table.desk.deliver()[0]] == [b"order 2"]
    assert table.desk.deliver() == ([], False)


@pytest.mark.spec("O-214")
def test_a_birth_raises_the_counter(table: Table) -> None:
    born(table, command_counter=41)
    assert table.bench.one("SELECT counter FROM terminal_counter WHERE terminal = ?", TERMINAL) == 41
    born(table, command_counter=7)
    assert table.bench.one("SELECT counter FROM terminal_counter WHERE terminal = ?", TERMINAL) == 41


@pytest.mark.spec("O-102")
def test_who_greeted_under_another_list_is_challenged_again(table: Table) -> None:
    certify(table)
    born(table)
    assert table.desk.deliver() == ([], False)
    raw = certify(table, b"2" * 16)
    answers, _ = table.desk.deliver()
    (answer,) = answers
    challenge = read(answer, "challenge", messages.CHALLENGE_CONTEXT, messages.Challenge)
    assert challenge.order_keys == (raw, raw)
    sign(table)
    assert table.desk.deliver()[0] == [], "nothing before it has greeted again"


@pytest.mark.spec("O-104")
def test_ingest_cannot_sign_orders() -> None:
    """No module of it names what makes, reads or uses an order key's private half."""
    for file in Path(str(fleet_server.ingest.__file__)).parent.glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"seal_order", "seal_desired", "read_ed25519", "certify_order_key", "dispatch"}, file
        # `keys.signer` is what dispatch uses; `authority.server_signer` signs greetings.
        assert "keys.signer" not in file.read_text(), file
