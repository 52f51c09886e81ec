"""The local API over a real Unix socket and real loopback HTTP, with a real outbox behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import pytest

from edge_agent import status
from edge_agent.clock import Clock
from edge_agent.errors import ConfigError, KeyRefused
from edge_agent.local_api import Application, Applications, Gate, KioskService, LocalApi, RefillRefused, Scope
from edge_agent.local_api.server import MAX_STRANGERS, HttpDoor, Limits
from edge_agent.outbox import Outbox, OutboxFull
from edge_agent.sessions import Policy
from edge_agent.signing import FileKeyStore
from protocols.contract.records import Body, ClockQuality, Consumable, Rating, Session

ORIGIN = "https://kiosk.example.org"
TOKEN = "correct-horse-battery-staple-0123456789"
STATUS_TOKEN = "only-status-0123456789"
BOOT = bytes(15) + b"\7"


class HandClock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 5_000_000

    def wall_ms(self) -> int:
        return 1_790_000_000_000 + self.now_ms

    def boot_ms(self) -> int:
        return self.now_ms

    def quality(self) -> ClockQuality:
        return ClockQuality.SYNCED


@dataclass
class Notebook:
    """The outbox, and what went into it."""

    outbox: Outbox
    bodies: list[Body] = field(default_factory=list)
    uses: list[tuple[str, bool, int]] = field(default_factory=list)
    full: bool = False

    def use(self, slot: str, ok: bool, count: int) -> Booked:
        self.uses.append((slot, ok, count))
        return Booked((), {"usage": str(self.uses).encode()}, lambda: self.uses.remove((slot, ok, count)))

    def capture(self, body: Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None:
        if self.full:
            raise OutboxFull("no space for the spool")
        self.outbox.capture(body, urgent=urgent, memory=memory)
        self.bodies.append(body)


@dataclass
class Kiosk:
    folder: Path
    clock: HandClock
    notebook: Notebook
    service: KioskService
    api: LocalApi
    socket_path: Path

    @property
    def bodies(self) -> list[Body]:
        return self.notebook.bodies


@dataclass
class Booked:
    """What a monitor counted: here a counter that the test can look at."""

    bodies: tuple[Consumable, ...]
    memory: Mapping[str, bytes]
    undo: Callable[[], None]


def refill(slot: str, item: str, quantity: int) -> Booked:
    if slot != "receipt-printer" or item != "roll":
        raise RefillRefused
    body = Consumable(slot=slot, item="roll", event="refill", remaining=quantity, capacity=80_000, unit="mm", source="manual")
    return Booked((body,), {"usage": b"refilled"}, lambda: None)


def document() -> status.StatusDocument:
    uplink = status.UplinkStatus(connected=False, reason="refused", waiting_batches=2, acknowledged=True)
    return status.document(terminal="kiosk-0007", agent="0.1.0", idle=True, slots=[], faults=[], sightings=[], uplink=uplink)


def service_of(notebook: Notebook, clock: Clock, boot_id: bytes = BOOT) -> KioskService:
    service = KioskService(
        ledger=notebook,
        memory=notebook.outbox,
        clock=clock,
        boot_id=boot_id,
        items=frozenset({"tax.invoice", "social-security.certificate.print"}),
        slots=frozenset({"receipt-printer", "scanner"}),
        refill=refill,
        use=notebook.use,
        status=document,
        policy=Policy(lease_ms=120_000, max_open=2),
    )
    service.resume()
    return service


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """pytest's folders are closed to other users, and a socket's path may have 107 bytes only."""
    with tempfile.TemporaryDirectory(prefix="kf-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@asynccontextmanager
async def running(tmp_path: Path, **changes: Any) -> AsyncIterator[Kiosk]:
    clock = HandClock()
    keys = FileKeyStore(tmp_path / "identity")
    outbox = Outbox(tmp_path / "outbox.db", keys.record_key(), "testfleet", "kiosk-0007", clock)
    outbox.start_stream(BOOT)
    notebook = Notebook(outbox)
    service = service_of(notebook, clock)
    applications = Applications(
        applications=(
            Application(name="hall-kiosk", token_sha256=hashed(TOKEN)),
            Application(name="wallboard", token_sha256=hashed(STATUS_TOKEN), scopes=(Scope.STATUS,)),
        )
    )
    with reachable_folder() as folder:
        gate = Gate(hosts=frozenset({"kiosk.local:7077"}), origins=frozenset({ORIGIN}), applications=applications)
        values: dict[str, Any] = {"socket_path": folder / "agent.sock", "http": HttpDoor(port=0, gate=gate)}
        api = LocalApi(service, **(values | changes))
        await api.start()
        try:
            yield Kiosk(tmp_path, clock, notebook, service, api, folder / "agent.sock")
        finally:
            await api.stop()
            outbox.close(clean=True)


@pytest.fixture
async def kiosk(tmp_path: Path) -> AsyncIterator[Kiosk]:
    async with running(tmp_path) as started:
        yield started


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> str:
        return str(self.body["error"])


async def exchange(kiosk: Kiosk, request: bytes, *, over: str = "unix", close: bool = True) -> Answer:
    """Send bytes, read one answer."""
    if over == "unix":
        reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", kiosk.api.http_port)
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            return await read_answer(reader)
    finally:
        if close:
            writer.transport.abort()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answer(int(first.split()[1]), headers, raw)


def request(method: str, path: str, body: Any = None, headers: dict[str, str | None] | None = None) -> bytes:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    all_headers: dict[str, str | None] = {"Host": "localhost"}
    if method == "POST":
        all_headers |= {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    all_headers |= headers or {}
    lines = [f"{name}: {value}" for name, value in all_headers.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + raw


async def post(kiosk: Kiosk, path: str, body: Any) -> Answer:
    return await exchange(kiosk, request("POST", path, body))


def browser(**changes: str | None) -> dict[str, str | None]:
    return {"Host": "kiosk.local:7077", "Origin": ORIGIN, "Authorization": f"Bearer {TOKEN}"} | changes


def begin(client_id: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"client_id": client_id or str(uuid.uuid4()), "item": "tax.invoice", "channel": "touch"} | changes


# ------------------------------------------------------------------------------------------------------------------------- sessions


async def test_a_case_is_answered_after_it_is_recorded(kiosk: Kiosk) -> None:
    began = await post(kiosk, "/v1/sessions", begin())
    assert (began.status, began.body["lease_s"]) == (201, 120)
    assert not kiosk.service.idle
    kiosk.clock.now_ms += 100_000
    path = f"/v1/sessions/{began.body['session']}"
    assert (await post(kiosk, path + "/renew", {})).status == 200
    kiosk.clock.now_ms += 100_000
    assert (await post(kiosk, path + "/end", {"outcome": "success"})).status == 200
    assert kiosk.service.idle
    assert [(body.outcome, body.duration_ms) for body in kiosk.bodies if isinstance(body, Session)] == [("success", 200_000)]


async def test_repeats_are_one_case(kiosk: Kiosk) -> None:
    ask = begin()
    first, second = await post(kiosk, "/v1/sessions", ask), await post(kiosk, "/v1/sessions", ask)
    assert (first.status, second.status) == (201, 200)
    assert first.body == second.body
    path = f"/v1/sessions/{first.body['session']}/end"
    for _ in range(3):
        assert (await post(kiosk, path, {"outcome": "failed", "cause": "backend"})).status == 200
    assert len(kiosk.bodies) == 1
    assert (await post(kiosk, path, {"outcome": "success"})).error == "otherOutcome"
    assert (await post(kiosk, "/v1/sessions", ask)).error == "ended"


async def test_the_clients_id_is_not_what_is_kept(kiosk: Kiosk) -> None:
    client_id = uuid.uuid4()
    began = await post(kiosk, "/v1/sessions", begin(str(client_id)))
    assert began.body["session"] != client_id.hex
    assert client_id.bytes not in spool(kiosk.folder)
    assert str(client_id).encode() not in spool(kiosk.folder)


async def test_lost_lease_ends_as_abandoned(kiosk: Kiosk) -> None:
    began = await post(kiosk, "/v1/sessions", begin())
    kiosk.clock.now_ms += 120_000
    assert kiosk.service.next_expiry_s() == 0
    kiosk.service.expire()
    assert kiosk.service.idle
    assert [(body.outcome, body.cause) for body in kiosk.bodies if isinstance(body, Session)] == [("abandoned", "lease")]
    assert (await post(kiosk, f"/v1/sessions/{began.body['session']}/renew", {})).status == 410


async def test_open_sessions_survive_a_restart_of_the_agent(kiosk: Kiosk) -> None:
    began = await post(kiosk, "/v1/sessions", begin())
    again = service_of(kiosk.notebook, kiosk.clock)
    assert not again.idle
    assert kiosk.bodies == []
    rebooted = service_of(kiosk.notebook, kiosk.clock, boot_id=bytes(16))
    assert rebooted.idle
    assert [body.id.hex() for body in kiosk.bodies if isinstance(body, Session)] == [began.body["session"]]


async def test_full_disk_is_said_and_nothing_is_half_done(kiosk: Kiosk) -> None:
    began = await post(kiosk, "/v1/sessions", begin())
    path = f"/v1/sessions/{began.body['session']}/end"
    kiosk.notebook.full = True
    got = await post(kiosk, path, {"outcome": "success"})
    assert (got.status, got.error) == (503, "full")
    rating = {"client_id": str(uuid.uuid4()), "level": 5}
    assert (await post(kiosk, "/v1/ratings", rating)).status == 503
    assert not kiosk.service.idle
    kiosk.notebook.full = False
    assert (await post(kiosk, path, {"outcome": "success"})).status == 200
    assert (await post(kiosk, "/v1/ratings", rating)).status == 201
    assert [type(body) for body in kiosk.bodies] == [Session, Rating]


async def test_ratings_and_refills_once(kiosk: Kiosk) -> None:
    rating = {"client_id": str(uuid.uuid4()), "level": 1, "slot": "scanner"}
    refilled = {"client_id": str(uuid.uuid4()), "slot": "receipt-printer", "item": "roll", "quantity": 80_000}
    for path, ask in (("/v1/ratings", rating), ("/v1/refills", refilled)):
        assert [(await post(kiosk, path, ask)).status for _ in range(2)] == [201, 200]
    assert [type(body) for body in kiosk.bodies] == [Rating, Consumable]
    assert (await post(kiosk, "/v1/refills", refilled | {"client_id": str(uuid.uuid4()), "item": "toner"})).error == "refill"


async def test_uses_are_counted_once(kiosk: Kiosk) -> None:
    ask = {"client_id": str(uuid.uuid4()), "slot": "receipt-printer", "ok": True, "count": 2}
    assert [(await post(kiosk, "/v1/uses", ask)).status for _ in range(2)] == [201, 200]
    assert kiosk.notebook.uses == [("receipt-printer", True, 2)]
    assert kiosk.notebook.outbox.get("usage") == str(kiosk.notebook.uses).encode()  # in the transaction that remembers the id


async def test_status_document(kiosk: Kiosk) -> None:
    got = await exchange(kiosk, request("GET", "/v1/status"))
    assert got.status == 200
    assert got.body["service"] == "usable"
    assert got.body["uplink"]["waiting_batches"] == 2


async def test_one_connection_serves_many_requests(kiosk: Kiosk) -> None:
    reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
    async with asyncio.timeout(10):
        for expected in (201, 404, 200, 422, 201):
            asks = {
                201: request("POST", "/v1/sessions", begin()),
                404: request("GET", "/nothing"),
                200: request("GET", "/v1/status"),
                422: request("POST", "/v1/sessions", begin(item="not.offered")),
            }
            writer.write(asks[expected])
            assert (await read_answer(reader)).status == expected
    writer.transport.abort()


# ------------------------------------------------------------------------------------------------------------------------- refusals

ID = str(uuid.uuid4())
SECRET = "330102199001011235"
REFUSALS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/sessions", begin(item="not.offered"), 422, "item"),
    ("POST", "/v1/sessions", begin(item=SECRET), 422, "field"),
    ("POST", "/v1/sessions", begin(item=3), 422, "field"),
    ("POST", "/v1/sessions", begin(channel="张三"), 422, "field"),
    ("POST", "/v1/sessions", begin(SECRET), 422, "field"),
    ("POST", "/v1/sessions", begin(str(uuid.uuid1())), 422, "field"),
    ("POST", "/v1/sessions", begin() | {"name": "张三"}, 422, "unknownField"),
    ("POST", "/v1/sessions", begin() | {SECRET: 1}, 422, "unknownField"),
    ("POST", "/v1/sessions", {"client_id": ID}, 422, "missingField"),
    ("POST", "/v1/sessions", [SECRET], 422, "shape"),
    ("POST", "/v1/sessions", SECRET, 422, "shape"),
    ("POST", "/v1/sessions", b'{"item": ' + SECRET.encode(), 422, "field"),
    ("POST", "/v1/sessions", b'{"item": "' + SECRET.encode(), 400, "json"),
    ("POST", "/v1/sessions", b"\xff\xfe", 400, "json"),
    ("POST", "/v1/sessions", b"", 400, "json"),
    ("POST", "/v1/sessions", b"[" * 4000, 422, "shape"),
    ("POST", "/v1/sessions", b"x" * 5000, 413, "tooLarge"),
    ("POST", f"/v1/sessions/{'0' * 32}/end", {"outcome": "success"}, 404, "unknownSession"),
    ("POST", f"/v1/sessions/{'0' * 32}/renew", {}, 404, "unknownSession"),
    ("POST", f"/v1/sessions/{'0' * 32}/renew", {"name": SECRET}, 422, "unknownField"),
    ("POST", f"/v1/sessions/{'0' * 32}/end", {"outcome": SECRET}, 422, "field"),
    ("POST", f"/v1/sessions/{'0' * 32}/end", {"outcome": "abandoned", "cause": "lease"}, 422, "field"),
    ("POST", f"/v1/sessions/{'0' * 32}/end", {"outcome": "success", "cause": "device"}, 422, "field"),
    ("POST", f"/v1/sessions/{SECRET}/end", {"outcome": "success"}, 404, "path"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": 6}, 422, "field"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": "5"}, 422, "field"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": True}, 422, "field"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": 5, "comment": SECRET}, 422, "unknownField"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": 5, "slot": "call-pad-9"}, 422, "field"),
    ("POST", "/v1/ratings", {"client_id": ID, "level": 5, "session": SECRET}, 422, "field"),
    ("POST", "/v1/refills", {"client_id": ID, "slot": "scanner", "item": "roll", "quantity": 5}, 422, "refill"),
    ("POST", "/v1/refills", {"client_id": ID, "slot": "receipt-printer", "item": SECRET, "quantity": 5}, 422, "field"),
    ("POST", "/v1/refills", {"client_id": ID, "slot": "receipt-printer", "item": "roll", "quantity": 0}, 422, "field"),
    ("POST", "/v1/refills", {"client_id": ID, "slot": "receipt-printer", "item": "roll", "quantity": 10**9}, 422, "field"),
    ("POST", "/v1/uses", {"client_id": ID, "slot": "receipt-printer", "ok": SECRET}, 422, "field"),
    ("POST", "/v1/uses", {"client_id": ID, "slot": "receipt-printer", "ok": True, "count": 10**17}, 422, "field"),
    ("GET", f"/v1/status?token={SECRET}", None, 400, "query"),
    ("GET", f"/{SECRET}", None, 404, "path"),
    ("GET", "/v1/status/", None, 404, "path"),
    ("GET", "/v1/%73tatus", None, 404, "path"),
    ("GET", "http://localhost/v1/status", None, 404, "path"),
    ("GET", "/v1/sessions", None, 405, "method"),
    ("POST", "/v1/status", {}, 405, "method"),
    ("DELETE", "/v1/status", None, 405, "method"),
]


@pytest.mark.parametrize(("method", "path", "body", "code", "word"), REFUSALS)
async def test_refusals_never_repeat_the_value(
    kiosk: Kiosk, caplog: pytest.LogCaptureFixture, method: str, path: str, body: Any, code: int, word: str
) -> None:
    caplog.set_level(logging.DEBUG)
    got = await exchange(kiosk, request(method, path, body))
    assert (got.status, got.error) == (code, word)
    assert got.body["message"].endswith(".")
    for planted in (SECRET, "张三"):
        assert planted.encode() not in got.raw
        assert planted not in got.raw.decode("unicode-escape")
        assert planted.encode() not in logged(caplog)
        assert planted.encode() not in spool(kiosk.folder)
    assert kiosk.bodies == []


async def test_content_type_must_be_json(kiosk: Kiosk) -> None:
    """A form on a foreign page can send text/plain without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", None):
        got = await exchange(kiosk, request("POST", "/v1/sessions", begin(), {"Content-Type": kind}))
        assert (got.status, got.error) == (415, "contentType")
    got = await exchange(kiosk, request("POST", "/v1/sessions", begin(), {"Content-Type": "application/json; charset=utf-8"}))
    assert got.status == 201


