"""Content and items for a seeded console: a published package with plays, one in review, a draft, a small catalogue."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from fleet_server.channel import transact
from fleet_server.content import store
from fleet_server.db import open_raw
from protocols.packages.catalogue import Item
from tests.support.seed import OPERATOR

DAY_MS = 86_400_000
MAKER = "release"
PUBLISHED, REVIEW, DRAFT = 1, 2, 3
"""Ids of the packages."""


def seed_content(path: Path, now_ms: int) -> None:
    """Adds them to a seeded database. The bytes of the files are not there: nothing is released from these rows."""
    with closing(open_raw(path)) as conn:
        transact(conn, lambda inside: _fill(inside, now_ms))


def _fill(conn: sqlite3.Connection, now_ms: int) -> None:
    for number, (name, title, files) in enumerate(
        (
            ("social-card", "社保卡自助办理指南", ("step-1.mp4", "step-2.png", "style.css", "why.html")),
            ("tax-invoice", "电子发票打印指南", ("guide.mp4", "cover.jpg")),
            ("winter-notice", "春节期间服务安排", ()),
        ),
        start=1,
    ):
        made = store.create(conn, name, title, by=MAKER, now_ms=now_ms - 9 * DAY_MS + number)
        assert made == number
        for file in files:
            store.add_file(
                conn, made, file, 1_400_000, hashlib.sha256(file.encode()).digest(), by=MAKER, now_ms=now_ms - 8 * DAY_MS
            )
    store.settings(conn, REVIEW, {"from_ms": now_ms, "until_ms": now_ms + 60 * DAY_MS}, by=MAKER, now_ms=now_ms - 7 * DAY_MS)
    for package, acts in ((PUBLISHED, ("submit", "approve", "publish")), (REVIEW, ("submit",))):
        for act in acts:
            by = OPERATOR if act == "approve" else MAKER
            may, at_ms = ("manage", "approve"), now_ms - 6 * DAY_MS
            if act == "publish":
                store.finish(conn, store.claim(conn, package, act, by=by, may=may, now_ms=at_ms), 1, by=by, now_ms=at_ms)
            else:
                store.act(conn, package, act, by=by, may=may, now_ms=at_ms)
    for number in range(1, 9):
        for page in ("page.1", "page.2"):
            conn.execute(
                "INSERT INTO play (terminal, component, version, page, from_ms, to_ms, count, seconds, batch, idx, disputed)"
                " VALUES (?, 'content/social-card', '1.0', ?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    f"kf-{number:04d}",
                    page,
                    now_ms - 2 * DAY_MS,
                    now_ms - DAY_MS,
                    40 - number,
                    (40 - number) * 15,
                    number,
                    int(page[-1]),
                ),
            )
    for code, zh, en, kind in (
        ("social-security.certificate.print", "社保证明打印", "Social security certificate", "handle"),
        ("social-security.card.query", "社保卡查询", "Social security card", "query"),
        ("tax.invoice", "电子发票打印", "Electronic invoice", "handle"),
        ("housing-fund.query", "公积金查询", "Housing fund", "query"),
    ):
        store.set_item(conn, Item(code=code, zh=zh, en=en, type=kind), by=OPERATOR, now_ms=now_ms - DAY_MS)  # type: ignore[arg-type]
    store.switch(conn, "yiwu", "tax.invoice", on=False, by=OPERATOR, now_ms=now_ms - DAY_MS)
