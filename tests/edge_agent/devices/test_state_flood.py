"""A device that says one thing and takes it back, over and over, fills no spool; what it says in the end is told."""

from __future__ import annotations

import asyncio

from protocols.contract.records import Device
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time


def test_states_that_change_without_end_are_told_once_a_second_at_most() -> None:
    async def story() -> None:
        model = EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880")
        async with Bench(Slot("receipt-printer", model, "usb", "1-1.2", "1-1.2")) as bench:
            await bench.until(lambda: bench.states() == {"receipt-printer": "online"})
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for _ in range(150):
                for change in (model.set, model.clear):
                    change("cover-open", loop.time())
                    await asyncio.sleep(0.1)
            told = bench.records.of(Device)
            assert 60 < len(told) <= 62 + (loop.time() - began_s)
            model.set("paper-out", loop.time())
            await asyncio.sleep(60)
            assert bench.records.of(Device)[-1].paper.value == "out"

    in_virtual_time(story())
