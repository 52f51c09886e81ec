"""The owner API's services: one for each slot and a publisher of them, for connections that somebody else holds open.

A device belongs to the connection that claimed it. What it says of a person goes down that connection, as the answer or an event of the command that
asked, and nowhere else: this module logs no payload, keeps none, and puts none into an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edge_agent.devices.attempts import Met
from edge_agent.devices.base import SlotBinding
from edge_agent.jobs import JobFailed, Work
from edge_agent.monitor import Tested
from edge_agent.owner import messages, states
from edge_agent.owner.base import CommandFailed, Counting, Request, Server
from edge_agent.owner.claims import Claim, Claims, ClaimTaken
from edge_agent.owner.factory import has_commands, server_for
from edge_agent.owner.messages import Command, CompletionCode, MessageRefused, PayloadRefused
from edge_agent.status import Closed, SlotView
from edge_agent.transports.base import Port, PortBusy, PortError, PortGone, PortRefused
from protocols.canon.words import DeviceState
from protocols.contract.records import Device

log = logging.getLogger(__name__)

MAX_REQUESTS = 4
"""Commands of one connection that are queued or at work."""
WAIT_MAX_S = 120.0
"""No command is longer at a device: the driver has to look at it now and then. A time of 0 means this."""
TICK_S = 0.5
PATIENCE_MS = 300_000
"""An update, an order or a flashing that has waited so long for an idle terminal goes first: an application that always has the next command ready
would keep them waiting for ever."""
WAITS_MS = 90_000
"""Who waits asks again within this, or waits no longer."""
SMALL_MESSAGE_BYTES = 64 * 1024
LARGE_MESSAGE_BYTES = 8 * 1024 * 1024
"""For the holder of a printer: a document."""
_COUNTED = frozenset({
    "BarcodeReader.Read", "CardReader.ReadRawData", "CardReader.ChipIO", "Printer.PrintRaw", "Printer.PrintNative",
})  # fmt: skip
"""Commands that are a job of the device. The application does not report these a second time."""
_NOT_TRIED = frozenset(
    {"timeOut", "canceled", "unsupportedCommand", "unsupportedData", "invalidData", "sequenceError", "userError"}
)
"""Ends that say nothing about how well the device works."""
_ASKED_WRONGLY = frozenset({"noMedia", "protocolNotSupported", "invalidData", "occupied"})
"""Error codes of which the same is true: nobody laid a card there, or the application asked for what cannot be."""
_EVENTS: Mapping[str, tuple[str, ...]] = {
    "Common": ("Common.StatusChangedEvent",),
    "Keyboard": ("Keyboard.EnterDataEvent", "Keyboard.KeyEvent"),
    "CardReader": (
        "CardReader.InsertCardEvent", "CardReader.MediaInsertedEvent", "CardReader.InvalidMediaEvent", "CardReader.MediaRemovedEvent",
    ),
    "Printer": ("Printer.MediaPresentedEvent", "Printer.MediaTakenEvent"),
    messages.OWN: (messages.CLAIM_LOST,),
}  # fmt: skip
_OWN_COMMANDS = frozenset({messages.CLAIM, messages.RENEW, messages.RELEASE, messages.SELF_TEST})
_COMMON_COMMANDS = frozenset({messages.STATUS, messages.CAPABILITIES, messages.CANCEL})


class Devices(Protocol):
    """The monitor, as far as it is needed here."""

    def bound_to(self, slot: str) -> SlotBinding | None: ...
    def slot_views(self) -> Iterable[SlotView]: ...
    async def perform(self, slot: str, work: Work[Any], *, within_s: float) -> Any: ...
    def note_use(self, slot: str, *, ok: bool, count: int = 1) -> None: ...
    def note_steps(self, slot: str, steps: Iterable[Met]) -> None: ...
    def can_test(self, slot: str, test: str) -> bool: ...
    async def test(self, slot: str, test: str) -> Tested: ...


class OwnerService:
    """All services of one terminal. `devices`: a function, since there may be another monitor by then."""

    def __init__(
        self,
        *,
        devices: Callable[[], Devices],
        now_ms: Callable[[], int],
        closed: Callable[[], Closed | None],
        idle: Callable[[], bool],
        version: str,
        on_quiet: Callable[[], None] = lambda: None,
    ) -> None:
        """`closed`: why nobody new may begin; `idle`: nobody is served. `on_quiet`: the last command has left its device."""
        self._devices, self._now_ms, self._closed, self._idle = devices, now_ms, closed, idle
        self._version, self._on_quiet = version, on_quiet
        self._claims = Claims()
        self._lines: set[Line] = set()
        self._taken = asyncio.Event()
        """Somebody has a device, so there is something to look after."""
        self._waited: tuple[int, int] | None = None
        """Since when somebody waits for the last command to leave its device, and when that was asked for last."""

    # ------------------------------------------------------------------------------------------------------------ for the agent

    async def run(self) -> None:
        """Ends leases that run out, and takes claims back while nobody may begin; until cancelled."""
        while True:
            await self._taken.wait()
            self.tick()
            if not self._claims.names():
                self._taken.clear()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        for claim in self._claims.run_out(self._now_ms()):
            self._take_back(claim, "lease")
        closed = self.closed()
        if closed is not None and self._idle():
            for claim in self._claims.idle():
                self._take_back(claim, closed)

    @property
    def busy(self) -> bool:
        """A command is at a device."""
        return self._claims.busy

    def make_way(self) -> bool:
        """Whether no command is at a device, asked by who has to wait for that. Who has asked for `PATIENCE_MS` goes first."""
        if not self.busy:
            self._waited = None
            return True
        now_ms = self._now_ms()
        since_ms = now_ms if self._waited is None or now_ms - self._waited[1] > WAITS_MS else self._waited[0]
        self._waited = (since_ms, now_ms)
        return False

    def closed(self) -> Closed | None:
        """Why nobody new may begin."""
        closed, now_ms = self._closed(), self._now_ms()
        if closed is None and self._waited is not None and now_ms - self._waited[1] <= WAITS_MS:
            return "updating" if now_ms - self._waited[0] >= PATIENCE_MS else None
        return closed

    @property
    def ends(self) -> bool:
        """The terminal is wanted and nobody is served: commands that are at their devices are finished, no others are begun."""
        return self.closed() is not None and self._idle()

    def claimed(self) -> Mapping[str, str]:
        """Slot to the application that has it."""
        return self._claims.names()

    def claimable(self) -> frozenset[str]:
        """Slots that can be claimed at all: the agent holds the device and serves its commands."""
        return frozenset(view.slot for view in self._devices().slot_views() if self._can_claim(view.slot))

    def on_state(self, body: Device) -> None:
        """A slot's state changed: told to every connection of its service."""
        for line in [line for line in self._lines if line.slot == body.slot]:
            line.tell(messages.STATUS_CHANGED, states.status(body.family, body))

    def open(self, slot: str | None, *, name: str | None, base: str, send: Callable[[bytes], None]) -> Line | None:
        """A connection to a slot's service, or to the publisher (None); None if there is no such service.

        `name`: of the application, where its token says it. `base`: address of the publisher. `send` takes a message and never waits.
        """
        if slot is not None and all(view.slot != slot for view in self._services()):
            return None
        line = Line(self, slot, name, base, send)
        self._lines.add(line)
        return line

    # ------------------------------------------------------------------------------------------------------------ for its lines

    def forget(self, line: Line) -> None:
        self._lines.discard(line)

    def _services(self) -> list[SlotView]:
        return [view for view in self._devices().slot_views() if states.interface_of(view.family) is not None]

    def _can_claim(self, slot: str) -> bool:
        bound, view = self._devices().bound_to(slot), self.view(slot)
        if bound is None or view is None or view.state is None or view.state.device is DeviceState.NO_DEVICE:
            return False
        return has_commands(bound.profile)

    def _take_back(self, claim: Claim, reason: str) -> None:
        line = claim.holder
        assert isinstance(line, Line)
        line.lose(claim, reason)

    def view(self, slot: str) -> SlotView | None:
        return next((view for view in self._devices().slot_views() if view.slot == slot), None)


