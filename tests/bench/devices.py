"""Rows: what one more device costs an agent, forty on one, 400 terminals of eight in one process, and from the wire to a sealed record.

Processor time is counted while simulated time passes (`simulators.virtual_time`): hours of polling in seconds, and nothing waits for anything. Beside
it stands a bare loop that puts the same questions to the same device models at the same moments and does nothing with the answers; both halves
contain the model's work.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sqlite3
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import edge_agent.transports.base as ports
import firmware_profiles
from edge_agent.clock import SystemClock
from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from edge_agent.outbox import Outbox
from edge_agent.outbox.recorder import Recorder
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.udev import UdevDiscoverer
from fleet_server.authority.authority import Ed25519Signer
from protocols.canon.words import Ownership
from protocols.contract.records import Body, ClockQuality, Fault, encode_record
from protocols.profile.schema import Family, Profile, parse_all
from simulators.capture import Transfer
from simulators.conformance.tap import Tap, TappedOpener
from simulators.conformance.watch import LoopClock
from simulators.models.callpad import CallPadBus
from simulators.models.modbus import ModbusBus
from simulators.ports.pipe import PortKit
from simulators.ports.pty import AsyncPty
from simulators.ports.slots import Slot
from simulators.standins import slot_for
from simulators.terminal import VirtualTerminal, build_terminal
from simulators.virtual_time import in_virtual_time
from tests.bench.backlog import BOOT_ID
from tests.bench.fault import Printer
from tests.bench.stage import FLEET
from tests.bench.table import Budget, Row

KIT = PortKit.of(ports)
PROFILES = parse_all(firmware_profiles.read_all())
UNASKED = frozenset({Family.PRESENCE})
"""Nobody asks them: they are seen."""
NOTES: Mapping[Family, str] = {
    Family.IPP: "Without HTTP and sockets, which the transport has beside it.",
    Family.PCSC: "Without pcscd and its library, which wait in a thread of their own.",
}
WARM_S = 60.0
SETTLE_S = 15.0
EACH, WATCH_S = 4, 600.0
ADDED = 20
MANY = 40
TERMINALS_OF = 8
PRINTERS = 20


@dataclass(frozen=True)
class Load:
    """Processor seconds for each second that passed, the agent's and the bare loop's."""

    ours: float
    bare: float


def rows(*, terminals: int, fleet_s: float) -> list[Row]:
    firsts = {profile.family: profile for profile in reversed(PROFILES.values()) if profile.family not in UNASKED}
    return [
        *(_one_more(profile) for _, profile in sorted(firsts.items())),
        _memory(firsts.values()),
        _forty(list(firsts.values())),
        _fleet(terminals, fleet_s),
        *asyncio.run(_to_sealed()),
    ]


# ------------------------------------------------------------------------------------------------------------------------ one more device


def _one_more(profile: Profile) -> Row:
    load = _loads([[_slot(profile, number)] for number in range(EACH)], WATCH_S)
    per_hour_ms = load.ours / EACH * 3600 * 1000
    share = load.ours / EACH
    return Row(
        what=f"Agent, one more device: {profile.family}",
        ours=per_hour_ms,
        unit="ms of processor time an hour",
        beside="a bare loop with the same questions",
        peer=load.bare / EACH * 3600 * 1000 or None,
        budgets=(Budget(rule="at_most", limit=36_000 / 2, of="figure", unit="ms"),),
        notes=(
            f"{profile.id} at its own interval; {share:.3%} of a core, the model's work included. Half a percent is the budget.",
            *((NOTES[profile.family],) if profile.family in NOTES else ()),
        ),
    )


def _memory(profiles: Any) -> Row:
    """KiB that the agent's own code holds for each further device, by what Python's allocator says."""
    kib = {profile.family.value: _kib_per_device(profile) for profile in profiles}
    largest = max(kib, key=lambda family: kib[family])
    return Row(
        what=f"Agent memory, one more device (the largest: {largest})",
        ours=kib[largest],
        unit="KiB",
        beside="a bare asyncio task with a stream reader",
        peer=_kib_of_a_bare_task(),
        budgets=(Budget(rule="at_most", limit=64, of="figure", unit="KiB"),),
        notes=(
            "Allocated by the agent, the protocols and asyncio, without the device models: "
            + ", ".join(f"{family} {value:.1f}" for family, value in sorted(kib.items())),
        ),
    )


def _kib_per_device(profile: Profile) -> float:
    async def held(count: int) -> float:
        terminal = VirtualTerminal(
            "bench", [_slot(profile, number) for number in range(count)], clock=asyncio.get_running_loop().time
        )
        monitor = _monitor(terminal)
        task = asyncio.create_task(monitor.run())
        await asyncio.sleep(SETTLE_S)
        size = _traced_kib()
        await _end(task)
        return size

    few, many = in_virtual_time(_traced(held, 1)), in_virtual_time(_traced(held, 1 + ADDED))
    return max(0.0, many - few) / ADDED


async def _traced(work: Callable[[int], Awaitable[float]], count: int) -> float:
    tracemalloc.start()
    try:
        return await work(count)
    finally:
        tracemalloc.stop()


def _traced_kib() -> float:
    not_ours = [tracemalloc.Filter(False, f"*/{folder}/*") for folder in ("simulators", "tests")]
    statistics = tracemalloc.take_snapshot().filter_traces(not_ours).statistics("filename")
    return sum(one.size for one in statistics) / 1024


def _kib_of_a_bare_task() -> float:
    async def held(count: int) -> float:
        async def read(stream: asyncio.StreamReader) -> None:
            await stream.read(4096)

        tasks = [asyncio.create_task(read(asyncio.StreamReader())) for _ in range(count)]
        await asyncio.sleep(1)
        size = sum(one.size for one in tracemalloc.take_snapshot().statistics("filename")) / 1024
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return size

    return (in_virtual_time(_traced(held, 1 + ADDED)) - in_virtual_time(_traced(held, 1))) / ADDED


# ------------------------------------------------------------------------------------------------------------------------------- many


def _forty(profiles: Sequence[Profile]) -> Row:
    slots = [_slot(profile, number) for number, profile in zip(range(MANY), itertools.cycle(profiles), strict=False)]
    load = _loads([slots], WATCH_S)
    return Row(
        what=f"{MANY} devices on one agent, processor time",
        ours=load.ours * 100,
        unit="% of a core",
        beside="bare loops with the same questions",
        peer=load.bare * 100,
        budgets=(Budget(rule="at_most", limit=10, of="figure", unit="% of a core"),),
        notes=(f"{len(profiles)} families in turn, each at its profile's interval, all of them online.",),
    )


def _fleet(terminals: int, seconds: float) -> Row:
    load = _loads([list(build_terminal("kiosk", seed=seed, climate=True).slots.values()) for seed in range(terminals)], seconds)
    return Row(
        what=f"{terminals} terminals × {TERMINALS_OF} devices in one process, processor time",
        ours=load.ours * 100,
        unit="% of a core",
        beside="bare loops with the same questions",
        peer=load.bare * 100,
        budgets=(Budget(rule="at_most", limit=100, of="figure", unit="% of a core"),),
        notes=(
            f"{terminals} monitors (drivers, debouncing, usage) and {terminals * TERMINALS_OF} device models, {seconds:.0f} s of simulated time.",
            "Readers, printers, scanners, keypads, evaluators and sensors as the inventory of a kiosk has them; without outbox and uplink.",
        ),
    )


def _loads(groups: Sequence[list[Slot]], seconds: float) -> Load:
    """What agents (one for each group) and bare loops need of a core for the same devices."""
    return in_virtual_time(_load(groups, seconds))


async def _load(groups: Sequence[list[Slot]], seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    terminals = [VirtualTerminal("bench", group, clock=loop.time) for group in groups]
    traffic = await _traffic_of(terminals, WARM_S)
    monitors = [_monitor(terminal, seed=number) for number, terminal in enumerate(terminals)]
    tasks = [asyncio.create_task(monitor.run()) for monitor in monitors]
    await asyncio.sleep(WARM_S)
    states = [view.state.device.value for monitor in monitors for view in monitor.slot_views() if view.state is not None]
    if set(states) != {"online"}:
        raise RuntimeError(f"not all devices are online: {sorted(set(states))}")
    began = time.process_time()
    await asyncio.sleep(seconds)
    ours = time.process_time() - began
    for task in tasks:
        await _end(task)
    bare = [asyncio.create_task(_ask_again(slot, terminal, said)) for slot, terminal, said in traffic]
    began = time.process_time()
    await asyncio.sleep(seconds)
    bare_s = time.process_time() - began
    for ended in [task for task in bare if task.done()]:
        ended.result()
    for task in bare:
        await _end(task)
    return Load(ours / seconds, bare_s / seconds)


async def _traffic_of(terminals: Sequence[VirtualTerminal], seconds: float) -> list[tuple[Slot, VirtualTerminal, list[Transfer]]]:
    """What an agent says to each device, from a tap on a terminal of each make."""
    found: list[tuple[Slot, VirtualTerminal, list[Transfer]]] = []
    known: dict[tuple[Any, ...], list[Transfer]] = {}
    for terminal in terminals:
        for slot in terminal.slots.values():
            make = (type(slot.model), slot.model.usb, slot.model.baud, slot.adapter)
            if make not in known:
                alone = VirtualTerminal("bench", [slot], clock=terminal.clock)
                tap = Tap()
                task = asyncio.create_task(_monitor(alone, tap=tap).run())
                await asyncio.sleep(seconds)
                await _end(task)
                known[make] = [one for one in tap.transfers if one.way in (">", "?")]
            found.append((slot, terminal, known[make]))
    return found


async def _ask_again(slot: Slot, terminal: VirtualTerminal, said: list[Transfer]) -> None:
    """The same questions at the same distances, again and again; the answers are read and dropped."""
    loop = asyncio.get_running_loop()
    (sighting,) = [one for one in terminal.discoverer(KIT).sightings() if slot.place in (one.usb_path, one.path)]
    port: Any = await terminal.opener(KIT).open(sighting, None)
    try:
        if isinstance(port, ports.ReaderPort):
            while True:
                await port.look(timeout_s=1.0)
                await port.changed(timeout_s=30.0)
        if not said:
            while True:
                reading = (
                    port.read_events(timeout_s=30.0)
                    if hasattr(port, "read_events")
                    else port.read(max_bytes=4096, timeout_s=30.0)
                )
                await reading
        while True:
            began_s = loop.time()
            for transfer in said:
                await _hear_until(port, began_s + transfer.at_s)
                await _say(port, transfer)
            await _hear_until(port, began_s + WARM_S)
    finally:
        await port.close()


async def _hear_until(port: Any, moment_s: float) -> None:
    loop = asyncio.get_running_loop()
    while (left_s := moment_s - loop.time()) > 0:
        await (asyncio.sleep(left_s) if isinstance(port, ports.AskPort) else port.read(max_bytes=4096, timeout_s=left_s))


async def _say(port: Any, transfer: Transfer) -> None:
    data = transfer.data or b""
    if isinstance(port, ports.AskPort):
        await port.ask(data, max_bytes=64 * 1024, timeout_s=1.0)
    elif transfer.way == "?":
        assert transfer.request is not None
        try:
            await port.control_in(*transfer.request, timeout_s=1.0)
        except ports.PortError:
            return
    elif transfer.request is not None:
        kind, request, value, index, _ = transfer.request
        await port.control_out(kind, request, value, index, data, timeout_s=1.0)
    elif transfer.endpoint is not None:
        await port.write_to(transfer.endpoint, data, timeout_s=1.0)
    else:
        await port.write(data, timeout_s=1.0)


def _slot(profile: Profile, number: int) -> Slot:
    """A unit at a place of its own."""
    slot = slot_for(profile, seed=number)
    if slot.usb_path is None:
        path = slot.path.replace("60000", str(60_000 + number)) if slot.bus == "ipp" else f"{slot.path}{number}"
        return replace(slot, name=f"unit-{number}", path=path, profile=profile.id)
    place = f"1-{1 + number // 8}.{1 + number % 8}"
    path = place if slot.bus == "usb" else f"{slot.path}{number}"
    return replace(slot, name=f"unit-{number}", path=path, usb_path=place, profile=profile.id)


class _Forgetful:
    """Neither outbox nor memory: what is measured here ends at the record."""

    def capture(self, body: Body, *, urgent: bool = False, memory: Any = None) -> None:
        encode_record(body, wall_ms=0, quality=ClockQuality.SYNCED, boot_ms=0)

    def get(self, key: str) -> bytes | None:
        return None

    def put(self, key: str, value: bytes) -> None:
        return


def _monitor(terminal: VirtualTerminal, *, tap: Tap | None = None, seed: int = 0) -> Monitor:
    opener: Any = terminal.opener(KIT)
    numbers = itertools.count(seed << 32)
    return Monitor(
        clock=LoopClock(),
        discoverer=terminal.discoverer(KIT),
        opener=opener if tap is None else TappedOpener(opener, tap),
        recorder=_Forgetful(),
        store=_Forgetful(),
        profiles=PROFILES,
        inventory=[entry for slot in terminal.slots.values() for entry in _entries(terminal, slot)],
        new_id=lambda: next(numbers).to_bytes(8, "big"),
        rng=random.Random(seed),
    )


def _entries(terminal: VirtualTerminal, slot: Slot) -> list[DeviceEntry]:
    if slot.profile is None:
        names = {"laser-printer": "a4-printer", "door": "contacts"}
        return [
            DeviceEntry(
                slot=place["slot"],
                family=names.get(place["family"], place["family"]),
                profile=place.get("profile"),
                port=place["port"],
                address=place.get("address"),
                ownership=Ownership.OWNER,
                mandatory=place["mandatory"],
            )
            for place in terminal.ports()
            if place["port"] == slot.place
        ]
    model = slot.model
    address = min(model.pads) if isinstance(model, CallPadBus) else min(model.modules) if isinstance(model, ModbusBus) else None
    return [
        DeviceEntry(
            slot=slot.name, family=PROFILES[slot.profile].kind.value, profile=slot.profile, port=slot.place, address=address,
            ownership=Ownership.OWNER,
        )
    ]  # fmt: skip


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ------------------------------------------------------------------------------------------------------------------ wire to sealed record


class _Noting(Recorder):
    """The agent's recorder, with the moment at which each opened fault lies sealed in the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox, lambda: None)
        self.sealed_s: dict[tuple[str, str], float] = {}

    def capture(self, body: Body, *, urgent: bool = False, memory: Any = None, wall_ms: int | None = None) -> None:
        super().capture(body, urgent=urgent, memory=memory, wall_ms=wall_ms)
        if isinstance(body, Fault) and body.change == "open":
            self.sealed_s[body.slot or "", body.code] = time.monotonic()


