"""Keeps evidence: verifies envelopes, chains them, and hands their records to the projection, all in the caller's transaction.

Size before parsing, verification before decoding, decision before writing. The caller opens the transaction, calls `receive` for as many messages as
fit into it, commits, and only then publishes what `Outcome.ack` says. `HeadMoved` means that another worker advanced a stream meanwhile: roll back
and receive the same messages again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.errors import place_of
from fleet_server.evidence.rules import Action, Decision, Position, Stored, StreamView, decide
from fleet_server.facts import DecodedRecord, StoredBatch
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract import records, wire
from protocols.contract.limits import BATCH_MAX_RECORDS, ENVELOPE_MAX_BYTES, TIME_LIMIT_MS
from protocols.contract.messages import AckEntry, AckMode, Held, StreamHead

log = logging.getLogger(__name__)

STRANGER = "?"
"""Sender of what comes from nobody that is enrolled here: all of them share one bounded place."""
QUARANTINE_PER_SENDER = 200
"""Kept rows per claimed sender; the counters go on."""
STREAMS_KEPT = 10_000
"""Streams remembered between batches, a few hundred bytes each: twice the largest fleet."""
ASIDE_PER_HEAD = 1_000
"""Set-aside batches named in one head, over all its streams (40 bytes each); the rest is sent again and acknowledged again."""
UNPROJECTABLE = "not projected: "
"""Reason of records that this version understands, and whose facts it failed to make: a fault of ours, tried again after an upgrade."""


NOTHING = StreamView(0, b"", forked=False, disputed=False)


class HeadMoved(Exception):
    """Another worker advanced this stream: nothing of this transaction may be committed."""


class Projection(Protocol):
    """Turns records into facts inside the same transaction."""

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None: ...
    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None: ...
    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None: ...


@dataclass
class Greeting:
    """What the connection of a terminal has said so far: the nonce it was given, and its birth."""

    nonce: bytes
    spans: Mapping[bytes, Held] = field(default_factory=dict)
    birth: bytes = b""
    """The signed birth; kept as evidence once it closes a hole."""
    births: int = 0
    """How many came with this nonce."""

    @property
    def greeted(self) -> bool:
        return bool(self.birth)


@dataclass(frozen=True)
class Outcome:
    """What became of one message."""

    ack: AckEntry | None = None
    quarantined: str | None = None
    stored: int = 0
    """Records newly stored."""


@dataclass
class _Key:
    terminal: str
    public_key: Ed25519PublicKey
    revoked: bool
    last: tuple[bytes, int] | None
    """Position of its rotation record."""


@dataclass
class _Terminal:
    revoked: bool


@dataclass(frozen=True, slots=True)
class _StreamRow:
    """A stream as it lies in the database when one of its batches arrives."""

    row: int
    view: StreamView
    boot_id: bytes


class Ledger:
    """One writer over one database connection. Caches keys and terminals until another connection has written."""

    def __init__(self, conn: sqlite3.Connection, fleet: str, projection: Projection) -> None:
        self.conn, self.fleet = conn, fleet
        self._projection = projection
        self._keys: dict[bytes, _Key] = {}
        self._terminals: dict[str, _Terminal] = {}
        self._streams: dict[tuple[str, bytes], _StreamRow] = {}
        """As they are inside the open transaction."""
        self._data_version = -1

    def forget(self) -> None:
        """Call after a rollback: what was read inside the transaction may never have been."""
        self._data_version = -1
        self._streams.clear()

    def refresh(self) -> None:
        """Call at the start of each transaction: forgets cached keys when another process has written (enrolment, revocation)."""
        version = self.conn.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._data_version = version
            self._keys.clear()
            self._terminals.clear()
            self._streams.clear()

    # -- authentic or not ------------------------------------------------------------------------------------------------

    def refusal(self, terminal: str) -> str | None:
        """Why nothing of this terminal is taken, if so: `unknownTerminal` or `revoked`."""
        known = self._terminal(terminal)
        if known is None:
            return "unknownTerminal"
        return "revoked" if known.revoked else None

    def open(self, terminal: str, context: str, raw: bytes, max_bytes: int) -> cose.Opened:
        """Verify an envelope of `terminal` under one of its certified keys; EnvelopeError with the reason otherwise."""
        envelope = cose.parse(raw, max_bytes)
        refusal = self.refusal(terminal)
        if refusal is not None:
            raise cose.EnvelopeError(refusal, f"{terminal} is not in service here")
        key = self._key(envelope.kid)
        if key is None:
            raise cose.EnvelopeError("unknownKey", f"no certified key {envelope.kid.hex()}")
        if key.terminal != terminal:
            raise cose.EnvelopeError("foreignKey", f"key {envelope.kid.hex()} belongs to another terminal")
        if key.revoked:
            raise cose.EnvelopeError("revokedKey", f"key {envelope.kid.hex()} has been revoked")
        return cose.verify(envelope, key.public_key, context, self.fleet, terminal)

    def quarantine(self, terminal: str, topic: str, reason: str, raw: bytes, now_ms: int) -> None:
        """Set aside what is not authentic: counted always, kept within bounds, never acknowledged."""
        conn, known = self.conn, self._terminal(terminal) is not None
        terminal = self.count(terminal, reason, 1, now_ms)
        kept = conn.execute("SELECT count(*) FROM quarantine WHERE terminal = ?", (terminal,)).fetchone()[0]
        if kept >= QUARANTINE_PER_SENDER:
            conn.execute("DELETE FROM quarantine WHERE id = (SELECT min(id) FROM quarantine WHERE terminal = ?)", (terminal,))
        conn.execute(
            "INSERT INTO quarantine (terminal, topic, reason, size, envelope, received_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (terminal, topic[:200], reason, len(raw), raw[:ENVELOPE_MAX_BYTES], now_ms),
        )
        if known and reason not in ("revoked", "oversized", "poison"):
            self._projection.alarm(conn, terminal, "SEC.SIGNATURE", now_ms)

    def count(self, terminal: str, reason: str, messages: int, now_ms: int) -> str:
        """Count messages that are not taken; returns the name under which, STRANGER for whoever is not enrolled here."""
        name = STRANGER if self._terminal(terminal) is None else terminal
        self.conn.execute(
            "INSERT INTO quarantine_count (terminal, reason, count, last_ms) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (terminal, reason) DO UPDATE SET count = count + excluded.count, last_ms = excluded.last_ms",
            (name, reason, messages, now_ms),
        )
        return name

    # -- batches -----------------------------------------------------------------------------------------------------------

    def receive(self, terminal: str, kind: str, topic: str, raw: bytes, greeting: Greeting | None, now_ms: int) -> Outcome:
        """One message of `up/batch` or `up/loss`. Writes; the caller commits before it publishes the acknowledgement."""
        is_loss = kind == "loss"
        try:
            opened = self.open(terminal, batches.LOSS_CONTEXT if is_loss else batches.BATCH_CONTEXT, raw, ENVELOPE_MAX_BYTES)
        except cose.EnvelopeError as err:
            self.quarantine(terminal, topic, err.reason, raw, now_ms)
            return Outcome(quarantined=err.reason)
        try:
            loss = batches.read_loss(opened) if is_loss else None
            batch = None if is_loss else batches.read_batch(opened)
        except wire.WireError:
            # Authentic, but not even its place in the chain can be read.
            self.quarantine(terminal, topic, "unreadable", raw, now_ms)
            return Outcome(quarantined="unreadable")
        if loss is not None:
            at = Position(loss.stream, loss.no, loss.prev, loss.digest, loss.parent, is_loss=True)
        else:
            assert batch is not None
            header = batch.header
            at = Position(header.stream, header.no, header.prev, opened.digest, header.parent, is_loss=False)
        known = self._stream(terminal, at.stream)
        refused = self._out_of_place(terminal, opened.kid, at, known)
        if refused:
            self.quarantine(terminal, topic, refused, raw, now_ms)
            return Outcome(quarantined=refused)
        story = _Story(self.conn, terminal, greeting, at.stream, known)
        return self._act(terminal, at, decide(at, story), story, opened, batch, loss, now_ms)

    def heads(self, terminal: str, streams: Sequence[Held]) -> tuple[StreamHead, ...]:
        """What the server has of the streams that a birth of this terminal lists; nothing of a stream of another one."""
        out, room = [], ASIDE_PER_HEAD
        for held in streams:
            view = _view(self.conn, terminal, held.stream)
            aside: Sequence[tuple[int, bytes]] = ()
            if view.forked:
                aside = self.conn.execute(
                    "SELECT no, digest FROM aside WHERE terminal = ? AND stream = ? ORDER BY no LIMIT ?",
                    (terminal, held.stream, room),
                ).fetchall()
                room -= len(aside)
            out.append(
                StreamHead(held.stream, view.head_no, view.head_digest, tuple((no, bytes(digest)) for no, digest in aside))
            )
        return tuple(out)

    def project_parked(self, after: int = 0, limit: int = 100) -> int | None:
        """Project parked records that this version understands, of the next batches behind row `after`; returns the last row looked at, None
        behind the end. Call after an upgrade, in a transaction, until it says None."""
        conn, last = self.conn, None
        rows = conn.execute(
            "SELECT DISTINCT p.batch, b.terminal, b.stream, b.no, b.envelope, b.received_ms, b.committed_ms, b.disputed, s.boot_id "
            "FROM parked p JOIN batch b ON b.id = p.batch JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream "
            "WHERE p.batch > ? AND b.envelope IS NOT NULL ORDER BY p.batch LIMIT ?",
            (after, limit),
        ).fetchall()
        for batch_id, terminal, stream, no, envelope, received_ms, committed_ms, disputed, boot_id in rows:
            value = wire.load(cose.parse(bytes(envelope), ENVELOPE_MAX_BYTES).payload)
            indexes = {row[0] for row in conn.execute("SELECT idx FROM parked WHERE batch = ?", (batch_id,))}
            decoded, still = decode_records(value[1])
            ready = [record for record in decoded if record.idx in indexes]
            stored = StoredBatch(batch_id, terminal, bytes(stream), no, bytes(boot_id), received_ms, committed_ms, bool(disputed))
            last = int(batch_id)
            if ready and self._project(stored, ready):
                unknown = {idx for idx, _, _ in still}
                conn.executemany("DELETE FROM parked WHERE batch = ? AND idx = ?", [(batch_id, idx) for idx in indexes - unknown])
        return last

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _act(
        self,
        terminal: str,
        at: Position,
        decision: Decision,
        story: _Story,
        opened: cose.Opened,
        batch: batches.Batch | None,
        loss: batches.Loss | None,
        now_ms: int,
    ) -> Outcome:
        alone = AckEntry(at.stream, at.no, at.digest, AckMode.ALONE)
        match decision.action:
            case Action.WAIT:
                return Outcome()
            case Action.BACK:
                view = story.view(at.stream)
                return Outcome(ack=AckEntry(at.stream, view.head_no, view.head_digest, AckMode.BACK))
            case Action.REPEAT:
                return Outcome(ack=alone)
            case Action.ASIDE:
                self._set_aside(terminal, at, opened, batch, loss, now_ms)
                return Outcome(ack=alone)
            case Action.FILL:
                return Outcome(ack=alone, stored=self._store(terminal, at, story, opened, batch, loss, now_ms))
            case Action.REPLACE_LOSS:
                self.conn.execute("DELETE FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (terminal, at.stream, at.no))
                return Outcome(ack=alone, stored=self._store(terminal, at, story, opened, batch, loss, now_ms))
            case Action.STORE_NEXT:
                self._advance(terminal, at, decision, story, batch, loss, now_ms)
                stored = self._store(terminal, at, story, opened, batch, loss, now_ms)
                return Outcome(ack=AckEntry(at.stream, at.no, at.digest, AckMode.UP_TO), stored=stored)

    def _advance(
        self,
        terminal: str,
        at: Position,
        decision: Decision,
        story: _Story,
        batch: batches.Batch | None,
        loss: batches.Loss | None,
        now_ms: int,
    ) -> None:
        view = story.view(at.stream)
        if view.head_no == 0:
            self._open_stream(terminal, at, decision, batch, loss, now_ms)
        else:
            moved = self.conn.execute(
                "UPDATE stream SET head_no = ?, head_digest = ? WHERE terminal = ? AND stream = ? AND head_no = ? AND head_digest = ?",
                (at.no, at.digest, terminal, at.stream, view.head_no, view.head_digest),
            )
            if moved.rowcount != 1:
                raise HeadMoved(at.stream.hex())
            self._remember(terminal, at)
        if decision.hole is not None:
            first, last = decision.hole
            self.conn.execute(
                "INSERT INTO hole (stream, first_no, last_no, terminal, prev_digest, next_prev, birth_id, closed_ms) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    at.stream,
                    first,
                    last,
                    terminal,
                    view.head_digest,
                    at.prev,
                    self._keep_birth(terminal, story.greeting, now_ms),
                    now_ms,
                ),
            )

    def _keep_birth(self, terminal: str, greeting: Greeting | None, now_ms: int) -> int:
        """Store the birth that explains a hole, as its reason."""
        assert greeting is not None  # a hole is only closed on a birth's word
        cursor = self.conn.execute(
            "INSERT INTO birth (terminal, received_ms, envelope) VALUES (?, ?, ?)", (terminal, now_ms, greeting.birth)
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _open_stream(
        self, terminal: str, at: Position, decision: Decision, batch: batches.Batch | None, loss: batches.Loss | None, now_ms: int
    ) -> None:
        origin = batch.header if batch is not None else loss
        assert origin is not None
        parent, notice = decision.parent, None
        if parent is None and self.conn.execute("SELECT 1 FROM stream WHERE terminal = ? LIMIT 1", (terminal,)).fetchone():
            notice = "spoolLost"
        if decision.disputed:
            notice = "fork"
            self._projection.alarm(self.conn, terminal, "SEC.CLONE", now_ms)
        try:
            self.conn.execute(
                "INSERT INTO stream (stream, terminal, parent_stream, parent_no, parent_digest, boot_no, boot_id, head_no, head_digest, "
                "disputed, forked, first_ms, notice) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (
                    *(at.stream, terminal, *((parent.stream, parent.no, parent.digest) if parent else (None, None, None))),
                    *(origin.boot_no, origin.boot_id, at.no, at.digest, int(decision.disputed), now_ms, notice),
                ),
            )
        except sqlite3.IntegrityError:
            raise HeadMoved(at.stream.hex()) from None

    def _store(
        self,
        terminal: str,
        at: Position,
        story: _Story,
        opened: cose.Opened,
        batch: batches.Batch | None,
        loss: batches.Loss | None,
        now_ms: int,
    ) -> int:
        known = story.known or self._stream(terminal, at.stream)
        assert known is not None
        is_disputed = known.view.disputed
        if is_disputed:
            # Inside a forked stream the story up to the fork is undisputed.
            forked_at = self.conn.execute(
                "SELECT min(no) FROM aside WHERE terminal = ? AND stream = ?", (terminal, at.stream)
            ).fetchone()[0]
            is_disputed = forked_at is None or at.no >= forked_at
        if loss is not None:
            first_ms, last_ms, count = loss.first_ms, loss.last_ms, sum(loss.counts.values())
            sealed_ms, batch_class, context, items = loss.written_ms, loss.batch_class, batches.LOSS_CONTEXT, []
        else:
            assert batch is not None
            items = batch.records
            first_ms, last_ms = _span_ms(items)
            count, sealed_ms, batch_class = len(items), batch.header.sealed_ms, batch.header.batch_class
            context = batches.BATCH_CONTEXT
        batch_id = self.conn.execute(
            "INSERT INTO batch (terminal, stream, no, kind, digest, prev, kid, context, envelope, received_ms, committed_ms, sealed_ms, "
            "first_ms, last_ms, records, class, disputed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(terminal, at.stream, at.no, "loss" if loss else "data", at.digest, at.prev, opened.kid, context, opened.raw),
                *(now_ms, now_ms, sealed_ms, first_ms, last_ms, count, batch_class, int(is_disputed)),
            ),
        ).lastrowid
        assert batch_id is not None
        if not items:
            return 0
        decoded, parked = decode_records(items)
        if parked:
            self.conn.executemany(
                "INSERT INTO parked (batch, idx, kind, reason) VALUES (?, ?, ?, ?)", [(batch_id, *entry) for entry in parked]
            )
        stored = StoredBatch(batch_id, terminal, at.stream, at.no, known.boot_id, now_ms, now_ms, is_disputed)
        self._project(stored, decoded)
        self._note_rotation(terminal, at, opened.kid, decoded, is_disputed)
        return count

    def _project(self, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> bool:
        """Make facts. If that fails for a reason of ours, the envelope stays, chained and acknowledged, and its records are parked."""
        self.conn.execute("SAVEPOINT facts")
        try:
            self._projection.project(self.conn, batch, decoded)
        except (sqlite3.OperationalError, HeadMoved):
            raise
        except Exception as err:  # noqa: BLE001 - one batch that cannot be projected must not hold up the fleet
            self.conn.execute("ROLLBACK TO facts")
            self.conn.execute("RELEASE facts")
            log.error(
                "the facts of a batch could not be made, its records are parked",
                extra={"terminal": batch.terminal, "stream": batch.stream.hex(), "batch": batch.no, "reason": place_of(err)},
            )
            reason = UNPROJECTABLE + type(err).__name__
            self.conn.executemany(
                "DELETE FROM parked WHERE batch = ? AND idx = ?", [(batch.id, record.idx) for record in decoded]
            )
            self.conn.executemany(
                "INSERT INTO parked (batch, idx, kind, reason) VALUES (?, ?, ?, ?)",
                [(batch.id, record.idx, records.KIND_OF[type(record.body)], reason) for record in decoded],
            )
            return False
        self.conn.execute("RELEASE facts")
        return True

    def _set_aside(
        self,
        terminal: str,
        at: Position,
        opened: cose.Opened,
        batch: batches.Batch | None,
        loss: batches.Loss | None,
        now_ms: int,
    ) -> None:
        """Keep the second story beside the first; from here on neither counts until an operator has said which is true."""
        conn = self.conn
        added = conn.execute(
            "INSERT INTO aside (stream, no, digest, terminal, envelope, received_ms) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (terminal, stream, no, digest) DO NOTHING",
            (at.stream, at.no, at.digest, terminal, opened.raw, now_ms),
        ).rowcount
        if not added:
            return
        self._streams.pop((terminal, at.stream), None)
        conn.execute(
            "UPDATE stream SET forked = 1, disputed = 1, notice = 'fork', verdict = NULL, settle_from = NULL"
            " WHERE terminal = ? AND stream = ?",
            (terminal, at.stream),
        )
        ids = [
            row[0]
            for row in conn.execute(
                "SELECT id FROM batch WHERE terminal = ? AND stream = ? AND no >= ? AND disputed = 0",
                (terminal, at.stream, at.no),
            )
        ]
        conn.executemany("UPDATE batch SET disputed = 1 WHERE id = ?", [(batch_id,) for batch_id in ids])
        if ids:
            self._projection.dispute(conn, ids)
        self._projection.alarm(conn, terminal, "SEC.CLONE", now_ms)

    def _stream(self, terminal: str, stream: bytes) -> _StreamRow | None:
        known = self._streams.get((terminal, stream))
        if known is not None:
            return known
        row = self.conn.execute(
            "SELECT id, head_no, head_digest, forked, disputed, boot_id FROM stream WHERE terminal = ? AND stream = ?",
            (terminal, stream),
        ).fetchone()
        if row is None:
            return None
        view = StreamView(row[1], bytes(row[2]), forked=bool(row[3]), disputed=bool(row[4]))
        if len(self._streams) >= STREAMS_KEPT:
            self._streams.clear()
        found = self._streams[terminal, stream] = _StreamRow(row[0], view, bytes(row[5]))
        return found

    def _remember(self, terminal: str, at: Position) -> None:
        """The head of a stream was advanced."""
        known = self._streams.get((terminal, at.stream))
        if known is not None:
            view = replace(known.view, head_no=at.no, head_digest=at.digest)
            self._streams[terminal, at.stream] = replace(known, view=view)

    def _out_of_place(self, terminal: str, kid: bytes, at: Position, known: _StreamRow | None) -> str | None:
        """Why an authentic batch may not stand where it says: behind its key's last record."""
        key = self._key(kid)
        assert key is not None
        if key.last is None or at.is_loss:
            return None
        last_stream, last_no = key.last
        if at.stream == last_stream:
            return "retiredKey" if at.no > last_no else None
        if known is None:
            return "retiredKey"
        retired_in = self.conn.execute(
            "SELECT id FROM stream WHERE terminal = ? AND stream = ?", (terminal, last_stream)
        ).fetchone()
        return "retiredKey" if retired_in is not None and known.row > retired_in[0] else None

    def _note_rotation(self, terminal: str, at: Position, kid: bytes, decoded: Sequence[DecodedRecord], disputed: bool) -> None:
        if disputed or not any(isinstance(record.body, records.Key) for record in decoded):
            return
        self.conn.execute(
            "UPDATE record_key SET last_stream = ?, last_no = ? WHERE kid = ? AND terminal = ? AND last_stream IS NULL",
            (at.stream, at.no, kid, terminal),
        )
        self._keys.pop(kid, None)

    def _terminal(self, terminal: str) -> _Terminal | None:
        # Only what exists is remembered: names that a sender makes up would fill the memory.
        if terminal not in self._terminals:
            row = self.conn.execute("SELECT revoked_ms FROM terminal WHERE id = ?", (terminal,)).fetchone()
            if row is None:
                return None
            self._terminals[terminal] = _Terminal(revoked=row[0] is not None)
        return self._terminals[terminal]

    def _key(self, kid: bytes) -> _Key | None:
        if kid not in self._keys:
            row = self.conn.execute(
                "SELECT terminal, public_key, revoked_ms, last_stream, last_no FROM record_key WHERE kid = ?", (kid,)
            ).fetchone()
            if row is None:
                return None
            self._keys[kid] = _Key(
                terminal=row[0],
                public_key=Ed25519PublicKey.from_public_bytes(bytes(row[1])),
                revoked=row[2] is not None,
                last=None if row[3] is None else (bytes(row[3]), row[4]),
            )  # fmt: skip
        return self._keys[kid]


