"""The HTTP side of enrolment: bytes in, JSON out, refusals with a stable word. What is decided is in `rules`."""

from __future__ import annotations

import asyncio
import base64
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding
from litestar import Controller, Litestar, Request, Response, get, post
from litestar.datastructures import State

from fleet_server.authority.authority import Authority
from fleet_server.channel import Channel
from fleet_server.enrolment import messages, rules
from fleet_server.enrolment.messages import Denied, EnrolRequest, Mqtt, Renewed, RenewRequest
from fleet_server.orders import logs
from fleet_server.settings import Settings
from fleet_server.updates.repository import Updates

log = logging.getLogger(__name__)

REFUSALS_PER_MINUTE = 30
"""Per source address; more than any honest installer makes, and a fleet behind one address enrols without refusals."""
ADDRESSES_WATCHED = 10_000
LOGS_AT_ONCE = 4
UPLOAD_S = 120.0
"""For the whole of one log (chosen): 4 MiB at 280 kbit/s. One that stalls gives its place up then, and comes again."""

T = TypeVar("T")


class Brake:
    """Counts refusals per address over the last minute."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._refusals: dict[str, deque[float]] = {}

    def holds(self, address: str) -> bool:
        recent = self._refusals.get(address)
        if recent is None:
            return False
        while recent and recent[0] < self._clock_s() - 60:
            recent.popleft()
        return len(recent) >= REFUSALS_PER_MINUTE

    def note(self, address: str) -> None:
        if address not in self._refusals and len(self._refusals) >= ADDRESSES_WATCHED:
            self._refusals.pop(next(iter(self._refusals)))
        self._refusals.setdefault(address, deque(maxlen=REFUSALS_PER_MINUTE)).append(self._clock_s())


class Desk:
    """What the handlers share: authority, database, the address terminals are told, the brake."""

    def __init__(self, settings: Settings, authority: Authority, channel: Channel, now_ms: Callable[[], int]) -> None:
        self.authority = authority
        self.now_ms = now_ms
        self.brake = Brake()
        self._channel = channel
        self._mqtt = Mqtt(host=settings.mqtt_host, port=settings.broker.port)
        self._updates = Updates(settings.layout.updates)
        self._logs = settings.layout.logs
        self._logs_at_once = asyncio.Semaphore(LOGS_AT_ONCE)
        self._uploading: set[str] = set()

    async def enrol(self, raw: bytes) -> msgspec.Struct:
        request: EnrolRequest = messages.read(raw, EnrolRequest)
        answer = await self._decide(
            lambda connection: rules.enrol(connection, self.authority, request, self._mqtt, now_ms=self.now_ms())
        )
        return await self._with_roots(answer)

    async def renew(self, raw: bytes, peer: str | None) -> msgspec.Struct:
        request: RenewRequest = messages.read(raw, RenewRequest)
        answer = await self._decide(
            lambda connection: rules.renew(connection, self.authority, request, peer, now_ms=self.now_ms())
        )
        return await self._with_roots(answer)

    async def take_log(self, request: Request[Any, Any, State], peer: str) -> None:
        """NotTaken, or it is stored. Only so many at once, each is some megabytes in memory; none of them for whoever was not asked."""
        try:
            await self._channel.run(lambda connection: logs.check_expected(connection, peer))
        except logs.NotTaken:
            await _pass_over(request)
            raise
        if peer in self._uploading:
            raise logs.NotTaken("tooMany", f"{peer}: another log of it is just coming")
        self._uploading.add(peer)
        try:
            async with self._logs_at_once:
                await self._take(request, peer)
        finally:
            self._uploading.discard(peer)

    async def _take(self, request: Request[Any, Any, State], peer: str) -> None:
        try:
            async with asyncio.timeout(UPLOAD_S):
                raw = await _body(request, logs.ENVELOPE_MAX_BYTES)
        except TimeoutError:
            raise logs.NotTaken("slow", f"{peer}: not whole after {UPLOAD_S:.0f} s") from None
        kid = logs.kid_of(raw)
        key = None if kid is None else await self._channel.run(lambda connection: logs.key_of(connection, kid))
        taken = await asyncio.to_thread(logs.examine, raw, key, peer, self.authority.fleet)
        await self._channel.transact(lambda connection: logs.keep(connection, self._logs, taken, self.now_ms()))

    async def _with_roots(self, answer: Renewed) -> Renewed:
        return msgspec.structs.replace(answer, update_roots=await asyncio.to_thread(self._updates.roots))

    async def _decide(self, work: Callable[[sqlite3.Connection], T | Denied]) -> T:
        answer = await self._channel.transact(work)
        if isinstance(answer, Denied):
            raise answer
        return answer


class EnrolmentController(Controller):
    path = "/api/v1"

    @get("/ca", sync_to_thread=False)
    def ca(self, state: State) -> Response[bytes]:
        """The authority's certificate, for agents that know only its fingerprint (E-1)."""
        desk: Desk = state.desk
        return Response(desk.authority.ca.public_bytes(Encoding.PEM), media_type="application/x-pem-file")

    @post("/enrol", status_code=200)
    async def enrol(self, request: Request[Any, Any, State], state: State) -> Response[Any]:
        desk: Desk = state.desk
        return await _answer(desk, request, desk.enrol)

    @post("/renew", status_code=200)
    async def renew(self, request: Request[Any, Any, State], state: State) -> Response[Any]:
        desk: Desk = state.desk
        peer = request.scope.get("kf_peer")
        return await _answer(desk, request, lambda raw: desk.renew(raw, peer if isinstance(peer, str) else None))

    @post("/logs", status_code=200, request_max_body_size=logs.ENVELOPE_MAX_BYTES)
    async def log(self, request: Request[Any, Any, State], state: State) -> Response[bytes]:
        """The answer to `pullLogs` (O-401 to O-403)."""
        desk: Desk = state.desk
        address = request.client.host if request.client else "?"
        peer = request.scope.get("kf_peer")
        try:
            if desk.brake.holds(address):
                return _json({"error": "tooMany", "message": ""}, 429)
            if not isinstance(peer, str):
                raise logs.NotTaken("notAuthentic", "no client certificate")
            await desk.take_log(request, peer)
        except logs.NotTaken as err:
            if err.reason not in ("done", "tooMany", "slow"):
                desk.brake.note(address)
            log.warning("refused %s from %s: %s", request.url.path, address, err)
            return _json({"error": err.reason, "message": str(err)}, err.http_status)
        return Response(b"", status_code=204)


