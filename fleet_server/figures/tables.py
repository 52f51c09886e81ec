"""Tables. Figures as they were published."""

from __future__ import annotations

from piccolo.columns import BigInt, DoublePrecision, Serial, Text
from piccolo.table import Table


class FigureSnapshot(Table, tablename="figure_snapshot"):
    """One published number with everything it was made of. `scope` and `shown` are JSON; rows are never changed."""

    id = Serial(primary_key=True)
    name = Text()
    key = Text()
    scope = Text()
    first_day = Text()
    last_day = Text()
    numerator = BigInt()
    denominator = BigInt(null=True, default=None)
    factor = DoublePrecision(default=1.0)
    unit = Text()
    population = BigInt()
    rule = Text()
    shown = Text(default="{}")
    published_in = Text()
    computed_ms = BigInt()
