"""Steering a running terminal from another process: JSON lines over a Unix socket in the terminal's directory.

Request: `{"do": "fault", "words": ["receipt-printer", "paper-out"], "for_s": 30}`, likewise `clear` and `press`; `{"do": "script", "text": "…"}`;
`{"do": "faults"}`, `{"do": "help"}`, `{"do": "ports"}`, `{"do": "stop"}`. Answer: `{"ok": true, …}` or `{"ok": false, "error": "a sentence"}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simulators import scripts
from simulators.errors import ControlError, SimulatorError
from simulators.terminal import VirtualTerminal

SOCKET_NAME = "control.sock"
MAX_REQUEST_BYTES = 256 * 1024
TIMEOUT_S = 5.0
_SUN_PATH_BYTES = 107


class ControlServer:
    """Answers requests for one terminal until closed."""

    def __init__(self, terminal: VirtualTerminal, directory: Path) -> None:
        self._terminal = terminal
        self._path = directory / SOCKET_NAME
        self._server: asyncio.Server | None = None
        self.stopped = asyncio.Event()
        """Set when somebody asked the terminal to end."""

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_path(self._path) as address:
            listener.bind(address)
        self._path.chmod(0o600)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST_BYTES)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line), ensure_ascii=False).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError):
            pass  # an over-long line or a client that left: only its own connection ends
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return {"ok": True, **self._obey(request)}
        except SimulatorError as err:
            return {"ok": False, "error": str(err)}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"ok": False, "error": "The request is not understood; see simulators.control."}

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = request["do"]
        if verb in ("fault", "clear", "press"):
            for_s = request.get("for_s")
            self._terminal.do([verb, *map(str, request["words"])], for_s=None if for_s is None else float(for_s))
            return {}
        if verb == "script":
            text = str(request["text"])
            steps = scripts.parse_toml(text) if request.get("toml") else scripts.parse(text)
            return {"steps": self._terminal.play(steps)}
        if verb == "faults":
            return {"faults": self._terminal.faults()}
        if verb == "help":
            listing = self._terminal.help()
            return {"help": {name: {key: dict(table) for key, table in part.items()} for name, part in listing.items()}}
        if verb == "ports":
            return {"type": self._terminal.kind, "ports": self._terminal.ports()}
        if verb == "stop":
            self.stopped.set()
            return {}
        raise ControlError(f"A terminal cannot “{verb}”.")


def request(directory: Path, message: dict[str, Any]) -> dict[str, Any]:
    """Ask the terminal that runs in `directory`; ControlError if none does or if it refuses. Blocks for at most a few seconds."""
    path = directory / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            with short_path(path) as address:
                connection.connect(address)
            connection.sendall(json.dumps(message, ensure_ascii=False).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline(MAX_REQUEST_BYTES))
        except (OSError, ValueError) as err:
            raise ControlError(f"No terminal answers in {directory}. Is kiosk-sim terminal running there?") from err
    if not answer.get("ok"):
        raise ControlError(str(answer.get("error", "The terminal refused without a reason.")))
    return answer


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address (108 bytes), by way of an open directory where needed."""
    if len(os.fsencode(path)) <= _SUN_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_DIRECTORY | os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
