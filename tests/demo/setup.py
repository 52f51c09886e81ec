"""What one demo is: its numbers, ports and folders, kept in one file so that every process of it, and the next start, agree."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from fleet_server.settings import Broker, Enrolment, Public, Settings, Web
from tests.demo.city import City, make_city

FLEET: Final = "demo"
SETUP_FILE: Final = "demo.json"
LONGEST_ROOT: Final = 48
"""A port's path must fit into a record (96 characters) and a socket's into an address (107 bytes)."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """`until_ms`: where the recorded past ends, the first start of this demo."""

    terminals: int
    own_processes: int
    days: int
    speed: int
    seed: int
    until_ms: int
    web_port: int
    enrolment_port: int
    mqtt_port: int
    password: str
    embedded_broker: bool = False
    public_port: int = 8090
    """Of the citizens' pages."""
    calm: bool = False
    """No network breaks, and nobody works on a terminal: for measuring what waits for neither."""

    def city(self) -> City:
        return make_city(terminals=self.terminals, own_processes=self.own_processes, seed=self.seed)


class Places(msgspec.Struct, frozen=True):
    """Where things lie. `root` holds everything; with a long path the ports and sockets get a short one beside the other temporary files."""

    root: Path

    @property
    def file(self) -> Path:
        return self.root / SETUP_FILE

    @property
    def server(self) -> Path:
        return self.root / "server"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def status(self) -> Path:
        """What the fleet process tells the command: see `tests.demo.progress`."""
        return self.root / "fleet-status.json"

    @property
    def offline_keys(self) -> Path:
        """What would lie in safes."""
        return self.root / "offline-keys"

    @property
    def images(self) -> Path:
        """Images of the agent, not signed yet."""
        return self.root / "images"

    @property
    def releases(self) -> Path:
        """Release packs, ready to be uploaded."""
        return self.root / "releases"

    def identity(self, terminal: str) -> Path:
        return self.root / "agents" / terminal / "identity"

    def state(self, terminal: str) -> Path:
        return self.root / "agents" / terminal / "state"

    def config(self, terminal: str) -> Path:
        return self.root / "agents" / terminal / "agent.toml"

    def updater_config(self, terminal: str) -> Path:
        return self.root / "agents" / terminal / "updater.toml"

    def versions(self, terminal: str) -> Path:
        """Where the terminal's versions of the agent lie, as below /opt on a kiosk."""
        return self.root / "agents" / terminal / "opt"

    def updater_state(self, terminal: str) -> Path:
        return self.root / "agents" / terminal / "updater"

    def downloads(self, terminal: str) -> Path:
        """What is on its way."""
        return self.versions(terminal) / "downloads"

    def handover(self, terminal: str) -> Path:
        """The directory with `requests` and `updates`, by which agent and updater talk."""
        return self.root / "agents" / terminal / "handover"

    @property
    def factory(self) -> Path:
        """The version with which terminals come that have no process of their own: one tree for all of them."""
        return self.root / "factory"

    def process_table(self, terminal: str) -> Path:
        """What /proc would be on such a terminal."""
        return self.root / "agents" / terminal / "proc"

    @property
    def ports(self) -> Path:
        if len(str(self.root)) <= LONGEST_ROOT:
            return self.root / "ports"
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"kiosk-fleet-demo-{os.getuid()}-{digest}"

    def remove(self) -> None:
        """Everything, ports in the other temporary files included."""
        shutil.rmtree(self.root)
        if not self.ports.is_relative_to(self.root):
            shutil.rmtree(self.ports, ignore_errors=True)

    def terminal_ports(self, terminal: str) -> Path:
        """The directory that `kiosk-sim fault` is given."""
        return self.ports / terminal

    def agent_socket(self, terminal: str) -> Path:
        return self.ports / terminal / "agent.sock"


def load(places: Places) -> Setup | None:
    try:
        return msgspec.json.decode(places.file.read_bytes(), type=Setup)
    except FileNotFoundError:
        return None


def save(places: Places, setup: Setup) -> None:
    """Readable by its owner only: it holds the password that was printed."""
    places.root.mkdir(parents=True, exist_ok=True)
    temporary = places.file.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(setup), indent=2) + b"\n")
    temporary.replace(places.file)


def server_settings(places: Places, setup: Setup) -> Settings:
    return Settings(
        data_dir=places.server.absolute(),
        fleet=FLEET,
        log_level="warning",
        web=Web(port=setup.web_port, demo_speed=setup.speed),
        enrolment=Enrolment(port=setup.enrolment_port),
        broker=Broker(kind="embedded" if setup.embedded_broker else "auto", port=setup.mqtt_port),
        public=Public(enabled=True, port=setup.public_port),
    )


def settings_file(setup: Setup) -> str:
    """The same as `server_settings` for whoever types a `fleet-server` command beside the running demo."""
    kind = "embedded" if setup.embedded_broker else "auto"
    return (
        f'fleet = "{FLEET}"\nlog_level = "warning"\n\n[web]\nport = {setup.web_port}\ndemo_speed = {setup.speed}\n\n'
        f'[enrolment]\nport = {setup.enrolment_port}\n\n[broker]\nkind = "{kind}"\nport = {setup.mqtt_port}\n'
        f"\n[public]\nenabled = true\nport = {setup.public_port}\n"
    )


def replace_ports(setup: Setup, web: int, enrolment: int, mqtt: int, public: int) -> Setup:
    return msgspec.structs.replace(setup, web_port=web, enrolment_port=enrolment, mqtt_port=mqtt, public_port=public)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port(wanted: int, *, taken: tuple[int, ...] = ()) -> int:
    """`wanted` or the next one that nobody listens on; 0: any."""
    for port in [wanted] if wanted == 0 else range(wanted, wanted + 200):
        if port in taken:
            continue
        with socket.socket() as probe:
            # As servers bind: a port in TIME_WAIT is free, one that somebody listens on is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise OSError(f"no free port from {wanted} to {wanted + 199}")