async def test_not_http(kiosk: Kiosk) -> None:
    got = await exchange(kiosk, b"\x16\x03\x01 330102199001011235\r\n\r\n")
    assert (got.status, got.error) == (400, "http")
    assert SECRET.encode() not in got.raw
    endless = await exchange(kiosk, b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000)
    assert endless.status == 431


async def test_chunked_body_has_the_same_limit(kiosk: Kiosk) -> None:
    head = request("POST", "/v1/sessions", None, {"Content-Length": None, "Transfer-Encoding": "chunked"})
    got = await exchange(kiosk, head + b"1000\r\n" + b" " * 0x1000 + b"\r\n" + b"1000\r\n" + b" " * 0x1000 + b"\r\n")
    assert got.status == 413


async def test_too_many_sessions(kiosk: Kiosk) -> None:
    assert [(await post(kiosk, "/v1/sessions", begin())).status for _ in range(3)] == [201, 201, 429]


# ---------------------------------------------------------------------------------------------------------------------------- peers


async def test_second_user_is_refused() -> None:
    """The kernel says who is at the socket; the mode of the file does not matter."""
    stranger = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name), own_uid=0) as kiosk:
            got = await as_user(kiosk, stranger)
            assert (got.status, got.error) == (403, "user")
        async with running(Path(name), own_uid=0, allowed_uids=frozenset({stranger})) as kiosk:
            assert (await as_user(kiosk, stranger)).status == 200