async def _to_sealed() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as name:
        folder = Path(name)
        took = sorted(await _faults(folder))
        bare = _bare_commits(folder)
    note = f"Median {took[len(took) // 2] * 1000:.1f} ms, slowest {took[-1] * 1000:.1f} ms of {len(took)} faults at {PRINTERS} printers."
    return [
        Row(
            what="Wire fault to sealed record, median",
            ours=took[len(took) // 2] * 1000,
            unit="ms",
            beside="a bare commit with fsync and a signature",
            peer=bare[len(bare) // 2] * 1000,
            budgets=(Budget(rule="at_most", limit=100, of="figure", unit="ms"),),
            notes=(
                note,
                "From the first byte on a pseudo terminal that tells the fault; the agent asks again before it believes one byte.",
            ),
        ),
        Row(
            what="Wire fault to sealed record, p99",
            ours=took[min(len(took) - 1, int(len(took) * 0.99))] * 1000,
            unit="ms",
            beside="a bare commit with fsync and a signature, p99",
            peer=bare[min(len(bare) - 1, int(len(bare) * 0.99))] * 1000,
            budgets=(Budget(rule="at_most", limit=500, of="figure", unit="ms"),),
        ),
    ]


async def _faults(folder: Path) -> list[float]:
    """Twenty printers on one agent with a real outbox; paper and cover, twice each."""
    printers = {f"receipt-printer-{number}": Printer(seed=number) for number in range(1, PRINTERS + 1)}
    outbox = Outbox(folder / "outbox.db", Ed25519Signer(Ed25519PrivateKey.generate()), FLEET, "bench-0", SystemClock())
    outbox.start_stream(BOOT_ID)
    recorder, numbers = _Noting(outbox), itertools.count()
    async with AsyncExitStack() as stack:
        stack.callback(lambda: outbox.close(clean=False))
        for slot, printer in printers.items():
            stack.callback(AsyncPty(printer, folder / slot).close)
        entries = [
            DeviceEntry(slot=slot, family="receipt-printer", profile="receipt-printer-serial", port=str(folder / slot))
            for slot in printers
        ]
        monitor = Monitor(
            clock=SystemClock(),
            discoverer=UdevDiscoverer([str(folder / slot) for slot in printers]),
            opener=SystemOpener(),
            recorder=recorder,
            store=_Forgetful(),
            profiles=PROFILES,
            inventory=entries,
            new_id=lambda: next(numbers).to_bytes(8, "big"),
            rng=random.Random(1),
        )
        task = asyncio.create_task(monitor.run())
        stack.push_async_callback(_end, task)
        await asyncio.sleep(6)  # what a healthy printer says is learnt meanwhile
        rng = random.Random(7)
        found = await asyncio.gather(*(_break_often(slot, printer, recorder, rng) for slot, printer in printers.items()))
        return [took for each in found for took in each]


async def _break_often(slot: str, printer: Printer, recorder: _Noting, rng: random.Random) -> list[float]:
    took = []
    for fault, code in (("paper-out", "PRN.PAPER_OUT"), ("cover-open", "PRN.COVER_OPEN")) * 2:
        await asyncio.sleep(rng.uniform(0.5, 2.5))
        recorder.sealed_s.pop((slot, code), None)
        printer.expect_news()
        printer.set(fault, time.monotonic())
        async with asyncio.timeout(20):
            while (slot, code) not in recorder.sealed_s:
                await asyncio.sleep(0.002)
        assert printer.told_s is not None
        took.append(recorder.sealed_s[slot, code] - printer.told_s)
        printer.clear(fault, time.monotonic())
        printer.stop_waiting()
        await asyncio.sleep(2.5)
    return took


def _bare_commits(folder: Path) -> list[float]:
    key = Ed25519PrivateKey.generate()
    conn = sqlite3.connect(folder / "bare.db", isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = FULL")
    conn.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, record BLOB NOT NULL, signature BLOB NOT NULL)")
    record, took = b"r" * 300, []
    for _ in range(100):
        began = time.perf_counter()
        conn.execute("INSERT INTO record (record, signature) VALUES (?, ?)", (record, key.sign(record)))
        took.append(time.perf_counter() - began)
    conn.close()
    return sorted(took)
