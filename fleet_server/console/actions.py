"""What an operator may do here: claim, note, mute, false alarm, maintenance, tags, a new terminal, a terminal's end. Each tells open pages.

Nobody closes a fault: recovery comes from the machine. A mute is over when its time is, when the episode ends (the next one is a fault of its own),
or when the fault becomes worse than what was muted (`facts/episodes.py`). A false alarm keeps its row and its state; it leaves figures, the list of
what needs a person, and notifications, and counts against the profile that raised it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, get_args

from fleet_server import audit
from fleet_server.enrolment.registry import NewTerminal, add_terminal, code_lifetime_ms, new_code, revoke
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.sites.calendar import day_span_ms, local_day, zone_of
from fleet_server.terminals import maintenance
from protocols.canon.words import TerminalType
from protocols.contract.records import Slot

NOTE_MAX: Final = 500
REASON_MAX: Final = 200
LONGEST_MAINTENANCE_MS: Final = maintenance.LONGEST_MS
LONGEST_MUTE_MS: Final = 7 * 86_400_000
"""Chosen, as for maintenance: what nobody looks at for a week is not muted but forgotten."""
MAX_AT_ONCE: Final = 500
"""Rows of one bulk action: a few pages of a list, and a transaction far shorter than what ingest waits for."""
TAG_MAX: Final = 20
TAGS_MAX: Final = 10
_HOUR_MS: Final = 3_600_000
_UNTIL_MS: Final = {
    "30m": _HOUR_MS // 2, "1h": _HOUR_MS, "2h": 2 * _HOUR_MS, "4h": 4 * _HOUR_MS, "1d": 24 * _HOUR_MS, "7d": LONGEST_MAINTENANCE_MS,
}  # fmt: skip
MAINTENANCE_UNTIL: Final = ("30m", "2h", "today", "1d", "7d", "at")
MUTE_UNTIL: Final = ("1h", "4h", "today", "at")
# What a resident number (GB 11643: 17 digits and a check character, or 15 digits) or a mobile number looks like, also with spaces in it.
_PERSONAL: Final = re.compile(
    r"(?<!\d)(?:\d[ -]?){17}[\dXx](?!\d)|(?<!\d)(?:\d[ -]?){14}\d(?!\d)|(?<!\d)1[3-9]\d(?:[ -]?\d{4}){2}(?!\d)"
)
_CODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_SLOT: Final = re.compile(str(next(meta.pattern for meta in get_args(Slot)[1:] if meta.pattern)))


def person_text(field: str, text: str, limit: int) -> str:
    """A person's words, tidied; Refused if empty, too long, or holding something that looks like a citizen's number."""
    tidy = " ".join(text.split())
    if not tidy:
        raise Refused(field, "empty")
    if len(tidy) > limit:
        raise Refused(field, "tooLong")
    if _PERSONAL.search(tidy):
        raise Refused(field, "personal")
    return tidy


def claim(connection: sqlite3.Connection, fault: str, by: str, now_ms: int) -> None:
    """Take an open fault; Conflict if somebody has it or it is over."""
    row = _fault(connection, fault)
    if row["cleared_ms"] is not None:
        raise Conflict("fault", "cleared")
    done = connection.execute(
        "UPDATE fault SET claimed_by = ?, claimed_ms = ? WHERE id = ? AND claimed_by IS NULL AND cleared_ms IS NULL",
        (by, now_ms, fault),
    )
    if done.rowcount != 1:
        raise Conflict("fault", "yours" if row["claimed_by"] == by else "claimed")
    _remember(connection, row, "claim", by, None, now_ms)


def unclaim(connection: sqlite3.Connection, fault: str, by: str, now_ms: int) -> None:
    """Give a fault back that is one's own."""
    row = _fault(connection, fault)
    done = connection.execute(
        "UPDATE fault SET claimed_by = NULL, claimed_ms = NULL WHERE id = ? AND claimed_by = ?", (fault, by)
    )
    if done.rowcount != 1:
        raise Conflict("fault", "notClaimed" if row["claimed_by"] is None else "claimed")
    _remember(connection, row, "unclaim", by, None, now_ms)


