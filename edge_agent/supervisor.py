"""The composition root: one terminal's agent, from its parts to its tasks, from the boot record to the stop record.

Everything comes in through the constructor (clock, ports, keys, paths), so 400 agents run in one process and a test runs one in a virtual year.
This is the only place that catches whatever a part may raise: a part that fails is started again, later each time, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_agent import identity, logs, sessions, spool, status, tls
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.errors import AgentError, place_of
from edge_agent.host import HostFacts, HostProbe
from edge_agent.housekeeping import Housekeeping, Parts
from edge_agent.identity import Identity
from edge_agent.local_api import Applications, Gate, KioskService, LocalApi, RefillRefused
from edge_agent.local_api.server import HttpDoor
from edge_agent.monitor import Monitor, Tested
from edge_agent.orders.desired import DesiredKeeper
from edge_agent.orders.inbox import BookKeeper, Inbox
from edge_agent.orders.runner import HookName, Runner
from edge_agent.orders.runner import Parts as OrderParts
from edge_agent.orders.versions import VERSIONS_KEY, versions_at_start
from edge_agent.outbox import Outbox, OutboxError, OutboxLimits, Recorder
from edge_agent.sd_notify import Notifier
from edge_agent.signing import KeyStore
from edge_agent.slots import Booking
from edge_agent.status import Closed, LockStatus, StatusDocument, UplinkStatus
from edge_agent.transports.base import Discoverer, PortOpener
from edge_agent.uplink import Conversation, Uplink, UplinkSettings
from edge_agent.version import AGENT_VERSION
from protocols.contract.messages import OpenFault
from protocols.contract.records import Body, Boot, ClockQuality, Device, Link, Notice, Stop, Update
from protocols.profile.schema import Profile

if TYPE_CHECKING:
    from edge_agent.artifacts.board import Board
    from edge_agent.orders import hooks
    from edge_agent.orders.updater_link import UpdaterLink
    from edge_agent.owner.service import OwnerService
    from edge_agent.updater.handover import AgentSide

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
UPDATER_TICK_S = 1.0
LOGS_PATH = "/api/v1/logs"
_NET_CODES = {"dns": "NET.DNS_FAIL", "tls": "NET.TLS_FAIL"}

_TAKEN = frozenset({200, 204, 409})
"""409: it was taken before; the answer got lost."""
_SERVER_ERROR, _TOO_MANY = 500, 429

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
        version: str = AGENT_VERSION,
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
        """`config`: the file with what enrolment brought; signed configurations come on top. `version`: what this agent says it is. `broker`: None
        for the one of the configuration or of enrolment."""
        self._base = config
        self._version = version
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
        self._reconfigured = asyncio.Event()
        self._assembled = False
        self._link: UpdaterLink | None = None
        self._refused_bundle = b""
        self._board: Board | None = None
        self._owner: OwnerService | None = None
        self.stop_reason: StopReason = "shutdown"
        """Why the run ended or will end; with `restart` and `update` whoever runs this agent starts it again."""
        self._ticked_ms = clock.boot_ms()
        self._log_book = self._make_log_book()
        self.started = asyncio.Event()
        """Set when the agent records."""
        self.http_port: int | None = None

    def stop(self, reason: StopReason = "shutdown") -> None:
        self.stop_reason = reason
        self._stopping.set()

    def stop_for_the_system(self) -> None:
        """Whoever manages services asked for the end. While the updater changes the agent, that is the update."""
        self.stop("update" if self._link is not None and self._link.switching else "shutdown")

    async def run(self) -> None:
        """Until `stop`. Raises AgentError or OutboxError if it cannot start."""
        with spool.only_one(self._state_dir), logs.kept_in(self._log_book):
            self._open()
            tasks = self._start()
            try:
                await self._stopping.wait()
                self._notifier.stopping()
                # Whatever tells facts is silent before the stop record, which is the last one.
                await _end(task for name, task in tasks.items() if name not in _AFTER_THE_LAST_WORD)
                await self._say_goodbye()
            finally:
                await _end(tasks.values())
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
                    agent=self._version,
                    os=self._facts.os,
                    arch=self._facts.arch,
                    python=self._facts.python,
                    previous=start.previous,
                    same_boot=start.same_boot,
                ),
                versions_at_start(self._outbox.get(VERSIONS_KEY), self._version),
            ]
            if opened.lost:
                first.append(Notice(code="spoolLost"))
            if unexpected:
                first.append(Notice(code="unexpectedReboot"))
            self._outbox.capture_many(first)
            spool.finish_rotation(self._outbox, self._keys, self._who, self._identity_dir)
            self._desired = self._make_desired()
            self._desired.started()
            self._assemble(unexpected_reboot=unexpected)
            self._keeper = BookKeeper(self._recorder, self._outbox)
            self._runner = self._make_runner()
            self._inbox = self._make_inbox()
            self._owner = self._make_owner()
            self._begin_with_updater()
            self._assembled = True
        except BaseException:
            self._outbox.close(clean=False)
            raise
        self._recorder.seal()

    def _assemble(self, *, unexpected_reboot: bool) -> None:
        """Make the parts that the configuration shapes; with the one before, if the one on trial does not even let them be made."""
        while True:
            self._config = self._desired.config()
            try:
                self._service = self._make_service()
                self._monitor = self._make_monitor()
                self._house = self._make_house(unexpected_reboot=unexpected_reboot)
            except OutboxError:
                raise
            except Exception:
                if not self._desired.roll_back():
                    raise
            else:
                return

    def _start(self) -> dict[str, asyncio.Task[None]]:
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "housekeeping": self._keep_house,
            "devices": self._watch_devices,
            "keys": self._keep_keys,
            "orders": self._runner.run,
            "watchdog": self._feed_watchdog,
        }
        if self._link is not None:
            parts["updater"] = self._talk_to_updater
        if self._board is not None:
            parts["artifacts"] = self._board.run
        if self._with_uplink:
            parts["uplink"] = self._run_uplink
        if self._with_local_api:
            parts["local api"] = self._serve_applications
        loop = asyncio.get_running_loop()
        tasks = {
            name: loop.create_task(self._kept(name, part), name=f"{self._who.terminal} {name}") for name, part in parts.items()
        }
        self._notifier.ready()
        self.started.set()
        log.info("agent started", extra={"terminal": self._who.terminal, "version": self._version})
        return tasks

    async def _say_goodbye(self) -> None:
        """Last summaries and the stop record; while the uplink stands, a moment for the server to hear it."""
        try:
            self._house.close()
            self._inbox.tell_strangers()
            if self._uplink is not None and self._uplink.connected:
                self._recorder.capture(Link(state="down", reason="stopping"))
            self._recorder.capture(Stop(reason=self.stop_reason), urgent=True)
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
                    extra={"terminal": self._who.terminal, "part": name, "kind": type(err).__name__, "at": place_of(err)},
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
            use=lambda slot, ok, count: self._monitor.book_use(slot, ok=ok, count=count),
            status=self.status,
            policy=sessions.Policy(lease_ms=config.local_api.session_lease_s * 1000),
            on_change=self._on_sessions,
            closed=self._closed,
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
            on_state=self._on_state,
        )

    def _make_owner(self) -> OwnerService | None:
        if not self._with_local_api:
            return None
        from edge_agent.owner.service import OwnerService

        return OwnerService(
            devices=lambda: self._monitor,
            now_ms=self._clock.boot_ms,
            closed=self._closed,
            idle=lambda: not self._service.serving,
            version=self._version,
            on_quiet=self._on_sessions,
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
            locked=lambda: self._desired.lock is not None,
        )
        return Housekeeping(
            parts,
            boot_id=self._boot_id,
            unexpected_reboot=unexpected_reboot,
            summary_s=self._config.intervals.summary_s,
            host_sample_s=self._config.intervals.host_sample_s,
        )

    def _make_desired(self) -> DesiredKeeper:
        return DesiredKeeper(
            ledger=self._recorder,
            memory=self._outbox,
            base=self._base,
            root=self._who.root(),
            fleet=self._who.fleet,
            terminal=self._who.terminal,
            boot_ms=self._clock.boot_ms,
            on_change=self._on_desired,
        )

    def _make_inbox(self) -> Inbox:
        return Inbox(
            keeper=self._keeper,
            desired=self._desired,
            ledger=self._recorder,
            clock=self._clock,
            root=self._who.root(),
            fleet=self._who.fleet,
            terminal=self._who.terminal,
            trusted_now_ms=self._house.trusted_now_ms,
            slots=lambda: frozenset(device.slot for device in self._config.devices),
            on_order=self._runner.kick,
            on_keys=lambda certificates: self._link.keys_changed(certificates) if self._link is not None else None,
        )

    def _make_runner(self) -> Runner:
        commands: dict[HookName, tuple[str, ...]] = {
            "restart_application": self._base.hooks.restart_application,
            "restart_host": self._base.hooks.restart_host,
        }
        parts = OrderParts(
            now_ms=self._house.trusted_now_ms,
            idle=lambda: self._may_disturb() and (self._link is None or not self._link.granted) and not self._flashing,
            can_test=lambda slot, test: self._monitor.can_test(slot, test),  # noqa: PLW0108 -- there may be another monitor by then
            test=self._test,
            hooks={name: functools.partial(self._run_hook, command) for name, command in commands.items() if command},
            restart_agent=lambda: self.stop("restart"),
            upload=self._upload_log,
            stream=self._outbox.stream,
            boot_id=self._boot_id,
        )
        return Runner(self._keeper, parts)

    async def _run_hook(self, command: tuple[str, ...]) -> hooks.Outcome:
        from edge_agent.orders import hooks

        return await hooks.run(command, within_s=self._base.hooks.within_s)

    async def _upload_log(self, order: bytes, from_ms: int, to_ms: int) -> Literal["done", "again", "refused"]:
        """Make, sign and post the excerpt that an order asks for."""
        from edge_agent import enrol  # with HTTPS 6 MiB, needed once in months
        from edge_agent.orders import excerpt

        files = self._log_book.files() if self._log_book is not None else []
        signer, check_dates = self._outbox.signer, self._dates_count()

        def post() -> int:
            sealed = excerpt.seal(excerpt.make(files, order, from_ms, to_ms), signer, self._who.fleet, self._who.terminal)
            return enrol.post_signed(self._who, self._keys, self._identity_dir, LOGS_PATH, sealed, check_dates=check_dates)

        try:
            status_code = await asyncio.to_thread(post)
        except AgentError as err:
            log.warning("an excerpt of the log was not sent", extra={"reason": str(err)})
            return "again"
        if status_code in _TAKEN:
            return "done"
        log.warning("the server does not take an excerpt of the log", extra={"status": status_code})
        return "again" if status_code >= _SERVER_ERROR or status_code == _TOO_MANY else "refused"

    def _make_log_book(self) -> logs.LogBook | None:
        table = self._base.log
        if table.max_mib == 0:
            return None
        directory = Path(table.dir) if table.dir is not None else self._state_dir / "log"
        return logs.LogBook(directory, self._clock, max_bytes=table.max_mib * 1024 * 1024)

    def _begin_with_updater(self) -> None:
        table = self._base.updater
        if table is None:
            self._refuse_without_updater()
            return
        from edge_agent.orders.updater_link import UpdaterLink
        from edge_agent.updater.handover import AgentSide

        requests = Path(table.requests_dir)
        side = AgentSide(requests, Path(table.updates_dir))
        self._begin_with_artifacts(side)
        self._link = UpdaterLink(
            side,
            ledger=self._recorder,
            memory=self._outbox,
            clock=self._clock,
            boot_id=self._boot_id,
            version=self._version,
            idle=lambda: self._quiet and not self._runner.restarting and not self._flashing,
            may_begin=lambda: self._may_disturb() and not self._runner.restarting and not self._flashing,
            slots=lambda: self._monitor.slot_views(),  # noqa: PLW0108 -- there may be another monitor by then
            faults=lambda: self._monitor.open_faults(),  # noqa: PLW0108 -- there may be another monitor by then
            on_quiet_end=self._runner.kick,
        )
        self._link.begin(self._desired.envelope, (requests / "order-keys.json").exists())

    def _begin_with_artifacts(self, side: AgentSide) -> None:
        """Profiles, catalogue, content and firmware that the updater hands over; what earlier runs took counts from here on."""
        from edge_agent.artifacts.board import Board

        folder = self._base.profiles_dir
        names = frozenset[str]() if folder is None else frozenset(path.stem for path in Path(folder).rglob("*.toml"))
        self._board = board = Board(
            side=side,
            state_dir=self._state_dir,
            memory=self._outbox,
            ledger=self._recorder,
            clock=self._clock,
            discoverer=self._discoverer,
            opener=self._opener,
            shipped={name: profile for name, profile in self._profiles.items() if name not in names},
            own={name: profile for name, profile in self._profiles.items() if name in names},
            pinned=lambda: frozenset(device.profile for device in self._config.devices if device.profile is not None),
            listed=lambda: self._config.items,
            devices=lambda: self._monitor,
            may_flash=lambda: (
                self._may_disturb() and not self._runner.restarting and (self._link is None or not self._link.granted)
            ),
            trusted_now_ms=self._house.trusted_now_ms,
            connected=lambda: self._uplink is not None and self._uplink.connected,
            span_s=lambda: self._config.intervals.summary_s,
            on_profiles=self._on_profiles,
            on_items=self._offer_items,
        )
        board.load()
        self._on_profiles()
        self._offer_items()

    @property
    def _quiet(self) -> bool:
        """Nobody is served, and no application has a command at a device."""
        return not self._service.serving and (self._owner is None or not self._owner.busy)

    def _may_disturb(self) -> bool:
        """As `_quiet`, for who waits for it: an application cannot keep everybody waiting with one command after the other."""
        return not self._service.serving and (self._owner is None or self._owner.make_way())

    async def _test(self, slot: str, test: str) -> Tested:
        """As an order asks for it. What an application has claimed prints and reads for the citizen in front of it, not for us."""
        if test != "query" and self._owner is not None and slot in self._owner.claimed():
            return "inUse"
        return await self._monitor.test(slot, test)

    def _on_state(self, body: Device) -> None:
        if self._owner is not None:
            self._owner.on_state(body)

    @property
    def _flashing(self) -> bool:
        return self._board is not None and self._board.busy

    def _on_profiles(self) -> None:
        """Another set of profiles counts: the devices are bound anew."""
        assert self._board is not None
        if self._board.profiles != self._profiles:
            self._profiles = self._board.profiles
            if self._monitor_used:
                self._reconfigured.set()
            else:
                self._monitor = self._make_monitor()

    def _offer_items(self) -> None:
        items = self._config.items if self._board is None else self._board.items()
        self._service.offer(frozenset(item.code for item in items), frozenset(device.slot for device in self._config.devices))

    async def _talk_to_updater(self) -> None:
        assert self._link is not None
        while True:
            self._link.tick()
            await asyncio.sleep(UPDATER_TICK_S)

    async def _keep_house(self) -> None:
        while True:
            self._house.tick()
            self._inbox.tell_strangers()
            with contextlib.suppress(OutboxError):
                self._desired.tick()
            self._ticked_ms = self._clock.boot_ms()
            expiry_s = self._service.next_expiry_s()
            await asyncio.sleep(TICK_S if expiry_s is None else min(TICK_S, expiry_s + 0.01))

    async def _watch_devices(self) -> None:
        while True:
            # What a failed run left behind is not trusted, and what was made for another configuration is not used; the memory is in the store.
            anew = self._monitor_used or self._reconfigured.is_set()
            self._reconfigured.clear()
            try:
                if anew:
                    self._monitor = self._make_monitor()
                self._monitor_used = True
                await self._run_until(self._monitor.run(), self._reconfigured)
            except Exception:
                if not self._desired.roll_back():
                    raise

    async def _run_until(self, part: Coroutine[None, None, None], enough: asyncio.Event) -> None:
        """Run `part` until it ends or `enough` is set; it has ended when this returns or raises."""
        loop = asyncio.get_running_loop()
        work, signal = loop.create_task(part), loop.create_task(enough.wait())
        cancelled = False
        try:
            await asyncio.wait({work, signal}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            signal.cancel()
            while not work.done():
                work.cancel()
                try:
                    await asyncio.wait({work}, timeout=1.0)
                except asyncio.CancelledError:
                    cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        if not work.cancelled():
            work.result()

    async def _run_uplink(self) -> None:
        conversation = Conversation(
            self._outbox,
            self._clock,
            self._who.root(),
            self._version,
            self._boot_id,
            self._open_for_birth,
            on_server_time=self._house.learn_server_time,
            inbox=self._inbox,
        )
        self._uplink = Uplink(self._broker, self._outbox, conversation, self._on_link, rng=self._rng)
        await self._uplink.run()

    async def _serve_applications(self) -> None:
        table = self._config.local_api
        http = None
        if table.http_port is not None:
            gate = Gate(hosts=table.hosts(), origins=frozenset(table.allowed_origins), applications=self._applications)
            http = HttpDoor(port=table.http_port, gate=gate)
        guides = None
        if self._board is not None:
            from edge_agent.local_api.guides import Guides

            guides = Guides(self._board.shelf, self._board.book, self._board.items, table.allowed_origins)
        api = LocalApi(
            self._service,
            socket_path=Path(table.socket_path),
            allowed_uids=frozenset(table.allowed_uids),
            http=http,
            guides=guides,
            devices=self._owner,
        )
        await api.start()
        self.http_port = api.http_port
        try:
            await (
                asyncio.get_running_loop().create_future() if self._owner is None else self._owner.run()
            )  # serves until cancelled
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
        uplink, lock = self._uplink, self._desired.lock
        return status.document(
            terminal=self._who.terminal,
            agent=self._version,
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
            closed=self._closed(),
            lock=None if lock is None else LockStatus(zh=lock.zh, en=lock.en, since_ms=lock.since_ms),
            claimable=frozenset() if self._owner is None else self._owner.claimable(),
            claimed=None if self._owner is None else self._owner.claimed(),
        )

    def _closed(self) -> Closed | None:
        """Why no session can begin now."""
        if self._desired.lock is not None:
            return "locked"
        if (self._link is not None and self._link.granted) or self._flashing:
            return "updating"
        return "restarting" if self._runner.restarting else None

    def _on_sessions(self) -> None:
        if self._assembled:
            self._runner.kick()

    def _on_desired(self, reconfigured: bool) -> None:
        """Another desired state holds, or the configuration before came back."""
        if not self._assembled:
            return
        if self._link is not None and self._desired.envelope is not None:
            self._link.desired_changed(self._desired.envelope)
        self._refuse_without_updater()
        if reconfigured:
            self._config = self._desired.config()
            self._offer_items()
            self._house.pace(summary_s=self._config.intervals.summary_s, host_sample_s=self._config.intervals.host_sample_s)
            self._reconfigured.set()

    def _refuse_without_updater(self) -> None:
        """Nobody waits for an update where nothing can install one: said once a bundle and start."""
        bundle = self._desired.bundle
        if self._base.updater is not None or bundle is None or bundle.id == self._refused_bundle:
            return
        now_ms = max(0, self._clock.wall_ms())
        refused = [
            Update(
                bundle=bundle.id,
                rollout=bundle.rollout,
                component=wanted.component,
                state="refused",
                reason="noUpdater",
                since_ms=now_ms,
                to_version=wanted.version,
            )
            for wanted in bundle.wanted
        ]
        try:
            for body in refused:
                self._recorder.capture(body, urgent=True)
        except OutboxError:
            log.warning("no space to refuse an update", extra={"terminal": self._who.terminal})
            return
        self._refused_bundle = bundle.id

    def _open_for_birth(self) -> tuple[OpenFault, ...]:
        return self._monitor.open_for_birth()

    def _refill(self, slot: str, item: str, quantity: int) -> Booking:
        booking = self._monitor.book_refill(slot, item, quantity)
        if not booking.bodies:
            raise RefillRefused
        return booking

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


_AFTER_THE_LAST_WORD = frozenset({"uplink", "watchdog"})
"""Parts that go on while the server hears the stop record."""


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: Python 3.11's `wait_for` forgets a cancellation that comes at the same moment as its result."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=1.0)
