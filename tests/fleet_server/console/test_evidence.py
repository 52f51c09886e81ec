"""Evidence: what the drawer shows, and that it believes nobody."""

from __future__ import annotations

import base64
import json
import sqlite3
from contextlib import closing
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from litestar import Litestar

from fleet_server.authority.authority import Authority
from fleet_server.console import hexview, proof
from fleet_server.engine import FleetEngine
from fleet_server.evidence.verify import EvidenceBroken, verify
from protocols.codecs.common import Explanation
from protocols.contract import batch as batches
from protocols.contract.batch import Parent
from tests.fleet_server.console.conftest import Person
from tests.support.contract import FLEET, RECORD, ROOT, SERVER, STRANGER, TERMINAL, Chain, notice, record_cert
from tests.support.seed import NOW_MS, Seeded

STREAM = b"s" * 16


def check(raw: bytes | None, **changes: Any) -> proof.Opened:
    values: dict[str, Any] = {
        "context": batches.BATCH_CONTEXT,
        "fleet": FLEET,
        "terminal": TERMINAL,
        "certificate": record_cert(RECORD),
        "root": ROOT.verifier,
        "idx": 0,
    }
    return proof.check_signature(raw, **{**values, **changes})


def test_an_honest_batch_holds() -> None:
    opened = check(Chain(STREAM).seal(notice(7)))
    assert opened.signature.ok
    assert opened.record is not None
    assert opened.record.kind == "notice"
    assert opened.record.value["count"] == 7


@pytest.mark.parametrize("at", [5, 40, 90, -1])
def test_any_changed_byte_is_found(at: int) -> None:
    raw = bytearray(Chain(STREAM).seal())
    raw[at] ^= 1
    opened = check(bytes(raw))
    assert not opened.signature.ok
    assert opened.record is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"terminal": "kf-0002", "certificate": record_cert(RECORD, "kf-0002")}, "signatureBad"),
        ({"fleet": "another"}, "certificateBad"),
        ({"context": batches.LOSS_CONTEXT}, "signatureBad"),
        ({"certificate": record_cert(STRANGER)}, "signatureBad"),
        ({"certificate": b"nonsense"}, "certificateBad"),
        ({"certificate": None}, "signatureNoKey"),
        ({"root": STRANGER.verifier}, "certificateBad"),
        ({"root": SERVER.verifier}, "certificateBad"),
        ({"root": None}, "signatureNoKey"),
    ],
)
def test_the_verdict_names_what_does_not_hold(changes: dict[str, Any], key: str) -> None:
    verdict = check(Chain(STREAM).seal(), **changes).signature
    assert (verdict.ok, verdict.key) == (False, key)


def test_an_erased_original_is_said_to_be_erased() -> None:
    assert check(None).signature == proof.Verdict(False, "signatureErased")


def test_a_record_that_is_not_there_is_none_but_the_signature_holds() -> None:
    opened = check(Chain(STREAM).seal(), idx=5)
    assert opened.signature.ok
    assert opened.record is None


A, B = b"a" * 32, b"b" * 32


@pytest.mark.parametrize(
    ("no", "prev", "parent", "before", "parent_digest", "ok", "key"),
    [
        (1, b"", None, proof.Before(None), None, True, "chainFirst"),
        (1, b"", Parent(STREAM, 3, A), proof.Before(None), A, True, "chainParent"),
        (1, b"", Parent(STREAM, 3, A), proof.Before(None), B, False, "chainBroken"),
        (1, b"", Parent(STREAM, 3, A), proof.Before(None), None, False, "chainGap"),
        (5, A, None, proof.Before(A), None, True, "chainOk"),
        (5, A, None, proof.Before(A, erased=True), None, True, "chainErased"),
        (5, A, None, proof.Before(B), None, False, "chainBroken"),
        (5, A, None, proof.Before(None), None, False, "chainGap"),
        (5, A, None, proof.Before(None, hole=(2, 4)), None, True, "chainHole"),
    ],
)
def test_the_chain(
    no: int, prev: bytes, parent: Parent | None, before: proof.Before, parent_digest: bytes | None, ok: bool, key: str
) -> None:
    verdict = proof.check_chain(no, prev, parent, before, parent_digest)
    assert (verdict.ok, verdict.key) == (ok, key)


# Bytes ------------------------------------------------------------------------------------------------------------------------------------


def test_masked_bytes_are_never_shown_nor_explained() -> None:
    reply = bytes([0xAA, 0x00, 0x00, 0x41])
    masked = hexview.masked_positions([(1, 3)], len(reply))
    marks = [(Explanation(1, 0xFF, "k", 2), "secret"), (Explanation(3, 0x40, "k"), "told")]
    assert [byte.text for byte in hexview.view(reply, masked, marks)] == ["AA", "··", "··", "41"]
    assert [byte.title for byte in hexview.view(reply, masked, marks)] == ["", "", "", "told"]
    assert [line.text for line in hexview.lines(b"", reply, masked, marks, "bit")] == ["bit 0x40 = told"]


