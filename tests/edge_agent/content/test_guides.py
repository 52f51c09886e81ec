"""Content through the local API: in ranges, with the right types and headers, never outside its time, and what was shown is counted once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.content import serving
from edge_agent.content.plays import KEY, PlayBook
from edge_agent.local_api.guides import Guides
from protocols.contract.records import ClockQuality, Plays, encode_record
from tests.edge_agent.artifacts.test_installers import FILES, TAX, Box, Clock, manifest, put, quiet, shelf_of
from tests.edge_agent.devices.bench import Memory
from tests.edge_agent.test_local_api import ORIGIN, STATUS_TOKEN, TOKEN, Answer, Kiosk, exchange, running

FILM = FILES["guide/film.mp4"]
ADDRESS = "/v1/content/tax-guide/guide/film.mp4"


@asynccontextmanager
async def kiosk_with_guides(tmp_path: Path) -> AsyncIterator[tuple[Kiosk, Clock, PlayBook]]:
    box, clock, book = Box(tmp_path), Clock(), PlayBook(Memory(), 1)
    shelf = shelf_of(box, tmp_path, clock)
    await shelf.install(put(box, manifest(until_ms=1_790_000_000_000 + 1000)), quiet)
    guides = Guides(shelf, book, lambda: (TAX,), (ORIGIN,))
    async with running(tmp_path, guides=guides) as kiosk:
        yield kiosk, clock, book


async def get(kiosk: Kiosk, target: str, *lines: str, method: str = "GET", over: str = "unix") -> Answer:
    head = "\r\n".join((f"{method} {target} HTTP/1.1", "Host: kiosk.local:7077", *lines, "Connection: close", "", ""))
    return await exchange(kiosk, head.encode(), over=over)


@pytest.mark.parametrize("over", ["unix", "http"])
async def test_whole_and_in_ranges(tmp_path: Path, over: str) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        whole = await get(kiosk, ADDRESS, over=over)
        assert (whole.status, whole.headers["content-type"], whole.raw) == (200, "video/mp4", FILM)
        part = await get(kiosk, ADDRESS, "Range: bytes=1000-1999", over=over)
        assert (part.status, part.headers["content-range"], part.raw) == (206, f"bytes 1000-1999/{len(FILM)}", FILM[1000:2000])
        tail = await get(kiosk, ADDRESS, "Range: bytes=-100", f"If-Range: {whole.headers['etag']}", over=over)
        assert (tail.status, tail.raw) == (206, FILM[-100:])
        other = await get(kiosk, ADDRESS, "Range: bytes=5-9", 'If-Range: "of-yesterday"', over=over)
        assert (other.status, len(other.raw)) == (200, len(FILM))
        beyond = await get(kiosk, ADDRESS, f"Range: bytes={len(FILM)}-", over=over)
        assert (beyond.status, beyond.headers["content-range"], beyond.raw) == (416, f"bytes */{len(FILM)}", b"")


async def test_head_tells_the_length_and_sends_nothing(tmp_path: Path) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
        writer.write(f"HEAD {ADDRESS} HTTP/1.1\r\nHost: kiosk.local:7077\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200")
        assert f"content-length: {len(FILM)}".encode() in head
        assert body == b""


async def test_a_page_may_not_act(tmp_path: Path) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        page = await get(kiosk, "/v1/content/tax-guide/guide/index.html", over="http")
        policy = page.headers["content-security-policy"]
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert f"frame-ancestors {ORIGIN}" in policy
        assert policy.endswith("; sandbox")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/content/tax-guide/manifest.json", "/v1/content/tax-guide/../current.json", "/v1/content/tax-guide/..%2f..%2foutbox.db",
        "/v1/content/tax-guide/guide/../guide/film.mp4", "/v1/content/../content/tax-guide/guide/film.mp4", "/v1/content//etc/passwd",
        "/v1/content/other/guide/film.mp4", "/v1/content/tax-guide/guide/film.mp4/", "/v1/content/tax-guide/",
        "/v1/content/tax-guide/files/guide/film.mp4",
    ],
)  # fmt: skip
async def test_no_path_leads_out_of_the_manifest(tmp_path: Path, target: str) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        answer = await get(kiosk, target)
        assert (answer.status, answer.error) == (404, "path")
        assert (await get(kiosk, ADDRESS)).status == 200


async def test_outside_its_time_it_is_as_absent_as_what_never_was(tmp_path: Path) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, clock, _book):
        assert (await get(kiosk, ADDRESS)).status == 200
        listed = await get(kiosk, "/v1/content")
        assert listed.body[0]["pages"][1]["url"] == ADDRESS
        assert clock.now_ms is not None
        clock.now_ms += 1000
        assert (await get(kiosk, ADDRESS)).status == 404
        assert (await get(kiosk, "/v1/content")).body == []


async def test_doors(tmp_path: Path) -> None:
    """Files need no token, for a video element has none; a strange name or page gets nothing; lists and counts need a token."""
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        assert (await get(kiosk, ADDRESS, over="http")).status == 200
        framed = await get(kiosk, ADDRESS, f"Origin: {ORIGIN}", over="http")
        assert framed.headers["access-control-allow-origin"] == ORIGIN
        assert (await get(kiosk, ADDRESS, "Origin: https://evil.example.org", over="http")).status == 403
        rebound = f"GET {ADDRESS} HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n"
        assert (await exchange(kiosk, rebound.encode(), over="http")).status == 421
        assert (await get(kiosk, "/v1/content", f"Origin: {ORIGIN}", over="http")).status == 401
        token = f"Authorization: Bearer {STATUS_TOKEN}"
        assert (await get(kiosk, "/v1/content", f"Origin: {ORIGIN}", token, over="http")).status == 200
        assert (await get(kiosk, "/v1/items", f"Origin: {ORIGIN}", token, over="http")).body == [
            {"code": "tax.invoice", "type": "handle", "zh": "开发票", "en": "Invoice"}
        ]
        assert (await post(kiosk, STATUS_TOKEN, page="tax.page.1")).status == 403
        assert (await get(kiosk, ADDRESS, "Content-Length: 0", method="DELETE", over="unix")).status == 404


async def post(kiosk: Kiosk, token: str, *, page: str, client: str | None = None, extra: str = "") -> Answer:
    body = f'{{"client_id":"{client or uuid.uuid4()}","package":"tax-guide","page":"{page}","seconds":12{extra}}}'
    head = (
        f"POST /v1/plays HTTP/1.1\r\nHost: kiosk.local:7077\r\nOrigin: {ORIGIN}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    )
    return await exchange(kiosk, head.encode(), over="http")


async def test_what_was_shown_is_counted_once(tmp_path: Path) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, book):
        client = str(uuid.uuid4())
        assert (await post(kiosk, TOKEN, page="tax.page.1", client=client)).status == 201
        assert (await post(kiosk, TOKEN, page="tax.page.1", client=client)).status == 200
        assert (await post(kiosk, TOKEN, page="tax.page.1", extra=',"count":2')).status == 201
        assert (await post(kiosk, TOKEN, page="tax.nowhere")).error == "page"
        assert (await post(kiosk, TOKEN, page="tax.page.1", extra=',"viewer":"x"')).error == "unknownField"
        (told,) = book.peek(2)
        assert (told.component, told.version) == ("content/tax-guide", "1.0")
        assert [(play.page, play.count, play.seconds) for play in told.pages] == [("tax.page.1", 3, 24)]
        encode_record(told, wall_ms=0, quality=ClockQuality.SYNCED, boot_ms=0)


def test_the_book_survives_a_restart_and_splits_long_lists() -> None:
    memory = Memory()
    book = PlayBook(memory, 1000)
    for number in range(130):
        book.add("tax-guide", "1.0", f"tax.page.{number}", count=1, seconds=2)
    book.add("tax-guide", "1.1", "tax.page.1", count=1, seconds=2)
    again = PlayBook(memory, 9999).peek(5000)
    assert [(body.version, len(body.pages), body.from_ms, body.to_ms) for body in again] == [
        ("1.0", 60, 1000, 5000), ("1.0", 60, 1000, 5000), ("1.0", 10, 1000, 5000), ("1.1", 1, 1000, 5000),
    ]  # fmt: skip
    assert all(isinstance(body, Plays) for body in again)
    memory.put(KEY, b"\xff")
    assert PlayBook(memory, 7).peek(8) == []


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        (None, (200, 0, 100)), ("bytes=0-", (206, 0, 100)), ("bytes=99-200", (206, 99, 1)), ("bytes=-200", (206, 0, 100)),
        ("bytes=-0", (416, 0, 0)), ("bytes=100-", (416, 0, 0)), ("bytes=5-4", (200, 0, 100)), ("bytes=0-1,5-6", (200, 0, 100)),
        ("bytes=-", (200, 0, 100)), ("items=0-1", (200, 0, 100)), ("bytes=99999999999999999999-", (200, 0, 100)),
    ],
)  # fmt: skip
def test_ranges(range_: str | None, expected: tuple[int, int, int]) -> None:
    part = serving.span(100, '"e"', range_=range_, if_range=None)
    assert (part.status, part.start, part.length) == expected


async def test_a_client_that_leaves_in_the_middle_harms_nobody(tmp_path: Path) -> None:
    async with kiosk_with_guides(tmp_path) as (kiosk, _, _book):
        _, writer = await asyncio.open_unix_connection(kiosk.socket_path)
        writer.write(f"GET {ADDRESS} HTTP/1.1\r\nHost: kiosk.local:7077\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()
        assert (await get(kiosk, ADDRESS)).status == 200