def connected_as(kiosk: Kiosk, uid: int) -> socket.socket:
    """Connect while this process has another effective user: SO_PEERCRED is taken at connect()."""
    sock = socket.socket(socket.AF_UNIX)
    own = os.geteuid()
    os.seteuid(uid)
    try:
        sock.connect(str(kiosk.socket_path))
    finally:
        os.seteuid(own)
    return sock


async def as_user(kiosk: Kiosk, uid: int) -> Answer:
    reader, writer = await asyncio.open_unix_connection(sock=connected_as(kiosk, uid))
    async with asyncio.timeout(10):
        writer.write(request("GET", "/v1/status"))
        got = await read_answer(reader)
    writer.transport.abort()
    return got


# ------------------------------------------------------------------------------------------------------------------------- browsers


async def over_http(
    kiosk: Kiosk, method: str = "GET", path: str = "/v1/status", body: Any = None, **headers: str | None
) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await exchange(kiosk, request(method, path, body, browser(**names)), over="http")


async def test_browser_kiosk(kiosk: Kiosk) -> None:
    got = await over_http(kiosk, "POST", "/v1/sessions", begin())
    assert got.status == 201
    assert got.headers["access-control-allow-origin"] == ORIGIN
    assert got.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in got.headers
    assert got.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "host", ["evil.example.org:7077", "127.0.0.1.evil.example.org:7077", "kiosk.local", "127.0.0.1:7077", "kiosk.local:7077:7077"]
)
async def test_dns_rebinding_is_refused(kiosk: Kiosk, host: str) -> None:
    """A foreign name that points to loopback has the right origin for itself and the wrong Host for us."""
    got = await over_http(kiosk, Host=host, Origin=f"http://{host}")
    assert (got.status, got.error) == (421, "host")
    assert "access-control-allow-origin" not in got.headers
    assert (await over_http(kiosk, Host=host)).status == 421


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example.org",
        "https://kiosk.example.org.evil.org",
        "http://kiosk.example.org",
        "https://kiosk.example.org:8443",
        "https://KIOSK.example.org",
        "https://kiosk.example.org/",
    ],
)
async def test_foreign_origin_is_refused_even_with_the_token(kiosk: Kiosk, origin: str | None) -> None:
    got = await over_http(kiosk, Origin=origin)
    assert (got.status, got.error) == (403, "origin")
    assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"]
)
async def test_token_is_needed(kiosk: Kiosk, authorization: str | None) -> None:
    got = await over_http(kiosk, Authorization=authorization)
    assert (got.status, got.error) == (401, "token")
    assert got.headers["access-control-allow-origin"] == ORIGIN, "the page may read why"