async def _body(request: Request[Any, Any, State], limit: int) -> bytes:
    """NotTaken as soon as it is longer. A slow line gets the time of a transfer."""
    declared = request.headers.get("Content-Length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise logs.NotTaken("tooLarge", f"{declared} bytes")
    extend = request.scope.get("kf_extend")
    if callable(extend):
        extend()
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > limit:
            raise logs.NotTaken("tooLarge", f"more than {limit} bytes")
    return bytes(found)


async def _pass_over(request: Request[Any, Any, State]) -> None:
    """Read without keeping, as long as the connection may live: who is still sending does not see an answer."""
    left = logs.ENVELOPE_MAX_BYTES
    async for part in request.stream():
        left -= len(part)
        if left < 0:
            return


def make_app(desk: Desk) -> Litestar:
    """The application of the enrolment listener; it serves nothing else."""
    return Litestar(
        route_handlers=[EnrolmentController],
        state=State({"desk": desk}),
        request_max_body_size=messages.MESSAGE_MAX_BYTES,
        openapi_config=None,
    )


async def _answer(desk: Desk, request: Request[Any, Any, State], decide: Callable[[bytes], Any]) -> Response[Any]:
    address = request.client.host if request.client else "?"
    try:
        if desk.brake.holds(address):
            raise Denied("tooMany", f"{address} was refused {REFUSALS_PER_MINUTE} times within a minute")
        answer = await decide(await request.body())
    except Denied as err:
        if err.reason not in ("tooMany", "rootOffline"):
            desk.brake.note(address)
        log.warning("refused %s from %s: %s", request.url.path, address, err)
        return _json({"error": err.reason, "message": str(err)}, err.http_status)
    return _json(msgspec.to_builtins(answer, builtin_types=(bytes,)), 200)


def _json(value: dict[str, Any], status: int) -> Response[bytes]:
    plain = {name: base64.b64encode(item).decode("ascii") if isinstance(item, bytes) else item for name, item in value.items()}
    return Response(
        msgspec.json.encode(plain), status_code=status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )
