"""The enrolment listener: uvicorn over TLS, with the client certificate's name handed to the application."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fleet_server.authority.authority import Authority
from fleet_server.punctual import HEAD_MAX_BYTES

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

CONNECTION_S = 60.0
"""Longest life of a connection (chosen): a request is 64 KiB at most, and whoever sends its head a byte a minute would keep others out."""
STALL_S = 600.0
"""A transfer of a published file may go on for so long after each part that was taken (chosen): at the lowest rate that can be ordered, 1 KiB/s, what
the system's buffers hold is gone by then. Whoever is cut off goes on with a range."""
SEND_BUFFER_BYTES = 256 * 1024
"""What the system may hold back for one slow reader; the kernel alone would let it grow to megabytes."""
WRITE_BUFFER_BYTES = 16 * 1024
"""Above it the application waits, where the system takes nothing more. By default TLS takes half a megabyte for each connection."""
MAX_CONNECTIONS = 2048
SHUTDOWN_S = 3
"""What is under way when the server stops may end; a download that is cut off is taken up again by its terminal."""
NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""


def tls_context(authority: Authority) -> ssl.SSLContext:
    """Client certificates are optional (a new terminal has none), but one that is shown must be the fleet's.

    Their dates are not looked at: a terminal that was switched off for longer than its certificate lived must still be able to renew it, and what
    decides there is the signature by its record key. Revocation is the registry's word, not a list's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    chain, key = authority.server_files
    context.load_cert_chain(chain, key)
    context.load_verify_locations(authority.ca_file)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
    return context


class PeerProtocol(H11Protocol):
    """Tells the application who is at the other end: `scope["kf_peer"]` is the verified client certificate's common name, or None."""

    _transferred = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = common_name(transport.get_extra_info("peercert"))
        application: Application = self.app

        async def with_peer(scope: Scope, receive: Any, send: Any) -> None:
            scope["kf_peer"] = peer
            scope["kf_extend"] = lambda: self._live(STALL_S)
            scope["kf_drained"] = self._drained
            await application(scope, receive, send)
            if self._transferred:
                self._live(CONNECTION_S)
                self._transferred = False

        self.app = with_peer
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._end = self.loop.call_later(CONNECTION_S, transport.abort)
        self._writable: asyncio.Future[None] | None = None

    def _live(self, seconds: float) -> None:
        """A transfer makes progress, or has ended: from now on its connection may live so long."""
        if self._end.cancelled():
            return  # the connection is gone already
        self._transferred = True
        self._end.cancel()
        self._end = self.loop.call_later(seconds, self.transport.abort)

    async def _drained(self) -> None:
        """Returns when the system takes more for this reader: then what is sent next goes there at once, and nothing is queued in this process.

        A transport has no such wish: it queues 64 KiB, and TLS as much again, before it makes anybody wait.
        """
        await self.flow.drain()
        sock = self.transport.get_extra_info("socket")
        if self.transport.is_closing() or sock is None or _takes_more(sock.fileno()):
            await asyncio.sleep(0)  # others have their turn
            return
        self._writable = self.loop.create_future()
        own = os.dup(sock.fileno())  # the loop watches a descriptor for one purpose only
        try:
            self.loop.add_writer(own, _settle, self._writable)
            await self._writable
        finally:
            self.loop.remove_writer(own)
            os.close(own)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        if self._writable is not None:
            _settle(self._writable)
        super().connection_lost(exc)


def _takes_more(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def common_name(certificate: Any) -> str | None:
    """The common name in what `SSLSocket.getpeercert` gives."""
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return None


def server(application: Application, authority: Authority, host: str, port: int) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=PeerProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=SHUTDOWN_S,
        backlog=1024,
    )
    config.load()
    config.ssl = tls_context(authority)
    return uvicorn.Server(config)
