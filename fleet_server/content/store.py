"""Packages, files, items and releases in the database. Each change is one transaction that also writes history and audit log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fleet_server import audit
from fleet_server.content import rules
from fleet_server.content.rules import Draft
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.orders.requests import check_approver
from protocols.packages import content
from protocols.packages.catalogue import Catalogue, Item
from protocols.packages.content import File, Page

_EDITS = ("created", "edited", "uploaded", "removed")


def packages(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """All versions that were not deleted, the newest change first."""
    rows = conn.execute(
        "SELECT p.*, (SELECT COUNT(*) FROM content_file f WHERE f.package = p.id) AS files,"
        " (SELECT COALESCE(SUM(size), 0) FROM content_file f WHERE f.package = p.id) AS bytes"
        " FROM content_package p WHERE p.state <> 'deleted' ORDER BY p.state_ms DESC, p.id DESC LIMIT 300"
    )
    return [{**row, "n_pages": len(json.loads(row["pages"]))} for row in _rows(rows)]


def package(conn: sqlite3.Connection, package_id: int) -> dict[str, Any]:
    found = _rows(conn.execute("SELECT * FROM content_package WHERE id = ?", (package_id,)))
    if not found:
        raise NotFound(f"content package {package_id}")
    return found[0]


def files(conn: sqlite3.Connection, package_id: int) -> list[dict[str, Any]]:
    return _rows(conn.execute("SELECT * FROM content_file WHERE package = ? ORDER BY name", (package_id,)))


def events(conn: sqlite3.Connection, package_id: int) -> list[dict[str, Any]]:
    rows = conn.execute("SELECT * FROM content_event WHERE package = ? ORDER BY id DESC LIMIT 50", (package_id,))
    return _rows(rows)


def draft(conn: sqlite3.Connection, package_id: int) -> Draft:
    row = package(conn, package_id)
    marks = ",".join("?" * len(_EDITS))
    # A version begins with the files of the one before: whoever brought one of them worked on this version too.
    editors = conn.execute(
        f"SELECT actor FROM content_event WHERE package = ? AND kind IN ({marks})"  # noqa: S608 -- marks only
        " UNION SELECT added_by FROM content_file WHERE package = ?",
        (package_id, *_EDITS, package_id),
    )
    return Draft(
        name=row["name"],
        release=row["release"],
        state=row["state"],
        pages=msgspec.convert(json.loads(row["pages"]), tuple[Page, ...]),
        files=tuple(File(name=one["name"], bytes=one["size"], sha256=one["sha256"].hex()) for one in files(conn, package_id)),
        from_ms=row["from_ms"],
        until_ms=row["until_ms"],
        weekdays=row["weekdays"],
        priority=row["priority"],
        offline=bool(row["offline"]),
        created_by=row["created_by"],
        editors=frozenset(one[0] for one in editors),
        reviewed_by=row["reviewed_by"],
    )


def create(conn: sqlite3.Connection, name: str, title: str, *, by: str, now_ms: int) -> int:
    """A first version. Conflict if there is a package of that name."""
    if conn.execute("SELECT 1 FROM content_package WHERE name = ?", (name,)).fetchone() is not None:
        raise Conflict("name", "contentNameTaken")
    return _insert(conn, name, 1, title, by, now_ms)


def next_version(conn: sqlite3.Connection, package_id: int, *, by: str, now_ms: int) -> int:
    """A draft that begins as a copy. Conflict if one is being worked on already."""
    old = package(conn, package_id)
    busy = conn.execute(
        "SELECT 1 FROM content_package WHERE name = ? AND state IN ('draft', 'review', 'approved', 'publishing')", (old["name"],)
    )
    if busy.fetchone() is not None:
        raise Conflict("state", "contentDraftThere")
    fresh = _insert(conn, old["name"], next_release(conn, old["name"]), old["title"], by, now_ms)
    conn.execute(
        "UPDATE content_package SET (pages, from_ms, until_ms, weekdays, priority, offline, areas, types) ="
        " (SELECT pages, from_ms, until_ms, weekdays, priority, offline, areas, types FROM content_package WHERE id = ?) WHERE id = ?",
        (package_id, fresh),
    )
    conn.execute(
        "INSERT INTO content_file (package, name, size, sha256, added_by, added_ms)"
        " SELECT ?, name, size, sha256, added_by, added_ms FROM content_file WHERE package = ?",
        (fresh, package_id),
    )
    return fresh


def next_release(conn: sqlite3.Connection, name: str) -> int:
    """Above every version of the package, withdrawals included."""
    row = conn.execute(
        "SELECT MAX(COALESCE((SELECT MAX(MAX(release, COALESCE(withdrawal, 0))) FROM content_package WHERE name = :name), 0),"
        " COALESCE((SELECT MAX(release) FROM release WHERE component = 'content' AND name = :name), 0))",
        {"name": name},
    ).fetchone()
    return int(row[0]) + 1


def add_file(conn: sqlite3.Connection, package_id: int, name: str, size: int, sha256: bytes, *, by: str, now_ms: int) -> None:
    """A file of the same name is replaced. The first file that can be shown becomes the first page."""
    one = draft(conn, package_id)
    rules.check_draft(one)
    if len({file.name for file in one.files} | {name}) > content.MAX_FILES:
        raise Refused("file", "contentFilesMany")
    if sum(file.bytes for file in one.files if file.name != name) + size > content.PACKAGE_MAX_BYTES:
        raise Refused("file", "contentTooLarge")
    conn.execute(
        "INSERT INTO content_file (package, name, size, sha256, added_by, added_ms) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (package, name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, added_by = excluded.added_by,"
        " added_ms = excluded.added_ms",
        (package_id, name, size, sha256, by, now_ms),
    )
    if name.rpartition(".")[2] in content.SHOWN and all(page.file != name for page in one.pages):
        title = package(conn, package_id)["title"]
        page = Page(id=rules.page_id({page.id for page in one.pages}), zh=title, en=title, file=name)
        if len(one.pages) < content.MAX_PAGES:
            _set_pages(conn, package_id, (*one.pages, page))
    _event(conn, package_id, "uploaded", by, now_ms, name)
    _audit(conn, one, "upload", by, now_ms, {"file": name, "bytes": size, "sha256": sha256.hex()})


def remove_file(conn: sqlite3.Connection, package_id: int, name: str, *, by: str, now_ms: int) -> None:
    one = draft(conn, package_id)
    rules.check_draft(one)
    if conn.execute("DELETE FROM content_file WHERE package = ? AND name = ?", (package_id, name)).rowcount == 0:
        raise NotFound("file of a content package")
    _set_pages(conn, package_id, tuple(page for page in one.pages if page.file != name))
    _event(conn, package_id, "removed", by, now_ms, name)
    _audit(conn, one, "remove", by, now_ms, {"file": name})


def set_pages(conn: sqlite3.Connection, package_id: int, rows: Sequence[Mapping[str, str]], *, by: str, now_ms: int) -> None:
    one = draft(conn, package_id)
    rules.check_draft(one)
    pages = rules.pages_of(rows, {file.name for file in one.files})
    if pages != one.pages:
        _set_pages(conn, package_id, pages)
        _event(conn, package_id, "edited", by, now_ms, "")
        _audit(conn, one, "edit", by, now_ms, {"pages": [page.id for page in pages]})


def settings(conn: sqlite3.Connection, package_id: int, values: Mapping[str, Any], *, by: str, now_ms: int) -> None:
    """Title, window, weekdays, priority, offline, areas and types; all that `values` names. Columns are ours, never a form's."""
    one = draft(conn, package_id)
    rules.check_draft(one)
    columns = ("title", "from_ms", "until_ms", "weekdays", "priority", "offline", "areas", "types")
    fields = {name: values[name] for name in columns if name in values}
    text = ", ".join(f"{name} = :{name}" for name in fields)
    before = package(conn, package_id)
    conn.execute(f"UPDATE content_package SET {text} WHERE id = :id", {**fields, "id": package_id})  # noqa: S608 -- names of ours
    _event(conn, package_id, "edited", by, now_ms, "")
    _audit(conn, one, "edit", by, now_ms, {name: value for name, value in fields.items() if value != before[name]})


