"""Planted personal data is found nowhere: not on the terminal's disk, not in its log, not in a packet that leaves it, not at the server.

Every way in is used: applications, readers, scanners, keys, and the strings that devices say about themselves. The search knows the encodings in
which something could hide, and a control shows that it finds what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import host
from edge_agent.cli import load_profiles
from edge_agent.clock import SystemClock, read_boot_id
from edge_agent.config import Config
from edge_agent.logs import FieldFormatter
from edge_agent.supervisor import Agent
from edge_agent.transports import base
from edge_agent.uplink import UplinkSettings
from protocols.profile.places import Poll
from simulators.models.keys import EvaluatorPad, HidScanner, Keypad
from simulators.ports.pipe import PortKit
from simulators.ports.pty import ThreadPty
from simulators.ports.slots import CH340, CP2102, Slot
from simulators.terminal import VirtualTerminal
from tests.edge_agent.small_agent import inventory
from tests.support.server import RunningServer
from tests.support.waiting import until, wait_until
from tests.together.leaky_devices import LeakyLaserPrinter, LeakyReader, LeakyScanner, TalkativeReceiptPrinter
from tests.together.needles import ADDRESS, CLIENT_ID, DIGITS, LEAKED, MARKS, NAME, NUMBER, TEXT, Search
from tests.together.relay import PacketRelay, server_side
from tests.together.road import Enrolled, LeanTerminal, enrolled, stored_records, through, whole_server

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(180)]

ITEM = "social-insurance.query"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("privacy"), log_level="debug") as running:
        yield running


def listening_side(server: RunningServer) -> Any:
    return server_side(server.authority.server_files, server.authority.ca_file)


def key_patterns() -> dict[bytes, str]:
    """How typed digits would look if their key codes were kept: as bytes, as numbers in text, as little-endian words."""
    codes = [Keypad.layout[digit] for digit in DIGITS]
    return {
        bytes(codes): "key codes as bytes",
        ", ".join(map(str, codes)).encode(): "key codes as a list",
        ",".join(map(str, codes)).encode(): "key codes as a list",
        b"".join(code.to_bytes(2, "little") for code in codes): "key codes as words",
    }


def check_nowhere(server: RunningServer, search: Search, relay: PacketRelay, folders: list[Path], log: bytes) -> None:
    """Disk, log, packets, server: looked through, and enough of each was there to look through."""
    findings: list[str] = []
    for folder in folders:
        found, size = search.in_tree(folder)
        assert size > 10_000, f"hardly anything in {folder}"
        findings += found
    assert b"agent started" in log
    findings += search.in_bytes("the agent's log", log)
    upward = b"".join(packet.raw for packet in relay.seen if packet.direction == "up")
    assert len(upward) > 1_000
    findings += search.in_bytes("packets that left the terminal", upward)
    found, size = search.in_tree(server.settings.data_dir)
    assert size > 100_000
    findings += found
    assert server.child is not None
    findings += search.in_bytes("the server's log", server.child.log.read_bytes())
    assert not findings, "\n".join(sorted(set(findings)))


# Applications ---------------------------------------------------------------------------------------------------------------------------


def hostile_requests() -> list[tuple[str, str, dict[str, str], bytes]]:
    """(method, path, headers, body): the marks in every place of every request, wanted there or not."""
    jsons: list[tuple[str, dict[str, Any]]] = []
    valid: dict[str, dict[str, Any]] = {
        "/v1/sessions": {"client_id": CLIENT_ID, "item": ITEM, "channel": "touch"},
        "/v1/ratings": {"client_id": CLIENT_ID, "level": 5, "channel": "terminal"},
        "/v1/refills": {"client_id": CLIENT_ID, "slot": "receipt-printer", "item": "roll", "quantity": 3},
        "/v1/uses": {"client_id": CLIENT_ID, "slot": "receipt-printer", "ok": True},
    }
    for path, body in valid.items():
        jsons.append((path, body))
        for mark in (NAME, NUMBER, TEXT, ADDRESS):
            jsons += [(path, {**body, field: mark}) for field in body]
            jsons += [
                (path, {**body, "name": mark}),
                (path, {**body, mark: 1}),
                (path, {**body, "session": mark}),
                (path, {"person": {"id": mark}}),
            ]
    out: list[tuple[str, str, dict[str, str], bytes]] = [
        ("POST", path, {}, json.dumps(body, ensure_ascii=index % 2 == 0).encode()) for index, (path, body) in enumerate(jsons)
    ]
    latin = {
        "X-Citizen": NUMBER,
        "Cookie": f"id={NUMBER}; name={TEXT}",
        "Authorization": f"Bearer {TEXT}",
        "User-Agent": TEXT,
        "Origin": f"http://{TEXT}",
    }
    for name, value in latin.items():
        out.append(("GET", "/v1/status", {name: value}, b""))
        out.append(("POST", "/v1/sessions", {name: value}, json.dumps(valid["/v1/sessions"]).encode()))
    for path in (
        f"/v1/{TEXT}",
        f"/v1/sessions?id={NUMBER}",
        f"/v1/sessions/{NUMBER}/end",
        f"/{TEXT}/{NUMBER}",
        f"/v1/status#{TEXT}",
    ):
        out += [("GET", path, {}, b""), ("POST", path, {}, NUMBER.encode())]
    for raw in (
        NAME.encode("gbk"),
        NAME.encode("utf-16-le"),
        f'"{NUMBER}"'.encode(),
        f'{{"client_id": "{NUMBER}'.encode(),
        NUMBER.encode() * 400,
    ):
        out += [("POST", "/v1/sessions", {}, raw), ("POST", "/v1/sessions", {"Content-Type": f"text/{TEXT}"}, raw)]
    out.append((TEXT, "/v1/status", {}, b""))
    return out


def send_raw(path: Path, data: bytes) -> None:
    """Bytes that are no HTTP at all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock, contextlib.suppress(OSError):
        sock.settimeout(0.3)
        sock.connect(str(path))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def plant_through_the_local_api(terminal: LeanTerminal) -> set[int]:
    """Every hostile request; returns the answers' status words. An answer repeats nothing of what was sent."""
    statuses: set[int] = set()
    search = Search(MARKS)
    for method, path, headers, body in hostile_requests():
        connection = _unix(terminal)
        try:
            connection.request(
                method, path.encode("utf-8").decode("latin-1"), body or None, {"Content-Type": "application/json"} | headers
            )
            answer = connection.getresponse()
            said = answer.read()
            statuses.add(answer.status)
            assert not search.in_bytes("an answer", said), f"{method} {path}"
        except (OSError, http.client.HTTPException):
            pass  # hung up on, which is an answer as well
        finally:
            connection.close()
    for junk in (
        TEXT.encode() * 50,
        f"GET /{NUMBER}".encode(),
        NAME.encode() + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + TEXT.encode() + b": x\r\n\r\n",
    ):
        send_raw(terminal.ports / "agent.sock", junk)
    return statuses