class _Story:
    """Answers the rules' questions from the database and from the birth of this connection."""

    def __init__(
        self, conn: sqlite3.Connection, terminal: str, greeting: Greeting | None, stream: bytes, known: _StreamRow | None
    ) -> None:
        self._conn, self._terminal, self.greeting, self.known = conn, terminal, greeting, known
        self._views: dict[bytes, StreamView] = {stream: known.view if known is not None else NOTHING}

    def view(self, stream: bytes) -> StreamView:
        if stream not in self._views:
            self._views[stream] = _view(self._conn, self._terminal, stream)
        return self._views[stream]

    def stored(self, stream: bytes, no: int) -> Stored | None:
        row = self._conn.execute(
            "SELECT digest, kind FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (self._terminal, stream, no)
        ).fetchone()
        return None if row is None else Stored(bytes(row[0]), row[1] == "loss")

    def span(self, stream: bytes) -> Held | None:
        return None if self.greeting is None else self.greeting.spans.get(stream)

    def has_child(self, parent: batches.Parent) -> bool:
        query = "SELECT 1 FROM stream WHERE parent_stream = ? AND parent_no = ? AND parent_digest = ? AND terminal = ? LIMIT 1"
        return self._conn.execute(query, (parent.stream, parent.no, parent.digest, self._terminal)).fetchone() is not None

    def hole_fits(self, at: Position) -> bool:
        before, after = self.stored(at.stream, at.no - 1), self._prev_of(at.stream, at.no + 1)
        if before is not None and before.digest != at.prev:
            return False
        if after is not None:
            return after == at.digest
        row = self._conn.execute(
            "SELECT next_prev FROM hole WHERE terminal = ? AND stream = ? AND last_no = ?", (self._terminal, at.stream, at.no)
        ).fetchone()
        return row is None or bytes(row[0]) == at.digest

    def _prev_of(self, stream: bytes, no: int) -> bytes | None:
        row = self._conn.execute(
            "SELECT prev FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (self._terminal, stream, no)
        ).fetchone()
        return None if row is None else bytes(row[0])


