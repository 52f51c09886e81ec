"""A list as a file for offices: CSV and Excel of the same columns and rows. No cell of either can become a formula."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from litestar import Response

from fleet_server.console import format as fmt
from fleet_server.console.render import Voice
from fleet_server.reports.listing import Column, write_list

XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
Rows = Iterable[Sequence[object]]


def csv_file(name: str, columns: Sequence[Column], rows: Rows, voice: Voice) -> Response[bytes]:
    """UTF-8 with a byte order mark, so that Excel reads it as such; moments as local time, what is missing as nothing."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([fmt.csv_cell(column.title) for column in columns])
    for row in rows:
        writer.writerow([_text(column, value, voice) for column, value in zip(columns, row, strict=True)])
    return _file(out.getvalue().encode("utf-8-sig"), "text/csv; charset=utf-8", name, "csv", voice)


async def xlsx_file(name: str, title: str, columns: Sequence[Column], rows: Rows, voice: Voice) -> Response[bytes]:
    """Made in a thread: thousands of rows take a second, in which pages and event streams go on."""
    content = await asyncio.to_thread(write_list, title, columns, rows, lang=voice.lang, now_ms=voice.now_ms)
    return _file(content, XLSX, name, "xlsx", voice)


def _text(column: Column, value: object, voice: Voice) -> str:
    if value is None:
        return ""
    if column.kind == "moment" and isinstance(value, int):
        return voice.stamp(value)
    if column.kind == "hours" and isinstance(value, (int, float)):
        return f"{value / 3600:.1f}"
    return str(value) if column.kind != "text" else fmt.csv_cell(str(value))


def _file(content: bytes, media_type: str, name: str, ending: str, voice: Voice) -> Response[bytes]:
    stamp = voice.stamp(voice.now_ms).replace(" ", "-").replace(":", "")
    return Response(
        content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}-{stamp}.{ending}"'}
    )