def note(connection: sqlite3.Connection, fault: str, by: str, text: str, now_ms: int) -> None:
    row = _fault(connection, fault)
    _remember(connection, row, "note", by, person_text("text", text, NOTE_MAX), now_ms)


def mute(connection: sqlite3.Connection, fault: str, by: str, reason: str, until_ms: int, now_ms: int) -> None:
    """Keep an open fault quiet until `until_ms`, or until it recovers or becomes worse; again for another end. Refused beyond seven days."""
    row = _fault(connection, fault)
    if row["cleared_ms"] is not None:
        raise Conflict("fault", "cleared")
    if not now_ms < until_ms <= now_ms + LONGEST_MUTE_MS:
        raise Refused("until", "until")
    words = person_text("reason", reason, REASON_MAX)
    connection.execute(
        "UPDATE fault SET muted_until_ms = ?, muted_reason = ?, muted_by = ?, muted_severity = severity WHERE id = ?",
        (until_ms, words, by, fault),
    )
    _remember(connection, row, "mute", by, words, now_ms, until_ms)


def unmute(connection: sqlite3.Connection, fault: str, by: str, now_ms: int) -> None:
    """End a mute before its time; Conflict if there is none."""
    row = _fault(connection, fault)
    done = connection.execute(
        "UPDATE fault SET muted_until_ms = NULL, muted_reason = NULL, muted_by = NULL, muted_severity = NULL"
        " WHERE id = ? AND muted_until_ms > ? AND cleared_ms IS NULL",
        (fault, now_ms),
    )
    if done.rowcount != 1:
        raise Conflict("fault", "notMuted")
    _remember(connection, row, "unmute", by, None, now_ms)


def mark_false_alarm(connection: sqlite3.Connection, fault: str, by: str, now_ms: int, *, is_false: bool = True) -> None:
    """Say that the machine was wrong, or take that back; also of a fault that is over. Conflict if it is marked so already."""
    row = _fault(connection, fault)
    done = connection.execute(
        "UPDATE fault SET false_alarm = ? WHERE id = ? AND false_alarm <> ?", (int(is_false), fault, int(is_false))
    )
    if done.rowcount != 1:
        raise Conflict("fault", "marked" if is_false else "notMarked")
    _remember(connection, row, "falseAlarm" if is_false else "realAlarm", by, None, now_ms)


# Terminals ------------------------------------------------------------------------------------------------------------------------------


def start_maintenance(connection: sqlite3.Connection, terminal: str, by: str, reason: str, until_ms: int, now_ms: int) -> None:
    """Take a terminal out of play until `until_ms`; Refused beyond seven days."""
    words = person_text("reason", reason, REASON_MAX)
    maintenance.start(connection, terminal, by=by, reason=words, until_ms=until_ms, now_ms=now_ms)
    _tell(connection, terminal, "enrolment", None, now_ms)


def end_maintenance(connection: sqlite3.Connection, terminal: str, by: str, now_ms: int) -> None:
    maintenance.end(connection, terminal, by=by, now_ms=now_ms)
    _tell(connection, terminal, "enrolment", None, now_ms)


def until_of(word: str, now_ms: int, zone: str, at: str = "") -> int:
    """When something ends: after a while, with the local day, or (`at`) at a local time such as `2026-11-22T18:30`. Refused for nonsense."""
    if word == "today":
        return day_span_ms(local_day(now_ms, zone), zone)[1]
    if word == "at":
        return local_ms("until", at, zone)
    if word not in _UNTIL_MS:
        raise Refused("until", "until")
    return now_ms + _UNTIL_MS[word]


