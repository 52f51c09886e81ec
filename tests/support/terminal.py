"""One terminal as in the field: simulated devices on ptys in one process, the agent in another, enrolled over HTTPS with its one-time code."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.support.processes import Child, Processes
from tests.support.server import RunningServer
from tests.support.waiting import wait_until

ITEM = "social-insurance.query"


class LocalApiClient:
    """What a kiosk application sees: HTTP on the agent's Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """OSError while the agent is away."""
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def case(self, client_id: str | None = None, outcome: str = "success") -> str:
        """Begin and end one case; returns its id once the agent has confirmed both. OSError or HTTPException if it did not."""
        client = client_id or str(uuid.uuid4())
        status, begun = self.request("POST", "/v1/sessions", {"client_id": client, "item": ITEM, "channel": "touch"})
        if status not in (200, 201):
            raise OSError(f"begin was answered with {status}")
        status, _ = self.request("POST", f"/v1/sessions/{begun['session']}/end", {"outcome": outcome})
        if status != 200:
            raise OSError(f"end was answered with {status}")
        return client


class RealTerminal:
    """`enrol`, `plug_in` (the devices), `start` (the agent); each may be killed and started again."""

    def __init__(self, folder: Path, processes: Processes, server: RunningServer, terminal: str, kind: str = "kiosk") -> None:
        self.processes, self.server, self.terminal, self.kind = processes, server, terminal, kind
        self.folder = folder / terminal
        self.folder.mkdir(parents=True)
        # Socket and port paths must stay short: sockaddr_un has 108 bytes, a port path in a record 96.
        self.ports = Path(tempfile.mkdtemp(prefix="kf"))
        self.agent: Child | None = None
        self.devices: Child | None = None

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def outbox(self) -> Path:
        return self.folder / "state" / "outbox.db"

    @property
    def api(self) -> LocalApiClient:
        return LocalApiClient(self.ports / "agent.sock")

    def plug_in(self) -> None:
        self.devices = self.processes.start_python(
            "-m", "simulators.cli", "terminal", self.kind, "--dir", self.ports / "sim", "--name", self.terminal
        )
        wait_until((self.ports / "sim" / "ports.json").exists, "the devices are there", timeout_s=20)

    def write_config(self) -> None:
        ports = json.loads((self.ports / "sim" / "ports.json").read_text("utf-8"))["ports"]
        lines = [
            "schema = 1",
            f"identity_dir = {json.dumps(str(self.folder / 'identity'))}",
            f"state_dir = {json.dumps(str(self.folder / 'state'))}",
            "[server]",
            f"url = {json.dumps(self.server.enrolment_url)}",
            "[local_api]",
            f"socket_path = {json.dumps(str(self.ports / 'agent.sock'))}",
            f"allowed_uids = [{os.getuid()}]",
            "[[items]]",
            f'code = "{ITEM}"',
            'type = "query"',
        ]
        for port in ports:
            lines += [
                "[[devices]]",
                *(f"{key} = {json.dumps(port[key])}" for key in ("slot", "family", "profile", "port", "mandatory")),
            ]
            if "address" in port:
                lines.append(f"address = {port['address']}")
        self.config.write_text("\n".join(lines) + "\n", "utf-8")

    def enrol(self) -> None:
        """Create it at the server and enrol with the real command."""
        inventory = [
            {"slot": port["slot"], "family": port["family"], "mandatory": port["mandatory"]}
            for port in json.loads((self.ports / "sim" / "ports.json").read_text("utf-8"))["ports"]
        ]
        code = self.server.add_terminal(self.terminal, inventory=tuple(inventory))
        child = self.processes.start_python(
            "-m", "edge_agent.cli", "enrol", "--config", self.config, "--terminal", self.terminal, "--code", code,
            "--ca-fingerprint", self.server.authority.ca_fingerprint,
        )  # fmt: skip
        assert child.popen.wait(30) == 0, child.output()

    def start(self, *, wait: bool = True) -> None:
        self.agent = self.processes.start_python("-m", "edge_agent.cli", "run", "--config", self.config)
        if wait:
            self.wait_answering()

    def wait_answering(self) -> None:
        def answers() -> bool:
            assert self.agent is not None
            assert self.agent.running, self.agent.output()
            try:
                return self.api.request("GET", "/v1/status")[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(answers, f"the agent of {self.terminal} answers", timeout_s=20)

    def fault(self, device: str, name: str) -> None:
        """Script a fault as a person would."""
        self._sim("fault", device, name)

    def clear(self, device: str, name: str) -> None:
        self._sim("clear", device, name)

    def _sim(self, verb: str, device: str, name: str) -> None:
        child = self.processes.start([sys.executable, "-m", "simulators.cli", verb, self.ports / "sim", device, name])
        assert child.popen.wait(20) == 0, child.output()

    def close(self) -> None:
        shutil.rmtree(self.ports, ignore_errors=True)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(5)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise
