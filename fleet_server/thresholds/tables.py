"""Tables. What people set in place of a built-in threshold."""

from __future__ import annotations

from piccolo.columns import BigInt, DoublePrecision, Serial, Text
from piccolo.table import Table


class Threshold(Table, tablename="threshold"):
    """One setting; the newest of a name and scope counts, one without a value goes back to the default. Rows are never changed."""

    id = Serial(primary_key=True)
    name = Text()
    scope = Text()
    value = DoublePrecision(null=True, default=None)
    unit = Text()
    set_by = Text()
    set_ms = BigInt()
