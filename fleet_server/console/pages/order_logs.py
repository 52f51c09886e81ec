"""The log that a terminal sent in answer to an order, as a file."""

from __future__ import annotations

import asyncio
from typing import Final

from litestar import Response, get
from litestar.params import FromPath

from fleet_server.console.desk import Asked, TheDesk
from fleet_server.console.pages.orders import id_of
from fleet_server.errors import NotFound
from fleet_server.orders import logs

TYPE: Final = "text/plain; charset=utf-8"


@get("/orders/{request_id:str}/log/{terminal_id:str}", opt={"permission": "request"})
async def log_file(request: Asked, desk: TheDesk, request_id: FromPath[str], terminal_id: FromPath[str]) -> Response[bytes]:
    """Everything is unpacked before the first byte goes out: what was signed is bounded (64 MiB), and a page is not left half."""
    rows = await desk.db.read(
        "SELECT order_id FROM order_item WHERE request = ? AND terminal = ? AND kind = 'pullLogs'",
        (id_of(request_id), terminal_id),
    )
    if not rows:
        raise NotFound("there is no such log")
    order_id = bytes(rows[0]["order_id"])
    await desk.db.write(lambda conn: logs.read(conn, order_id, by=request.user.name, now_ms=desk.now_ms()))
    folder = desk.settings.layout.logs
    text = await asyncio.to_thread(lambda: b"".join(logs.text_of(folder, order_id)))
    name = f"log-{terminal_id}-{order_id.hex()[:8]}.ndjson"
    return Response(text, media_type=TYPE, headers={"Content-Disposition": f'attachment; filename="{name}"'})


HANDLERS = [log_file]
