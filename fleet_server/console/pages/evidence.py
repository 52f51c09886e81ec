"""The evidence behind a record: its bytes, the rule, the times, and a verdict on signature and chain."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from litestar import Response, get
from litestar.enums import MediaType
from litestar.params import FromPath

from fleet_server.authority.authority import Authority
from fleet_server.authority.files import AuthorityError
from fleet_server.console import format as fmt
from fleet_server.console import hexview, proof
from fleet_server.console.desk import Asked, Desk, TheDesk, is_fragment
from fleet_server.console.fleet import Fleet, fault_of
from fleet_server.console.profiles import explanations, meaning, shipped
from fleet_server.console.queries import evidence as queries
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from fleet_server.db import open_reader
from fleet_server.errors import NotFound
from fleet_server.evidence.export import export
from protocols.canon.faults import FAULTS
from protocols.contract import batch as batches
from protocols.contract.records import ClockQuality, Evidence, Record

MAX_ID: Final = 2**53
ROOT_FILE: Final = "fleet-root.key"


@get("/evidence/{batch_id:int}/{idx:int}")
async def record_evidence(request: Asked, desk: TheDesk, batch_id: FromPath[int], idx: FromPath[int]) -> Response[str]:
    """The drawer of one record; as a page of its own when its address is opened directly."""
    fleet, voice = await desk.fleet(request), desk.voice(request)
    row = await queries.batch(desk.db, batch_id) if 0 < batch_id < MAX_ID else None
    if row is None or not 0 <= idx < max(1, row["records"]):
        raise NotFound(f"record {batch_id}/{idx}")
    fault = await queries.fault_of_record(desk.db, batch_id, idx)
    return await _show(request, desk, voice, await _of_record(desk, fleet, voice, row, idx, fault), f"{batch_id}/{idx}")


@get("/evidence/fault/{fault_id:str}")
async def fault_evidence(request: Asked, desk: TheDesk, fault_id: FromPath[str]) -> Response[str]:
    """What the platform concluded itself carries no signature of the terminal, and says so."""
    fleet, voice = await desk.fleet(request), desk.voice(request)
    row = await queries.fault(desk.db, fault_id)
    if row is None:
        raise NotFound(f"fault {fault_id[:64]!r}")
    if row["open_batch"]:
        batch = await queries.batch(desk.db, row["open_batch"])
        if batch is not None:
            shown = await _of_record(desk, fleet, voice, batch, row["open_idx"], row)
            return await _show(request, desk, voice, shown, f"{row['open_batch']}/{row['open_idx']}")
    return await _show(request, desk, voice, _of_platform(fleet, voice, row), "")


@get("/evidence/{batch_id:int}/envelope")
async def envelope(desk: TheDesk, batch_id: FromPath[int]) -> Response[bytes]:
    """The signed original, byte for byte."""
    row = await queries.batch(desk.db, batch_id) if 0 < batch_id < MAX_ID else None
    if row is None or row["envelope"] is None:
        raise NotFound(f"envelope of batch {batch_id}")
    name = f"{row['terminal']}-{bytes(row['stream']).hex()[:8]}-{row['no']}.cose"
    return Response(
        bytes(row["envelope"]), media_type="application/cose", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@get("/evidence/{batch_id:int}/file", sync_to_thread=True)
def evidence_file(desk: TheDesk, batch_id: FromPath[int]) -> Response[bytes]:
    """The batches received together with this one, with certificates and a checkpoint: checks offline with the root key alone."""
    authority = _authority(desk)
    if authority is None:
        raise NotFound("no authority on this machine")
    if not 0 < batch_id < MAX_ID:
        raise NotFound("no such batch")
    out = io.BytesIO()
    with closing(open_reader(desk.settings.layout.database)) as connection:
        row = connection.execute("SELECT terminal, received_ms FROM batch WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise NotFound(f"batch {batch_id}")
        _export(connection, out, authority, row[0], row[1], desk.now_ms())
    return Response(
        out.getvalue(),
        media_type=MediaType.TEXT if not out.getvalue() else "application/cbor-seq",
        headers={"Content-Disposition": f'attachment; filename="{_file_name(row[0], batch_id)}"'},
    )


@get("/evidence/root")
async def root_key(desk: TheDesk) -> Response[str]:
    """The fleet's public root key, in the form that the checking command reads."""
    import base64

    authority = _authority(desk)
    if authority is None:
        raise NotFound("no authority on this machine")
    text = base64.b64encode(authority.root_public_key.public_bytes_raw()).decode("ascii") + "\n"
    return Response(text, media_type=MediaType.TEXT, headers={"Content-Disposition": f'attachment; filename="{ROOT_FILE}"'})


HANDLERS = [record_evidence, fault_evidence, envelope, evidence_file, root_key]


