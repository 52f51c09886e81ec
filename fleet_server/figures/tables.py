"""Tables. Figures as they were published."""

from __future__ import annotations

from piccolo.columns import BigInt, DoublePrecision, Serial, Text
from piccolo.table import Table


class FigureSnapshot(Table, tablename="figure_snapshot"):
    """One published number with everything it was made of. `scope` and `shown` are JSON; rows are never changed.

    `publication` is the id of the first figure that was published together with it, `published_by` the person (empty: nobody signed in).
    """

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
    published_by = Text()
    publication = BigInt()
    computed_ms = BigInt()
