"""Excerpts of logs: who may send which, what is kept, how long."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from fleet_server.channel import transact
from fleet_server.errors import NotFound
from fleet_server.orders import logs
from fleet_server.orders.logs import NotTaken, Tidy
from protocols.contract import wire
from protocols.contract.limits import LOG_TEXT_MAX_BYTES
from protocols.contract.orders import LOG_CONTEXT, LogExcerpt, PullLogs
from tests.support.contract import RECORD, STRANGER, MemoryKey
from tests.support.ordering import DAY, FLEET, NOW, OrderBench

SPAN = PullLogs(from_ms=NOW - 1_000, to_ms=NOW)
TEXT = b'{"t":1,"m":"started"}\n{"t":2,"m":"stopped"}\n'


@pytest.fixture
def city(city: OrderBench) -> OrderBench:
    city.conn.execute(
        "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, 'kf-1', 1, ?, x'', 0)",
        (RECORD.kid, RECORD.public),
    )
    return city


def asked(city: OrderBench, *terminals: str) -> bytes:
    """Id of the order at kf-1."""
    request = city.ask(*terminals, body=SPAN)
    city.sign()
    return city.order(request).id


def sealed(
    order: bytes,
    key: MemoryKey = RECORD,
    *,
    terminal: str = "kf-1",
    fleet: str = FLEET,
    text: bytes | None = None,
    from_ms: int = SPAN.from_ms,
    to_ms: int = SPAN.to_ms,
) -> bytes:
    packed = gzip.compress(TEXT) if text is None else text
    excerpt = LogExcerpt(order=order, from_ms=from_ms, to_ms=to_ms, lines=2, text=packed)
    return wire.seal(excerpt, key, LOG_CONTEXT, fleet, terminal)


def take(city: OrderBench, folder: Path, raw: bytes, peer: str = "kf-1") -> None:
    kid = logs.kid_of(raw)
    taken = logs.examine(raw, None if kid is None else logs.key_of(city.conn, kid), peer, FLEET)
    transact(city.conn, lambda conn: logs.keep(conn, folder, taken, city.now_ms))


def refusal(city: OrderBench, folder: Path, raw: bytes, peer: str = "kf-1") -> str:
    with pytest.raises(NotTaken) as refused:
        take(city, folder, raw, peer)
    assert city.facts.rows("SELECT 1 FROM pulled_log WHERE lines <> 2") == []
    return refused.value.reason


def test_what_was_asked_for_is_kept_as_it_was_signed(city: OrderBench, tmp_path: Path) -> None:
    order = asked(city)
    raw = sealed(order)
    take(city, tmp_path / "logs", raw)
    row = city.facts.one("SELECT terminal, from_ms, to_ms, lines, cut, size FROM pulled_log")
    assert row == ("kf-1", SPAN.from_ms, SPAN.to_ms, 2, 0, len(TEXT))
    file = logs.file_of(tmp_path / "logs", order)
    assert file.read_bytes() == raw
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"".join(logs.text_of(tmp_path / "logs", order)) == TEXT
    assert transact(city.conn, lambda conn: logs.read(conn, order, by="wang", now_ms=NOW)) == "kf-1"
    assert city.facts.one("SELECT actor, object FROM audit WHERE action = 'log.read'") == ("wang", "terminal:kf-1")


@pytest.mark.spec("O-403")
def test_each_order_has_one_excerpt(city: OrderBench, tmp_path: Path) -> None:
    order = asked(city)
    take(city, tmp_path, sealed(order))
    assert refusal(city, tmp_path, sealed(order)) == "done"


@pytest.mark.spec("O-403")
def test_an_excerpt_that_nobody_asked_for(city: OrderBench, tmp_path: Path) -> None:
    test = city.ask()
    city.sign()
    assert refusal(city, tmp_path, sealed(b"?" * 16)) == "unknownOrder"
    assert refusal(city, tmp_path, sealed(city.order(test).id)) == "unknownOrder"
    waiting = city.ask(body=SPAN)
    order_id = city.facts.one("SELECT order_id FROM order_item WHERE request = ?", waiting)[0]
    assert isinstance(order_id, bytes)
    assert refusal(city, tmp_path, sealed(order_id)) == "unknownOrder"
    city.sign()
    take(city, tmp_path, sealed(order_id))


@pytest.mark.parametrize(("earlier_ms", "later_ms"), [(1, 0), (0, 1)])
def test_an_excerpt_of_another_span(city: OrderBench, tmp_path: Path, earlier_ms: int, later_ms: int) -> None:
    raw = sealed(asked(city), from_ms=SPAN.from_ms - earlier_ms, to_ms=SPAN.to_ms + later_ms)
    assert refusal(city, tmp_path, raw) == "unknownOrder"


def test_another_terminals_order(city: OrderBench, tmp_path: Path) -> None:
    request = city.ask("kf-1", "kf-2", body=SPAN)
    city.sign()
    assert refusal(city, tmp_path, sealed(city.order(request, "kf-2").id)) == "unknownOrder"


@pytest.mark.spec("O-402")
@pytest.mark.parametrize("how", ["stranger", "peer", "fleet", "terminal", "bytes", "bit"])
def test_what_the_terminal_did_not_sign(city: OrderBench, tmp_path: Path, how: str) -> None:
    order = asked(city)
    raw, peer = sealed(order), "kf-1"
    match how:
        case "stranger":
            raw = sealed(order, STRANGER)
        case "peer":
            peer = "kf-2"
        case "fleet":
            raw = sealed(order, fleet="other")
        case "terminal":
            raw = sealed(order, terminal="kf-2")
        case "bytes":
            raw = b"not an envelope"
        case "bit":
            raw = raw[:-1] + bytes([raw[-1] ^ 1])
    assert refusal(city, tmp_path, raw, peer) == "notAuthentic"
    assert list(tmp_path.glob("*.cose")) == []


def test_a_revoked_key_and_a_retired_terminal(city: OrderBench, tmp_path: Path) -> None:
    raw = sealed(asked(city))
    city.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = 'kf-1'")
    assert refusal(city, tmp_path, raw) == "revoked"
    city.conn.execute("UPDATE terminal SET revoked_ms = NULL WHERE id = 'kf-1'")
    city.conn.execute("UPDATE record_key SET revoked_ms = 1")
    assert refusal(city, tmp_path, raw) == "revoked"


@pytest.mark.spec("O-403")
def test_a_bomb_goes_off_nowhere(city: OrderBench, tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, logs.GZIP)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range((LOG_TEXT_MAX_BYTES >> 20) + 1)) + packer.flush()
    assert len(bomb) < 100_000
    assert refusal(city, tmp_path, sealed(asked(city), text=bomb)) == "tooLarge"
    largest = max(len(part) for part in logs.unpack(gzip.compress(bytes(10 * logs.PART_BYTES))))
    assert largest <= logs.PART_BYTES


WHOLE = gzip.compress(TEXT, mtime=0)


@pytest.mark.parametrize(
    "text", [b"", b"plain", WHOLE[:-3], WHOLE + b"x", WHOLE * 2], ids=["empty", "plain", "cut", "longer", "twice"]
)
def test_what_is_not_one_whole_gzip(city: OrderBench, tmp_path: Path, text: bytes) -> None:
    assert refusal(city, tmp_path, sealed(asked(city), text=text)) == "notAuthentic"


def test_an_envelope_beyond_the_limit(city: OrderBench, tmp_path: Path) -> None:
    assert refusal(city, tmp_path, bytes(logs.ENVELOPE_MAX_BYTES + 1)) == "tooLarge"


def test_logs_are_removed_when_their_time_is_over(city: OrderBench, tmp_path: Path) -> None:
    order = asked(city)
    take(city, tmp_path, sealed(order))
    tidy = Tidy(tmp_path)
    tidy.step(city.conn, city.now_ms + 29 * DAY)
    assert logs.file_of(tmp_path, order).exists()
    tidy.step(city.conn, city.now_ms + 30 * DAY)
    assert not logs.file_of(tmp_path, order).exists()
    assert city.facts.one("SELECT removed_ms IS NOT NULL FROM pulled_log") == (1,)
    for look in (lambda: logs.read(city.conn, order, by="wang", now_ms=NOW), lambda: logs.text_of(tmp_path, order)):
        with pytest.raises(NotFound):
            look()


def test_a_file_that_a_kill_left_behind_goes_after_a_day(city: OrderBench, tmp_path: Path) -> None:
    order = asked(city)
    take(city, tmp_path, sealed(order))
    left = logs.file_of(tmp_path, b"l" * 16)
    left.write_bytes(b"")
    written_ms = left.stat().st_mtime_ns // 1_000_000
    city.conn.execute("UPDATE pulled_log SET received_ms = ?", (written_ms,))
    Tidy(tmp_path).step(city.conn, written_ms + DAY // 2)
    assert left.exists()
    Tidy(tmp_path).step(city.conn, written_ms + 2 * DAY)
    assert not left.exists()
    assert logs.file_of(tmp_path, order).exists()
