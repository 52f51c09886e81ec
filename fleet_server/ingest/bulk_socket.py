"""A TLS socket that reads and writes in bulk, for a client that asks for single bytes and sends single packets.

paho takes an MQTT packet off the socket in four reads, the broker sends each in a TLS record of its own, and so would every acknowledgement be.
Read one by one, messages also reach the ingest one by one, and each would cost a commit: what has arrived must be seen at once.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

READ_BYTES = 64 * 1024
RECORD_BYTES = 16 * 1024
"""The most that one TLS record carries (RFC 8446, section 5.1)."""
UNSENT_MAX_BYTES = 1024 * 1024
FULL_RETRY_S = 0.002


class BulkSocket(ssl.SSLSocket):
    """For `SSLContext.sslsocket_class`. On an event loop small sends are collected until the loop's next turn; elsewhere they go out at once."""

    _read = b""
    _at = 0
    _unsent: bytearray | None = None

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self._at == len(self._read):
            self._read, self._at = self._records(flags), 0
        part = self._read[self._at : self._at + buflen]
        self._at += len(part)
        return part

    def _records(self, flags: int) -> bytes:
        """What has arrived, as many TLS records as it is; raises what the socket raises if that is nothing."""
        found = first = super().recv(READ_BYTES, flags)
        while first and len(found) < READ_BYTES and not self.gettimeout():
            try:
                following = super().recv(READ_BYTES, flags)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not following:
                break
            found += following
        return found

    def pending(self) -> int:
        return len(self._read) - self._at + super().pending()

    def send(self, data: Any, flags: int = 0) -> int:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return super().send(data, flags)
        if self._unsent is None:
            self._unsent = bytearray()
        if len(self._unsent) >= UNSENT_MAX_BYTES:
            raise ssl.SSLWantWriteError
        if not self._unsent:
            loop.call_soon(self._flush, loop)
        self._unsent += data
        return len(data)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._unsent:
                del self._unsent[: super().send(self._unsent[:RECORD_BYTES])]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            loop.call_later(FULL_RETRY_S, self._flush, loop)
        except OSError:
            # Whoever reads hears of the end; what could not be sent is sent again on the next connection.
            self._unsent = None
