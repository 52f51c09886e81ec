"""An enrolled terminal that signs whatever it likes: ingest stays up, stays quick, and serves the others.

Everything behind the broker is real here: desk, ledger, projection, presence, waiting births, housekeeping. `Tally.poison` and records parked as "not
projected" would be our own failures, caught by the nets below; the nets have tests of their own.
"""

from __future__ import annotations

import copy
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_server.db import migrate
from fleet_server.evidence.ledger import UNPROJECTABLE, Ledger
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.devices import PLACES_MAX
from fleet_server.facts.episodes import OPEN_MAX
from fleet_server.facts.projection import Projection
from fleet_server.ingest.desk import Answer, Desk, Incoming
from fleet_server.ingest.housekeeping import Housekeeping
from fleet_server.presence.watch import PresenceWatch
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract import messages, records, topics, wire
from protocols.contract.limits import CONTROL_MAX_BYTES
from tests.fleet_server.evidence.conftest import OTHER
from tests.support.contract import (
    BOOT_ID,
    FLEET,
    NOW_MS,
    RECORD,
    SERVER,
    SERVER_CERT,
    STRANGER,
    TERMINAL,
    Chain,
    MemoryKey,
    notice,
    record_cert,
)

A, B = b"\xaa" * 16, b"\xbb" * 16


class Room:
    """One ingest process without its broker; TERMINAL is hostile, OTHER is honest."""

    def __init__(self, template: Path) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        with closing(sqlite3.connect(template)) as source:
            source.backup(self.conn)
        self.now_ms = NOW_MS
        births = PendingBirths()
        watch = PresenceWatch.load(self.conn, NOW_MS, births=births)
        self.projection = Projection(watch, births)
        self.ledger = Ledger(self.conn, FLEET, self.projection)
        self.desk = Desk(self.ledger, SERVER, SERVER_CERT, watch, lambda: self.now_ms)
        self.housekeeping = Housekeeping(self.conn, self.ledger, watch, self.projection, lambda: self.now_ms)
        self.housekeeping.broker(up=True)
        self.greet(OTHER, STRANGER)
        self.nonce = self.greet(TERMINAL, RECORD)
        self.honest = Chain(B, key=STRANGER, terminal=OTHER)

    def greet(self, terminal: str, key: MemoryKey) -> bytes:
        (answer,) = self.send("hello", wire.dump(messages.Hello(connection=b"12345678")), terminal)
        nonce = _open(answer, messages.CHALLENGE_CONTEXT, messages.Challenge, terminal).nonce
        birth = messages.Birth(
            nonce=nonce, agent="0.1.0", boot_no=1, boot_id=BOOT_ID, stream=A, wall_ms=NOW_MS, boot_ms=1,
            quality=records.ClockQuality.SYNCED, held=(),
        )  # fmt: skip
        self.send("birth", wire.seal(birth, key, messages.BIRTH_CONTEXT, FLEET, terminal), terminal)
        return nonce

    def send(self, kind: str, payload: bytes, terminal: str = TERMINAL) -> list[Answer]:
        taken, answers = self.desk.handle([Incoming(topics.up(terminal, kind), payload)])
        assert taken == 1
        return answers

    def sign(self, kind: str, payload: bytes) -> list[Answer]:
        """Authentic, whatever it says."""
        context = {"birth": messages.BIRTH_CONTEXT, "batch": batches.BATCH_CONTEXT, "loss": batches.LOSS_CONTEXT}[kind]
        return self.send(kind, cose.seal(payload, RECORD, context, FLEET, TERMINAL)[0])

    def check(self) -> None:
        """Nothing of ours failed, and the other terminal is served."""
        for _ in range(8):  # presence is written, births are tried again, days computed
            self.now_ms += 1_500
            self.housekeeping.step()
        assert self.desk.tally.poison == 0
        assert self.conn.execute("SELECT reason FROM parked WHERE reason LIKE ? || '%'", (UNPROJECTABLE,)).fetchall() == []
        (answer,) = self.send("batch", self.honest.seal(), OTHER)
        assert _open(answer, messages.ACK_CONTEXT, messages.Ack, OTHER).entries[0].no == self.honest.no
        assert self.conn.execute("SELECT count(*) FROM dirty_day").fetchone() == (0,)
        assert not self.conn.in_transaction


