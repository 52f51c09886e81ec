"""Writes evidence to a file that can be checked anywhere, with nothing but the fleet's root key.

The file is a sequence of CBOR items (RFC 8742). The first names format, fleet and terminal; then come certificates; then, stream by stream and
number by number, the signed originals, with what explains each gap; after each stream a checkpoint signed by the server; last an end mark.
`verify.py` reads it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cbor2

from protocols.contract import certs
from protocols.contract.envelope import Signer

FORMAT = "kf-evidence/1"


def export(
    conn: sqlite3.Connection,
    out: BinaryIO,
    *,
    fleet: str,
    terminal: str,
    signer: Signer,
    server_certificates: list[bytes],
    now_ms: int,
    from_ms: int = 0,
    to_ms: int = 2**62,
) -> int:
    """Write the batches of `terminal` received between `from_ms` and `to_ms`; returns how many. The range is widened to whole runs of numbers."""
    _put(out, {"format": FORMAT, "fleet": fleet, "terminal": terminal, "made_ms": now_ms})
    for certificate in server_certificates:
        _put(out, ["server-key", certificate])
    for (certificate,) in conn.execute("SELECT certificate FROM record_key WHERE terminal = ? ORDER BY generation", (terminal,)):
        _put(out, ["record-key", bytes(certificate)])
    count = 0
    for stream, first, last in _ranges(conn, terminal, from_ms, to_ms):
        for item in _stream_items(conn, terminal, stream, first, last):
            _put(out, item)
            count += item[0] in ("data", "loss")
        digest = conn.execute(
            "SELECT digest FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (terminal, stream, last)
        ).fetchone()[0]
        erased = conn.execute(
            "SELECT coalesce(max(no), 0) FROM batch WHERE terminal = ? AND stream = ? AND no <= ? AND envelope IS NULL",
            (terminal, stream, last),
        ).fetchone()[0]
        checkpoint = certs.Checkpoint(
            terminal=terminal, stream=stream, no=last, digest=bytes(digest), erased_up_to=erased, made_ms=now_ms
        )
        _put(out, ["checkpoint", certs.seal_checkpoint(checkpoint, signer, fleet)])
        for (envelope,) in conn.execute(
            "SELECT envelope FROM aside WHERE terminal = ? AND stream = ? ORDER BY no, id", (terminal, stream)
        ):
            _put(out, ["aside", bytes(envelope)])
    _put(out, ["end", count])
    return count


def export_file(path: Path, conn: sqlite3.Connection, **options: object) -> int:
    """`export` into a new file, which exists only if it is whole."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as out:
        count = export(conn, out, **options)  # type: ignore[arg-type]  # the options of `export`
    part.replace(path)
    return count


def _put(out: BinaryIO, item: object) -> None:
    out.write(cbor2.dumps(item, canonical=True))


def _ranges(conn: sqlite3.Connection, terminal: str, from_ms: int, to_ms: int) -> list[tuple[bytes, int, int]]:
    rows = conn.execute(
        "SELECT b.stream, min(b.no), max(b.no) FROM batch b JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream "
        "WHERE b.terminal = ? AND b.received_ms BETWEEN ? AND ? GROUP BY b.stream ORDER BY min(s.id)",
        (terminal, from_ms, to_ms),
    )
    return [(bytes(stream), first, last) for stream, first, last in rows]


def _stream_items(conn: sqlite3.Connection, terminal: str, stream: bytes, first: int, last: int) -> Iterator[list[object]]:
    """The batches `first` to `last` in order; where numbers are missing, the birth that says they are gone."""
    expected = first
    rows = conn.execute(
        "SELECT no, kind, digest, prev, envelope, erased_reason FROM batch WHERE terminal = ? AND stream = ? AND no BETWEEN ? AND ? ORDER BY no",
        (terminal, stream, first, last),
    )
    for no, kind, digest, prev, envelope, erased_reason in rows:
        if no > expected:
            yield ["gone", stream, expected, no - 1, _reason_of_gap(conn, terminal, stream, expected)]
        if envelope is None:
            yield ["erased", stream, no, bytes(digest), bytes(prev), erased_reason or "retention"]
        else:
            yield [kind, bytes(envelope)]
        expected = no + 1


def _reason_of_gap(conn: sqlite3.Connection, terminal: str, stream: bytes, no: int) -> bytes:
    row = conn.execute(
        "SELECT b.envelope FROM hole h JOIN birth b ON b.id = h.birth_id WHERE h.terminal = ? AND h.stream = ?"
        " AND ? BETWEEN h.first_no AND h.last_no",
        (terminal, stream, no),
    ).fetchone()
    return b"" if row is None else bytes(row[0])
