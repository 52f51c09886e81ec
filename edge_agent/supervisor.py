"""The composition root: one terminal's agent, from its parts to its tasks, from the boot record to the stop record.

Everything comes in through the constructor (clock, ports, keys, paths), so 400 agents run in one process and a test runs one in a virtual year.
This is the only place that catches whatever a part may raise: a part that fails is started again, later each time, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import ssl
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from edge_agent import identity, sessions, spool, status, tls
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.errors import AgentError
from edge_agent.host import HostFacts, HostProbe
from edge_agent.housekeeping import Housekeeping, Parts
from edge_agent.identity import Identity
from edge_agent.local_api import Applications, Gate, KioskService, LocalApi, RefillRefused
from edge_agent.local_api.server import HttpDoor
from edge_agent.monitor import Monitor
from edge_agent.outbox import Outbox, OutboxError, OutboxLimits, Recorder
from edge_agent.sd_notify import Notifier
from edge_agent.signing import KeyStore
from edge_agent.status import StatusDocument, UplinkStatus
from edge_agent.transports.base import Discoverer, PortOpener
from edge_agent.uplink import Conversation, Uplink, UplinkSettings
from edge_agent.version import AGENT_VERSION
from protocols.contract.messages import OpenFault
from protocols.contract.records import Body, Boot, ClockQuality, Consumable, Link, Notice, Stop
from protocols.profile.schema import Profile

log = logging.getLogger(__name__)

TICK_S = 5.0
KEY_CHECK_S = 60.0
FIRST_RENEWAL_CHECK_S = 60.0
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 60.0
GOOD_RUN_S = 300.0
"""A part that ran so long starts again at once when it fails."""
LAST_WORDS_S = 2.0
"""At a planned end the server may still hear the stop record; if not, the outbox keeps it."""
STALLED_S = 30.0
"""Without a finished tick for so long the watchdog is not fed any more."""
_NET_CODES = {"dns": "NET.DNS_FAIL", "tls": "NET.TLS_FAIL"}

StopReason = Literal["shutdown", "restart", "update", "operator"]


class Agent:
    """One terminal. `run` once; `stop` from the same loop ends it with a stop record."""

    def __init__(
        self,
        *,
        config: Config,
        who: Identity,
        clock: Clock,
        boot_id: bytes,
        keys: KeyStore,
        opener: PortOpener,
        discoverer: Discoverer,
        profiles: Mapping[str, Profile],
        probe: HostProbe,
        facts: HostFacts,
        applications: Applications | None = None,
        notifier: Notifier | None = None,
        broker: UplinkSettings | None = None,
        uplink: bool = True,
        local_api: bool = True,
        limits: OutboxLimits | None = None,
        durable: bool = True,
        port_holders: Callable[[str], int] | None = None,
        rng: random.Random | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`config`: merged with the desired state. `broker`: None for the one of the configuration or of enrolment."""
        self._config, self._who, self._clock, self._boot_id = config, who, clock, boot_id
        self._keys, self._opener, self._discoverer, self._profiles = keys, opener, discoverer, profiles
        self._probe, self._facts = probe, facts
        self._applications = applications or Applications()
        self._notifier = notifier or Notifier()
        self._broker = broker or self._own_broker()
        self._with_uplink, self._with_local_api = uplink, local_api
        self._limits, self._durable, self._port_holders = limits, durable, port_holders
        self._rng, self._random = rng or random.Random(), random_bytes
        self._uplink: Uplink | None = None
        self._monitor_used = False
        self._state_dir, self._identity_dir = Path(config.state_dir), Path(config.identity_dir)
        self._stopping = asyncio.Event()
        self._stop_reason: StopReason = "shutdown"
        self._ticked_ms = clock.boot_ms()
        self.started = asyncio.Event()
        """Set when the agent records."""
        self.http_port: int | None = None

    def stop(self, reason: StopReason = "shutdown") -> None:
        self._stop_reason = reason
        self._stopping.set()

    async def run(self) -> None:
        """Until `stop`. Raises AgentError or OutboxError if it cannot start."""
        with spool.only_one(self._state_dir):
            self._open()
            tasks = self._start()
            try:
                await self._stopping.wait()
                self._notifier.stopping()
                await self._say_goodbye()
            finally:
                await _end(tasks)
                self._close()

    # ------------------------------------------------------------------------------------------------------------ start and end

    def _open(self) -> None:
        """Spool, stream, boot record; then the parts that work on them."""
        opened = spool.open_spool(self._state_dir, self._keys, self._who, self._clock, limits=self._limits, durable=self._durable)
        self._outbox: Outbox = opened.outbox
        try:
            start = self._outbox.start_stream(self._boot_id)
            self._recorder = Recorder(self._outbox, self._on_sealed)
            unexpected = start.previous == "unclean" and not start.same_boot
            first: list[Body] = [
                Boot(
                    agent=AGENT_VERSION,
                    os=self._facts.os,
                    arch=self._facts.arch,
                    python=self._facts.python,
                    previous=start.previous,
                    same_boot=start.same_boot,
                )
            ]
            if opened.lost:
                first.append(Notice(code="spoolLost"))
            if unexpected:
                first.append(Notice(code="unexpectedReboot"))
            self._outbox.capture_many(first)
            spool.finish_rotation(self._outbox, self._keys, self._who, self._identity_dir)
            self._service = self._make_service()
            self._monitor = self._make_monitor()
            self._house = self._make_house(unexpected_reboot=unexpected)
        except BaseException:
            self._outbox.close(clean=False)
            raise
        self._recorder.seal()

    def _start(self) -> list[asyncio.Task[None]]:
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "housekeeping": self._keep_house,
            "devices": self._watch_devices,
            "keys": self._keep_keys,
            "watchdog": self._feed_watchdog,
        }
        if self._with_uplink:
            parts["uplink"] = self._run_uplink
        if self._with_local_api:
            parts["local api"] = self._serve_applications
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._kept(name, part), name=f"{self._who.terminal} {name}") for name, part in parts.items()]
        self._notifier.ready()
        self.started.set()
        log.info("agent started", extra={"terminal": self._who.terminal, "version": AGENT_VERSION})
        return tasks

    async def _say_goodbye(self) -> None:
        """Last summaries and the stop record; while the uplink stands, a moment for the server to hear it."""
        try:
            self._house.close()
            if self._uplink is not None and self._uplink.connected:
                self._recorder.capture(Link(state="down", reason="stopping"))
            self._recorder.capture(Stop(reason=self._stop_reason), urgent=True)
        except OutboxError:
            log.warning("no space for the stop record")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LAST_WORDS_S
        while self._uplink is not None and self._uplink.connected and self._outbox.depth() and loop.time() < until_s:  # noqa: ASYNC110 -- the last thing a run does
            await asyncio.sleep(0.05)

    def _close(self) -> None:
        self._recorder.close()
        try:
            self._outbox.close(clean=self._stopping.is_set())
        except OutboxError:
            log.warning("the spool could not be sealed at the end; the next start does it")
        log.info("agent stopped", extra={"terminal": self._who.terminal})

    async def _kept(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run one part until cancelled; start it again when it fails."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began_s = loop.time()
            try:
                await part()
            except Exception as err:  # noqa: BLE001 -- the one place that may: whatever a part did not foresee must not end the agent
                failures = 0 if loop.time() - began_s > GOOD_RUN_S else failures + 1
                log.error(
                    "a part failed and starts again",
                    extra={"terminal": self._who.terminal, "part": name, "kind": type(err).__name__, "at": _place(err)},
                )
            else:
                return
            await asyncio.sleep(self._rng.uniform(0.5, 1.0) * min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures, 10)))

    # -------------------------------------------------------------------------------------------------------------------- parts

    def _make_service(self) -> KioskService:
        config = self._config
        service = KioskService(
            ledger=self._recorder,
            memory=self._outbox,
            clock=self._clock,
            boot_id=self._boot_id,
            items=frozenset(item.code for item in config.items),
            slots=frozenset(device.slot for device in config.devices),
            refill=self._refill,
            use=lambda slot, ok, count: self._monitor.note_use(slot, ok=ok, count=count),
            status=self.status,
            policy=sessions.Policy(lease_ms=config.local_api.session_lease_s * 1000),
            random_bytes=self._random,
        )
        with contextlib.suppress(OutboxError):
            service.resume()
        return service

    def _make_monitor(self) -> Monitor:
        return Monitor(
            clock=self._clock,
            discoverer=self._discoverer,
            opener=self._opener,
            recorder=self._recorder,
            store=self._outbox,
            profiles=self._profiles,
            inventory=self._config.devices,
            new_id=lambda: self._random(8),
            rng=self._rng,
            lease_free=lambda: self._service.idle,
            port_holders=self._port_holders,
        )

    def _make_house(self, *, unexpected_reboot: bool) -> Housekeeping:
        parts = Parts(
            clock=self._clock,
            spool=self._outbox,
            capture=self._recorder.capture,
            monitor=lambda: self._monitor,
            leases=self._service,
            probe=self._probe,
            network=self._network_codes,
        )
        return Housekeeping(
            parts,
            boot_id=self._boot_id,
            unexpected_reboot=unexpected_reboot,
            summary_s=self._config.intervals.summary_s,
            host_sample_s=self._config.intervals.host_sample_s,
        )

    async def _keep_house(self) -> None:
        while True:
            self._house.tick()
            self._ticked_ms = self._clock.boot_ms()
            expiry_s = self._service.next_expiry_s()
            await asyncio.sleep(TICK_S if expiry_s is None else min(TICK_S, expiry_s + 0.01))

    async def _watch_devices(self) -> None:
        if self._monitor_used:
            self._monitor = self._make_monitor()  # what a failed run left behind is not trusted; its memory is in the store
        self._monitor_used = True
        await self._monitor.run()

    async def _run_uplink(self) -> None:
        conversation = Conversation(
            self._outbox,
            self._clock,
            self._who.root(),
            AGENT_VERSION,
            self._boot_id,
            self._open_for_birth,
            on_server_time=self._house.learn_server_time,
        )
        self._uplink = Uplink(self._broker, self._outbox, conversation, self._on_link, rng=self._rng)
        await self._uplink.run()

    async def _serve_applications(self) -> None:
        table = self._config.local_api
        http = None
        if table.http_port is not None:
            gate = Gate(hosts=table.hosts(), origins=frozenset(table.allowed_origins), applications=self._applications)
            http = HttpDoor(port=table.http_port, gate=gate)
        api = LocalApi(self._service, socket_path=Path(table.socket_path), allowed_uids=frozenset(table.allowed_uids), http=http)
        await api.start()
        self.http_port = api.http_port
        try:
            await asyncio.get_running_loop().create_future()  # serves until cancelled
        finally:
            await api.stop()

    async def _keep_keys(self) -> None:
        """Finish rotations that were ordered, renew the client certificate in time."""
        checked_s = -float(self._config.intervals.renewal_check_s) + FIRST_RENEWAL_CHECK_S
        waited_s = 0.0
        while True:
            spool.finish_rotation(self._outbox, self._keys, self._who, self._identity_dir)
            if waited_s - checked_s >= self._config.intervals.renewal_check_s:
                checked_s = waited_s
                await self._renew_if_due()
            await asyncio.sleep(KEY_CHECK_S)
            waited_s += KEY_CHECK_S

    async def _renew_if_due(self) -> None:
        validity = self._keys.validity()
        now_ms = self._house.trusted_now_ms()
        if validity is None or not validity.renewal_due(now_ms):
            return
        from edge_agent import enrol  # with HTTPS and certificates 6 MiB, needed once in two months

        try:
            done = await asyncio.to_thread(
                enrol.renew, self._who, self._keys, self._identity_dir, now_ms=now_ms, check_dates=self._dates_count()
            )
        except AgentError as err:
            log.warning("the certificate was not renewed", extra={"terminal": self._who.terminal, "reason": str(err)})
            return
        self._house.learn_server_time(done.server_time_ms)
        log.info("the certificate was renewed", extra={"terminal": self._who.terminal})

    async def _feed_watchdog(self) -> None:
        if self._notifier.watchdog_s is None:
            return
        while True:
            if self._clock.boot_ms() - self._ticked_ms < STALLED_S * 1000:
                self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog_s / 3)

    # -------------------------------------------------------------------------------------------------------------------- hooks

    def status(self) -> StatusDocument:
        """What works, for the kiosk application and `edge-agent doctor`."""
        uplink = self._uplink
        return status.document(
            terminal=self._who.terminal,
            agent=AGENT_VERSION,
            idle=self._service.idle,
            slots=self._monitor.slot_views(),
            faults=self._monitor.open_faults(),
            sightings=self._monitor.unknown_devices(),
            uplink=UplinkStatus(
                connected=uplink is not None and uplink.connected,
                reason=uplink.last_reason if uplink is not None else "closed",
                waiting_batches=self._outbox.depth(),
                acknowledged=uplink is None or not uplink.no_ack(),
            ),
        )

    def _open_for_birth(self) -> tuple[OpenFault, ...]:
        return self._monitor.open_for_birth()

    def _refill(self, slot: str, item: str, quantity: int) -> Consumable:
        bodies = self._monitor.take_refill(slot, item, quantity)
        if not bodies:
            raise RefillRefused
        return bodies[-1]

    def _on_sealed(self) -> None:
        if self._uplink is not None:
            self._uplink.kick()

    def _on_link(self, state: Literal["up", "down"], reason: str, attempts: int) -> None:
        try:
            self._recorder.capture(Link(state=state, reason=reason, attempts=attempts))  # type: ignore[arg-type]  # one of the words
        except OutboxError:
            log.warning("no space for a link record", extra={"terminal": self._who.terminal})

    def _network_codes(self) -> frozenset[str]:
        uplink = self._uplink
        if uplink is None:
            return frozenset()
        if uplink.connected:
            return frozenset({"NET.NO_ACK"}) if uplink.no_ack() else frozenset()
        code = _NET_CODES.get(uplink.last_reason)
        return frozenset({code}) if code else frozenset()

    def _own_broker(self) -> UplinkSettings:
        table, given = self._config.mqtt, self._who.mqtt
        return UplinkSettings(host=table.host or given.host, port=table.port or given.port, tls=self._tls if table.tls else None)

    def _tls(self) -> ssl.SSLContext:
        """A fresh context for each connection, so a renewed certificate is used at the next one."""
        return tls.client_context(identity.load_ca(self._identity_dir), check_dates=self._dates_count(), keys=self._keys)

    def _dates_count(self) -> bool:
        return self._clock.quality() is ClockQuality.SYNCED


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: Python 3.11's `wait_for` forgets a cancellation that comes at the same moment as its result."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1.0)


def _place(err: BaseException) -> str:
    """Where it happened. The message stays out: it may hold what a device or a program sent."""
    while isinstance(err, BaseExceptionGroup):
        err = err.exceptions[0]
    frames = traceback.extract_tb(err.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