def local_ms(field: str, text: str, zone: str) -> int:
    """A local time such as `2026-11-22T18:30`. Refused, by the word of the field, for nonsense."""
    try:
        local = datetime.strptime(text[:16], "%Y-%m-%dT%H:%M").replace(tzinfo=zone_of(zone))
        return int(local.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Refused(field, field) from None


def tag_text(text: str) -> str:
    """A tag, tidied; Refused if empty, long, personal, or with a comma, which separates tags in an export."""
    tidy = person_text("tag", text, TAG_MAX)
    if any(mark in tidy for mark in ",，;；"):
        raise Refused("tag", "tagMarks")
    return tidy


def add_tag(connection: sqlite3.Connection, terminal: str, tag: str, now_ms: int) -> None:
    """Conflict if it has this tag, in whatever case, or as many as one may have."""
    tags, words = _tags(connection, terminal), tag_text(tag)
    if any(words.casefold() == one.casefold() for one in tags):
        raise Conflict("tag", "hasTag")
    if len(tags) >= TAGS_MAX:
        raise Conflict("tag", "manyTags")
    _put_tags(connection, terminal, [*tags, words], now_ms)


def remove_tag(connection: sqlite3.Connection, terminal: str, tag: str, now_ms: int) -> None:
    tags, words = _tags(connection, terminal), tag_text(tag).casefold()
    left = [one for one in tags if one.casefold() != words]
    if len(left) == len(tags):
        raise Conflict("tag", "noTag")
    _put_tags(connection, terminal, left, now_ms)


def retire(connection: sqlite3.Connection, terminal: str, by: str, reason: str, confirmed: str, now_ms: int) -> None:
    """Take a terminal out of the fleet for good: its keys and certificates end, its open faults close as retired, its history stays.

    `confirmed` is the machine's code, typed again. Conflict if it was retired before.
    """
    row = connection.execute("SELECT id, code FROM terminal WHERE id = ?", (terminal,)).fetchone()
    if row is None:
        raise NotFound(f"terminal {terminal[:32]!r}")
    words = person_text("reason", reason, REASON_MAX)
    if confirmed.strip().casefold() != (row["code"] or row["id"]).casefold():
        raise Refused("confirm", "codeConfirm")
    if not revoke(connection, terminal, now_ms=now_ms, by=by, reason=words):
        raise Conflict("terminal", "revoked")


def _tags(connection: sqlite3.Connection, terminal: str) -> list[str]:
    row = connection.execute("SELECT tags FROM terminal WHERE id = ? AND revoked_ms IS NULL", (terminal,)).fetchone()
    if row is None:
        raise NotFound(f"terminal {terminal[:32]!r}")
    try:
        tags = json.loads(row["tags"])
    except json.JSONDecodeError:
        return []
    return [str(one) for one in tags] if isinstance(tags, list) else []


def _put_tags(connection: sqlite3.Connection, terminal: str, tags: list[str], now_ms: int) -> None:
    connection.execute("UPDATE terminal SET tags = ? WHERE id = ?", (json.dumps(tags, ensure_ascii=False), terminal))
    _tell(connection, terminal, "enrolment", None, now_ms)


# Many at once ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a bulk action: what was done, and what was not, each with the key of its sentence (`refused.<reason>`)."""

    done: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def each(connection: sqlite3.Connection, ids: Iterable[str], act: Callable[[str], None]) -> Tally:
    """Do it to each of `ids` within the caller's one transaction; a row that refuses leaves the others alone."""
    tally = Tally()
    for one in dict.fromkeys(ids):
        connection.execute("SAVEPOINT one")
        try:
            act(one)
        except NotFound:
            connection.execute("ROLLBACK TO one")
            tally.refused.append((one, "rowGone"))
        except Refused as refused:
            connection.execute("ROLLBACK TO one")
            tally.refused.append((one, refused.reason))
        else:
            tally.done.append(one)
        connection.execute("RELEASE one")
    return tally


# New terminals --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Issued:
    """A one-time code, to be shown once."""

    terminal: str
    code: str
    expires_ms: int

    def __repr__(self) -> str:
        return f"Issued({self.terminal})"


def create_terminal(connection: sqlite3.Connection, terminal: NewTerminal, by: str, now_ms: int) -> Issued:
    """Register it and make its first code, together or not at all."""
    taken = connection.execute(
        "SELECT 1 FROM terminal WHERE code = ? COLLATE NOCASE OR id = ?", (terminal.code, terminal.id)
    ).fetchone()
    if taken:
        raise Conflict("code", "taken")
    if not connection.execute("SELECT 1 FROM site WHERE code = ?", (terminal.site,)).fetchone():
        raise Refused("site", "site")
    add_terminal(connection, terminal, now_ms=now_ms, by=by)
    return issue_code(connection, terminal.id, by, now_ms)


def issue_code(connection: sqlite3.Connection, terminal: str, by: str, now_ms: int) -> Issued:
    """A new code; earlier ones die."""
    return Issued(terminal, new_code(connection, terminal, by=by, now_ms=now_ms), now_ms + code_lifetime_ms(connection))


def read_terminal(form: dict[str, str]) -> NewTerminal:
    """The form of the panel as a terminal; Refused names the field."""
    code = form.get("code", "").strip()
    if not _CODE.fullmatch(code):
        raise Refused("code", "code")
    if form.get("type") not in set(TerminalType):
        raise Refused("type", "type")
    if not form.get("site"):
        raise Refused("site", "site")
    return NewTerminal(
        id=code.lower(),
        code=code,
        type=form["type"],
        name_zh=person_text("name_zh", form.get("name_zh", ""), 40),
        name_en=" ".join(form.get("name_en", "").split())[:60],
        site=form["site"],
        class_="social" if form.get("class") == "social" else "government",
        inventory=read_inventory(form.get("inventory", "")),
    )


class BadInventory(Refused):
    """Line `line` of the inventory does not fit."""

    def __init__(self, line: int) -> None:
        super().__init__("inventory", "inventory")
        self.line = line


def read_inventory(text: str) -> tuple[dict[str, Any], ...]:
    """`id-reader M` a line: the place, and whether the terminal needs it."""
    items: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        slot, mark = words[0], (words[1] if len(words) > 1 else "o").casefold()
        if (
            len(words) > 2
            or mark not in {"m", "o"}
            or not _SLOT.search(slot)
            or len(slot) > 64
            or any(item["slot"] == slot for item in items)
        ):
            raise BadInventory(number)
        items.append({"slot": slot, "mandatory": mark == "m"})
    return tuple(items)


def _fault(connection: sqlite3.Connection, fault: str) -> dict[str, Any]:
    row = connection.execute(
        "SELECT terminal, cleared_ms, claimed_by, id FROM fault WHERE id = ? AND disputed = 0", (fault,)
    ).fetchone()
    if row is None:
        raise NotFound(f"fault {fault[:64]!r}")
    return dict(row)


def _remember(
    connection: sqlite3.Connection,
    fault: dict[str, Any],
    kind: str,
    by: str,
    text: str | None,
    now_ms: int,
    until_ms: int | None = None,
) -> None:
    connection.execute(
        'INSERT INTO fault_event (fault, at_ms, kind, "by", text, until_ms) VALUES (?, ?, ?, ?, ?, ?)',
        (fault["id"], now_ms, kind, by, text, until_ms),
    )
    detail = {"until_ms": until_ms} if until_ms is not None else None
    audit.write(connection, by, None, f"fault.{kind}", f"fault:{fault['id']}", detail, now_ms=now_ms)
    _tell(connection, fault["terminal"], "fault", fault["id"], now_ms)


def _tell(connection: sqlite3.Connection, terminal: str, kind: str, ref: str | None, now_ms: int) -> None:
    connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, ?, ?)", (now_ms, terminal, kind, ref))