def act(
    conn: sqlite3.Connection,
    package_id: int,
    wanted: str,
    *,
    by: str,
    may: Collection[str],
    now_ms: int,
    note: str = "",
) -> None:
    """One step of a package's life that signs nothing. Refused or Conflict; then nothing is changed."""
    one = draft(conn, package_id)
    to = rules.check_act(wanted, one, by=by, may=may)
    if wanted == "approve":
        for maker in sorted(one.editors | {one.created_by}):
            check_approver(conn, maker, by, now_ms)
    fields: dict[str, Any] = {"state": to, "state_ms": now_ms}
    if wanted == "approve":
        fields |= {"reviewed_by": by, "reviewed_ms": now_ms}
    elif wanted == "return":
        fields |= {"reviewed_by": None, "reviewed_ms": None}
    _change(conn, package_id, one.state, fields)
    _event(conn, package_id, rules.EVENT[wanted], by, now_ms, note)
    _audit(conn, one, wanted, by, now_ms, {"note": note})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A package that is to be signed, and by this claim alone until it is finished, given back, or claimed anew."""

    package: int
    act: str
    draft: Draft
    at_ms: int
    withdrawal: int
    withdrawn_by: str
    """Of `disable`: the number of the empty version, and the name in it."""


def claim(
    conn: sqlite3.Connection, package_id: int, wanted: str, *, by: str, may: Collection[str], now_ms: int, note: str = ""
) -> Claim:
    """Before a package or its withdrawal is signed. Refused or Conflict; then nothing is changed.

    What a claim signs depends on nothing but these rows, which only a claim changes from here on: done again after a cut, it gives the same bytes.
    """
    one, row = draft(conn, package_id), package(conn, package_id)
    rules.check_act(wanted, one, by=by, may=may)
    at_ms = max(now_ms, row["state_ms"] + 1)
    fields: dict[str, Any] = {"state": rules.CLAIMED[wanted][0], "state_ms": at_ms}
    if wanted == "disable" and row["withdrawal"] is None:
        fields |= {"withdrawal": next_release(conn, one.name), "withdrawn_by": by}
    _change(conn, package_id, one.state, fields)
    _audit(conn, one, wanted, by, now_ms, {"note": note})
    claimed = package(conn, package_id)
    return Claim(
        package=package_id,
        act=wanted,
        draft=draft(conn, package_id),
        at_ms=at_ms,
        withdrawal=claimed["withdrawal"] or 0,
        withdrawn_by=claimed["withdrawn_by"] or "",
    )


def finish(conn: sqlite3.Connection, claimed: Claim, release_id: int, *, by: str, now_ms: int, note: str = "") -> None:
    """It is signed. Conflict if somebody else has finished it already."""
    fields: dict[str, Any] = {"state": rules.ACTS[claimed.act][1], "state_ms": max(now_ms, claimed.at_ms)}
    if claimed.act == "publish":
        fields |= {"published_by": by, "published_ms": now_ms, "release_id": release_id}
    else:
        fields |= {"replaced_by": release_id}
    _change(conn, claimed.package, rules.CLAIMED[claimed.act][0], fields)
    _event(conn, claimed.package, rules.EVENT[claimed.act], by, now_ms, note)


def give_back(conn: sqlite3.Connection, claimed: Claim, *, by: str, why: str, now_ms: int) -> None:
    """It could not be signed, and everything is as before; nothing if it was claimed anew meanwhile."""
    meanwhile, before = rules.CLAIMED[claimed.act]
    done = conn.execute(
        "UPDATE content_package SET state = ?, state_ms = ?, withdrawal = NULL, withdrawn_by = NULL WHERE id = ? AND state = ? AND state_ms = ?",
        (before, max(now_ms, claimed.at_ms), claimed.package, meanwhile, claimed.at_ms),
    )
    if done.rowcount:
        detail = {"version": claimed.draft.version, "why": why}
        audit.write(conn, by, None, f"content.{claimed.act}", f"content:{claimed.draft.name}", detail, "failed", now_ms)


def _change(conn: sqlite3.Connection, package_id: int, before: str, fields: Mapping[str, Any]) -> None:
    text = ", ".join(f"{name} = :{name}" for name in fields)
    done = conn.execute(
        f"UPDATE content_package SET {text} WHERE id = :id AND state = :before",  # noqa: S608 -- names of ours
        {**fields, "id": package_id, "before": before},
    )
    if done.rowcount == 0:
        raise Conflict("state", "contentState")


def plays(conn: sqlite3.Connection, name: str, since_ms: int) -> dict[str, list[dict[str, Any]]]:
    """How often it was shown since: by page and version, and by terminal."""
    where = "FROM play WHERE component = :component AND to_ms >= :since AND disputed = 0"
    values = {"component": f"content/{name}", "since": since_ms}
    pages = conn.execute(
        f"SELECT version, page, SUM(count) AS n, SUM(seconds) AS seconds, COUNT(DISTINCT terminal) AS terminals {where}"
        " GROUP BY version, page ORDER BY version DESC, n DESC LIMIT 200",
        values,
    )
    terminals = conn.execute(
        f"SELECT terminal, SUM(count) AS n, SUM(seconds) AS seconds, MAX(to_ms) AS last_ms {where}"
        " GROUP BY terminal ORDER BY n DESC, terminal LIMIT 100",
        values,
    )
    return {"pages": _rows(pages), "terminals": _rows(terminals)}


def wanted_files(conn: sqlite3.Connection) -> set[str]:
    """Hashes of all files that a package which was not deleted still has."""
    rows = conn.execute(
        "SELECT DISTINCT f.sha256 FROM content_file f JOIN content_package p ON p.id = f.package WHERE p.state <> 'deleted'"
    )
    return {row[0].hex() for row in rows}


# Items ----------------------------------------------------------------------------------------------------------------------------------


def items(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    return _rows(conn.execute("SELECT * FROM catalogue_item ORDER BY code"))


def off(conn: sqlite3.Connection) -> set[tuple[str, str]]:
    """(area, code); area empty: everywhere."""
    return {(row[0], row[1]) for row in conn.execute("SELECT area, code FROM catalogue_off")}


def areas(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    return _rows(conn.execute("SELECT code, name_zh, name_en FROM area ORDER BY sort, code"))


def catalogue_releases(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """Those that were signed, the newest first."""
    return _rows(conn.execute("SELECT * FROM catalogue_release WHERE release_id > 0 ORDER BY id DESC LIMIT 20"))


def set_item(conn: sqlite3.Connection, item: Item, *, by: str, now_ms: int) -> None:
    conn.execute(
        "INSERT INTO catalogue_item (code, type, zh, en, set_by, set_ms) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (code) DO UPDATE SET"
        " type = excluded.type, zh = excluded.zh, en = excluded.en, set_by = excluded.set_by, set_ms = excluded.set_ms",
        (item.code, item.type, item.zh, item.en, by, now_ms),
    )
    audit.write(conn, by, None, "item.set", f"item:{item.code}", {"zh": item.zh, "en": item.en, "type": item.type}, now_ms=now_ms)


def switch(conn: sqlite3.Connection, area: str, code: str, on: bool, *, by: str, now_ms: int) -> None:
    """On or off for an area, or everywhere. Releasing the catalogue makes it so at terminals."""
    if conn.execute("SELECT 1 FROM catalogue_item WHERE code = ?", (code,)).fetchone() is None:
        raise NotFound("item")
    if area and conn.execute("SELECT 1 FROM area WHERE code = ?", (area,)).fetchone() is None:
        raise NotFound("area")
    if on:
        conn.execute("DELETE FROM catalogue_off WHERE area = ? AND code = ?", (area, code))
    else:
        conn.execute(
            "INSERT OR IGNORE INTO catalogue_off (area, code, set_by, set_ms) VALUES (?, ?, ?, ?)", (area, code, by, now_ms)
        )
    audit.write(conn, by, None, "item.on" if on else "item.off", f"item:{code}", {"area": area}, now_ms=now_ms)


def catalogue(conn: sqlite3.Connection, area: str, version: str) -> Catalogue:
    """What terminals of the area are to offer; `area` empty: of no area in particular. Refused if there is no item."""
    rows, switched = items(conn), off(conn)
    if not rows:
        raise Refused("items", "itemsNone")
    return Catalogue(
        version=version,
        items=tuple(
            Item(
                code=row["code"],
                type=row["type"],
                zh=row["zh"],
                en=row["en"],
                on=("", row["code"]) not in switched and (area, row["code"]) not in switched,
            )
            for row in rows
        ),
    )


def claim_catalogue(conn: sqlite3.Connection, area: str, *, by: str, now_ms: int) -> tuple[int, Catalogue]:
    """The next catalogue of the area and its release counter, which nothing else gets, signed or not. Refused, or NotFound for the area."""
    if area and area not in {one["code"] for one in areas(conn)}:
        raise NotFound("area")
    number = _next_catalogue(conn)
    made = catalogue(conn, area, f"{number}.0")
    conn.execute(
        "INSERT INTO catalogue_release (id, area, version, items, made_by, made_ms, release_id) VALUES (?, ?, ?, ?, ?, ?, 0)",
        (number, area, made.version, len(made.on()), by, now_ms),
    )
    audit.write(conn, by, None, "catalogue.release", f"catalogue:{area or 'all'}", {"version": made.version}, now_ms=now_ms)
    return number, made


def finish_catalogue(conn: sqlite3.Connection, number: int, release_id: int) -> None:
    conn.execute("UPDATE catalogue_release SET release_id = ? WHERE id = ?", (release_id, number))


def _next_catalogue(conn: sqlite3.Connection) -> int:
    """Above every catalogue that was ever released."""
    row = conn.execute(
        "SELECT MAX(COALESCE((SELECT MAX(id) FROM catalogue_release), 0),"
        " COALESCE((SELECT MAX(release) FROM release WHERE component = 'catalogue'), 0))"
    ).fetchone()
    return int(row[0]) + 1


# ----------------------------------------------------------------------------------------------------------------------------------------


def _insert(conn: sqlite3.Connection, name: str, release: int, title: str, by: str, now_ms: int) -> int:
    row = conn.execute(
        "INSERT INTO content_package (name, release, title, state, state_ms, pages, from_ms, weekdays, priority, offline, areas, types,"
        " created_by, created_ms) VALUES (?, ?, ?, 'draft', ?, '[]', 0, 127, 5, 1, '[]', '[]', ?, ?) RETURNING id",
        (name, release, title, now_ms, by, now_ms),
    ).fetchone()
    _event(conn, int(row[0]), "created", by, now_ms, "")
    audit.write(conn, by, None, "content.create", f"content:{name}", {"release": release}, now_ms=now_ms)
    return int(row[0])


def _set_pages(conn: sqlite3.Connection, package_id: int, pages: Sequence[Page]) -> None:
    text = msgspec.json.encode([msgspec.to_builtins(page) for page in pages]).decode()
    conn.execute("UPDATE content_package SET pages = ? WHERE id = ?", (text, package_id))


def _event(conn: sqlite3.Connection, package_id: int, kind: str, by: str, now_ms: int, note: str) -> None:
    conn.execute(
        "INSERT INTO content_event (package, at_ms, actor, kind, note) VALUES (?, ?, ?, ?, ?)",
        (package_id, now_ms, by, kind, note),
    )


def _audit(conn: sqlite3.Connection, one: Draft, act: str, by: str, now_ms: int, detail: Mapping[str, Any]) -> None:
    audit.write(conn, by, None, f"content.{act}", f"content:{one.name}", {"version": one.version, **detail}, now_ms=now_ms)


def _rows(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
