"""Orders in words: what is wanted, how far it is, why. Pure over a voice; the sentences themselves stand in the catalogues."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name

KINDS: Final = ("selfTest", "restart", "pullLogs", "configuration", "lock", "unlock", "cancel")
REQUEST_STATES: Final = ("waiting", "approved", "rejected", "withdrawn", "lapsed", "refused")
ITEM_STATES: Final = (
    "asked", "ready", "sent", "received", "waiting", "running", "done", "failed", "refused", "expired", "cancelled", "superseded", "dropped",
)  # fmt: skip
GOOD: Final = frozenset({"done"})
BAD: Final = frozenset({"failed", "refused", "expired"})
QUIET: Final = frozenset({"cancelled", "superseded", "dropped"})
"""Ended without being done, and nobody need look why."""
OPEN: Final = frozenset(ITEM_STATES) - GOOD - BAD - QUIET
USUAL_LINES: Final = {"zh": "本机暂停服务，请使用旁边的终端。", "en": "Out of service. Please use the terminal next to it."}
"""What a dialog proposes for the screen: words for citizens, in both languages whatever the console speaks."""


def look_of(state: str) -> str:
    """How a state is coloured: good, bad, quiet, waiting for a person, or open."""
    if state == "asked":
        return "waiting"
    if state in GOOD:
        return "good"
    if state in BAD:
        return "bad"
    return "quiet" if state in QUIET else "open"


def what(voice: Voice, kind: str, body: str, zone: str = "") -> str:
    """A request as one phrase: what will happen at the terminal."""
    told = _body(body)
    t = voice.t
    match kind:
        case "selfTest":
            key = f"order.what.selfTest{_capital(told.get('test', 'query'))}"
            return t(key, slot=slot_name(voice, str(told.get("slot", "")))) if t.has(key) else t("order.what.unknown")
        case "restart":
            key = f"order.what.restart{_capital(told.get('what', ''))}{_capital(told.get('when', 'idle'))}"
            return t(key) if t.has(key) else t("order.what.unknown")
        case "pullLogs":
            span = {name: voice.stamp(_whole(told.get(f"{name}_ms")), zone or None)[:16] for name in ("from", "to")}
            return t("order.what.pullLogs", **span)
        case "configuration":
            return t("order.what.configuration", n=told.get("version", "?"))
        case "lock":
            return t("order.what.lock", text=_line(told, voice.lang))
        case "unlock" | "cancel":
            return t(f"order.what.{kind}")
        case _:
            return t("order.what.unknown")


def state_sentence(voice: Voice, state: str) -> str:
    key = f"order.say.{state}"
    return voice.t(key) if voice.t.has(key) else state


def reason_sentence(voice: Voice, reason: str) -> str:
    """Empty where there is nothing to say."""
    if reason in {"", "none"}:
        return ""
    key = f"order.reason.{reason}"
    return voice.t(key) if voice.t.has(key) else reason


def decision(voice: Voice, request: Mapping[str, Any]) -> str:
    """What was decided about a request, by whom and when."""
    t, state = voice.t, request["state"]
    if state == "waiting":
        return t("request.say.waiting", time=voice.clock(request["expires_ms"]))
    if state == "approved" and request["decided_by"] is None:
        return t("request.say.approvedAlone")
    if state in {"approved", "rejected", "withdrawn"}:
        at = voice.clock(request["decided_ms"] or request["state_ms"])
        note = request["decided_note"] or "—"
        return t(
            f"request.say.{state}", by=request["decided_by"] or "—", time=at, **({"note": note} if state == "rejected" else {})
        )
    return t(f"request.say.{state}")


def locked_line(lock: str | None, lang: str) -> str:
    """What the screen of a locked terminal says, of a stored lock."""
    return _line(_body(lock or "{}"), lang)


def _line(told: Mapping[str, Any], lang: str) -> str:
    return str((told.get("en") if lang == "en" else "") or told.get("zh") or "—")


def _body(text: str) -> dict[str, Any]:
    """Stored JSON; a page opens even over one that nobody can read."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _capital(word: object) -> str:
    text = str(word)
    return text[:1].upper() + text[1:]


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
