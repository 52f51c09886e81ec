"""The audit log as a file that can be checked without the server: lines of JSON, first what it is and the certificates of the server's keys."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.audit import log
from fleet_server.audit.chain import Row
from fleet_server.errors import FleetServerError
from protocols.contract.certs import open_server_key_cert
from protocols.errors import ProtocolError

FORMAT: Final = 1


class NoExport(FleetServerError):
    """The file is no export of an audit log, or was cut off inside a line."""


@dataclass(slots=True)
class Log:
    """What the verifier needs, wherever it came from. `rows` can be read once."""

    fleet: str
    rows: Iterator[Row]
    heads: Sequence[bytes] = field(default_factory=list)
    cuts: Sequence[bytes] = field(default_factory=list)
    certificates: Sequence[bytes] = field(default_factory=list)

    def keys(self, root: Ed25519PublicKey) -> dict[bytes, Ed25519PublicKey]:
        """The server's keys that the fleet's root certified; others are ignored."""
        found = {}
        for raw in self.certificates:
            try:
                cert = open_server_key_cert(raw, root, self.fleet)
            except ProtocolError:
                continue
            found[cert.kid] = Ed25519PublicKey.from_public_bytes(cert.public_key)
        return found


def from_database(conn: sqlite3.Connection, fleet: str) -> Log:
    return Log(
        fleet=fleet,
        rows=log.rows(conn),
        heads=_blobs(conn, "SELECT envelope FROM audit_head ORDER BY id"),
        cuts=_blobs(conn, "SELECT envelope FROM audit_cut ORDER BY id"),
        certificates=_blobs(conn, "SELECT certificate FROM server_key ORDER BY created_ms"),
    )


def heads_of_file(path: Path) -> list[bytes]:
    """What the server kept beside the database; a torn last line is left out."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text("ascii", "replace").splitlines():
        try:
            found.append(base64.b64decode(json.loads(line)["head"], validate=True))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def write(source: Log, file: TextIO, *, made_ms: int) -> int:
    """Returns how many rows."""
    head = {"kiosk-fleet-audit": FORMAT, "fleet": source.fleet, "made_ms": made_ms, "certificates": _texts(source.certificates)}
    _line(file, head | {"cuts": _texts(source.cuts), "heads": _texts(source.heads)})
    count = 0
    for row in source.rows:
        _line(
            file,
            [
                row.id, row.at_ms, row.actor, row.role, row.action, row.object, row.detail, row.result, row.prev.hex(), row.hash.hex(),
            ],
        )  # fmt: skip
        count += 1
    return count


def read(file: TextIO) -> Log:
    """Raises NoExport here or while its rows are read."""
    try:
        head = json.loads(file.readline())
        if head["kiosk-fleet-audit"] != FORMAT:
            raise NoExport(f"the export has format {head['kiosk-fleet-audit']}; this version reads {FORMAT}")
        return Log(
            fleet=head["fleet"],
            rows=_rows(file),
            heads=[base64.b64decode(one) for one in head["heads"]],
            cuts=[base64.b64decode(one) for one in head["cuts"]],
            certificates=[base64.b64decode(one) for one in head["certificates"]],
        )
    except (ValueError, KeyError, TypeError) as err:
        raise NoExport("the file is no export of an audit log") from err


def _rows(file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, start=2):
        try:
            values = json.loads(line)
            yield log.as_row([*values[:8], bytes.fromhex(values[8]), bytes.fromhex(values[9])])
        except (ValueError, TypeError, IndexError) as err:
            raise NoExport(f"line {number} cannot be read") from err


def _blobs(conn: sqlite3.Connection, sql: str) -> list[bytes]:
    return [bytes(row[0]) for row in conn.execute(sql)]


def _texts(envelopes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(one).decode() for one in envelopes]


def _line(file: TextIO, value: Any) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")