@pytest.mark.parametrize("span", [(-5, 2), (2, 99), (9, 12), (3, 1)])
def test_spans_outside_the_reply_harm_nobody(span: tuple[int, int]) -> None:
    assert hexview.masked_positions([span], 4) <= {0, 1, 2, 3}


def test_each_answer_stands_beside_its_question() -> None:
    query, reply = bytes.fromhex("100401100402100403100404"), bytes.fromhex("1632127e")
    lines = hexview.lines(query, reply, frozenset(), [(Explanation(3, 0x60, "escpos.paper_end"), "缺纸")], "位")
    assert lines == [hexview.Line("10 04 04 → 7E", "位 0x60 = 缺纸")]


def test_a_word_of_a_text_protocol_is_quoted() -> None:
    lines = hexview.lines(b"", b"CODE=40022", frozenset(), [(Explanation(5, 0xFF, "pjl.jam", 5), "卡纸")], "位")
    assert lines == [hexview.Line("“40022”", "= 卡纸")]


# The page ---------------------------------------------------------------------------------------------------------------------------------


async def place_of(engine: FleetEngine, code: str, terminal: str) -> str:
    rows = await engine.read(
        "SELECT open_batch, open_idx FROM fault WHERE code = ? AND terminal = ? AND cleared_ms IS NULL", (code, terminal)
    )
    return f"/evidence/{rows[0]['open_batch']}/{rows[0]['open_idx']}"


async def test_two_clicks_lead_from_the_list_to_the_bytes(viewer: Person, engine: FleetEngine) -> None:
    path = await place_of(engine, "LSR.JAM", "kf-0037")
    assert f'href="{path}"' in await viewer.get("/faults")
    page = await viewer.seen(path)
    for told in (
        "A4 打印机卡纸",
        "LSR.JAM",
        "“40022” = 卡纸",
        "Lenovo LJ2650DN",
        "brlaser",
        "签名有效",
        "链连续",
        "+38 毫秒",
        "终端时钟，已校时",
    ):
        assert told in page
    assert "fleet-server verify-evidence evidence-kf-0037-" in page


async def test_masked_bytes_of_a_card_reader_are_dots_with_a_reason(viewer: Person, engine: FleetEngine) -> None:
    page = await viewer.seen(await place_of(engine, "IDR.READ_FAIL_RATE", "kf-0131"))
    assert page.count("··") == 9  # eight bytes, and the line that explains them
    assert "可能含个人信息的字节在终端上已遮盖" in page


async def test_what_the_platform_concluded_claims_no_signature(viewer: Person) -> None:
    page = await viewer.seen("/evidence/fault/kf-0151:ffffffffffffffff")
    assert "由平台推断：自 2026-11-18 09:29:07 起未收到终端的消息。" in page
    assert "没有终端签名" in page
    assert "签名有效" not in page


async def test_the_original_is_handed_out_byte_for_byte(viewer: Person, engine: FleetEngine) -> None:
    stored = (await engine.read("SELECT id, envelope FROM batch WHERE terminal = 'kf-0037' ORDER BY id DESC LIMIT 1"))[0]
    answer = await viewer.client.get(f"/evidence/{stored['id']}/envelope")
    assert answer.content == stored["envelope"]
    assert answer.headers["content-disposition"].startswith('attachment; filename="kf-0037-')


async def tampered(viewer: Person, engine: FleetEngine, sql: str) -> str:
    path = await place_of(engine, "LSR.JAM", "kf-0037")
    batch = int(path.split("/")[2])

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(sql, {"id": batch})

    await engine.write(change)
    return await viewer.seen(path)


async def test_a_changed_envelope_in_the_database_is_found_out(viewer: Person, engine: FleetEngine) -> None:
    page = await tampered(
        viewer,
        engine,
        "UPDATE batch SET envelope = CAST(substr(envelope, 1, length(envelope) - 1) || x'00' AS BLOB) WHERE id = :id",
    )
    assert "签名不成立：signature" in page
    assert "签名有效" not in page
    assert "40022" not in page  # unproven bytes are not explained as if they were true


async def test_a_changed_hash_of_the_batch_before_breaks_the_chain(viewer: Person, engine: FleetEngine) -> None:
    sql = (
        "UPDATE batch SET digest = randomblob(32) WHERE stream = (SELECT stream FROM batch WHERE id = :id)"
        " AND no = (SELECT no FROM batch WHERE id = :id) - 1"
    )
    page = await tampered(viewer, engine, sql)
    assert "签名有效" in page
    assert "链断开" in page


async def test_a_missing_batch_is_a_gap(viewer: Person, engine: FleetEngine) -> None:
    sql = "DELETE FROM batch WHERE stream = (SELECT stream FROM batch WHERE id = :id) AND no < (SELECT no FROM batch WHERE id = :id)"
    assert "缺号：前一批（第 3 批）不在库中" in await tampered(viewer, engine, sql)


