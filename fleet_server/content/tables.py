"""Tables. Content packages with their files and history; service items, where each is off, and the catalogues that were released."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class ContentPackage(Table, tablename="content_package"):
    """One version of a package. It can be changed while it is a draft, and never after."""

    id = Serial(primary_key=True)
    name = Text()
    release = BigInt()
    """Number of this version of the package: 1, 2, …"""
    title = Text()
    state = Text()
    """draft, review, approved, publishing, published, disabling, disabled, deleted."""
    state_ms = BigInt()
    pages = Text(default="[]")
    """JSON list of `protocols.packages.content.Page`."""
    from_ms = BigInt(default=0)
    until_ms = BigInt(null=True, default=None)
    weekdays = BigInt(default=127)
    priority = BigInt(default=5)
    offline = BigInt(default=1)
    areas = Text(default="[]")
    """JSON list of area codes it is meant for; empty: all. A rollout starts with it as its target group."""
    types = Text(default="[]")
    """JSON list of terminal types it is meant for; empty: all."""
    created_by = Text()
    created_ms = BigInt()
    reviewed_by = Text(null=True, default=None)
    reviewed_ms = BigInt(null=True, default=None)
    published_by = Text(null=True, default=None)
    published_ms = BigInt(null=True, default=None)
    release_id = BigInt(null=True, default=None)
    """Row of `release`, once it is published."""
    replaced_by = BigInt(null=True, default=None)
    """Row of `release` of the empty version that withdrew it."""
    withdrawal = BigInt(null=True, default=None)
    """Number of that version, given out before it is signed."""
    withdrawn_by = Text(null=True, default=None)


class ContentFile(Table, tablename="content_file"):
    """A file of a package; its bytes lie in the data directory under their hash."""

    id = Serial(primary_key=True)
    package = BigInt()
    name = Text()
    size = BigInt()
    sha256 = Bytea()
    added_by = Text()
    added_ms = BigInt()


class ContentEvent(Table, tablename="content_event"):
    """Who did what with a package. Never changed."""

    id = Serial(primary_key=True)
    package = BigInt()
    at_ms = BigInt()
    actor = Text()
    kind = Text()
    """created, edited, uploaded, removed, submitted, returned, approved, published, disabled, deleted."""
    note = Text(default="")


class CatalogueItem(Table, tablename="catalogue_item"):
    """A service item that terminals may offer."""

    code = Text(primary_key=True)
    type = Text()
    zh = Text()
    en = Text()
    set_by = Text()
    set_ms = BigInt()


class CatalogueOff(Table, tablename="catalogue_off"):
    """An item that is switched off: for one area, or everywhere (`area` empty)."""

    id = Serial(primary_key=True)
    area = Text()
    code = Text()
    set_by = Text()
    set_ms = BigInt()


class CatalogueRelease(Table, tablename="catalogue_release"):
    """A catalogue as it was signed. The id is its release counter: one sequence for all areas, so that it only grows at a terminal."""

    id = Serial(primary_key=True)
    area = Text()
    version = Text()
    items = BigInt()
    made_by = Text()
    made_ms = BigInt()
    release_id = BigInt()
    """Row of `release`; 0: the number is given out, the catalogue not signed yet, or never."""
