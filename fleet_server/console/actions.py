"""What an operator may do here: claim, note, maintenance, a new terminal. Each is one transaction that also tells open pages.

Nobody closes a fault: recovery comes from the machine.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Any, Final, get_args

from fleet_server.enrolment import codes
from fleet_server.enrolment.registry import NewTerminal, add_terminal, new_code
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.sites.calendar import day_span_ms, local_day
from protocols.canon.words import TerminalType
from protocols.contract.records import Slot

NOTE_MAX: Final = 500
REASON_MAX: Final = 200
LONGEST_MAINTENANCE_MS: Final = 7 * 86_400_000
_UNTIL_MS: Final = {"30m": 30 * 60_000, "2h": 2 * 3_600_000, "1d": 86_400_000, "7d": LONGEST_MAINTENANCE_MS}
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
        raise Conflict("fault", "claimed")
    _remember(connection, row, "claim", by, None, now_ms)


def unclaim(connection: sqlite3.Connection, fault: str, by: str, now_ms: int) -> None:
    """Give a fault back that is one's own."""
    row = _fault(connection, fault)
    done = connection.execute(
        "UPDATE fault SET claimed_by = NULL, claimed_ms = NULL WHERE id = ? AND claimed_by = ?", (fault, by)
    )
    if done.rowcount != 1:
        raise Conflict("fault", "claimed")
    _remember(connection, row, "unclaim", by, None, now_ms)


def note(connection: sqlite3.Connection, fault: str, by: str, text: str, now_ms: int) -> None:
    row = _fault(connection, fault)
    _remember(connection, row, "note", by, person_text("text", text, NOTE_MAX), now_ms)


def start_maintenance(connection: sqlite3.Connection, terminal: str, by: str, reason: str, until_ms: int, now_ms: int) -> None:
    """Take a terminal out of play until `until_ms`; Refused beyond seven days."""
    if not now_ms < until_ms <= now_ms + LONGEST_MAINTENANCE_MS:
        raise Refused("until", "until")
    words = person_text("reason", reason, REASON_MAX)
    done = connection.execute(
        "UPDATE terminal SET maintenance_until_ms = ?, maintenance_reason = ?, maintenance_by = ? WHERE id = ? AND revoked_ms IS NULL",
        (until_ms, words, by, terminal),
    )
    if done.rowcount != 1:
        raise NotFound(f"terminal {terminal[:32]!r}")
    _tell(connection, terminal, "enrolment", None, now_ms)


def end_maintenance(connection: sqlite3.Connection, terminal: str, now_ms: int) -> None:
    done = connection.execute(
        "UPDATE terminal SET maintenance_until_ms = NULL, maintenance_reason = NULL, maintenance_by = NULL"
        " WHERE id = ? AND maintenance_until_ms IS NOT NULL AND revoked_ms IS NULL",
        (terminal,),
    )
    if done.rowcount != 1:
        raise NotFound(f"terminal in maintenance {terminal[:32]!r}")
    _tell(connection, terminal, "enrolment", None, now_ms)


def until_of(word: str, now_ms: int, zone: str) -> int:
    """When a chosen maintenance ends: after a while, or with the local day."""
    if word == "today":
        return day_span_ms(local_day(now_ms, zone), zone)[1]
    if word not in _UNTIL_MS:
        raise Refused("until", "until")
    return now_ms + _UNTIL_MS[word]


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
    add_terminal(connection, terminal, now_ms=now_ms)
    return issue_code(connection, terminal.id, by, now_ms)


def issue_code(connection: sqlite3.Connection, terminal: str, by: str, now_ms: int) -> Issued:
    """A new code; earlier ones die."""
    return Issued(terminal, new_code(connection, terminal, by=by, now_ms=now_ms), now_ms + codes.LIFETIME_MS)


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
    row = connection.execute("SELECT terminal, cleared_ms, id FROM fault WHERE id = ? AND disputed = 0", (fault,)).fetchone()
    if row is None:
        raise NotFound(f"fault {fault[:64]!r}")
    return dict(row)


def _remember(connection: sqlite3.Connection, fault: dict[str, Any], kind: str, by: str, text: str | None, now_ms: int) -> None:
    connection.execute(
        "INSERT INTO fault_event (fault, at_ms, kind, by, text) VALUES (?, ?, ?, ?, ?)", (fault["id"], now_ms, kind, by, text)
    )
    _tell(connection, fault["terminal"], "fault", fault["id"], now_ms)


def _tell(connection: sqlite3.Connection, terminal: str, kind: str, ref: str | None, now_ms: int) -> None:
    connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, ?, ?)", (now_ms, terminal, kind, ref))
