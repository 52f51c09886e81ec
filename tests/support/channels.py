"""A channel as a shell on the server sets one: it may reach this machine."""

from __future__ import annotations

import json
import sqlite3

from fleet_server.notifications import store
from fleet_server.notifications.secrets import SecretBox


def add_local_channel(
    connection: sqlite3.Connection, box: SecretBox, url: str, secret: str | None, *, kind: str = "webhook", now_ms: int
) -> None:
    """`duty`, told of everything at once. In the caller's transaction."""
    clear = json.dumps({"url": url, "secret": secret}).encode()
    store.add_channel(
        connection,
        kind=kind,
        name="duty",
        config='{"own_machine":true,"host":"127.0.0.1"}',
        filters='{"quiet":{}}',
        secret=box.seal(clear, store.seal_name(kind, "duty")),
        by="cli:root",
        now_ms=now_ms,
    )
