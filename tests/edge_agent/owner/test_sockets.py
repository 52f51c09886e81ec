"""The owner API's doors and connections, over real sockets: who gets in, and what a hostile or broken peer can do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from wsproto.events import TextMessage

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.jobs import Work
from edge_agent.local_api import Application, Applications, Gate, LocalApi, Scope, websocket
from edge_agent.local_api.server import HttpDoor, Limits
from edge_agent.local_api.websocket import SUBPROTOCOL, TOKEN_PREFIX, SocketLimits
from edge_agent.monitor import Tested
from edge_agent.owner.service import OwnerService
from edge_agent.status import SlotView
from protocols.canon.words import DeviceState, Ownership
from protocols.contract.records import Device
from protocols.errors import ProtocolError
from tests.edge_agent.devices.bench import PROFILES
from tests.edge_agent.owner.peer import HOST, PATH, Peer, handshake
from tests.edge_agent.test_local_api import HandClock, hashed, reachable_folder

ORIGIN = "https://kiosk.example.org"
TOKEN, PLAIN_TOKEN = "correct-horse-battery-staple-0123456789", "no-devices-0123456789"
PROFILE = next(profile for profile in PROFILES.values() if profile.family == "scanner-keyboard")


class OneScanner:
    """A monitor with one scanner, whose commands last until they are cancelled."""

    def __init__(self) -> None:
        self.jobs = 0

    def bound_to(self, slot: str) -> SlotBinding | None:
        return SlotBinding(slot=slot, profile=PROFILE) if slot == "scanner" else None

    def slot_views(self) -> Iterable[SlotView]:
        state = Device(slot="scanner", family="scanner", device=DeviceState.ONLINE, owner=Ownership.OWNER, port="1-1.4")
        return (SlotView(slot="scanner", family="scanner", mandatory=True, state=state),)

    async def perform(self, slot: str, work: Work[Any], *, within_s: float) -> Any:
        self.jobs += 1
        try:
            await asyncio.sleep(3600)
        finally:
            self.jobs -= 1

    def note_use(self, slot: str, *, ok: bool, count: int = 1) -> None:
        pass

    def note_steps(self, slot: str, steps: Iterable[Met]) -> None:
        pass

    def can_test(self, slot: str, test: str) -> bool:
        return True

    async def test(self, slot: str, test: str) -> Tested:
        return "ok"


@dataclass
class Doors:
    api: LocalApi
    service: OwnerService
    devices: OneScanner
    socket_path: Path
    hosts: set[str] | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)


@asynccontextmanager
async def open_doors(**more: Any) -> AsyncIterator[Doors]:
    clock, devices = HandClock(), OneScanner()
    service = OwnerService(devices=lambda: devices, now_ms=clock.boot_ms, closed=lambda: None, idle=lambda: True, version="1.2.3")
    applications = Applications(
        applications=(
            Application(name="hall-kiosk", token_sha256=hashed(TOKEN), scopes=(Scope.DEVICES,)),
            Application(name="wallboard", token_sha256=hashed(PLAIN_TOKEN)),
        )
    )
    hosts: set[str] | None = more.pop("hosts", None)
    gate = Gate(
        hosts=frozenset({HOST}) if hosts is None else hosts,  # type: ignore[arg-type]  # the port is known after the start
        origins=more.pop("origins", frozenset({ORIGIN})),
        applications=applications,
    )
    sockets = more.pop("sockets", None)
    with reachable_folder() as folder:
        path = folder / "agent.sock"
        limits = Limits(sockets=sockets)
        # The owner API does not reach the service of requests at all.
        api = LocalApi(None, socket_path=path, http=HttpDoor(port=0, gate=gate), limits=limits, devices=service, **more)  # type: ignore[arg-type]
        await api.start()
        doors = Doors(api, service, devices, path, hosts)
        try:
            yield doors
        finally:
            for writer in doors.writers:
                writer.transport.abort()
            await api.stop()


def browser(**changes: str | None) -> dict[str, str | None]:
    return {"Origin": ORIGIN, "Sec_WebSocket_Protocol": f"{SUBPROTOCOL}, {TOKEN_PREFIX}{TOKEN}"} | changes


async def knock(doors: Doors, data: bytes, *, over: str = "unix") -> Peer:
    if over == "unix":
        reader, writer = await asyncio.open_unix_connection(doors.socket_path)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", doors.api.http_port)
    doors.writers.append(writer)
    writer.write(data)
    async with asyncio.timeout(10):
        return Peer(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode())


async def enter(doors: Doors, path: str = f"{PATH}/scanner") -> Peer:
    peer = await knock(doors, handshake(path, Host="localhost"))
    assert peer.status == 101, peer.head
    return peer


# ---------------------------------------------------------------------------------------------------------------------------- doors


@pytest.mark.spec("D-101, D-103, D-104")
async def test_a_browser_with_its_token_in_a_subprotocol_gets_in_and_never_sees_the_token_again() -> None:
    async with open_doors() as doors:
        peer = await knock(doors, handshake(**browser()), over="http")
        assert peer.status == 101
        assert f"sec-websocket-protocol: {SUBPROTOCOL}\r\n" in peer.head.lower()
        assert TOKEN not in peer.head
        assert "sec-websocket-extensions" not in peer.head.lower()
        assert (await peer.completion("KioskFleet.Claim", 1, {"application": "surprise"}))["header"][
            "completionCode"
        ] == "success"
        assert dict(doors.service.claimed()) == {"scanner": "hall-kiosk"}  # the token's name, whatever the page says
        publisher = await knock(doors, handshake(PATH, **browser()), over="http")
        listed = (await publisher.completion("ServicePublisher.GetServices"))["payload"]["services"]
        assert listed == [{"serviceURI": f"ws://{HOST}{PATH}/scanner"}]


@pytest.mark.spec("D-103, D-104, D-105")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Host": "evil.example:7077"}, 421),  # a name of the attacker that was made to point to loopback
        ({"Host": "127.0.0.1:7077"}, 421),
        ({"Sec_WebSocket_Protocol": None}, 401),
        ({"Sec_WebSocket_Protocol": SUBPROTOCOL}, 401),
        ({"Sec_WebSocket_Protocol": f"{SUBPROTOCOL}, {TOKEN_PREFIX}wrong"}, 401),
        ({"Sec_WebSocket_Protocol": f"{TOKEN_PREFIX}{TOKEN}, {TOKEN_PREFIX}{PLAIN_TOKEN}"}, 401),
        ({"Sec_WebSocket_Protocol": f"{SUBPROTOCOL}, {TOKEN_PREFIX}{PLAIN_TOKEN}"}, 403),
        ({"Authorization": "Bearer wrong"}, 401),
    ],
)
async def test_a_browser_that_lacks_one_of_the_locks_stays_out(changes: dict[str, str | None], status: int) -> None:
    async with open_doors() as doors:
        peer = await knock(doors, handshake(**browser(**changes)), over="http")
        assert peer.status == status
        assert TOKEN not in peer.head
        assert not doors.service._lines


@pytest.mark.spec("D-103")
async def test_a_program_on_loopback_shows_its_token_in_the_header_and_an_allowed_origin_too() -> None:
    async with open_doors() as doors:
        headers = {"Origin": ORIGIN, "Authorization": f"Bearer {TOKEN}"}
        assert (await knock(doors, handshake(**headers), over="http")).status == 101
        assert (await knock(doors, handshake(Authorization=f"Bearer {TOKEN}"), over="http")).status == 403


@pytest.mark.spec("D-102")
async def test_another_local_user_is_refused_before_anything_is_switched() -> None:
    async with open_doors(own_uid=os.geteuid() + 4711 if os.geteuid() else 4711) as doors:
        if os.geteuid() != 0:
            assert (await knock(doors, handshake(Host="localhost"))).status == 403
            return
        assert (await knock(doors, handshake(Host="localhost"))).status == 101  # root
        read_end, write_end = os.pipe()
        loop = asyncio.get_running_loop()
        child = os.fork()
        if child == 0:  # another user of this machine
            answer = b"failed"
            with contextlib.suppress(BaseException):
                os.setgid(65534)
                os.setuid(65534)
                import socket

                knocking = socket.socket(socket.AF_UNIX)
                knocking.settimeout(10)
                knocking.connect(str(doors.socket_path))
                knocking.sendall(handshake(Host="localhost"))
                answer = knocking.recv(4096).split(b"\r\n")[0]
            os.write(write_end, answer)
            os._exit(0)
        os.close(write_end)
        said = await loop.run_in_executor(None, os.read, read_end, 4096)
        os.close(read_end)
        os.waitpid(child, 0)
        assert said.startswith(b"HTTP/1.1 403")


@pytest.mark.spec("D-101")
@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        (f"{PATH}/surprise", {}, 404),
        (f"{PATH}/scanner/more", {}, 404),
        (f"{PATH}/scanner?token=x", {}, 404),
        (f"{PATH}x", {}, 404),
        (f"{PATH}/scanner", {"Upgrade": None}, 426),
        (f"{PATH}/scanner", {"Connection": "close"}, 426),
        (f"{PATH}/scanner", {"Sec_WebSocket_Version": "8"}, 426),
        (f"{PATH}/scanner", {"Sec_WebSocket_Key": "short"}, 400),
        (f"{PATH}/scanner", {"Sec_WebSocket_Key": None}, 400),
    ],
)
async def test_what_is_no_handshake_to_a_service_is_answered_as_a_request(
    path: str, changes: dict[str, str | None], status: int
) -> None:
    async with open_doors() as doors:
        peer = await knock(doors, handshake(path, **({"Host": "localhost"} | changes)))
        assert peer.status == status
        assert (await knock(doors, handshake(f"{PATH}/scanner/", Host="localhost"))).status == 101


@pytest.mark.spec("D-101")
async def test_headers_of_the_handshake_may_be_there_once() -> None:
    async with open_doors() as doors:
        twice = handshake(**browser()).replace(b"Origin:", b"Origin: https://evil.example\r\nOrigin:", 1)
        assert (await knock(doors, twice, over="http")).status == 400
        tokens = handshake(**browser()).replace(
            b"Sec-WebSocket-Protocol:", b"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol:", 1
        )
        assert (await knock(doors, tokens, over="http")).status == 400


@pytest.mark.spec("D-109")
async def test_thirty_two_connections_at_a_door_and_room_for_requests_beside_them() -> None:
    async with open_doors() as doors:
        peers = [await enter(doors) for _ in range(32)]
        assert (await knock(doors, handshake(Host="localhost"))).status == 429
        browsers = await knock(doors, handshake(**browser()), over="http")  # the other door has its own
        assert browsers.status == 101
        peers[0].cut()
        async with asyncio.timeout(10):
            while (await knock(doors, handshake(Host="localhost"))).status != 101:
                await asyncio.sleep(0.01)


# --------------------------------------------------------------------------------------------------------------------- connections


@pytest.mark.spec("D-404")
async def test_a_connection_that_is_cut_frees_its_device() -> None:
    async with open_doors() as doors:
        one, two = await enter(doors), await enter(doors)
        await one.completion("KioskFleet.Claim", 1, {"application": "hall-kiosk"})
        one.command("BarcodeReader.Read", 2, {})
        async with asyncio.timeout(10):
            while not doors.devices.jobs:
                await asyncio.sleep(0.005)
        refused = await two.completion("KioskFleet.Claim", 1)
        assert refused["payload"] == {"errorCode": "claimed", "claimedBy": "hall-kiosk"}
        one.cut()
        async with asyncio.timeout(10):
            number = 2
            while (await two.completion("KioskFleet.Claim", number))["header"]["completionCode"] != "success":
                number += 1
        assert doors.devices.jobs == 0


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True, reserved: int = 0, claims: int | None = None
) -> bytes:
    """Bytes of a frame, sound or not; `claims`: a length that it does not have."""
    size = len(payload) if claims is None else claims
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    if size < 126:
        head = struct.pack("!BB", first, size | (0x80 if masked else 0))
    elif size < 65536:
        head = struct.pack("!BBH", first, 126 | (0x80 if masked else 0), size)
    else:
        head = struct.pack("!BBQ", first, 127 | (0x80 if masked else 0), size)
    if not masked:
        return head + payload
    mask = b"\x11\x22\x33\x44"
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


@pytest.mark.spec("D-106")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(1, b"x" * 65_537), 1009, id="too large"),
        pytest.param(frame(1, b"x" * 60_000, fin=False) + frame(0, b"x" * 60_000), 1009, id="too large in two"),
        pytest.param(frame(1, b"x" * 70_000, claims=2**40), 1009, id="a terabyte is announced"),
        pytest.param(frame(1, b"", fin=False) + frame(0, b"", fin=False) * 2000, 1008, id="endless empty frames"),
        pytest.param(frame(2, b"binary"), 1003, id="binary"),
        pytest.param(frame(1, b"{}", masked=False), 1002, id="not masked"),
        pytest.param(frame(1, b"{}", reserved=4), 1002, id="reserved bit"),
        pytest.param(frame(5, b"{}"), 1002, id="unknown opcode"),
        pytest.param(frame(0, b"{}"), 1002, id="continues nothing"),
        pytest.param(frame(1, b"a", fin=False) + frame(1, b"b"), 1002, id="begins within a message"),
        pytest.param(frame(9, b"x" * 126), 1002, id="long ping"),
        pytest.param(frame(9, b"", fin=False), 1002, id="ping in parts"),
        pytest.param(frame(1, b"\xff\xfe"), 1007, id="not UTF-8"),
        pytest.param(frame(9, b"?") * 2000, 1008, id="ping flood"),
        pytest.param(frame(10, b"?") * 2000, 1008, id="pong flood"),
        pytest.param(frame(8, struct.pack("!H", 1000)), 1000, id="closes"),
    ],
)
async def test_frames_that_break_a_rule_end_the_connection_and_no_other(data: bytes, code: int) -> None:
    async with open_doors() as doors:
        one, other = await enter(doors), await enter(doors)
        one.raw(data)
        said = None
        while not isinstance(said, int):
            said = await one.next()
        assert said == code
        assert (await other.completion("Common.Status"))["header"]["completionCode"] == "success"
        async with asyncio.timeout(10):
            while len(doors.service._lines) > 1:
                await asyncio.sleep(0.005)


@pytest.mark.spec("D-106")
async def test_a_message_in_pieces_is_one_message() -> None:
    async with open_doors() as doors:
        peer = await enter(doors)
        text = json.dumps({"header": {"type": "command", "name": "Common.Status", "requestId": 7, "version": "2.0"}}).encode()
        pieces = frame(1, text[:10], fin=False) + frame(9, b"between") + frame(0, text[10:40], fin=False) + frame(0, text[40:])
        for byte in pieces:
            peer.raw(bytes((byte,)))
        assert (await peer.next())["header"]["type"] == "acknowledge"
        assert (await peer.next())["header"]["requestId"] == 7
        assert peer.pings == 1


@pytest.mark.spec("D-106")
async def test_a_message_that_does_not_end_in_time_ends_the_connection() -> None:
    async with open_doors(sockets=SocketLimits(message_within_s=0.2)) as doors:
        peer = await enter(doors)
        peer.raw(frame(1, b"{", fin=False))
        assert await peer.next() == 1008


@pytest.mark.spec("D-107")
async def test_a_peer_that_says_nothing_is_asked_and_then_closed_and_one_that_answers_stays() -> None:
    async with open_doors(sockets=SocketLimits(ping_every_s=0.1)) as doors:
        silent = await enter(doors)
        assert await silent.next() == 1008
        assert silent.pings == 1
        lively = await enter(doors)
        for _ in range(5):
            async with asyncio.timeout(5):
                data = await lively.reader.read(64)
            assert data[:1] == b"\x89"  # a ping
            lively.raw(frame(10, b"?"))
        lively.command("Common.Status")
        assert (await lively.next())["header"]["type"] == "acknowledge"


@pytest.mark.spec("D-107")
async def test_many_connections_together_are_read_no_faster_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    async with open_doors(sockets=SocketLimits(all_per_s=10)) as doors:
        peers = [await enter(doors) for _ in range(3)]
        monkeypatch.setattr(websocket.asyncio, "sleep", note)  # type: ignore[attr-defined]  # the module's own
        for number in range(1, 11):
            for peer in peers:
                peer.command("Common.Status", number)
        for peer in peers:
            for _ in range(20):
                await peer.next()
        monkeypatch.undo()
    assert 1.0 < max(waited) <= 2.0  # thirty messages, ten at once, ten a second


@pytest.mark.spec("D-108")
async def test_a_peer_that_does_not_read_is_cut_off_and_nothing_is_kept_for_it() -> None:
    async with open_doors(sockets=SocketLimits(queue_max=8, messages_per_s=1e9, messages_burst=10**6, all_per_s=1e9)) as doors:
        lazy, other = await enter(doors), await enter(doors)
        await lazy.completion("KioskFleet.Claim", 1)
        message = {"header": {"type": "command", "name": "Common.Capabilities", "requestId": 2, "version": "2.0"}}
        data = lazy.ws.send(TextMessage(data=json.dumps(message)))
        with contextlib.suppress(ConnectionError):
            for _ in range(20_000):
                lazy.raw(data)
                async with asyncio.timeout(10):
                    await lazy.writer.drain()
                if lazy.writer.is_closing() or not doors.service.claimed():
                    break
        async with asyncio.timeout(10):
            while doors.service.claimed():
                await asyncio.sleep(0.005)
        assert (await other.completion("Common.Status"))["header"]["completionCode"] == "success"


def test_no_error_here_is_one_of_a_codec() -> None:
    """What a peer sends is no device's bytes: a codec's errors carry evidence, these must not."""
    from edge_agent.local_api.websocket import Closed

    assert not issubclass(Closed, ProtocolError)
