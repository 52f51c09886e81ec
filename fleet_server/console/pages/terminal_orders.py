"""The orders of one terminal as the tab of its page: each with what happened, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet_server.console import order_words
from fleet_server.console.desk import Desk
from fleet_server.console.model import TerminalNow
from fleet_server.console.pages.orders import log_of
from fleet_server.console.queries import orders as queries
from fleet_server.console.render import Voice


async def orders_of(desk: Desk, now: TerminalNow, voice: Voice) -> list[dict[str, Any]]:
    rows = await queries.of_terminal(desk.db, now.id)
    ids = [bytes(row["order_id"]) for row in rows if row["order_id"] is not None]
    told = await queries.told_of(desk.db, now.id, ids) if ids else {}
    return [_order(row, told.get(bytes(row["order_id"] or b""), []), now, voice) for row in rows]


def _order(row: Mapping[str, Any], told: Sequence[Mapping[str, Any]], now: TerminalNow, voice: Voice) -> dict[str, Any]:
    state = row["state"]
    return {
        "request": bytes(row["request"]).hex(),
        "terminal": now.id,
        "what": order_words.what(voice, row["kind"], row["body"], now.place.timezone),
        "look": order_words.look_of(state),
        "word": voice.t(f"order.state.{state}"),
        "said": order_words.state_sentence(voice, state),
        "why": order_words.reason_sentence(voice, row["reason"]),
        "waits_ms": row["since_ms"] if state in {"waiting", "running", "asked", "sent"} else None,
        "at_ms": row["at_ms"],
        "note": row["note"],
        "log": log_of(row, voice),
        "trail": trail_of(row, told, voice),
    }


def trail_of(row: Mapping[str, Any], told: Sequence[Mapping[str, Any]], voice: Voice) -> list[dict[str, Any]]:
    """What happened, in the order in which it did: asked, decided, signed, and every word of the terminal with its proof."""
    t = voice.t
    trail: list[dict[str, Any]] = [
        {"at_ms": row["at_ms"], "text": t("trail.asked", by=row["requested_by"]), "why": "", "proof": ""}
    ]
    if row["decided_by"] is not None and row["request_state"] in {"approved", "rejected"}:
        said = t(f"trail.{row['request_state']}", by=row["decided_by"])
        trail.append({"at_ms": row["decided_ms"], "text": said, "why": row["decided_note"], "proof": ""})
    if row["sealed_ms"] is not None:
        said = t("trail.signedAgain", n=row["issues"]) if row["issues"] > 1 else t("trail.signed")
        trail.append({"at_ms": row["sealed_ms"], "text": said, "why": "", "proof": ""})
    trail += [
        {
            "at_ms": one["at_ms"],
            "text": order_words.state_sentence(voice, one["state"]),
            "why": order_words.reason_sentence(voice, one["reason"]),
            "proof": f"{one['batch']}/{one['idx']}" if one["batch"] else "",
        }
        for one in told
    ]
    if not told and row["state"] in {"done", "failed", "refused", "expired", "dropped", "superseded", "cancelled"}:
        said = order_words.state_sentence(voice, row["state"])
        why = order_words.reason_sentence(voice, row["reason"])
        trail.append({"at_ms": row["state_ms"], "text": said, "why": why, "proof": ""})
    trail.sort(key=lambda step: step["at_ms"])
    return trail