def _export(
    connection: sqlite3.Connection, out: io.BytesIO, authority: Authority, terminal: str, at_ms: int, now_ms: int
) -> None:
    export(
        connection,
        out,
        fleet=authority.fleet,
        terminal=terminal,
        signer=authority.server_signer(),
        server_certificates=[raw for _, raw in authority.server_key_certificates()],
        now_ms=now_ms,
        from_ms=at_ms,
        to_ms=at_ms,
    )


def _file_name(terminal: str, batch_id: int) -> str:
    return f"evidence-{terminal}-{batch_id}.cbor"


def _authority(desk: Desk) -> Authority | None:
    try:
        return Authority(desk.settings.layout.authority)
    except AuthorityError:
        return None


def root_of(desk: Desk) -> Ed25519PublicKey | None:
    """The fleet's root, from this server's authority folder; a test may hand in another."""
    if desk.root is not None:
        return desk.root
    authority = _authority(desk)
    return authority.root_public_key if authority else None


async def _show(request: Asked, desk: Desk, voice: Voice, shown: dict[str, Any], place: str) -> Response[str]:
    if not is_fragment(request):
        return await desk.page(request, "evidence.html", nav="faults", voice=voice, e=shown, in_drawer=False)
    answer = await desk.part(request, "_drawer.html", voice=voice, e=shown, in_drawer=True)
    if place and (current := request.headers.get("HX-Current-URL")):
        # The address of the page behind, with the drawer in it: what is copied shows the same.
        parts = urlsplit(current)
        kept = [pair for pair in parts.query.split("&") if pair and not pair.startswith("evidence=")]
        answer.headers["HX-Replace-Url"] = urlunsplit(("", "", parts.path or "/", "&".join([*kept, f"evidence={place}"]), ""))
    return answer


def _of_platform(fleet: Fleet, voice: Voice, row: dict[str, Any]) -> dict[str, Any]:
    fault = fault_of(row)
    terminal = fleet.by_id.get(fault.terminal)
    key = "evidence.inferredOffline" if fault.code == "NET.OFFLINE" else "evidence.inferredOther"
    return {
        "title": fault.sentence(voice.lang),
        "severity": fault.severity,
        "code": fault.code,
        "terminal": fault.terminal,
        "label": terminal.label if terminal else fault.terminal,
        "hint": fault.hint(voice.lang),
        "inferred": voice.t(key, problem=fault.sentence(voice.lang), time=voice.stamp(fault.since_ms)),
        "fault_id": fault.id,
    }


async def _of_record(
    desk: Desk, fleet: Fleet, voice: Voice, row: dict[str, Any], idx: int, fault_row: dict[str, Any] | None
) -> dict[str, Any]:
    opened = proof.check_signature(
        row["envelope"],
        context=row["context"],
        fleet=desk.settings.fleet,
        terminal=row["terminal"],
        certificate=row["certificate"],
        root=root_of(desk),
        idx=idx,
    )
    chain = await _chain(desk, row, opened)
    record = opened.record
    fault = fault_of(fault_row) if fault_row else None
    shown = _bytes(record, voice)
    terminal = fleet.by_id.get(row["terminal"])
    return {
        **shown,
        "inferred": "",
        "fault_id": fault.id if fault else "",
        "title": fault.sentence(voice.lang) if fault else _record_title(record, voice),
        "severity": fault.severity if fault else "",
        "code": fault.code if fault else (record.kind if record else row["kind"]),
        "terminal": row["terminal"],
        "label": terminal.label if terminal else row["terminal"],
        "hint": fault.hint(voice.lang) if fault else "",
        "rule": _rule(record, fault_row, voice),
        "steps": _steps(record, row, voice, terminal.place.timezone if terminal else voice.zone),
        "signature_ok": opened.signature.ok,
        "signature": voice.t(f"evidence.{opened.signature.key}", why=opened.signature.why),
        "chain_ok": chain.ok,
        "chain": voice.t(f"evidence.{chain.key}", no=chain.no, first=chain.first, last=chain.last),
        "identity": _identity(row, idx, voice),
        "download": f"/evidence/{row['id']}/envelope" if row["envelope"] is not None else "",
        "file": f"/evidence/{row['id']}/file",
        "command": f"fleet-server verify-evidence {_file_name(row['terminal'], row['id'])} --root {ROOT_FILE}",
    }


async def _chain(desk: Desk, row: dict[str, Any], opened: proof.Opened) -> proof.Verdict:
    """Signed fields where they could be read, the stored ones of an erased batch."""
    header = opened.header
    no, prev = (header.no, header.prev) if header else (row["no"], bytes(row["prev"]))
    parent = header.parent if header else _stored_parent(row)
    parent_digest = None
    if no == 1 and parent is not None:
        parent_digest = await queries.digest_of(desk.db, row["terminal"], parent.stream, parent.no)
    before = await queries.before(desk.db, row["terminal"], row["stream"], no)
    hole = None if before else await queries.hole_before(desk.db, row["terminal"], row["stream"], no)
    known = proof.Before(
        digest=bytes(before["digest"]) if before else None,
        erased=bool(before and before["erased"]),
        hole=(hole["first_no"], hole["last_no"]) if hole else None,
    )
    return proof.check_chain(no, prev, parent, known, bytes(parent_digest) if parent_digest else None)


