"""The spool in one SQLite file (WAL, synchronous=FULL)."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.clock import Clock
from edge_agent.outbox.errors import CaptureRefused, OutboxError, OutboxFull
from edge_agent.outbox.refusals import Refusals
from protocols.contract import batch as batches
from protocols.contract import messages, records
from protocols.contract.envelope import Signer
from protocols.contract.limits import (
    BATCH_MAX_BYTES,
    BATCH_MAX_RECORDS,
    BIRTH_MAX_STREAMS,
    KEEP_ACKED_S,
    SEAL_AFTER_S,
)

_SCHEMA = importlib.resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
_PRECIOUS = frozenset({"fault", "session", "rating", "queue", "key"})
_LOSS_NOTICE_BYTES = 320
"""Upper bound of a loss notice with all kinds counted; measured 230 to 310."""


_OLDEST = (
    "SELECT b.*, s.boot_no, s.boot_id, s.parent_stream, s.parent_no, s.parent_digest FROM batch b JOIN stream s ON s.stream = b.stream "
    "WHERE b.acked_ms IS NULL AND b.kind = 'data' AND b.bytes > ? "
)
_EVICTION_ORDER = tuple(
    f"{_OLDEST} AND {condition} ORDER BY b.seq LIMIT 1"
    for condition in ("b.class = 'summary'", "b.class = 'event' AND NOT b.precious", "b.class = 'event'")
)
"""Summaries, then plain events, then what nobody can measure again: faults, cases, ratings."""


@dataclass(frozen=True, kw_only=True)
class OutboxLimits:
    """Space the spool may take. Chosen: 256 MiB holds about a year of an average kiosk without network."""

    max_bytes: int = 256 * 1024 * 1024
    keep_acked_s: int = KEEP_ACKED_S


@dataclass(frozen=True, kw_only=True)
class StreamStart:
    stream: bytes
    boot_no: int
    previous: Literal["clean", "unclean", "none"]
    same_boot: bool


@dataclass(frozen=True)
class Outgoing:
    """One batch to send, byte-identical at each resend."""

    seq: int
    stream: bytes
    no: int
    kind: str
    envelope: bytes


@dataclass(frozen=True)
class Released:
    """What an acknowledgement did: batches released now, and whether to send again from the oldest."""

    count: int
    go_back: bool


class Outbox:
    """One terminal's spool. Not thread-safe; one owner on one event loop.

    `durable=False` trades the power-cut guarantee for speed: for simulated fleets only.
    """

    def __init__(
        self,
        path: Path | str,
        signer: Signer,
        fleet: str,
        terminal: str,
        clock: Clock,
        *,
        limits: OutboxLimits | None = None,
        durable: bool = True,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.fleet, self.terminal = fleet, terminal
        self._clock, self._random = clock, random_bytes
        self._limits = limits or OutboxLimits()
        self._signer = signer
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
            self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as err:
            self._db.close()
            raise OutboxError(f"the spool {path} cannot be opened: {err}") from err
        kid = self._meta("kid")
        if kid is None:
            with self._transaction():
                self._set_meta("kid", signer.kid)
        elif kid != signer.kid:
            self._db.close()
            raise OutboxError("the spool was written under another record key; use the key named in its meta table")
        self._stream: sqlite3.Row | None = None
        self._db.row_factory = sqlite3.Row
        self._stream = self._db.execute("SELECT * FROM stream ORDER BY seq DESC LIMIT 1").fetchone()
        self._held_bytes = self._depth = 0
        self._refusals = Refusals()
        self._recount()

    @staticmethod
    def key_in_use(path: Path | str) -> bytes | None:
        """The key id that an existing spool continues under; None for a new one."""
        if not Path(path).exists():
            return None
        with contextlib.closing(sqlite3.connect(path)) as db:
            try:
                row = db.execute("SELECT value FROM meta WHERE key = 'kid'").fetchone()
            except sqlite3.DatabaseError:
                return None
        return bytes(row[0]) if row else None

    # -- streams ---------------------------------------------------------------------------------------------------

    def start_stream(self, boot_id: bytes) -> StreamStart:
        """Seal what the last run left into the stream it was captured in, then open a new stream that continues it."""
        self.seal()
        previous = self._previous_end()
        last = self._stream
        same_boot = last is not None and bytes(last["boot_id"]) == boot_id
        boot_no = int.from_bytes(self._meta("boot_no") or b"", "big") + 1
        stream = self._random(16)
        parent = self._tip()
        with self._transaction():
            # A stream of which nothing is held any more only mattered as a parent.
            self._db.execute("DELETE FROM stream WHERE stream NOT IN (SELECT DISTINCT stream FROM batch)")
            self._db.execute(
                "INSERT INTO stream (stream, boot_no, boot_id, parent_stream, parent_no, parent_digest) VALUES (?, ?, ?, ?, ?, ?)",
                (stream, boot_no, boot_id, *((parent.stream, parent.no, parent.digest) if parent else (None, None, None))),
            )
            self._set_meta("boot_no", boot_no.to_bytes(8, "big"))
            self._set_meta("clean_end", b"\0")
        self._reload_stream()
        return StreamStart(stream=stream, boot_no=boot_no, previous=previous, same_boot=same_boot)

    def close(self, *, clean: bool) -> None:
        """Seal what is pending, remember whether the end was planned, and close the file."""
        if self._stream is not None and clean:
            self.seal()
            with self._transaction():
                self._set_meta("clean_end", b"\1")
        self._db.close()

    def rotate(self, successor: Signer, generation: int) -> None:
        """Write the old key's last record, seal it, and go on under `successor`. One transaction: a crash leaves either key, never both."""
        self.seal()
        body = records.Key(kid=successor.kid, generation=generation)
        encoded = self._encode(body)
        with self._transaction():
            self._insert_pending(body, encoded, urgent=True)
            self._seal_class("event")
            self._set_meta("kid", successor.kid)
        self._reload_stream()
        self._signer = successor

    @property
    def kid(self) -> bytes:
        return self._signer.kid

    @property
    def signer(self) -> Signer:
        return self._signer

    @property
    def boot_no(self) -> int:
        return int(self._current()["boot_no"])

    @property
    def stream(self) -> bytes:
        return bytes(self._current()["stream"])

    # -- capture and seal --------------------------------------------------------------------------------------------

    def capture(self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None:
        """Make one fact durable. Raises CaptureRefused (does not fit its schema) or OutboxFull (no space, even after purging)."""
        self.capture_many((body,), urgent=urgent, memory=memory)

    def capture_many(
        self,
        bodies: Sequence[records.Body],
        *,
        urgent: bool = False,
        wall_ms: int | None = None,
        memory: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make several facts durable in one transaction. `wall_ms` overrides the clock for facts measured elsewhere.

        `memory`: values to `put` in the same transaction, so that a module's memory and its records never disagree.
        """
        self._current()
        encoded = [self._encode(body, wall_ms) for body in bodies]
        try:
            self._write_pending(bodies, encoded, urgent, memory or {})
        except OutboxFull:
            if not self._make_room(sum(map(len, encoded)) + 4096, disk_full=True):
                self._refusals.refused(bodies)
                raise
            try:
                self._write_pending(bodies, encoded, urgent, memory or {})
            except OutboxFull:
                self._refusals.refused(bodies)
                raise
        self._refusals.stored(bodies)

    def seal_due_s(self) -> float | None:
        """Seconds until pending records must be sealed; 0 for urgent ones; None if nothing is pending."""
        row = self._db.execute("SELECT min(captured_boot_ms), max(urgent), count(*), sum(length(record)) FROM pending").fetchone()
        if row[0] is None:
            return None
        if row[1] or row[2] >= BATCH_MAX_RECORDS or row[3] >= BATCH_MAX_BYTES:
            return 0.0
        return max(0.0, SEAL_AFTER_S - (self._clock.boot_ms() - int(row[0])) / 1000)

    def seal(self) -> int:
        """Seal everything pending; returns the number of new batches. Keeps the spool inside its space."""
        sealed = 0
        while self._db.execute("SELECT 1 FROM pending LIMIT 1").fetchone():
            with self._transaction():
                sealed += self._seal_class("event") + self._seal_class("summary")
            self._reload_stream()
        if self._held_bytes > self._limits.max_bytes:
            self._make_room(0)
        return sealed

    @property
    def pressure(self) -> float:
        """Share of the space that unacknowledged batches take, 0 to 1: above 0.5 summaries should be written less often."""
        waiting = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM batch WHERE acked_ms IS NULL").fetchone()[0]
        return int(waiting) / self._limits.max_bytes

    def note_refusals(self) -> None:
        """Account for records that a full disk refused, in a record of its own. OutboxFull while there is still no space."""
        count = self._refusals.count
        if count:
            body = records.Notice(code="recordsRefused", count=count)
            # Not through `capture`: a notice that is refused itself is no missing fact.
            encoded = self._encode(body)
            try:
                self._write_pending([body], [encoded], False, {})
            except OutboxFull:
                if not self._make_room(len(encoded) + 4096, disk_full=True):
                    raise
                self._write_pending([body], [encoded], False, {})
            self._refusals.told()

    # -- the road ------------------------------------------------------------------------------------------------------

    def held(self) -> tuple[tuple[messages.Held, ...], bool]:
        """Spans of what is held, oldest stream first, and whether there are more than one birth may list."""
        rows = self._db.execute(
            "SELECT b.stream, min(b.no) AS first, max(b.no) AS last, s.parent_stream, s.parent_no, s.parent_digest "
            "FROM batch b JOIN stream s ON s.stream = b.stream GROUP BY b.stream ORDER BY s.seq LIMIT ?",
            (BIRTH_MAX_STREAMS + 1,),
        ).fetchall()
        spans = []
        for row in rows[:BIRTH_MAX_STREAMS]:
            prev = self._db.execute(
                "SELECT prev FROM batch WHERE stream = ? AND no = ?", (row["stream"], row["first"])
            ).fetchone()[0]
            parent = _parent(row)
            spans.append(messages.Held(bytes(row["stream"]), row["first"], bytes(prev), row["last"], parent))
        return tuple(spans), len(rows) > BIRTH_MAX_STREAMS

    def apply_head(self, head: messages.Head) -> None:
        """Put back on the road whatever the server does not name, and everything of a stream whose story differs from ours."""
        with self._transaction():
            for theirs in head.heads:
                aside = set(theirs.aside)
                stream = self._db.execute("SELECT head_no FROM stream WHERE stream = ?", (theirs.stream,)).fetchone()
                mine = self._db.execute(
                    "SELECT digest FROM batch WHERE stream = ? AND no = ?", (theirs.stream, theirs.no)
                ).fetchone()
                same_story = (
                    stream is not None
                    and stream["head_no"] >= theirs.no
                    and (mine is None or bytes(mine["digest"]) == theirs.digest)
                )
                beyond = self._db.execute(
                    "SELECT seq, no, digest FROM batch WHERE stream = ? AND no > ? AND acked_ms IS NOT NULL",
                    (theirs.stream, theirs.no if same_story else 0),
                ).fetchall()
                again = [(row["seq"],) for row in beyond if (row["no"], bytes(row["digest"])) not in aside]
                self._db.executemany("UPDATE batch SET acked_ms = NULL WHERE seq = ?", again)
        self._recount()

    def apply_ack(self, ack: messages.Ack) -> Released:
        """Release what the server stored, where its hash is ours."""
        released, go_back = 0, False
        now_ms = self._clock.wall_ms()
        with self._transaction():
            for entry in ack.entries:
                go_back |= entry.mode is messages.AckMode.BACK
                known = self._db.execute(
                    "SELECT digest FROM batch WHERE stream = ? AND no = ?", (entry.stream, entry.no)
                ).fetchone()
                if known is None or bytes(known["digest"]) != entry.digest:
                    continue
                first_no = entry.no if entry.mode is messages.AckMode.ALONE else 1
                released += self._db.execute(
                    "UPDATE batch SET acked_ms = ? WHERE stream = ? AND no BETWEEN ? AND ? AND acked_ms IS NULL",
                    (now_ms, entry.stream, first_no, entry.no),
                ).rowcount
        self._depth -= released
        return Released(released, go_back)

    def unacknowledged(self, after_seq: int, *, max_count: int, max_bytes: int) -> list[Outgoing]:
        """Batches to send next, oldest first, behind `after_seq`; at least one if there is any."""
        cursor = self._db.execute(
            "SELECT seq, stream, no, kind, envelope FROM batch WHERE acked_ms IS NULL AND seq > ? ORDER BY seq LIMIT ?",
            (after_seq, max_count),
        )
        out: list[Outgoing] = []
        size = 0
        for row in cursor:
            size += len(row["envelope"])
            if out and size > max_bytes:
                break
            out.append(Outgoing(row["seq"], bytes(row["stream"]), row["no"], row["kind"], bytes(row["envelope"])))
        return out

    def under_way(self, sent_seq: int) -> tuple[int, int]:
        """(batches, bytes) that were sent up to `sent_seq` and are not acknowledged."""
        row = self._db.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM batch WHERE acked_ms IS NULL AND seq <= ?", (sent_seq,)
        ).fetchone()
        return int(row[0]), int(row[1])

    def depth(self) -> int:
        """Batches not yet acknowledged."""
        return self._depth

    def oldest_ms(self) -> int | None:
        """Seal time of the oldest unacknowledged batch."""
        row = self._db.execute("SELECT sealed_ms FROM batch WHERE acked_ms IS NULL ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else int(row[0])

    def purge(self) -> int:
        """Forget acknowledged batches past their keeping time, from the oldest on, so that what is held stays without gaps.

        What lies in the log only is taken into the file while there is space: on a full disk the file cannot grow, and the log not start again.
        """
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return self._purge_acked(older_than_ms=self._clock.wall_ms() - self._limits.keep_acked_s * 1000)

    # -- small memory of other modules ------------------------------------------------------------------------------------

    def get(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: bytes) -> None:
        with self._transaction():
            self._put(key, value)

    def put_all(self, values: Mapping[str, bytes]) -> None:
        """Several values in one transaction."""
        with self._transaction():
            for key, value in values.items():
                self._put(key, value)

    def _put(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT INTO kv VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    # -- inside --------------------------------------------------------------------------------------------------------------

    def _encode(self, body: records.Body, wall_ms: int | None = None) -> bytes:
        clock = self._clock
        try:
            return records.encode_record(
                body,
                wall_ms=max(0, clock.wall_ms() if wall_ms is None else wall_ms),
                quality=clock.quality(),
                boot_ms=clock.boot_ms(),
            )
        except records.RecordError as err:
            raise CaptureRefused(str(err)) from err

    def _write_pending(
        self, bodies: Sequence[records.Body], encoded: Sequence[bytes], urgent: bool, memory: Mapping[str, bytes]
    ) -> None:
        with self._transaction():
            for body, record in zip(bodies, encoded, strict=True):
                self._insert_pending(body, record, urgent)
            for key, value in memory.items():
                self._put(key, value)

    def _insert_pending(self, body: records.Body, record: bytes, urgent: bool) -> None:
        kind = records.KIND_OF[type(body)]
        self._db.execute(
            "INSERT INTO pending (class, kind, wall_ms, captured_boot_ms, urgent, record) VALUES (?, ?, ?, ?, ?, ?)",
            (
                "summary" if kind in records.SUMMARY_KINDS else "event",
                kind,
                self._clock.wall_ms(),
                self._clock.boot_ms(),
                urgent,
                record,
            ),
        )

    def _seal_class(self, batch_class: batches.BatchClass) -> int:
        """Seal one batch of a class inside the open transaction; 0 if there is nothing."""
        taken: list[sqlite3.Row] = []
        size = 0
        for row in self._db.execute(
            "SELECT * FROM pending WHERE class = ? ORDER BY id LIMIT ?", (batch_class, BATCH_MAX_RECORDS)
        ):
            size += len(row["record"])
            if taken and size > BATCH_MAX_BYTES:
                break
            taken.append(row)
        if not taken:
            return 0
        stream = self._db.execute("SELECT * FROM stream ORDER BY seq DESC LIMIT 1").fetchone()
        no = stream["head_no"] + 1
        now_ms = self._clock.wall_ms()
        header = batches.BatchHeader(
            stream=bytes(stream["stream"]),
            no=no,
            prev=bytes(stream["head_digest"]),
            parent=_parent(stream) if no == 1 else None,
            batch_class=batch_class,
            boot_no=stream["boot_no"],
            boot_id=bytes(stream["boot_id"]),
            sealed_ms=max(0, now_ms),
        )
        envelope, digest = batches.seal_batch(
            header, [bytes(r["record"]) for r in taken], self._signer, self.fleet, self.terminal
        )
        counts: dict[str, int] = {}
        for row in taken:
            counts[row["kind"]] = counts.get(row["kind"], 0) + 1
        times = [row["wall_ms"] for row in taken]
        self._db.execute(
            "INSERT INTO batch (stream, no, kind, class, digest, prev, envelope, bytes, counts, first_ms, last_ms, sealed_ms, precious) "
            "VALUES (?, ?, 'data', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(header.stream, no, header.batch_class, digest, header.prev, envelope, len(envelope), json.dumps(counts)),
                *(max(0, min(times)), max(0, *times), header.sealed_ms, not _PRECIOUS.isdisjoint(counts)),
            ),
        )
        self._db.execute("UPDATE stream SET head_no = ?, head_digest = ? WHERE seq = ?", (no, digest, stream["seq"]))
        self._db.execute("DELETE FROM pending WHERE class = ? AND id <= ?", (batch_class, taken[-1]["id"]))
        self._held_bytes += len(envelope)
        self._depth += 1
        return 1

    def _make_room(self, needed_bytes: int, *, disk_full: bool = False) -> bool:
        """Purge what the server has, then replace batches by loss notices: summaries first, then plain events, then faults, cases and ratings.

        `disk_full`: others may have filled the disk while the spool is small. Then what the server has makes room all the same, and the room stays
        in the file: what is given back to the disk, others take.
        """
        target = self._limits.max_bytes - needed_bytes
        before = self._held_bytes
        try:
            if disk_full:
                # The log keeps its size and is written from its start again; without that even a deletion needs space that is not there.
                self._db.execute("PRAGMA wal_checkpoint(RESTART)")
                while self._held_bytes > before - needed_bytes and self._purge_acked(
                    older_than_ms=None, at_most=64, shrink=False
                ):
                    pass
            while self._held_bytes > target and self._purge_acked(older_than_ms=None, at_most=64):
                pass
            for rank in range(len(_EVICTION_ORDER)):
                while self._held_bytes > target and self._evict(rank):
                    pass
            self._db.execute(f"PRAGMA wal_checkpoint({'RESTART' if disk_full else 'TRUNCATE'})")
        except (OutboxFull, sqlite3.OperationalError):
            return self._held_bytes < before
        return self._held_bytes < before or self._held_bytes <= target

    def _evict(self, rank: int) -> bool:
        """Replace the oldest batch of one rank of `_EVICTION_ORDER` by a loss notice; False if there is none."""
        row = self._db.execute(_EVICTION_ORDER[rank], (_LOSS_NOTICE_BYTES,)).fetchone()
        if row is None:
            return False
        loss = batches.Loss(
            stream=bytes(row["stream"]),
            no=row["no"],
            digest=bytes(row["digest"]),
            prev=bytes(row["prev"]),
            parent=_parent(row) if row["no"] == 1 else None,
            batch_class=row["class"],
            boot_no=row["boot_no"],
            boot_id=bytes(row["boot_id"]),
            first_ms=row["first_ms"],
            last_ms=row["last_ms"],
            counts=json.loads(row["counts"]),
            written_ms=max(0, self._clock.wall_ms()),
        )
        envelope = batches.seal_loss(loss, self._signer, self.fleet, self.terminal)
        with self._transaction():
            self._db.execute(
                "UPDATE batch SET kind = 'loss', envelope = ?, bytes = ? WHERE seq = ?", (envelope, len(envelope), row["seq"])
            )
        self._held_bytes += len(envelope) - row["bytes"]
        return True

    def _purge_acked(self, *, older_than_ms: int | None, at_most: int = -1, shrink: bool = True) -> int:
        first_open = self._db.execute("SELECT min(seq) FROM batch WHERE acked_ms IS NULL").fetchone()[0]
        # The newest batch stays: it names the head that the next stream continues even after everything else is gone.
        rows = self._db.execute(
            "SELECT seq, bytes, acked_ms FROM batch WHERE seq < coalesce(?, (SELECT max(seq) FROM batch)) ORDER BY seq LIMIT ?",
            (first_open, at_most),
        ).fetchall()
        gone = []
        for row in rows:
            if older_than_ms is not None and row["acked_ms"] > older_than_ms:
                break
            gone.append(row)
        if not gone:
            return 0
        with self._transaction():
            self._db.execute("DELETE FROM batch WHERE seq <= ?", (gone[-1]["seq"],))
        if shrink:
            self._db.execute("PRAGMA incremental_vacuum")
        self._held_bytes -= sum(row["bytes"] for row in gone)
        return len(gone)

    def _tip(self) -> batches.Parent | None:
        """The batch that a new stream continues: the newest sealed one, or the parent of a stream that never sealed any."""
        for row in self._db.execute("SELECT * FROM stream ORDER BY seq DESC"):
            if row["head_no"]:
                return batches.Parent(bytes(row["stream"]), row["head_no"], bytes(row["head_digest"]))
            if row["parent_stream"] is not None:
                return _parent(row)
        return None

    def _previous_end(self) -> Literal["clean", "unclean", "none"]:
        if self._stream is None:
            return "none"
        return "clean" if self._meta("clean_end") == b"\1" else "unclean"

    def _current(self) -> sqlite3.Row:
        if self._stream is None:
            raise OutboxError("no stream: call start_stream first")
        return self._stream

    def _reload_stream(self) -> None:
        self._stream = self._db.execute("SELECT * FROM stream ORDER BY seq DESC LIMIT 1").fetchone()

    def _recount(self) -> None:
        self._held_bytes = int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM batch").fetchone()[0])
        self._depth = int(self._db.execute("SELECT count(*) FROM batch WHERE acked_ms IS NULL").fetchone()[0])

    def _meta(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def _set_meta(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as err:
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("ROLLBACK")
            self._recount()
            if isinstance(err, sqlite3.OperationalError) and _is_full(err):
                raise OutboxFull(f"no space for the spool: {err}") from err
            raise


def _is_full(err: sqlite3.OperationalError) -> bool:
    """SQLITE_FULL, or an I/O error while the disk is full: SQLite reports a failed write or sync of the log as SQLITE_IOERR."""
    return err.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _parent(row: sqlite3.Row) -> batches.Parent | None:
    if row["parent_stream"] is None:
        return None
    return batches.Parent(bytes(row["parent_stream"]), row["parent_no"], bytes(row["parent_digest"]))