def _unix(terminal: LeanTerminal) -> http.client.HTTPConnection:
    from tests.support.terminal import _UnixConnection

    return _UnixConnection(terminal.ports / "agent.sock")


class OnPtys(LeanTerminal):
    """A real agent process over devices of this process."""

    log_level = "debug"

    def plug_in(self) -> None:
        (self.ports / "sim").mkdir()
        self.lines = [
            ThreadPty(LeakyReader(), self.ports / "id-reader"),
            ThreadPty(LeakyScanner(), self.ports / "scanner"),
        ]
        entries = [
            {"slot": slot, "family": slot, "profile": profile, "port": str(self.ports / slot), "mandatory": True}
            for slot, profile in (("id-reader", "sdt-serial"), ("scanner", "newland-uart"))
        ]
        (self.ports / "sim" / "ports.json").write_text(json.dumps({"ports": entries}), "utf-8")

    def close(self) -> None:
        for line in self.lines:
            line.close()
        super().close()


@pytest.mark.spec("C-202", "C-203", "C-206", "C-209")
def test_what_applications_and_serial_devices_say_is_found_nowhere(server: RunningServer, tmp_path: Path) -> None:
    me = OnPtys(tmp_path, server.processes, server, "private-process")
    me.plug_in()
    me.write_config()
    me.enrol()
    key = Enrolled(*_identity(me))
    with PacketRelay(server.settings.broker.port, listen_tls=listening_side(server), target_tls=key.tls()) as relay:
        me.config.write_text(me.config.read_text("utf-8") + "\n".join(through(relay.port)) + "\n", "utf-8")
        me.start()
        wait_until(
            lambda: len(server.rows("SELECT 1 FROM device WHERE terminal = ?", (me.terminal,))) >= 2, "its devices", timeout_s=40
        )
        statuses = plant_through_the_local_api(me)
        assert {200, 201, 400, 404, 422} <= statuses, statuses
        _, begun = me.api.request("POST", "/v1/sessions", {"client_id": CLIENT_ID, "item": ITEM, "channel": "touch"})
        me.api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})
        for line in me.lines:
            scanner = line.line.model
            if isinstance(scanner, LeakyScanner):
                for text in (TEXT, NUMBER, NAME, f"{NAME}{NUMBER}{ADDRESS}"):
                    scanner.act("scan", line.line._clock(), text)
        replug(me)
        wait_until(
            lambda: any(r.kind == "session" for r in stored_records(server, me.terminal)),
            "the case is at the server",
            timeout_s=40,
        )
        wait_until(lambda: me.depth() == 0, "everything has left the terminal", timeout_s=40)
        me.kill()
        assert me.agent is not None
        check_nowhere(server, Search(MARKS), relay, [me.state_dir], me.agent.log.read_bytes())
    me.close()


