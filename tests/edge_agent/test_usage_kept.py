"""Counters and levels over a power cut: a process that is killed at any moment forgets nothing that it has told or answered."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import uuid
from collections.abc import Mapping

import pytest

from edge_agent.local_api import KioskService, schema
from edge_agent.outbox.errors import OutboxFull
from edge_agent.sessions import Policy
from edge_agent.slots import USAGE_KEY
from edge_agent.usage import UsageBook
from protocols.contract.records import Body, Consumable, Counters, Device
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import PROFILES, Bench, Memory, in_virtual_time
from tests.edge_agent.owner.talk import Desk, code_of


class TwoInOne(Memory):
    """A store that writes several values and a record in one step, and can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Body] = []
        self.full = False

    def put_all(self, values: Mapping[str, bytes]) -> None:
        if self.full:
            raise OutboxFull("no space")
        self.values |= values

    def capture(self, body: Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None:
        self.put_all(memory or {})
        self.told.append(body)


def printer() -> Slot:
    model = EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880", firmware="FV1.040")
    return Slot("receipt-printer", model, "usb", "1-1.2", "1-1.2")


def laser(serial: str, pages: int) -> Slot:
    usb = dataclasses.replace(USB_LJ2650, serial=serial)
    return Slot("laser-printer", LaserPrinter(usb=usb, page_count=pages), "usb", "1-1.6", "1-1.6")


def killed(memory: Memory) -> Memory:
    """What lies on the disk at this moment."""
    left = Memory()
    left.values = dict(memory.values)
    return left


def service_of(bench: Bench, store: TwoInOne) -> KioskService:
    def refill(slot: str, item: str, quantity: int) -> object:
        return bench.monitor.book_refill(slot, item, quantity)

    return KioskService(
        ledger=store,
        memory=store,
        clock=bench.clock,
        boot_id=bytes(16),
        items=frozenset(),
        slots=frozenset({"receipt-printer"}),
        refill=refill,  # type: ignore[arg-type]  # a Booking
        use=lambda slot, ok, count: bench.monitor.book_use(slot, ok=ok, count=count),
        status=lambda: None,  # type: ignore[arg-type,return-value]  # not asked for
        policy=Policy(),
    )


def test_every_use_that_was_answered_is_there_after_a_kill() -> None:
    async def story() -> None:
        store = TwoInOne()
        async with Bench(printer(), memory=store) as bench:
            await bench.until_state("receipt-printer", "online")
            service = service_of(bench, store)
            for number in range(1, 30):
                client = str(uuid.UUID(int=number, version=4))
                ask = schema.Use(client_id=client, slot="receipt-printer", ok=True, count=1)
                assert service.use(ask).status == 201
                left = UsageBook()
                left.restore(killed(store).values[USAGE_KEY])
                assert left.lifetime("receipt-printer") == number
                assert service_of(bench, store).use(ask).status == 200  # after a restart the repeat is known, too

    in_virtual_time(story())


def test_a_use_that_could_not_be_kept_is_not_counted_and_may_be_said_again() -> None:
    async def story() -> None:
        store = TwoInOne()
        async with Bench(printer(), memory=store) as bench:
            await bench.until_state("receipt-printer", "online")
            service = service_of(bench, store)
            client = str(uuid.UUID(int=1, version=4))
            ask = schema.Use(client_id=client, slot="receipt-printer", ok=True, count=5)
            store.full = True
            for _ in range(3):
                with pytest.raises(OutboxFull):
                    service.use(ask)
            store.full = False
            assert service.use(ask).status == 201
            assert service.use(ask).status == 200
            (counters,) = [body for body in bench.monitor.close_span(0, 1) if isinstance(body, Counters)]
            assert [(row.ok, row.lifetime) for row in counters.slots] == [(5, 5)]

    in_virtual_time(story())


def test_a_refill_that_was_answered_is_there_after_a_kill() -> None:
    rule = PROFILES["snbc-btp"].consumable[0]

    async def story() -> None:
        store = TwoInOne()
        async with Bench(printer(), memory=store) as bench:
            await bench.until_state("receipt-printer", "online")
            service = service_of(bench, store)
            client = str(uuid.UUID(int=1, version=4))
            ask = schema.Refill(client_id=client, slot="receipt-printer", item="roll", quantity=rule.capacity)
            bench.monitor._book._usage._slot("receipt-printer").levels[rule.name].remaining = 10
            assert service.refill(ask).status == 201
            (body,) = store.told
            assert isinstance(body, Consumable)
            assert (body.event, body.remaining) == ("refill", rule.capacity)
            left = UsageBook()
            left.restore(killed(store).values[USAGE_KEY])
            left.configure("receipt-printer", PROFILES["snbc-btp"])
            assert [remaining for _, item, remaining, _ in left.levels() if item == rule.name] == [rule.capacity]

    in_virtual_time(story())


def test_what_is_printed_for_an_application_is_taken_from_the_roll_and_put_back_by_a_refill() -> None:
    rule = PROFILES["snbc-btp"].consumable[0]
    assert (rule.name, rule.counts) == ("roll", "jobs")
    assert rule.per_job is not None
    slip = base64.b64encode(b"A SLIP\n\x1dV\x42\x00").decode()

    async def story() -> None:
        store = TwoInOne()
        async with Bench(printer(), memory=store) as bench, Desk(bench) as desk:
            await bench.until_state("receipt-printer", "online")
            one = desk.connect("receipt-printer")
            await one.claim()
            for _ in range(60):
                assert code_of(await one.ask("Printer.PrintRaw", {"data": slip})) == "success"
            told = bench.records.of(Consumable, "receipt-printer")
            assert [(body.event, body.source) for body in told] == [("level", "counter")] * len(told) != []
            (level,) = [row for row in bench.monitor._book._usage.levels() if row[1] == "roll"]
            assert level[2] == rule.capacity - 60 * (rule.per_job or 0)
            client = str(uuid.UUID(int=1, version=4))
            ask = schema.Refill(client_id=client, slot="receipt-printer", item="roll", quantity=rule.capacity)
            assert service_of(bench, store).refill(ask).status == 201
            (refill,) = store.told
            assert isinstance(refill, Consumable)
            assert (refill.event, refill.source, refill.remaining) == ("refill", "manual", rule.capacity)

    in_virtual_time(story())


def test_a_level_that_was_told_is_kept_before_it_is_told() -> None:
    """Else it would rise after a kill, without a refill."""

    async def story() -> None:
        memory = Memory()
        async with Bench(printer(), memory=memory) as bench:
            await bench.until_state("receipt-printer", "online")
            bench.terminal.set("receipt-printer", "paper-low")
            await bench.until(lambda: bool(bench.records.of(Consumable, "receipt-printer")), within_s=120)
            told = bench.records.of(Consumable, "receipt-printer")[-1]
            left = UsageBook()
            left.restore(killed(memory).values[USAGE_KEY])
            left.configure("receipt-printer", PROFILES["snbc-btp"])
            assert [remaining for _, item, remaining, _ in left.levels() if item == told.item] == [told.remaining]

    in_virtual_time(story())


def test_a_printer_that_is_swapped_keeps_the_places_lifetime_over_a_kill() -> None:
    async def story() -> None:
        memory = Memory()
        async with Bench(laser("OLD-1", 5000), memory=memory) as bench:
            await bench.until_state("laser-printer", "online")
            bench.terminal.press("laser-printer", "print", "3")
            await asyncio.sleep(900)
            (counters,) = [body for body in bench.monitor.close_span(0, 1) if isinstance(body, Counters)]
            assert counters.slots[0].lifetime == 5003
            memory = killed(memory)
        async with Bench(laser("NEW-1", 20), memory=memory) as bench:
            await bench.until_state("laser-printer", "online")
            bench.terminal.press("laser-printer", "print", "2")
            await asyncio.sleep(900)
            (counters,) = [body for body in bench.monitor.close_span(0, 1) if isinstance(body, Counters)]
            assert [(row.total, row.lifetime) for row in counters.slots] == [(2, 5005)]
            (view,) = bench.monitor.slot_views()
            assert (view.lifetime, view.units) == (5005, 2)
            assert bench.records.of(Device, "laser-printer")

    in_virtual_time(story())