def _open(answer: Answer, context: str, of: type[wire.T], terminal: str) -> wire.T:
    opened = cose.verify(cose.parse(answer.payload, CONTROL_MAX_BYTES), SERVER.verifier, context, FLEET, terminal)
    return wire.read(opened.payload, of)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database with a site and two enrolled terminals."""
    path = tmp_path_factory.mktemp("hostile") / "fleet.sqlite"
    migrate(path)
    with closing(sqlite3.connect(path)) as conn, conn:
        for terminal, key in ((TERMINAL, RECORD), (OTHER, STRANGER)):
            conn.execute(
                "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, created_ms, enrolled_ms, tags) "
                "VALUES (?, ?, 'kiosk', '', '', '', 'government', '[]', 0, 1, '[]')",
                (terminal, terminal.upper()),
            )
            conn.execute(
                "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, ?, 0)",
                (key.kid, terminal, key.public, record_cert(key, terminal)),
            )
    return path


@pytest.fixture
def room(template: Path) -> Iterator[Room]:
    made = Room(template)
    yield made
    made.conn.close()


# What honest messages look like, as plain values ----------------------------------------------------------------------------------------

_SPAN = {"from_ms": NOW_MS - 900_000, "to_ms": NOW_MS}
_EVIDENCE = {"codec": "escpos", "query": b"\x10\x04\x01", "reply": b"\x12", "masked": [[0, 1]]}
BODIES: dict[str, dict[str, Any]] = {
    "boot": {"agent": "0.1.0", "os": "Debian 12", "arch": "x86_64", "python": "3.11.7", "previous": "none"},
    "stop": {"reason": "shutdown"},
    "clock": {"boot_ms": 1_000, "wall_ms": NOW_MS, "quality": "synced", "step_ms": 5},
    "device": {
        "slot": "receipt-printer",
        "family": "escpos",
        "device": "online",
        "paper": "full",
        "profile": "epson-tm",
        "vid": 1,
        "evidence": _EVIDENCE,
    },
    "sighting": {"bus": "usb", "port": "1-1.4", "vid": 1, "pid": 2},
    "fault": {
        "id": b"12345678",
        "code": "PRN.PAPER_OUT",
        "change": "open",
        "severity": "P1",
        "slot": "receipt-printer",
        "since_ms": NOW_MS,
        "evidence": _EVIDENCE,
    },
    "session": {
        "id": bytes(16),
        "item": "social.query",
        "outcome": "success",
        "began_ms": NOW_MS - 60_000,
        "duration_ms": 60_000,
    },
    "rating": {"level": 5, "slot": "evaluator", "session": bytes(16)},
    "queue": {"slot": "call-pad-1", "action": "callNext"},
    "consumable": {
        "slot": "receipt-printer",
        "item": "roll",
        "event": "refill",
        "remaining": 1,
        "capacity": 2,
        "unit": "mm",
        "source": "counter",
    },
    "counters": {**_SPAN, "slots": [{"slot": "scanner", "total": 3, "ok": 2, "failed": 1, "lifetime": 9}]},
    "serviceability": {**_SPAN, "observed_s": 900, "usable_s": 600, "partial_s": 200, "unusable_s": 100, "in_use_s": 10},
    "host": {
        **_SPAN,
        "cpu_pct": 3,
        "mem_free_mib": 9,
        "disk_free_mib": 9,
        "temp_c": 40,
        "uptime_s": 7,
        "agent_rss_kib": 3,
        "outbox_batches": 1,
    },
    "reading": {
        **_SPAN,
        "slot": "climate",
        "quantity": "humidity",
        "unit": "percent",
        "min_tenths": 1,
        "mean_tenths": 2,
        "max_tenths": 3,
    },
    "link": {"state": "down", "reason": "closed", "attempts": 2},
    "key": {"kid": bytes(16), "generation": 2},
    "notice": {"code": "spoolLost", "count": 1},
}
HEADER = {"s": A, "n": 1, "p": b"", "c": "event", "o": 1, "i": BOOT_ID, "w": NOW_MS}
LOSS = {**HEADER, "h": b"d" * 32, "f": NOW_MS, "l": NOW_MS, "k": {"notice": 1, "fault": 2}}


def record(kind: str, **changes: Any) -> dict[str, Any]:
    return {"t": NOW_MS, "q": "synced", "b": 1_000, "k": kind, "v": {**BODIES[kind], **changes}}


def birth(nonce: bytes) -> dict[str, Any]:
    return {
        "n": nonce,
        "v": [1],
        "g": "0.1.0",
        "o": 1,
        "i": BOOT_ID,
        "s": A,
        "t": NOW_MS,
        "b": 1_000,
        "q": "synced",
        "m": False,
        "x": 0,
        "h": [[A, 1, b"", 3, None], [B, 2, b"p" * 32, 4, [A, 3, b"d" * 32]]],
        "f": [[b"12345678", "PRN.PAPER_OUT", "P1", NOW_MS, "receipt-printer", True], [b"87654321", "NET.NO_ACK", "P2", 0]],
    }


BIG = (2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**200, 10**4000)
NUMBERS = [*BIG, *(-n for n in BIG), -1, 0, 1]


@pytest.mark.spec("C-112", "C-207")
@pytest.mark.parametrize("kind", BODIES)
def test_the_honest_examples_are_understood(room: Room, kind: str) -> None:
    assert room.sign("batch", cbor2.dumps([HEADER, [record(kind)]]))
    assert room.conn.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    assert room.conn.execute("SELECT kind, reason FROM parked").fetchall() == []
    room.check()


# Numbers in every place ------------------------------------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def is_number(value: Any, path: tuple[Any, ...]) -> bool:
    for step in path:
        value = value[step]
    return type(value) is int


@pytest.mark.spec("C-112")
@pytest.mark.parametrize("kind", BODIES)
def test_no_number_in_a_record_stops_ingest(room: Room, kind: str) -> None:
    honest = record(kind)
    numbers = [path for path in places(honest) if is_number(honest, path)]
    assert ("t",) in numbers
    items = [cbor2.dumps(replaced(honest, path, number)) for path in numbers for number in NUMBERS]
    chain, sent = Chain(A), 0
    while sent < len(items):
        fits = 1
        while fits < 100 and sum(map(len, items[sent : sent + fits + 1])) < 32_768 and sent + fits < len(items):
            fits += 1
        room.send("batch", chain.seal_items(items[sent : sent + fits]))
        sent += fits
    assert room.conn.execute("SELECT sum(records) FROM batch").fetchone() == (len(items),)
    room.check()


@pytest.mark.spec("C-112")
@pytest.mark.parametrize("kind", ["batch", "loss", "birth"])
def test_no_number_in_a_header_stops_ingest(room: Room, kind: str) -> None:
    honest: Any = {"batch": [HEADER, [record("notice")]], "loss": LOSS, "birth": birth(room.nonce)}[kind]
    for path in places(honest):
        if is_number(honest, path):
            for number in NUMBERS:
                room.sign(kind, cbor2.dumps(replaced(honest, path, number)))
    room.check()


@pytest.mark.spec("C-112")
def test_counts_of_a_loss_notice_cannot_add_up_beyond_what_is_stored(room: Room) -> None:
    for kinds in (60, 70, 2000):
        room.sign("loss", cbor2.dumps({**LOSS, "s": bytes([kinds % 256]) * 16, "k": {f"k{n}": 2**53 - 1 for n in range(kinds)}}))
    assert room.conn.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    room.check()


# Anything anywhere ------------------------------------------------------------------------------------------------------------------------

_odd = st.one_of(
    st.sampled_from(NUMBERS),
    st.floats(),
    st.none(),
    st.booleans(),
    st.text(max_size=40),
    st.sampled_from(["", "\x00", "\ufffe", "a" * 5000, "NET.OFFLINE", "SEC.CLONE", "synced", "P1", "9" * 18]),
    st.binary(max_size=40),
    st.sampled_from([A, B, BOOT_ID, b"12345678", bytes(600), b"d" * 32]),
    st.datetimes(timezones=st.just(UTC)),
    st.uuids(),
    st.builds(cbor2.CBORTag, st.sampled_from([6, 24, 1000, 55798]), st.integers(0, 9)),
    st.just(cbor2.undefined),
    st.builds(cbor2.CBORSimpleValue, st.integers(32, 255)),
    st.recursive(
        st.integers(0, 3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 3), inner, max_size=3)
    ),
    st.just([[0, 1]] * 400),
    st.just({str(n): n for n in range(300)}),
)


@st.composite
def bent(draw: st.DrawFn, honest: Any) -> bytes:
    """An honest message with one to four places replaced."""
    value = honest
    for _ in range(draw(st.integers(1, 4))):
        value = replaced(value, draw(st.sampled_from(list(places(value)))), draw(_odd))
    return cbor2.dumps(value)


def messages_of(nonce: bytes) -> st.SearchStrategy[tuple[str, bytes]]:
    kinds = st.lists(st.sampled_from(sorted(BODIES)), min_size=1, max_size=4)
    no = st.integers(1, 3)
    headers = no.map(lambda n: {**HEADER, "n": n, "p": b"" if n == 1 else b"p" * 32})
    batch = st.tuples(headers, kinds).flatmap(lambda one: bent([one[0], [record(kind) for kind in one[1]]]))
    return st.one_of(
        batch.map(lambda payload: ("batch", payload)),
        bent(LOSS).map(lambda payload: ("loss", payload)),
        bent(birth(nonce)).map(lambda payload: ("birth", payload)),
    )


@pytest.mark.spec("C-109", "C-110", "C-207", "C-517")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_signed_message_stops_ingest_or_harms_another_terminal(template: Path, data: st.DataObject) -> None:
    with closing(sqlite3.connect(":memory:")):
        room = Room(template)
    with closing(room.conn):
        for _ in range(4):
            kind, payload = data.draw(messages_of(room.nonce))
            room.sign(kind, payload)
        room.check()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["hello", "hb", "will"]),
    payload=st.one_of(
        st.binary(max_size=300), _odd.map(cbor2.dumps), bent({"c": b"12345678", "v": [1]}), bent({"o": 1, "d": 2, "w": 3})
    ),
)
def test_no_unsigned_hint_stops_ingest(template: Path, kind: str, payload: bytes) -> None:
    room = Room(template)
    with closing(room.conn):
        room.send(kind, payload)
        room.check()


# The nets ---------------------------------------------------------------------------------------------------------------------------------


def test_a_message_that_makes_us_fail_is_set_aside_and_its_neighbours_are_served(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = Chain(A)
    payloads = [hostile.seal(), b"poison", hostile.seal()]
    real = room.ledger.receive

    def fails(terminal: str, kind: str, topic: str, raw: bytes, *rest: Any) -> Any:
        if raw == b"poison":
            room.conn.execute("DELETE FROM batch")
            raise OverflowError("330719 a citizen's number")
        return real(terminal, kind, topic, raw, *rest)

    monkeypatch.setattr(room.ledger, "receive", fails)
    bundle = [Incoming(topics.up(TERMINAL, "batch"), payload) for payload in payloads]
    bundle.insert(1, Incoming(topics.up(OTHER, "batch"), room.honest.seal()))
    while bundle:
        taken, _ = room.desk.handle(bundle)
        del bundle[:taken]
    assert room.desk.tally.poison == 1
    assert room.conn.execute("SELECT terminal, reason FROM quarantine").fetchall() == [(TERMINAL, "poison")]
    assert room.conn.execute("SELECT terminal, no FROM batch ORDER BY terminal, no").fetchall() == [
        (TERMINAL, 1),
        (TERMINAL, 2),
        (OTHER, 1),
    ]
    assert "citizen" not in caplog.text
    assert "OverflowError at" in "".join(str(entry.__dict__) for entry in caplog.records)


@pytest.mark.spec("C-517")
def test_what_came_too_fast_is_counted(room: Room) -> None:
    room.desk.count_dropped({TERMINAL: 3, "ghost": 2, "phantom": 5})
    room.desk.count_dropped({TERMINAL: 4})
    assert room.conn.execute("SELECT terminal, reason, count FROM quarantine_count ORDER BY terminal").fetchall() == [
        ("?", "flood", 7),
        (TERMINAL, "flood", 7),
    ]


def test_a_duty_that_fails_leaves_the_others_running(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("fleet_server.ingest.housekeeping._trim", fails)
    monkeypatch.setattr(room.ledger, "project_parked", fails)
    room.send("batch", Chain(A).seal(notice(), records.Rating(level=3)))
    room.now_ms += 2_500
    room.housekeeping.step()
    assert room.conn.execute("SELECT count(*) FROM dirty_day").fetchone() == (0,)
    assert room.conn.execute("SELECT count(*) FROM terminal_live WHERE last_seen_ms IS NOT NULL").fetchone() == (2,)


def test_watching_goes_on_when_the_wall_clock_steps_back(room: Room) -> None:
    room.housekeeping.step()
    room.now_ms -= 3_600_000
    room.housekeeping.step()
    room.send("hb", wire.dump(messages.Heartbeat(boot_no=1)))
    room.now_ms += 2_500
    room.housekeeping.step()
    assert room.conn.execute("SELECT last_seen_ms FROM terminal_live WHERE terminal = ?", (TERMINAL,)).fetchone() == (
        room.now_ms - 2_500,
    )


def test_a_birth_that_cannot_be_applied_is_forgotten_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[str] = []

    def fails(conn: sqlite3.Connection, terminal: str, *_: object) -> bool:
        if terminal == TERMINAL:
            raise OverflowError
        applied.append(terminal)
        return True

    monkeypatch.setattr("fleet_server.facts.births.apply_birth", fails)
    room.now_ms += 2_500
    room.housekeeping.step()
    assert applied == [OTHER]


@pytest.mark.spec("C-508", "C-514")
@pytest.mark.parametrize("dies", [False, True], ids=["in one life", "over a restart"])
def test_a_long_story_is_disputed_between_messages(room: Room, monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    monkeypatch.setattr("fleet_server.facts.projection.DISPUTED_AT_ONCE", 2)
    monkeypatch.setattr("fleet_server.facts.projection.DISPUTED_IN_A_STEP", 3)
    one, two = Chain(A), Chain(A)
    for _ in range(10):
        room.send("batch", one.seal(records.Rating(level=5)))
    room.send("batch", two.seal(notice(7)))
    assert room.conn.execute("SELECT count(*) FROM rating WHERE disputed").fetchone() == (2,)
    assert room.conn.execute("SELECT count(*) FROM batch WHERE disputed").fetchone() == (10,)
    if dies:
        room.projection.resume(room.conn)
    room.check()
    assert room.conn.execute("SELECT count(*) FROM rating WHERE disputed").fetchone() == (10,)


def test_a_terminal_that_makes_up_things_fills_no_list(room: Room) -> None:
    """Pages hold what is current in memory; the records themselves are kept."""
    chain = Chain(A)
    names = ["".join(chr(97 + (n // 26**k) % 26) for k in range(4)) for n in range(600)]
    for start in range(0, 600, 50):
        some = range(start, start + 50)
        for items in (
            [record("device", slot=names[n]) for n in some],
            [record("sighting", port=names[n]) for n in some],
            [record("consumable", slot=names[n]) for n in some],
            [record("fault", id=n.to_bytes(8, "big")) for n in some],
        ):
            room.send("batch", chain.seal_items([cbor2.dumps(item) for item in items]))
    for number in range(5):
        named = [[(number * 128 + n + 10_000).to_bytes(8, "big"), "PRN.PAPER_OUT", "P1", NOW_MS] for n in range(128)]
        room.sign("birth", cbor2.dumps(birth(room.nonce) | {"h": [], "f": named}))
    for table in ("device", "sighting", "consumable"):
        assert room.conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (PLACES_MAX,)
    assert room.conn.execute("SELECT count(*) FROM fault WHERE cleared_ms IS NULL").fetchone() == (OPEN_MAX,)
    assert room.conn.execute("SELECT sum(records) FROM batch").fetchone() == (2400,)
    # What is open can still be cleared, and makes room.
    room.send("batch", chain.seal_items([cbor2.dumps(record("fault", id=bytes(8), change="clear"))]))
    assert room.conn.execute("SELECT count(*) FROM fault WHERE cleared_ms IS NULL").fetchone() == (OPEN_MAX - 1,)
    room.check()


@pytest.mark.spec("C-518")
def test_strangers_and_revoked_terminals_get_no_challenge(room: Room) -> None:
    hello = wire.dump(messages.Hello(connection=b"12345678"))
    assert room.send("hello", hello, "ghost") == []
    assert room.send("hello", hello)
    room.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = ?", (TERMINAL,))
    room.ledger.forget()  # another process would have written it
    assert room.send("hello", hello) == []


def test_time_is_not_lost_on_a_large_birth(room: Room) -> None:
    """Measured: a few ms. Four hundred streams of which the server has none, asked for again and again while they are awaited."""
    many = birth(room.nonce) | {"h": [[n.to_bytes(16, "big"), 1, b"", 9, None] for n in range(400)]}
    started = time.monotonic()
    for _ in range(5):
        room.sign("birth", cbor2.dumps(many))
    room.check()
    assert time.monotonic() - started < 10
