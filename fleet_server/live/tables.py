"""Tables. Hints for open pages: what changed, in commit order on this database."""

from __future__ import annotations

from piccolo.columns import BigInt, Serial, Text
from piccolo.table import Table


class Change(Table, tablename="change"):
    """One hint; trimmed by age."""

    id = Serial(primary_key=True)
    at_ms = BigInt()
    terminal = Text(null=True, default=None)
    kind = Text()
    ref_ = Text(db_column_name="ref", null=True, default=None)
