"""One terminal with launcher, updater and agent under a folder, and a server of updates on loopback HTTPS that can go away, change and expire.

The agent is a real release (`tests.support.packages.real`) with an ID reader on a pseudo terminal. It has no broker: what it would send stays in its
outbox, where the test reads it. The desired state is laid into `requests/` as the agent lays it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge_agent import identity, launcher
from edge_agent.clock import SystemClock, read_boot_id
from edge_agent.updater import archive, install
from edge_agent.updater.counters import Counters
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import AgentSide
from edge_agent.updater.layout import Layout
from edge_agent.updater.service import Service
from edge_agent.updater.settings import Settings
from edge_agent.updater.source import Pinned, TufSource
from fleet_server.updates.serving import Files
from protocols.contract import certs, orders
from protocols.contract.envelope import key_id
from protocols.contract.orders import Bundle, Desired
from protocols.contract.records import Update, Versions
from tests.edge_agent.small_agent import Home
from tests.edge_agent.small_fleet import SmallCa
from tests.support.packages import Package
from tests.support.processes import Child, Processes, free_port
from tests.support.tuf_repo import TufRepo, now_ms
from tests.support.waiting import wait_until

LAUNCHER = Path(launcher.__file__)
TERMINAL = "kiosk-0007"
ARCH = os.uname().machine


class OrderKey:
    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = key_id(self.public)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class UpdateServer:
    """The server's own application over TLS; `start` and `stop` as often as a test likes, on the same port."""

    def __init__(self, repo: TufRepo, folder: Path) -> None:
        self.repo, self._folder = repo, folder
        self.ca = SmallCa()
        self.port = free_port()
        self.slow_s = 0.0
        """Waited before each piece of a target: a transfer that takes its time."""
        self.sent_bytes = 0
        self.requests: list[str] = []
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self, *, begin: dt.datetime | None = None, days: int = 90) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.ca.issue("127.0.0.1", key.public_key(), server=True, begin=begin, days=days)
        pem = self._folder / "server.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pem.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        files = Files(self.repo.updates.layout)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            self.requests.append(f"{scope['method']} {scope['path']}")

            async def sent(message: Any) -> None:
                if "/targets/" in scope["path"] and message["type"] == "http.response.body":
                    self.sent_bytes += len(message.get("body", b""))
                    await asyncio.sleep(self.slow_s)
                await send(message)

            await files(scope, receive, sent)

        listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        config = uvicorn.Config(
            application, lifespan="off", log_config=None, access_log=False, http="h11", ssl_keyfile=str(pem), ssl_certfile=str(pem),
            timeout_graceful_shutdown=0,
        )  # fmt: skip
        server = self._server = uvicorn.Server(config)

        async def serve() -> None:
            await server.serve([listener])
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            for _ in range(2):  # a stopped server leaves transfers behind, and these their own tasks
                others = asyncio.all_tasks() - {asyncio.current_task()}
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
                await asyncio.sleep(0.05)  # transports that were aborted close at the loop's next turns
            files.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="updates", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(10)
        self._server = None


