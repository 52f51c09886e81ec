"""A server database with a small city in it, and channels, for tests of what reads and writes rows."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet_server.db import open_raw
from fleet_server.notifications import store
from fleet_server.notifications.secrets import SecretBox
from tests.fleet_server.notifications.bench import NOON_MS

FAST_FILTERS = '{"quiet": {}, "escalate_min": {}}'


@dataclass
class City:
    """`now_ms` is the courier's clock. Terminals kf-0 … kf-39 stand at sites S0 … S3 in areas A0 and A1 of the city."""

    folder: Path
    now_ms: int = NOON_MS
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def build(cls, template: Path, folder: Path) -> City:
        made = cls(folder)
        shutil.copy(template, made.database)
        made.conn = open_raw(made.database)
        for area, parent in (("city", None), ("A0", "city"), ("A1", "city")):
            made.conn.execute(
                "INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES (?, ?, ?, ?, 0)", (area, parent, area, area)
            )
        for number in range(4):
            made.conn.execute(
                "INSERT INTO site (code, area, name_zh, name_en, kind) VALUES (?, ?, ?, ?, 'hall')",
                (f"S{number}", f"A{number % 2}", f"大厅 {number}", f"Hall {number}"),
            )
        for number in range(40):
            made.conn.execute(
                "INSERT INTO terminal (id, code, type, name_zh, name_en, site, created_ms, enrolled_ms) VALUES (?, ?, 'kiosk', ?, ?, ?, 0, 0)",
                (f"kf-{number}", f"KF-{number}", f"{number} 号机", f"No. {number}", f"S{number % 4}"),
            )
        made.mark()
        return made

    conn: sqlite3.Connection = field(init=False)

    @property
    def database(self) -> Path:
        return self.folder / "fleet.sqlite"

    @property
    def box(self) -> SecretBox:
        return SecretBox(self.folder)

    def clock(self) -> int:
        return self.now_ms

    def mark(self) -> None:
        """Ingest says that it sees."""
        self.conn.execute("INSERT OR REPLACE INTO watch_mark (name, at_ms) VALUES ('watch', ?)", (self.now_ms,))

    def pass_ms(self, length_ms: int) -> None:
        self.now_ms += length_ms
        self.mark()

    def open_fault(
        self, terminal: str = "kf-1", code: str = "PRN.JAM", severity: str = "P2", *, ago_ms: int = 60_000, **more: Any
    ) -> str:
        key = f"{terminal}:{next(self._numbers):04x}"
        values = {
            "id": key,
            "terminal": terminal,
            "slot": "receipt-printer",
            "code": code,
            "severity": severity,
            "mandatory": 1,
            "opened_ms": self.now_ms - ago_ms,
            "since_ms": self.now_ms - ago_ms,
            "disputed": 0,
            "late": 0,
            "false_alarm": 0,
            **more,
        }
        names = ", ".join(values)
        self.conn.execute(f"INSERT INTO fault ({names}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))
        return key

    def clear_fault(self, key: str, *, ago_ms: int = 0, by: str = "terminal") -> None:
        self.conn.execute("UPDATE fault SET cleared_ms = ?, cleared_by = ? WHERE id = ?", (self.now_ms - ago_ms, by, key))

    def add_channel(
        self, kind: str, url: str, *, name: str = "duty", secret: str | None = None, filters: str = FAST_FILTERS, **config: Any
    ) -> int:
        clear = json.dumps({"url": url} | ({} if secret is None else {"secret": secret})).encode()
        return store.add_channel(
            self.conn,
            kind=kind,
            name=name,
            config=json.dumps({"own_machine": True, **config}),
            filters=filters,
            secret=self.box.seal(clear, store.seal_name(kind, name)),
            by="test",
            now_ms=self.now_ms,
        )

    def rows(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        return self.conn.execute(sql, params).fetchall()

    def notifications(self) -> list[tuple[str, int, str | None]]:
        """(state, attempts, error) of every message, oldest first."""
        return self.rows("SELECT state, attempts, error FROM notification ORDER BY id")

    def subjects(self) -> set[str]:
        return {row[0] for row in self.rows("SELECT subject FROM standing")}