async def test_scopes(kiosk: Kiosk) -> None:
    only_status = f"Bearer {STATUS_TOKEN}"
    assert (await over_http(kiosk, Authorization=only_status)).status == 200
    for path, body in (("/v1/sessions", begin()), ("/v1/ratings", {}), ("/v1/refills", {}), (f"/v1/sessions/{'0' * 32}/end", {})):
        got = await over_http(kiosk, "POST", path, body, Authorization=only_status)
        assert (got.status, got.error) == (403, "scope")


async def test_twice_the_same_header_is_refused(kiosk: Kiosk) -> None:
    raw = request("GET", "/v1/status", None, browser()).replace(b"\r\n\r\n", b"\r\nOrigin: https://evil.example.org\r\n\r\n")
    assert (await exchange(kiosk, raw, over="http")).error == "headers"


class TestPreflight:
    ASK: dict[str, str | None] = {  # noqa: RUF012 -- never changed
        "Authorization": None,
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type",
    }

    async def test_allowed(self, kiosk: Kiosk) -> None:
        got = await over_http(kiosk, "OPTIONS", "/v1/sessions", None, **self.ASK)
        assert got.status == 204
        assert got.raw == b""
        assert got.headers["access-control-allow-origin"] == ORIGIN
        assert "POST" in got.headers["access-control-allow-methods"]
        assert {"authorization", "content-type"} <= {
            name.strip().lower() for name in got.headers["access-control-allow-headers"].split(",")
        }
        assert "access-control-allow-private-network" not in got.headers

    async def test_private_network(self, kiosk: Kiosk) -> None:
        ask = self.ASK | {"Access_Control_Request_Private_Network": "true"}
        got = await over_http(kiosk, "OPTIONS", "/v1/sessions", None, **ask)
        assert got.headers["access-control-allow-private-network"] == "true"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"Origin": "https://evil.example.org"}, 403),
            ({"Origin": None}, 403),
            ({"Host": "evil.example.org"}, 421),
            ({"Access_Control_Request_Method": "DELETE"}, 403),
            ({"Access_Control_Request_Method": None}, 403),
            ({"Access_Control_Request_Headers": "x-other"}, 403),
        ],
    )
    async def test_refused(self, kiosk: Kiosk, changes: dict[str, str | None], code: int) -> None:
        got = await over_http(kiosk, "OPTIONS", "/v1/sessions", None, **(self.ASK | changes))
        assert got.status == code
        assert "access-control-allow-methods" not in got.headers