@dataclass
class Terminal:
    """One terminal of a test. `processes` ends whatever it started."""

    folder: Path
    processes: Processes
    server: UpdateServer
    root: Path = field(init=False)
    counter: int = 0

    def __post_init__(self) -> None:
        self.home = Home(self.folder, TERMINAL)
        self.root = self.folder / "root"
        self.layout = Layout(self.root)
        self.state_dir, self.pinned = self.folder / "updater", self.folder / "pinned"
        self.requests, self.updates = self.folder / "requests", self.folder / "updates"
        for path in (self.state_dir, self.pinned, self.requests, self.updates):
            path.mkdir()
        self.reader = self.folder / "reader"
        self.order_key = OrderKey()
        cert = certs.OrderKeyCert(kid=self.order_key.kid, public_key=self.order_key.public, issued_ms=now_ms())
        self.certificate = certs.seal_order_key_cert(cert, self.home.root, self.home.who.fleet)
        who = msgspec.structs.replace(self.home.who, server_url=self.server.url)
        for directory in (self.home.identity_dir, self.pinned):
            identity.save(directory, who)
            (directory / identity.CA_FILE).write_text(self.server.ca.pem, "ascii")
            for name, file in identity.UPDATE_ROOT_FILES.items():
                (directory / file).write_text(self.server.repo.roots[name], "utf-8")
        self.who = who
        self.agent_toml, self.updater_toml = self.folder / "agent.toml", self.folder / "updater.toml"
        self.agent_toml.write_text(
            f"""schema = 1
identity_dir = "{self.home.identity_dir}"
state_dir = "{self.home.state_dir}"
[server]
url = "{self.server.url}"
[local_api]
socket_path = "{self.home.socket_path}"
[updater]
requests_dir = "{self.requests}"
updates_dir = "{self.updates}"
[[devices]]
slot = "id-reader"
family = "id-reader"
profile = "sdt-serial"
port = "{self.reader}"
""",
            "utf-8",
        )
        self.write_settings()

    def write_settings(self, **limits: Any) -> None:
        """updater.toml with quick limits; `limits` on top of them."""
        quick = {"steady_s": 1.0, "device_s": 3.0, "fresh_s": 12, "selftest_s": 40, "keep_free_mib": 1, "quiet_s": 60} | limits
        self.updater_toml.write_text(
            f'root = "{self.root}"\nstate_dir = "{self.state_dir}"\nrequests_dir = "{self.requests}"\nupdates_dir = "{self.updates}"\n'
            f'pinned_dir = "{self.pinned}"\ntick_s = 0.1\n[limits]\n'
            + "".join(f"{key} = {value}\n" for key, value in quick.items()),
            "utf-8",
        )

    # ------------------------------------------------------------------------------------------------------------------- running

    def lay_out(self, package: Package) -> None:
        path = package.write(self.folder)
        with archive.open_image(path) as image:
            install.lay_out(self.root, image, package.about)
        shutil.move(path, self.layout.image(package.sha256))

    def start_agent(self, *more: str) -> Child:
        """The launcher in its loop, as on a machine without systemd."""
        quick = [
            "--poll-s",
            "0.05",
            "--backoff-s",
            "0.1",
            "--backoff-max-s",
            "0.2",
            "--stop-s",
            "5",
            "--hang-s",
            "20",
            "--start-s",
            "20",
        ]
        command: list[str | Path] = [
            "-I",
            LAUNCHER,
            "run",
            "--root",
            self.root,
            "--heartbeat",
            self.requests / "health.json",
            *quick,
            *more,
        ]
        return self.processes.start_python(*command, "--", "run", "--config", self.agent_toml)

    def start_updater(self) -> Child:
        quick = ["--seat", "updater", "--poll-s", "0.05", "--backoff-s", "0.1", "--backoff-max-s", "0.5"]
        return self.processes.start_python(
            "-I", LAUNCHER, "run", "--root", self.root, *quick, "--", "updater", "run", "--config", self.updater_toml
        )

    def updater(self, clock: Any = None) -> Service:
        """The updater inside this process, for a clock or a disk of the test's own."""
        import tomllib

        settings = msgspec.convert(tomllib.loads(self.updater_toml.read_text("utf-8")), Settings)
        self.layout.prepare()
        counters, floor = Counters(self.state_dir / "counters.json"), TimeFloor(self.state_dir / "time-floor.json")
        clock = clock or SystemClock()
        source = TufSource(
            Pinned.load(self.pinned),
            metadata=self.state_dir / "tuf",
            downloads=self.root / "downloads",
            floor=floor,
            counters=counters,
            clock=clock,
            arch=ARCH,
        )
        return Service(
            settings=settings, who=self.who, source=source, counters=counters, floor=floor, clock=clock, boot_id=read_boot_id()
        )

    # ------------------------------------------------------------------------------------------------------------------- wanting

    def release(self, package: Package) -> str:
        """Publish it in the image repository; its path there."""
        path = f"agent/kiosk-{package.version}.tar"
        self.server.repo.release(
            "agent", path, package.raw, version=package.version, release=package.release, arch=ARCH,
            unpacked_bytes=4 * len(package.raw), unpacked_files=2000,
        )  # fmt: skip
        return path

    def want(self, path: str | None, **more: Any) -> Bundle | None:
        """Assign it and lay a signed desired state down."""
        more = {"probation_s": 60} | more
        bundle = self.server.repo.assign(TERMINAL, {"agent": path}, **more) if path is not None else None
        self.desire(bundle)
        return bundle

    def desire(self, bundle: Bundle | None) -> None:
        self.counter += 1
        desired = Desired(counter=self.counter, issued_ms=now_ms(), by="maker", approved_by="checker", bundle=bundle)
        side = AgentSide(self.requests, self.updates)
        side.write_order_keys([self.certificate])
        side.write_desired(orders.seal_desired(desired, self.order_key, self.who.fleet, TERMINAL))

    # ------------------------------------------------------------------------------------------------------------------- looking

    def told(self) -> list[Update]:
        """Every report that became a record in the agent's outbox."""
        with contextlib.suppress(Exception):
            return [body for body in self.home.bodies() if isinstance(body, Update)]
        return []

    def states(self) -> list[tuple[str, str]]:
        return [(one.state, one.reason) for one in self.told()]

    def wait_for_end(self, *ends: str, timeout_s: float = 60.0, tick: Callable[[], None] | None = None) -> tuple[str, str]:
        """Until the agent has captured that the bundle ended so; (state, reason)."""

        def ended() -> tuple[str, str] | None:
            if tick is not None:
                tick()
            return next((one for one in reversed(self.states()) if one[0] in ends), None)

        try:
            return wait_until(ended, f"an end of {ends}", timeout_s=timeout_s)  # type: ignore[return-value]  # truthy is no None
        except AssertionError as err:
            logs = "\n".join(f"--- {child.log.name}\n{child.output()[-3000:]}" for child in self.processes.children)
            raise AssertionError(f"{err}\ntold: {self.states()}\nstate: {self.layout.state()}\n{logs}") from None

    def health(self) -> str:
        """The version that says it is well."""
        from edge_agent.updater.handover import UpdaterSide

        found = UpdaterSide(self.requests, self.updates).health()
        return found.version if found is not None else ""

    def wait_until_running(self, version: str, *, timeout_s: float = 40.0) -> None:
        """The process of this version says that it is well, and its ID reader works."""
        from edge_agent.updater.handover import UpdaterSide

        side = UpdaterSide(self.requests, self.updates)
        started = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

        def well() -> bool:
            found = side.health()
            return (
                found is not None
                and found.version == version
                and found.boot_ms >= started
                and found.devices.get("id-reader") == "online"
            )

        wait_until(well, f"{version} running well", timeout_s=timeout_s)

    def versions(self) -> list[str]:
        """What the terminal said of its agent, in order."""
        found = [body for body in self.home.bodies() if isinstance(body, Versions)]
        return [one.version for body in found for one in body.installed if one.component == "agent"]

    def remove(self) -> None:
        self.processes.end_all()
        self.home.remove()


@contextlib.contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal that knows its server, with an ID reader on its line."""
    from simulators.models.sdt import SdtReader
    from simulators.ports.pty import ThreadPty

    repo = TufRepo.create(folder / "server", terminals=[TERMINAL])
    server = UpdateServer(repo, folder)
    logs = folder / "logs"
    logs.mkdir()
    one = Terminal(folder, Processes(logs), server)
    with ThreadPty(SdtReader(), one.reader):
        try:
            yield one
        finally:
            one.remove()
            server.stop()
            shutil.rmtree(folder / "root", ignore_errors=True)
