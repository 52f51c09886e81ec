"""As much MQTT 3.1.1 as the server needs besides its ingest: a CONNECT packet and its answer (OASIS MQTT 3.1.1, sections 3.1 and 3.2)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass

from fleet_server.errors import FleetServerError

PROTOCOL_LEVEL = 4
CONNECT, CONNACK = 0x10, 0x20
ACCEPTED, BAD_PROTOCOL_LEVEL, NOT_AUTHORISED = 0, 1, 5
DISCONNECT_PACKET = b"\xe0\x00"
CLEAN_SESSION, WILL, PASSWORD, USERNAME = 0x02, 0x04, 0x40, 0x80
WILL_QOS = 0x18


class NotConnect(FleetServerError):
    """Bytes that are no CONNECT packet we understand; `answer` is what the standard wants said before hanging up."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Connect:
    """What matters of a CONNECT packet. The client's own name for itself is not among it."""

    keepalive_s: int
    will_topic: str | None = None
    will_payload: bytes = b""
    will_flags: int = 0


def connack(code: int) -> bytes:
    return bytes((CONNACK, 2, 0, code))


def encode_connect(connect: Connect, client_id: str) -> bytes:
    """A clean session without user name and password."""
    flags = CLEAN_SESSION
    payload = _string(client_id.encode())
    if connect.will_topic is not None:
        flags |= WILL | (connect.will_flags & WILL_QOS)
        payload += _string(connect.will_topic.encode()) + _string(connect.will_payload)
    body = _string(b"MQTT") + bytes((PROTOCOL_LEVEL, flags)) + connect.keepalive_s.to_bytes(2, "big") + payload
    return bytes((CONNECT,)) + encode_length(len(body)) + body


def decode_connect(body: bytes) -> Connect:
    """The variable header and payload of a CONNECT packet; NotConnect otherwise."""
    try:
        protocol, at = _take(body, 0)
        level, flags = body[at], body[at + 1]
        keepalive_s = int.from_bytes(body[at + 2 : at + 4], "big")
        if protocol != b"MQTT" or level != PROTOCOL_LEVEL:
            raise NotConnect(f"protocol level {level}; 3.1.1 is spoken here", connack(BAD_PROTOCOL_LEVEL))
        _, at = _take(body, at + 4)
        if not flags & WILL:
            return Connect(keepalive_s)
        topic, at = _take(body, at)
        payload, _ = _take(body, at)
        return Connect(keepalive_s, topic.decode("utf-8"), payload, flags & WILL_QOS)
    except (IndexError, UnicodeDecodeError) as err:
        raise NotConnect("not a CONNECT packet") from err


def encode_length(length: int) -> bytes:
    """Remaining length, section 2.2.3."""
    encoded = bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded)


async def greet(host: str, port: int, context: ssl.SSLContext, client_id: str, *, timeout_s: float) -> int:
    """Connect, say who we are, hear the answer, leave. Returns the CONNACK code; OSError or TimeoutError if there is none.

    A broker ends the older session of a client id when a newer one connects: so this also ends the session of a terminal that was revoked.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(encode_connect(Connect(keepalive_s=10), client_id))
            answer = await reader.readexactly(4)
            writer.write(DISCONNECT_PACKET)
            await writer.drain()
        except asyncio.IncompleteReadError as err:
            raise ConnectionResetError("the broker hung up instead of answering") from err
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
    if answer[0] != CONNACK:
        raise ConnectionResetError("the answer is not MQTT")
    return answer[3]


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _take(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    if at + 2 > len(body) or end > len(body):
        raise IndexError(at)
    return body[at + 2 : end], end