# ------------------------------------------------------------------------------------------------------------------ slow and greedy


async def test_slow_client_is_cut_off(tmp_path: Path) -> None:
    limits = Limits(request_within_s=0.1, idle_s=0.3)
    async with running(tmp_path, limits=limits) as kiosk, asyncio.timeout(10):
        for sent in (b"", b"GET /v1/sta"):
            reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
            writer.write(sent)
            assert await reader.read() == b""
            writer.transport.abort()
        reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
        writer.write(request("POST", "/v1/sessions", None, {"Content-Length": "50"}))
        assert (await read_answer(reader)).error == "slow"
        writer.transport.abort()


async def test_connections_are_limited(tmp_path: Path) -> None:
    async with running(tmp_path, limits=Limits(max_connections=2)) as kiosk, asyncio.timeout(10):
        held = [await asyncio.open_unix_connection(kiosk.socket_path) for _ in range(2)]
        for reader, writer in held:
            writer.write(request("GET", "/v1/status"))
            assert (await read_answer(reader)).status == 200
        reader, writer = await asyncio.open_unix_connection(kiosk.socket_path)
        writer.write(request("GET", "/v1/status"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await read_answer(reader)
        for _, one in (*held, (reader, writer)):
            one.transport.abort()


async def test_browsers_leave_places_for_programs(tmp_path: Path) -> None:
    """A page of another site can open connections to loopback, whatever it is then told."""
    async with running(tmp_path, limits=Limits(max_connections=2)) as kiosk, asyncio.timeout(10):
        held = [await asyncio.open_connection("127.0.0.1", kiosk.api.http_port) for _ in range(4)]
        assert (await exchange(kiosk, request("GET", "/v1/status"))).status == 200
        for _, writer in held:
            writer.transport.abort()


async def test_users_who_may_not_pass_have_a_few_places_of_their_own() -> None:
    stranger = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name), own_uid=0) as kiosk, asyncio.timeout(10):
            held = [await asyncio.open_unix_connection(sock=connected_as(kiosk, stranger)) for _ in range(3 * MAX_STRANGERS)]
            ends = [await reader.read() for reader, _ in held[MAX_STRANGERS:]]
            assert ends == [b""] * (2 * MAX_STRANGERS)
            assert list(kiosk.api._open.values()) == ["strangers"] * MAX_STRANGERS
            for _, writer in held:
                writer.transport.abort()


