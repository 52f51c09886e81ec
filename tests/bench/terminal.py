"""A terminal of its own processes: devices on ptys, and the agent's real command with a configuration and keys of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge_agent import files, identity
from edge_agent.identity import Identity, MqttAddress
from edge_agent.signing import RECORD_KEY_FILE, TLS_FILE
from tests.bench.stage import FLEET, Stage, Terminal
from tests.support.processes import Child
from tests.support.waiting import wait_until

CALL_PAD = {"slot": "call-pad-1", "family": "call-pad", "profile": "call-pad-ft12", "address": 1, "mandatory": True}


class TerminalProcesses:
    """A terminal; `devices` is what its configuration lists, as `ports.json` of the simulator describes it."""

    def __init__(self, server: Stage, terminal: Terminal, python: Path) -> None:
        self._server, self._terminal, self._python = server, terminal, python
        self.folder = server.folder / f"agent-{terminal.id}"
        # Paths of sockets and ports must stay short (sockaddr_un has 108 bytes).
        self._ports = Path(tempfile.mkdtemp(prefix="kfb"))
        self.devices: list[dict[str, object]] = []

    def plug_in(self) -> None:
        """Six peripherals: ID reader, receipt printer, scanner, climate and door modules on one bus, a call pad on another."""
        start = self._server.processes.start_python
        start("-m", "simulators.cli", "terminal", "booth", "--dir", self._ports / "sim", "--name", self._terminal.id)
        start("-m", "simulators.cli", "device", "callpad", "--pty", self._ports / "callpad")
        described = self._ports / "sim" / "ports.json"
        wait_until(lambda: described.exists() and (self._ports / "callpad").exists(), "the devices to be there")
        self.devices = [*json.loads(described.read_text("utf-8"))["ports"], CALL_PAD | {"port": str(self._ports / "callpad")}]

    def enrol(self) -> None:
        """What enrolment leaves behind, with the keys that the stage has certified."""
        self.folder.mkdir()
        keys = self.folder / "identity"
        files.make_private_directory(keys)
        terminal, authority = self._terminal, self._server.authority
        pem = terminal.record_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.write_atomically(keys / RECORD_KEY_FILE, pem)
        files.write_atomically(keys / TLS_FILE, terminal.tls_file.read_bytes())
        files.write_atomically(keys / identity.CA_FILE, authority.ca_file.read_bytes())
        certificate = authority.certify_record_key(terminal.id, terminal.signer.public_key, 1, now_ms=self._server.now_ms)
        files.write_atomically(keys / identity.RECORD_KEY_CERTIFICATE_FILE, certificate)
        identity.save(
            keys,
            Identity(
                terminal=terminal.id,
                fleet=FLEET,
                server_url=f"https://127.0.0.1:{self._server.settings.enrolment.port}",
                root_key=authority.root_public_key.public_bytes_raw(),
                mqtt=MqttAddress(host="127.0.0.1", port=self._server.settings.broker.port),
                enrolled_ms=self._server.now_ms,
            ),
        )
        self._write_config()

    def start(self) -> Child:
        """`edge-agent run` with the interpreter of the kiosk's environment."""
        return self._server.processes.start(
            [self._python, "-m", "edge_agent.cli", "run", "--config", self.folder / "agent.toml", "--log-level", "warning"],
            cwd=self.folder,
        )

    def status(self) -> dict[str, object]:
        """What `edge-agent doctor --json` says."""
        done = subprocess.run(
            [self._python, "-m", "edge_agent.cli", "doctor", "--json", "--config", self.folder / "agent.toml"],
            cwd=self.folder, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
        told: dict[str, object] = json.loads(done.stdout or b"{}")
        return told

    def close(self) -> None:
        shutil.rmtree(self._ports, ignore_errors=True)

    def _write_config(self) -> None:
        tables: dict[str, dict[str, object]] = {
            "server": {"url": f"https://127.0.0.1:{self._server.settings.enrolment.port}"},
            "local_api": {"socket_path": str(self._ports / "agent.sock"), "allowed_uids": [os.getuid()]},
        }
        lines = [
            "schema = 1",
            f"identity_dir = {json.dumps(str(self.folder / 'identity'))}",
            f"state_dir = {json.dumps(str(self.folder / 'state'))}",
        ]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        for device in self.devices:
            wanted = ("slot", "family", "profile", "port", "address", "mandatory")
            lines += ["[[devices]]", *(f"{key} = {json.dumps(device[key])}" for key in wanted if key in device)]
        (self.folder / "agent.toml").write_text("\n".join(lines) + "\n", "utf-8")
