"""The platform itself: its parts, what it receives, what it set aside."""

from __future__ import annotations

import json
from typing import Any, Final

from litestar import Response, get

from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import HOUR_MS
from fleet_server.console.queries import system as queries
from fleet_server.console.render import Voice

STALE_MS: Final = 15_000
"""The supervisor writes its health every two seconds; an older one is of a server that is gone."""


@get("/system")
async def system(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = await _values(desk, fleet, voice)
    if is_fragment(request):
        return await desk.part(request, "_system.html", voice=voice, **values)
    return await desk.page(request, "system.html", nav="system", voice=voice, **values)


HANDLERS = [system]


async def _values(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    figures = await queries.figures(desk.db, voice.now_ms - HOUR_MS)
    labels = {terminal.id: terminal.label for terminal in fleet.terminals}
    versions: dict[str, int] = {}
    for terminal in fleet.terminals:
        if terminal.enrolled_ms is not None:
            versions[terminal.version or ""] = versions.get(terminal.version or "", 0) + 1
    return {
        "headline": _headline(fleet, figures, voice),
        "parts": _parts(desk, voice),
        "record_figures": _figures(figures, desk, voice),
        "versions": sorted(versions.items(), reverse=True),
        "waiting": [
            {
                "terminal": row["terminal"],
                "label": labels[row["terminal"]],
                "depth": row["outbox_depth"],
                "oldest_ms": row["outbox_oldest_ms"],
            }
            for row in await queries.waiting(desk.db)
            if row["terminal"] in labels
        ],
        "quarantine": await queries.quarantine(desk.db),
        "streams": [
            {
                "terminal": row["terminal"],
                "label": labels.get(row["terminal"], row["terminal"]),
                "stream": bytes(row["stream"]).hex()[:16],
                "text": _stream_words(row, voice),
            }
            for row in await queries.notable_streams(desk.db)
        ],
        "gaps": [{**row, "text": voice.t(f"gap.{row['cause']}")} for row in await queries.gaps(desk.db)],
    }


def _headline(fleet: Fleet, figures: dict[str, Any], voice: Voice) -> Any:
    if fleet.platform.blind_since_ms is not None:
        return voice.rich("system.headlineBlind", time=voice.clock(fleet.platform.blind_since_ms))
    if not figures["last_commit_ms"]:
        return voice.rich("system.headlineNone")
    online = sum(terminal.connected for terminal in fleet.terminals)
    return voice.rich("system.headlineOk", online=fmt.count(online), age=voice.age(figures["last_commit_ms"]))


def _parts(desk: Desk, voice: Voice) -> list[tuple[str, Any]]:
    """From the supervisor's health file; of parts it does not keep, that is said."""
    t = voice.t
    try:
        health = json.loads(desk.settings.layout.health.read_text("utf-8"))
    except (OSError, ValueError):
        health = {}
    if voice.now_ms - health.get("at_ms", 0) > STALE_MS:
        health = {}
    parts = health.get("parts", {})
    rows: list[tuple[str, Any]] = []
    for name in ("broker", "ingest", "dispatch", "enrolment", "web", *(["public"] if "public" in parts else [])):
        part = parts.get(name)
        if part is None:
            state = t("system.up") if name == "web" else t("system.unknown")
            if name == "broker" and health.get("broker"):
                state = t("system.up") if health["broker"].get("answers") else t("system.down")
            rows.append((t(f"system.{name}"), state))
            continue
        running = part.get("state") == "running" and (name != "broker" or health["broker"].get("answers", True))
        word = t("system.up") if running else t("system.down")
        rows.append(
            (t(f"system.{name}"), voice.rich("system.since", word=word, duration=voice.since(part.get("since_ms", voice.now_ms))))
        )
    return rows


def _figures(figures: dict[str, Any], desk: Desk, voice: Voice) -> list[tuple[str, Any]]:
    t = voice.t
    try:
        size = desk.settings.layout.database.stat().st_size
    except OSError:
        size = 0
    rows: list[tuple[str, Any]] = [
        (t("system.lastCommit"), voice.age(figures["last_commit_ms"]) if figures["last_commit_ms"] else t("noData")),
        (t("system.batchesHour"), fmt.count(figures["batches_hour"])),
        (t("system.recordsHour"), fmt.count(figures["records_hour"] or 0)),
        (t("system.batchesAll"), fmt.count(figures["batches"] or 0)),
        (t("system.parked"), fmt.count(figures["parked"])),
    ]
    if size:
        rows.append((t("system.database"), t("system.size", n=fmt.count(size // 2**20))))
    return rows


def _stream_words(row: dict[str, Any], voice: Voice) -> str:
    words = []
    if row["verdict"]:
        words.append(voice.t(f"system.{row['verdict']}"))
    elif row["disputed"]:
        words.append(voice.t("system.disputed"))
    if row["forked"]:
        words.append(voice.t("system.forked"))
    if row["notice"]:
        words.append(voice.t(f"system.{row['notice']}") if voice.t.has(f"system.{row['notice']}") else row["notice"])
    return " · ".join(words)
