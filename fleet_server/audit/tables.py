"""Tables. The audit log and what proves that it is whole."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Audit(Table, tablename="audit"):
    """One thing that somebody did, or tried. Triggers refuse every change, and every removal outside a recorded cut."""

    id = Serial(primary_key=True)
    """Consecutive from 1."""
    at_ms = BigInt()
    actor = Text()
    """Account name; `cli:<user>` for the command line, `server` for the server itself, empty for a stranger."""
    role = Text()
    action = Text()
    object = Text()
    detail = Text()
    """JSON."""
    result = Text()
    """done, refused or failed."""
    prev = Bytea()
    """Hash of the row before; of the first, 32 zero bytes."""
    hash = Bytea()


class AuditHead(Table, tablename="audit_head"):
    """The server's signature over the hash of one row, and with it over all rows before."""

    id = Serial(primary_key=True)
    audit = BigInt()
    made_ms = BigInt()
    envelope = Bytea()


class AuditCut(Table, tablename="audit_cut"):
    """Rows up to `audit` were removed because their time was over; the signature is over the last of them."""

    id = Serial(primary_key=True)
    audit = BigInt()
    made_ms = BigInt()
    envelope = Bytea()