def _stored_parent(row: dict[str, Any]) -> batches.Parent | None:
    if row["parent_stream"] is None:
        return None
    return batches.Parent(bytes(row["parent_stream"]), row["parent_no"], bytes(row["parent_digest"]))


def _bytes(record: Record | None, voice: Voice) -> dict[str, Any]:
    try:
        # A parked record is the terminal's word as it came: it may say anything here.
        evidence = msgspec.convert(record.value.get("evidence") if record else None, Evidence)
    except msgspec.ValidationError:
        return {"query": "", "reply": [], "explained": [], "any_masked": False}
    query, reply = evidence.query, evidence.reply
    masked = hexview.masked_positions(evidence.masked, len(reply))
    marks = []
    assert record is not None
    for mark in explanations(str(record.value.get("profile", "")), evidence.codec, query, reply):
        words = meaning(mark.key, voice.lang)
        if words is None:  # a condition of a profile's own table: the fault's sentence says it
            code = FAULTS.get(str(record.value.get("code", "")))
            words = mark.key if code is None else (code.zh if voice.lang == "zh" else code.en)
        marks.append((mark, words))
    return {
        "query": fmt.hex_bytes(query),
        "reply": hexview.view(reply, masked, marks),
        "explained": hexview.lines(query, reply, masked, marks, voice.t("evidence.bit")),
        "any_masked": bool(masked),
    }


def _record_title(record: Record | None, voice: Voice) -> str:
    if record is None:
        return voice.t("evidence.word")
    slot = record.value.get("slot")
    return slot_name(voice, str(slot)) if slot else record.kind


def _rule(record: Record | None, fault_row: dict[str, Any] | None, voice: Voice) -> list[tuple[str, str]]:
    t, rows = voice.t, list[tuple[str, str]]()
    profile_id = (record.value.get("profile") if record else None) or (fault_row["profile"] if fault_row else None)
    profile = shipped().get(str(profile_id)) if profile_id else None
    if profile is not None:
        rows.append((t("evidence.profile"), f"{profile.display_name} · {profile.id} · {t(f'grade.{profile.grade}')}"))
        rows.append((t("evidence.source"), profile.source))
    elif profile_id:
        rows.append((t("evidence.profile"), str(profile_id)))
    evidence = record.value.get("evidence") if record else None
    if isinstance(evidence, dict):
        rows.append((t("evidence.codec"), str(evidence.get("codec", ""))))
    kind = FAULTS.get(fault_row["code"]) if fault_row else None
    if kind is not None:
        rows.append((t("evidence.rowCode"), f"{kind.code} · {t(f'severity.{kind.severity.value}')}"))
        at_once = kind.debounce_s == 0 and kind.debounce_count <= 1
        line = t("evidence.debounceLine", s=f"{kind.debounce_s:g}", n=kind.debounce_count)
        rows.append((t("evidence.debounce"), t("evidence.debounceAtOnce") if at_once else line))
    return rows


CLOCK_WORDS: Final = {
    ClockQuality.SYNCED: "evidence.clockSynced",
    ClockQuality.HOLDOVER: "evidence.clockHoldover",
    ClockQuality.UNSET: "evidence.clockUnset",
}


def _steps(record: Record | None, row: dict[str, Any], voice: Voice, zone: str) -> list[dict[str, str]]:
    """Captured, sealed, received, committed, with the milliseconds between."""
    times: list[tuple[str, int, str]] = []
    if record is not None:
        times.append(("captured", record.wall_ms, voice.t(CLOCK_WORDS[record.quality])))
    times += [("sealed", row["sealed_ms"], ""), ("receivedAt", row["received_ms"], ""), ("committed", row["committed_ms"], "")]
    steps, before = [], None
    for name, at_ms, note in times:
        gap = "" if before is None else voice.t("evidence.gap", ms=fmt.count(at_ms - before))
        steps.append({"name": voice.t(f"evidence.{name}"), "at": fmt.stamp_ms(at_ms, zone), "gap": note or gap})
        before = at_ms
    return steps


def _identity(row: dict[str, Any], idx: int, voice: Voice) -> list[tuple[str, str]]:
    t = voice.t
    rows = [
        (t("evidence.terminal"), row["terminal"]),
        (t("evidence.stream"), bytes(row["stream"]).hex()),
        (t("evidence.record"), t("evidence.recordLine", no=row["no"], idx=idx)),
        (t("evidence.key"), bytes(row["kid"]).hex()),
        (t("evidence.digest"), bytes(row["digest"]).hex()),
        (t("evidence.previous"), bytes(row["prev"]).hex() or t("evidence.first")),
    ]
    if row["stream_disputed"]:
        rows.append((t("system.notice"), t("evidence.disputed")))
    return rows
