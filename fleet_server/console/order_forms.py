"""What the forms of remote actions mean: fields to bodies of the contract, and what makes sense for which device. Pure; wrong input is Refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from fleet_server.console.model import TerminalNow
from fleet_server.errors import Refused
from fleet_server.sites.calendar import zone_of
from protocols.contract.orders import PullLogs, Restart, SelfTest
from protocols.profile.schema import Kind

ACTIONS: Final = ("test", "restart", "logs", "lock", "unlock")
"""Words of addresses; a configuration has a page of its own."""
REQUEST: Final = {"permission": "request"}
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
VALID_MS: Final = {"15m": 15 * MINUTE_MS, "1h": HOUR_MS, "8h": 8 * HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS}
USUAL_VALID: Final = {"test": "15m", "restart": "1d", "logs": "1d", "configuration": "7d"}
"""Chosen: a test is meant for somebody who waits for it, a restart for the next quiet moment, a configuration for a terminal that may be off."""
RESTARTS: Final = ("application", "agent", "host")
WHENS: Final = ("idle", "now")
TESTS: Final[Mapping[str, tuple[str, ...]]] = {
    Kind.RECEIPT_PRINTER: ("query", "print"),
    Kind.A4_PRINTER: ("query", "print"),
    Kind.ID_READER: ("query", "read"),
    Kind.SCANNER: ("query", "read"),
    Kind.KEYPAD: ("query", "read"),
    Kind.EVALUATOR: ("query", "read"),
    Kind.HELP_BUTTON: ("query", "read"),
    Kind.EMERGENCY_BUTTON: ("query", "read"),
    Kind.CALL_PAD: ("query", "read"),
}
"""Beside the question for its state, what a device of a kind can show a person who stands before it."""
_ALIASES: Final = {"laser-printer": Kind.A4_PRINTER}


def tests_of(slot: str, family: str) -> tuple[str, ...]:
    """Tests that make sense at a place; every device can be asked for its state."""
    stem = slot.rpartition("-")[0] if slot.rpartition("-")[2].isdigit() else slot
    for word in (family.replace("_", "-"), stem):
        found = TESTS.get(_ALIASES.get(word, word))
        if found is not None:
            return found
    return ("query",)


def slots_of(terminals: Iterable[TerminalNow]) -> dict[str, tuple[str, ...]]:
    """Places of these terminals in inventory order, each with its tests."""
    found: dict[str, tuple[str, ...]] = {}
    for terminal in terminals:
        for slot in terminal.inventory:
            found.setdefault(slot.name, tests_of(slot.name, slot.family))
    return found


def read_test(form: Mapping[str, str], slots: Mapping[str, Sequence[str]]) -> SelfTest:
    """`choice` is `<slot> <test>`: one list to choose from, so that no test can be asked of a device that cannot do it."""
    slot, _, test = form.get("choice", "").partition(" ")
    if slot not in slots:
        raise Refused("choice", "orderSlot")
    match test:
        case "query" | "print" | "read" | "beep" if test in slots[slot]:
            return SelfTest(slot=slot, test=test)
        case _:
            raise Refused("choice", "orderTest")


def read_restart(form: Mapping[str, str]) -> Restart:
    match form.get("what"), form.get("when"):
        case ("application" | "agent" | "host") as what, ("idle" | "now") as when:
            return Restart(what=what, when=when)
        case _:
            raise Refused("what", "orderRestart")


def read_logs(form: Mapping[str, str], zone: str) -> PullLogs:
    """`from` and `to` are local times of the terminal's site."""
    return PullLogs(from_ms=_local(form.get("from", ""), zone), to_ms=_local(form.get("to", ""), zone))


def read_expiry(form: Mapping[str, str], action: str, now_ms: int) -> int:
    return now_ms + VALID_MS.get(form.get("valid", ""), VALID_MS[USUAL_VALID.get(action, "1d")])


def enrolled(terminals: Iterable[TerminalNow]) -> list[TerminalNow]:
    """Those that can be sent an order."""
    return [terminal for terminal in terminals if terminal.enrolled_ms is not None]


def _local(text: str, zone: str) -> int:
    try:
        at = datetime.fromisoformat(text).replace(tzinfo=zone_of(zone))
    except ValueError:
        raise Refused("from", "orderLogSpan") from None
    return int(at.timestamp() * 1000)