def _view(conn: sqlite3.Connection, terminal: str, stream: bytes) -> StreamView:
    row = conn.execute(
        "SELECT head_no, head_digest, forked, disputed FROM stream WHERE stream = ? AND terminal = ?", (stream, terminal)
    ).fetchone()
    if row is None:
        return NOTHING
    return StreamView(row[0], bytes(row[1]), forked=bool(row[2]), disputed=bool(row[3]))


def decode_records(items: Sequence[Any]) -> tuple[list[DecodedRecord], list[tuple[int, str, str]]]:
    """Typed records, and (index, kind, reason) of those this version does not understand."""
    decoded: list[DecodedRecord] = []
    parked: list[tuple[int, str, str]] = []
    for idx, item in enumerate(items[:BATCH_MAX_RECORDS]):
        kind = "?"
        try:
            record = records.decode_record(item)
            kind = record.kind[:32]
            body = records.body_of(record)
        except records.RecordError as err:
            parked.append((idx, kind, str(err)[:200]))
            continue
        if body is None:
            parked.append((idx, kind, "unknown kind"))
            continue
        decoded.append(DecodedRecord(idx, record.wall_ms, record.quality, record.boot_ms, body))
    return decoded, parked


def _span_ms(items: Sequence[Any]) -> tuple[int, int]:
    """What the records say; a record that says something impossible is parked and does not count."""
    times = [
        item["t"]
        for item in items
        if isinstance(item, dict) and isinstance(item.get("t"), int) and 0 <= item["t"] < TIME_LIMIT_MS
    ]
    return (min(times), max(times)) if times else (0, 0)