async def test_client_that_leaves_in_the_middle_harms_nobody(kiosk: Kiosk) -> None:
    for cut in (5, 40, 120):
        _, writer = await asyncio.open_unix_connection(kiosk.socket_path)
        writer.write(request("POST", "/v1/sessions", begin())[:cut])
        writer.transport.abort()
    assert (await exchange(kiosk, request("GET", "/v1/status"))).status == 200


async def test_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path) as kiosk:
        path = kiosk.socket_path
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path.parent / "stale.sock"))
        api = LocalApi(kiosk.service, socket_path=path.parent / "stale.sock")
        await api.start()
        await api.stop()
        assert not (path.parent / "stale.sock").exists()


# ------------------------------------------------------------------------------------------------------------------------ the rest


class TestApplicationsFile:
    def write(self, path: Path, text: str, mode: int = 0o600) -> Path:
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_holds_hashes_only(self, tmp_path: Path) -> None:
        text = f'[[applications]]\nname = "hall-kiosk"\ntoken_sha256 = "{hashed(TOKEN)}"\nscopes = ["status"]\n'
        loaded = Applications.load(self.write(tmp_path / "applications.toml", text))
        holder = loaded.holder(TOKEN)
        assert holder is not None
        assert holder.scopes == (Scope.STATUS,)
        assert loaded.holder("other") is None

    def test_readable_by_others_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(KeyRefused, match="mode 0640"):
            Applications.load(self.write(tmp_path / "applications.toml", "", 0o640))

    @pytest.mark.parametrize(
        "text",
        [
            "[[applications",
            '[[applications]]\nname = "a"\ntoken = "correct-horse"\n',
            '[[applications]]\nname = "a"\ntoken_sha256 = "correct-horse"\n',
        ],
    )
    def test_wrong_file_is_refused_without_repeating_it(self, tmp_path: Path, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Applications.load(self.write(tmp_path / "applications.toml", text))
        assert "correct-horse" not in str(caught.value)


async def test_planted_personal_data_is_nowhere(kiosk: Kiosk, caplog: pytest.LogCaptureFixture) -> None:
    """Every place where an application can put something, in one case that also succeeds."""
    caplog.set_level(logging.DEBUG)
    marks = ["330102199001011235", "张三丰", "6222020200112233445", "13800138000", "CARD-IIN-778899"]
    answers = b""
    began = (await post(kiosk, "/v1/sessions", begin())).body["session"]
    for mark in marks:
        quoted = mark if mark.isascii() else "x" + mark.encode().hex()
        for key in ("client_id", "item", "channel", mark):
            answers += (await post(kiosk, "/v1/sessions", begin() | {key: mark})).raw
        for key in ("outcome", "cause", "name"):
            answers += (await post(kiosk, f"/v1/sessions/{began}/end", {"outcome": "success"} | {key: mark})).raw
        for key in ("client_id", "level", "slot", "session", "comment"):
            answers += (await post(kiosk, "/v1/ratings", {"client_id": str(uuid.uuid4()), "level": 5} | {key: mark})).raw
        for raw in (
            request("GET", f"/v1/status?name={quoted}"),
            request("GET", f"/v1/{quoted}"),
            request("GET", "/v1/status", None, {"X-Citizen": quoted, "Cookie": quoted, "User-Agent": quoted}),
            request("POST", "/v1/sessions", mark.encode()),
            f"{quoted}\r\n\r\n".encode(),
        ):
            answers += (await exchange(kiosk, raw)).raw
        got = await over_http(kiosk, Authorization=f"Bearer {quoted}", Referer=quoted)
        answers += got.raw + str(got.headers).encode()
    assert (await post(kiosk, f"/v1/sessions/{began}/end", {"outcome": "success"})).status == 200
    kiosk.notebook.outbox.seal()
    everything = answers + spool(kiosk.folder) + logged(caplog) + b"".join(cbor2.dumps(str(body)) for body in kiosk.bodies)
    for mark in marks:
        assert mark.encode() not in everything
        assert mark.encode().hex().encode() not in everything
        assert json.dumps(mark)[1:-1].encode() not in everything


def spool(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def logged(caplog: pytest.LogCaptureFixture) -> bytes:
    """Messages and every field that came with them."""
    return "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records).encode()