def replug(terminal: OnPtys) -> None:
    """Each opening asks again, and is answered with another leak."""
    for line in terminal.lines:
        model = line.line.model
        assert isinstance(model, LeakyReader | LeakyScanner)
        for _ in range(2):
            before = model.turn
            model.unplug(line.line._clock())
            wait_until(lambda link=line.line.link: not link.is_symlink(), "it is gone")  # type: ignore[misc]
            model.replug(line.line._clock())
            wait_until(lambda model=model, before=before: model.turn > before, "it is asked again", timeout_s=30)  # type: ignore[misc]


def _identity(terminal: LeanTerminal) -> tuple[Any, Any, Path]:
    from edge_agent import identity
    from edge_agent.signing import FileKeyStore

    return identity.load(terminal.identity_dir), FileKeyStore(terminal.identity_dir), terminal.folder


# Devices of every kind ------------------------------------------------------------------------------------------------------------------


@contextmanager
def debug_log() -> Iterator[io.StringIO]:
    """What the agent would write at debug level, in its own format."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(FieldFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("mqtt").setLevel(logging.WARNING)  # as edge_agent.logs does
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield text
    finally:
        root.removeHandler(handler)


def leaky_terminal() -> VirtualTerminal:
    return VirtualTerminal(
        "kiosk",
        [
            Slot("id-reader", LeakyReader(), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340),
            Slot("scanner", LeakyScanner(), "serial", "/dev/ttyUSB1", "1-1.2", adapter=CP2102),
            Slot("laser-printer", LeakyLaserPrinter(), "usb", "1-1.3", "1-1.3"),
            Slot("receipt-printer", TalkativeReceiptPrinter(), "usb", "1-1.4", "1-1.4"),
            Slot("keypad", Keypad(), "input", "/dev/input/event3", "1-1.5"),
            Slot("evaluator", EvaluatorPad(), "input", "/dev/input/event4", "1-1.6"),
            Slot("scanner-two", HidScanner(), "input", "/dev/input/event5", "1-1.7"),
        ],
    )


@asynccontextmanager
async def running_agent(me: Enrolled, devices: VirtualTerminal, port: int) -> AsyncIterator[Agent]:
    """The real agent in this process, over pipes, polling a hundred times as often as in the field so that every leak has its turn."""
    profiles = {
        name: msgspec.structs.replace(profile, poll=Poll(every_s=0.2)) if profile.poll else profile
        for name, profile in load_profiles(None).items()
    }
    short = Path(tempfile.mkdtemp(prefix="kf-"))
    config = msgspec.convert(
        {
            "schema": 1,
            "identity_dir": str(me.folder / "identity"),
            "state_dir": str(me.folder / "state"),
            "server": {"url": me.who.server_url},
            "items": [{"code": ITEM}, {"code": LEAKED}],
            "local_api": {"socket_path": str(short / "agent.sock")},
            "devices": inventory(devices),
        },
        Config,
    )
    kit = PortKit.of(base)
    agent = Agent(
        config=config,
        who=me.who,
        clock=SystemClock(),
        boot_id=read_boot_id(),
        keys=me.keys,
        opener=devices.opener(kit),
        discoverer=devices.discoverer(kit),
        profiles=profiles,
        probe=host.ProcProbe(me.folder),
        facts=host.facts(),
        broker=UplinkSettings(host=me.who.mqtt.host, port=port, tls=me.tls),
        rng=random.Random(3),
    )
    running = asyncio.ensure_future(agent.run())
    try:
        started = asyncio.ensure_future(agent.started.wait())
        await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            started.cancel()
            await running
        yield agent
    finally:
        agent.stop()
        await running
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.spec("C-202", "C-206")
async def test_what_devices_of_every_kind_say_is_found_nowhere(server: RunningServer, tmp_path: Path) -> None:
    me, devices = enrolled(server, tmp_path, "private-devices"), leaky_terminal()
    reader, scanner = devices.model("id-reader"), devices.model("scanner")
    assert isinstance(reader, LeakyReader)
    assert isinstance(scanner, LeakyScanner)
    relay = PacketRelay(server.settings.broker.port, listen_tls=listening_side(server), target_tls=me.tls())
    try:
        with debug_log() as log:
            async with running_agent(me, devices, relay.port):
                kinds = "SELECT count(*) FROM device WHERE terminal = ?"
                await until(lambda: server.rows(kinds, (me.terminal,))[0][0] >= 7, "all devices are known", timeout_s=40)
                devices.press("keypad", "type", DIGITS)
                devices.press("keypad", "type", NUMBER)
                for text in (TEXT, NUMBER, DIGITS):
                    devices.press("scanner-two", "scan", text)
                    devices.press("scanner", "scan", text)
                devices.set("scanner-two", "missing-suffix")
                devices.press("scanner-two", "scan", NUMBER)
                devices.press("evaluator", "rate", "4")
                for device, fault in (
                    ("receipt-printer", "paper-out"),
                    ("laser-printer", "cover-open"),
                    ("id-reader", "sam-failure"),
                ):
                    devices.set(device, fault)
                await until(lambda: reader.turn > 26 and scanner.turn > 14, "every leak has had its turn", timeout_s=60)
                ratings = "SELECT count(*) FROM rating WHERE terminal = ?"
                await until(lambda: server.rows(ratings, (me.terminal,))[0][0] == 1, "the rating is at the server")
                await asyncio.sleep(0.5)
            written = log.getvalue().encode("utf-8", "surrogateescape")
        faults = {row[0] for row in server.rows("SELECT code FROM fault WHERE terminal = ?", (me.terminal,))}
        assert any(code.endswith(".PAPER_OUT") for code in faults), faults
        check_nowhere(server, Search(MARKS, key_patterns()), relay, [me.folder / "state"], written)
    finally:
        relay.close()


# The control ----------------------------------------------------------------------------------------------------------------------------


async def test_the_search_finds_what_leaks(server: RunningServer, tmp_path: Path) -> None:
    """A word that a record may carry goes the same way: it is found on the disk, in packets and in the database."""
    me = enrolled(server, tmp_path, "control")
    relay = PacketRelay(server.settings.broker.port, listen_tls=listening_side(server), target_tls=me.tls())
    try:
        async with running_agent(me, VirtualTerminal("kiosk", []), relay.port) as agent:
            socket_path = Path(agent._config.local_api.socket_path)

            def enter() -> None:
                from tests.support.terminal import LocalApiClient

                api = LocalApiClient(socket_path)
                status, begun = api.request("POST", "/v1/sessions", {"client_id": CLIENT_ID, "item": LEAKED, "channel": "touch"})
                assert status == 201, begun
                assert api.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": "success"})[0] == 200

            await asyncio.to_thread(enter)
            stored = "SELECT count(*) FROM session WHERE terminal = 'control'"
            await until(lambda: server.rows(stored) == [(1,)], "it is at the server")
            search = Search((LEAKED,))
            assert search.in_tree(me.folder / "state")[0]
            assert search.in_bytes("packets", b"".join(packet.raw for packet in relay.seen if packet.direction == "up"))
            assert search.in_tree(server.settings.data_dir)[0]
    finally:
        relay.close()


@pytest.mark.parametrize("mark", MARKS)
def test_the_search_knows_every_encoding(mark: str, tmp_path: Path) -> None:
    """Each form, in the middle of other bytes and at any alignment, whole or cut off."""
    import base64

    search = Search(MARKS)
    for encoding in ("utf-8", "utf-16-le", "gbk"):
        raw = mark.encode(encoding)
        for before in range(4):
            noise = b"\x00\xff\x17"[:before] + raw + b"\x01\x02\x03"
            forms = (
                noise,
                noise.hex().encode(),
                noise.hex().upper().encode(),
                base64.b64encode(noise),
                base64.urlsafe_b64encode(noise),
            )
            for form in forms:
                assert search.in_bytes("here", b"{" + form + b"}"), (encoding, before)
        assert search.in_bytes("here", raw[: len(raw) * 3 // 4]), "a mark that was cut off"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"\x00" * 5000 + mark.encode("gbk"))
    assert search.in_tree(tmp_path)[0]
    assert not search.in_bytes("here", bytes(range(256)) * 50)
