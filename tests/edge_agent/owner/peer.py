"""A WebSocket client for tests, over bytes that the test can also spoil."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

HOST = "kiosk.local:7077"
PATH = "/xfs4iot/v1.0"


class Peer:
    """A WebSocket client that can also misbehave."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader, self.writer, self.head = reader, writer, head
        self.status = int(head.split()[1])
        self.ws = Connection(ConnectionType.CLIENT)
        self.pings = 0
        self.heard = bytearray()
        """Every message that came, as text."""

    def send(self, message: Any) -> None:
        self.raw(self.ws.send(TextMessage(data=message if isinstance(message, str) else json.dumps(message))))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def command(self, name: str, number: int = 1, payload: Any = None) -> None:
        version = "1.0" if name.startswith("KioskFleet.") else "2.0"
        head = {"type": "command", "name": name, "requestId": number, "version": version}
        self.send({"header": head, "payload": payload})

    async def next(self) -> Any:
        """The next message, or the close code as a number; 0 for a connection that was cut."""
        text = ""
        async with asyncio.timeout(15):
            while True:
                for event in self.ws.events():
                    if isinstance(event, TextMessage):
                        text += event.data
                        if event.message_finished:
                            self.heard += text.encode("utf-8")
                            return json.loads(text)
                    elif isinstance(event, CloseConnection):
                        return int(event.code)
                    elif isinstance(event, Ping | Pong):
                        self.pings += 1
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return 0
                if not data:
                    return 0
                self.ws.receive_data(data)

    async def completion(self, name: str, number: int = 1, payload: Any = None) -> Any:
        self.command(name, number, payload)
        while True:
            message = await self.next()
            assert not isinstance(message, int), message
            if message["header"]["type"] == "completion" and message["header"]["requestId"] == number:
                return message

    def cut(self) -> None:
        self.writer.transport.abort()


def handshake(at: str = f"{PATH}/scanner", /, **changes: str | None) -> bytes:
    headers: dict[str, str | None] = {
        "Host": HOST,
        "Upgrade": "websocket",
        "Connection": "keep-alive, Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {at} HTTP/1.1", *lines, "", ""]).encode()


async def connect(socket_path: Path, slot: str | None) -> Peer:
    """A native program's connection to a service."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    writer.write(handshake(PATH if slot is None else f"{PATH}/{slot}", Host="localhost"))
    async with asyncio.timeout(10):
        peer = Peer(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode())
    assert peer.status == 101, peer.head
    return peer