async def test_an_erased_batch_keeps_its_place(viewer: Person, engine: FleetEngine) -> None:
    page = await tampered(viewer, engine, "UPDATE batch SET envelope = NULL, erased_reason = 'retention' WHERE id = :id")
    assert "原件已删除，无法核验签名" in page
    assert "链连续" in page
    assert "原件已按保存期限删除" in page


async def test_another_terminals_key_row_proves_nothing(viewer: Person, engine: FleetEngine, seeded: Seeded) -> None:
    other = seeded.by_code("KF-0001")
    sql = f"UPDATE record_key SET certificate = (SELECT certificate FROM record_key WHERE terminal = '{other.id}') WHERE terminal = 'kf-0037' AND :id"
    assert "密钥证书不成立" in await tampered(viewer, engine, sql)


async def test_nothing_of_the_masked_bytes_is_in_the_database_row_either(engine: FleetEngine) -> None:
    rows = await engine.read("SELECT evidence FROM fault WHERE code = 'IDR.READ_FAIL_RATE' AND cleared_ms IS NULL")
    evidence = json.loads(rows[0]["evidence"])
    (start, end) = evidence["masked"][0]
    assert set(bytes.fromhex(evidence["reply"])[start:end]) == {0}


@pytest.mark.parametrize(
    "evidence",
    [
        {"codec": "escpos", "query": 2**40, "reply": 2**40},
        {"codec": "escpos", "query": b"", "reply": b"\x12" * 30_000},
        {"codec": "escpos", "query": b"", "reply": b"\x12", "masked": [[0, 2**60], ["a", "b"]]},
        {"codec": ["escpos"], "query": "text", "reply": None},
        [1, 2, 3],
    ],
    ids=["sizes instead of bytes", "long", "spans", "types", "list"],
)
async def test_a_parked_record_may_say_anything_and_the_drawer_opens(viewer: Person, seeded: Seeded, evidence: object) -> None:
    machine = next(machine for machine in seeded.machines if machine.fate != "notEnrolled")
    body = {"slot": ["x"], "profile": [1], "code": {}, "evidence": evidence}
    hostile = cbor2.dumps({"t": 1, "q": "synced", "b": 1, "k": "device", "v": body})
    raw = Chain(STREAM, key=machine.key, terminal=machine.id).seal_items([hostile])
    with closing(sqlite3.connect(seeded.path)) as connection, connection:
        row = connection.execute(
            "INSERT INTO batch (terminal, stream, no, kind, digest, prev, kid, context, envelope, received_ms, committed_ms, sealed_ms,"
            " first_ms, last_ms, records, class, disputed) VALUES (?, ?, 1, 'data', ?, x'', ?, ?, ?, 1, 1, 1, 1, 1, 1, 'event', 0)",
            (machine.id, STREAM, b"d" * 32, machine.key.kid, batches.BATCH_CONTEXT, raw),
        ).lastrowid
    assert machine.id in await viewer.get(f"/evidence/{row}/0")


@pytest.mark.parametrize("path", ["/evidence/{n}/0", "/evidence/{n}/1", "/evidence/{n}/envelope", "/evidence/{n}/file"])
async def test_no_number_in_an_address_is_our_mistake(viewer: Person, path: str) -> None:
    for number in (0, -1, 2**53, 2**63, 2**64, 10**30):
        assert (await viewer.client.get(path.format(n=number))).status_code == 404


async def test_any_page_number_opens_the_list(viewer: Person) -> None:
    for page in ("0", "-1", "000001" + "9" * 5000, "9" * 6, "٣", "x"):
        assert (await viewer.client.get("/terminals", params={"page": page})).status_code == 200


async def test_the_downloaded_file_checks_offline_with_the_downloaded_root(
    viewer: Person, app: Litestar, engine: FleetEngine, seeded: Seeded
) -> None:
    desk = app.state.desk
    authority = Authority.create(desk.settings.layout.authority, desk.settings.fleet, [], now_ms=NOW_MS)
    desk.root = None
    machine = seeded.by_code("KF-0037")
    certificate = authority.certify_record_key(machine.id, machine.key.public, 1, now_ms=NOW_MS)
    await engine.write(
        lambda connection: connection.execute(
            "UPDATE record_key SET certificate = ? WHERE terminal = ?", (certificate, machine.id)
        )
    )
    path = await place_of(engine, "LSR.JAM", machine.id)
    assert "签名有效" in await viewer.seen(path)
    file = await viewer.client.get(f"/evidence/{path.split('/')[2]}/file")
    root = await viewer.client.get("/evidence/root")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(root.text))
    report = verify(file.content, key)
    assert (report.terminal, report.batches) == (machine.id, 1)
    with pytest.raises(EvidenceBroken):
        verify(file.content.replace(b"40022", b"10001"), key)