@dataclass(eq=False, slots=True)
class _Running:
    """A command that is queued or at work."""

    command: Command
    task: asyncio.Task[None]
    claim: Claim | None = None
    """Whose device it is at."""
    over: bool = False
    """Cancelled or completed: nothing of it is told any more."""
    begun: bool = False
    """It is at the device; until then it only waits its turn."""
    deadline_s: float = 0.0
    waited_in_vain: bool = False

    def give_up_waiting(self) -> None:
        """Its time is over. At the device it ends by itself; in the queue it is taken out."""
        if not self.begun and not self.over:
            self.waited_in_vain = True
            self.task.cancel()


@dataclass(slots=True)
class _Served:
    """What serves a claim: one object for its length, and another when the port was opened anew."""

    server: Server
    profile: str
    port: Port


class Line:
    """One connection to one service."""

    def __init__(
        self, service: OwnerService, slot: str | None, name: str | None, base: str, send: Callable[[bytes], None]
    ) -> None:
        self._service, self.slot, self._name, self._base, self._send = service, slot, name, base, send
        self._running: dict[int, _Running] = {}
        self._served: _Served | None = None
        self._closing = False

    @property
    def limit_bytes(self) -> int:
        """How large a message may be: a document for who holds a printer, little for everybody else."""
        if self.slot is None or self._claim() is None:
            return SMALL_MESSAGE_BYTES
        view = self._service.view(self.slot)
        printer = view is not None and states.interface_of(view.family) == "Printer"
        return LARGE_MESSAGE_BYTES if printer else SMALL_MESSAGE_BYTES

    def receive(self, text: str) -> None:
        """A message came. Every answer goes out through `send`, some at once."""
        try:
            command = messages.parse(text, self._running.keys() | set(), room=len(self._running) < MAX_REQUESTS)
        except MessageRefused as refused:
            self._send(refused.answer)
            return
        self._send(messages.acknowledge(command.name, command.request_id, command.version))
        claim = self._claim()
        if claim is not None:
            self._service._claims.seen(claim, self._service._now_ms())
        self._begin(command, claim)

    async def close(self) -> None:
        """The connection is gone: what it asked for is cancelled, and then its device is free."""
        self._closing = True
        self._service.forget(self)
        claim = None if self.slot is None else self._service._claims.on(self.slot)
        if claim is not None and claim.holder is self:
            claim.ending = True
        self._withdraw(list(self._running.values()))
        while self._running:
            await asyncio.wait({one.task for one in self._running.values()})
        if claim is not None and claim.holder is self:
            self._service._claims.drop(claim)

    def lose(self, claim: Claim, reason: str) -> None:
        """The claim is taken back; nothing of it is at the device."""
        self._service._claims.drop(claim)
        self._served = None
        self.tell(messages.CLAIM_LOST, {"reason": reason})

    def tell(self, name: str, payload: Mapping[str, Any]) -> None:
        if not self._closing:
            self._send(messages.event(name, payload))

    # ---------------------------------------------------------------------------------------------------------------- commands

    def _claim(self) -> Claim | None:
        return None if self.slot is None else self._service._claims.of(self.slot, self)

    def _begin(self, command: Command, claim: Claim | None) -> None:
        name = command.name
        if name not in self._commands():
            known = name in messages.PAYLOAD_NAMES and name != messages.GET_SERVICES
            self._complete(command, "unsupportedCommand" if known else "invalidCommand")
            return
        if not messages.takes_version(name, command.version):
            self._complete(command, "unsupportedCommand")
            return
        try:
            asked = messages.check(command)
        except PayloadRefused:
            self._complete(command, "invalidData")
            return
        if name == messages.GET_SERVICES:
            self._complete(command, "success", self._published())
        elif name == messages.STATUS:
            self._complete(command, "success", self._status())
        elif name == messages.CAPABILITIES:
            self._complete(command, "success", self._capabilities())
        elif name == messages.CANCEL:
            self._cancel(command, asked.request_ids)
        elif name == messages.CLAIM:
            self._take(command, asked.application, asked.lease_s)
        elif name == messages.RENEW:
            self._renew(command, claim)
        elif name == messages.RELEASE:
            self._go(command, self._release(command), None)
        elif name == messages.SELF_TEST:
            self._go(command, self._test(command, asked.test), None)
        elif claim is None:
            self._complete(command, "sequenceError")
        elif self._service.ends:
            self._complete(command, "deviceNotReady")
        else:
            self._go(command, self._serve(command, claim), claim)

    def _commands(self) -> frozenset[str]:
        if self.slot is None:
            return frozenset({messages.GET_SERVICES, messages.CANCEL})
        server = self._server_now()
        return _COMMON_COMMANDS | _OWN_COMMANDS | (frozenset() if server is None else server.commands)

    def _server_now(self) -> Server | None:
        """What would serve the device that is there now."""
        assert self.slot is not None
        bound = self._service._devices().bound_to(self.slot)
        if self._served is not None and (bound is None or bound.profile.id == self._served.profile):
            return self._served.server
        return None if bound is None else server_for(bound)

    def _complete(self, command: Command, code: CompletionCode, payload: Mapping[str, Any] | None = None) -> None:
        if not self._closing:
            self._send(messages.completion(command, code, payload))

    def _fail(self, command: Command, error_code: str, **more: Any) -> None:
        self._complete(command, "commandErrorCode", {"errorCode": error_code, **more})

    def _go(self, command: Command, work: Coroutine[Any, Any, None], claim: Claim | None) -> None:
        """Have it done in a task of its own, and end it properly even if it is cancelled before it begins."""
        task = asyncio.get_running_loop().create_task(work)
        running = self._running[command.request_id] = _Running(command, task, claim)
        if claim is not None:
            claim.busy += 1

        def ended(done: asyncio.Task[None]) -> None:
            running.over = True
            if claim is not None:
                claim.busy -= 1
                self._service._claims.seen(claim, self._service._now_ms())
                if not self._service.busy:
                    self._service._on_quiet()
            if done.cancelled():
                self._complete(command, "canceled")
            elif (error := done.exception()) is not None:
                log.error(
                    "an owner command failed", extra={"slot": self.slot, "command": command.name, "kind": type(error).__name__}
                )
                self._complete(command, "internalError")
            self._running.pop(command.request_id, None)

        task.add_done_callback(ended)

    def _withdraw(self, these: Iterable[_Running]) -> None:
        for one in these:
            one.over = True
            one.task.cancel()

    # ------------------------------------------------------------------------------------------------------------------ common

    def _published(self) -> dict[str, Any]:
        uris = [{"serviceURI": f"{self._base}/{view.slot}"} for view in self._service._services()]
        return {"vendorName": "Kiosk Fleet", "services": uris}

    def _status(self) -> dict[str, Any]:
        assert self.slot is not None
        view = self._service.view(self.slot)
        holder = self._service._claims.on(self.slot)
        own = {
            "claimable": self._service._can_claim(self.slot),
            "claimedBy": None if holder is None else holder.name,
            "mine": self._claim() is not None,
        }
        return {**states.status("" if view is None else view.family, None if view is None else view.state), "kioskFleet": own}

    def _capabilities(self) -> dict[str, Any]:
        assert self.slot is not None
        bound, server = self._service._devices().bound_to(self.slot), self._server_now()
        view = self._service.view(self.slot)
        state = None if view is None else view.state
        information = {
            "modelName": None if bound is None else bound.profile.display_name,
            "serialNumber": None,
            "revisionNumber": None,
            "modelDescription": None,
            "firmware": [{"firmwareName": None, "firmwareVersion": state.firmware, "hardwareRevision": None}]
            if state is not None and state.firmware
            else None,
            "software": [{"softwareName": "edge-agent", "softwareVersion": self._service._version}],
        }
        common = {
            "serviceVersion": self._service._version[:16],
            "deviceInformation": [information],
            "powerSaveControl": False,
            "antiFraudModule": False,
            "endToEndSecurity": None,
            "persistentDataStore": None,
        }
        own = {} if server is None or bound is None else server.capabilities(bound)
        return {"interfaces": _interfaces(self._commands()), "common": common, **own}

    def _cancel(self, command: Command, wanted: tuple[int, ...] | None) -> None:
        ours = [one for one in self._running.values() if one.command.name != messages.RELEASE]
        hit = [one for one in ours if wanted is None or one.command.request_id in wanted]
        self._withdraw(hit)
        if hit:
            self._complete(command, "success", {"errorCode": None})
        else:
            self._fail(command, "noMatchingRequestIDs")

    # ------------------------------------------------------------------------------------------------------------------ claims

    def _take(self, command: Command, application: str | None, lease_s: int) -> None:
        assert self.slot is not None
        service, closed = self._service, self._service.closed()
        if not service._can_claim(self.slot):
            self._fail(command, "notClaimable")
            return
        if closed is not None and self._claim() is None:
            self._fail(command, closed)
            return
        fresh = self._claim() is None
        try:
            service._claims.take(
                self.slot, self, self._name or application or "native", lease_ms=lease_s * 1000, now_ms=service._now_ms()
            )
        except ClaimTaken as taken:
            self._fail(command, "claimed", claimedBy=taken.by)
            return
        service._taken.set()
        if fresh:
            self._served = None
        self._complete(command, "success", {"errorCode": None, "leaseS": lease_s})

    def _renew(self, command: Command, claim: Claim | None) -> None:
        if claim is None:
            self._fail(command, "notClaimed")
        else:
            self._complete(command, "success", {"errorCode": None, "leaseS": claim.lease_ms // 1000})

    async def _release(self, command: Command) -> None:
        claim = self._claim()
        if claim is None:
            self._fail(command, "notClaimed")
            return
        claim.ending = True
        others = [one for one in self._running.values() if one.command is not command]
        self._withdraw(others)
        if others:
            await asyncio.wait({one.task for one in others})
        self._service._claims.drop(claim)
        self._served = None
        self._complete(command, "success", {"errorCode": None})

    async def _test(self, command: Command, test: str) -> None:
        """A test that does something is refused while a citizen is served or somebody else has the device."""
        assert self.slot is not None
        holder, devices = self._service._claims.on(self.slot), self._service._devices()
        closed = self._service.closed()
        if test != "query" and not self._service._idle():
            self._fail(command, "session")
        elif test != "query" and closed is not None:
            self._fail(command, closed)
        elif test != "query" and holder is not None and holder.holder is not self:
            self._fail(command, "claimed", claimedBy=holder.name)
        elif not devices.can_test(self.slot, test):
            self._fail(command, "notTestable")
        else:
            said = await devices.test(self.slot, test)
            self._complete(command, "success", {"errorCode": None, "result": said})

    # ----------------------------------------------------------------------------------------------------------------- devices

    async def _serve(self, command: Command, claim: Claim) -> None:
        """Once, between two looks of the driver. Whatever comes of it, it is not done again."""
        asked_s = min(command.timeout_ms / 1000 if command.timeout_ms else WAIT_MAX_S, WAIT_MAX_S)
        running = self._running[command.request_id]
        loop = asyncio.get_running_loop()
        running.deadline_s = loop.time() + asked_s
        waiting = loop.call_at(running.deadline_s, running.give_up_waiting)
        code: CompletionCode = "internalError"
        payload: Mapping[str, Any] | None = None
        try:
            payload = await self._service._devices().perform(claim.slot, self._work(running), within_s=asked_s)
            code = "success"
        except asyncio.CancelledError:
            if not running.waited_in_vain:
                raise
            code = "timeOut"
        except CommandFailed as failed:
            code, payload = _outcome(failed)
        except PortError as err:
            code = "deviceNotReady" if isinstance(err, PortGone | PortBusy | PortRefused) else "hardwareError"
        except TimeoutError:
            code = "timeOut"
        except JobFailed:
            code = "internalError"
        finally:
            waiting.cancel()
        running.over = True
        if code != "commandErrorCode" or not _is_asked_wrongly(command, payload):
            self._count(command, code)
        self._complete(command, code, payload)

    def _work(self, running: _Running) -> Work[Mapping[str, Any]]:
        command = running.command

        def tell(name: str, payload: Mapping[str, Any]) -> None:
            if not running.over and not self._closing:
                self._send(messages.event(name, payload, running.command))

        async def work(port: Port, bound: SlotBinding) -> Mapping[str, Any]:
            running.begun = True
            served = self._served
            if served is None or served.profile != bound.profile.id or served.port is not port:
                server = server_for(bound)
                if server is None or command.name not in server.commands:
                    raise CommandFailed("unsupportedCommand", plain=True)
                served = self._served = _Served(server, bound.profile.id, port)
            left_s = max(0.001, running.deadline_s - asyncio.get_running_loop().time())
            request = Request(name=command.name, payload=command.payload, timeout_s=left_s)
            try:
                return await served.server.serve(port, bound, request, tell)
            finally:
                if isinstance(served.server, Counting):
                    self._service._devices().note_steps(bound.slot, served.server.take_steps())

        return work

    def _count(self, command: Command, code: CompletionCode) -> None:
        if command.name in _COUNTED and code not in _NOT_TRIED:
            with contextlib.suppress(PortError):
                self._service._devices().note_use(self.slot or "", ok=code == "success")


def _is_asked_wrongly(command: Command, payload: Mapping[str, Any] | None) -> bool:
    error = (payload or {}).get("errorCode")
    return error in _ASKED_WRONGLY or (command.name == "CardReader.ChipIO" and error == "atrNotObtained")


def _outcome(failed: CommandFailed) -> tuple[CompletionCode, Mapping[str, Any] | None]:
    if not failed.plain:
        return "commandErrorCode", {**failed.known, "errorCode": failed.code}
    word = "timeOut" if failed.code == "timeout" else failed.code
    known: CompletionCode = word if word in messages.CODES else "internalError"  # type: ignore[assignment]  # one of the words
    return known, dict(failed.known) or None


def _interfaces(commands: frozenset[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(commands):
        interface = name.partition(".")[0]
        entry = found.setdefault(interface, {"name": interface, "commands": {}, "events": None, "maximumRequests": MAX_REQUESTS})
        entry["commands"][name] = {"versions": [messages.version_of(name)]}
        if events := _EVENTS.get(interface):
            entry["events"] = {event: {"versions": [messages.version_of(event)]} for event in events}
    return list(found.values())
