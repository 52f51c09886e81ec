"""Each failure of the field's tables is a fault of a device model and ends under its code; no model has a fault that nobody accounts for."""

from __future__ import annotations

import ast
import asyncio
from functools import cache
from pathlib import Path

import pytest

from fleet_server.console import i18n
from protocols.canon.faults import FAULTS, fault
from protocols.canon.words import SuggestedAction
from protocols.contract.records import Fault
from simulators.catalogue import DEVICE_TYPES
from simulators.models.base import Controllable, Model
from simulators.models.ccid import CcidReader
from simulators.models.sdt import SdtReader
from tests.edge_agent.devices import failure_tables as tables
from tests.edge_agent.devices.bench import Bench, in_virtual_time
from tests.edge_agent.devices.failure_tables import Row
from tests.edge_agent.devices.test_every_fault import BUILD, CASES
from tests.edge_agent.owner.talk import Desk, Talker, code_of
from tests.edge_agent.owner.test_id_reader import CARD, FORMS, READ
from tests.edge_agent.owner.test_id_reader import on_a_desk as on_an_id_desk
from tests.edge_agent.owner.test_smart_card import contactless, on_a_desk

FOLDER = Path(__file__).parent
ROWS = tuple(tables.rows())
CATALOGUES = i18n.load_all()


def label(row: Row) -> str:
    return f"{row.form}-{row.fault.replace(' ', '-')}-{row.code}"


# ----------------------------------------------------------------------------------------------------------------------- the table itself


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_row_names_what_there_is(row: Row) -> None:
    target, name = _target(BUILD[row.form]().model, row.fault)
    assert target.fault_help[name], "it has a line of help"
    if row.code is None:
        assert row.instead
        assert row.seen
        return
    kind = fault(row.code)
    assert all((kind.zh, kind.en, kind.hint_zh, kind.hint_en))
    for words in CATALOGUES.values():
        assert f"faultFamily.{kind.family}" in set(words)


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_row_is_run(row: Row) -> None:
    if row.seen == tables.EVERY:
        assert (row.form, row.fault, row.code) in CASES
        return
    file, _, function = row.seen.partition("::")
    source = _functions((FOLDER / file).resolve())[function]
    if file == tables.HERE:
        return  # the tests below take their rows from the table
    assert f'"{row.name}"' in source or f".{row.name}(" in source
    if row.code is not None:
        # A code may stand in a constant of the file that the test uses.
        whole = (FOLDER / file).resolve().read_text("utf-8")
        assert row.code in source or row.code in whole or row.code.rpartition(".")[2].removeprefix("USB_") in source


def test_every_fault_of_every_model_has_a_row() -> None:
    here = {(BUILD[row.form]().model.kind, row.name) for row in ROWS} | {
        (BUILD[form]().model.kind, name.split()[-1]) for form, name, _ in CASES
    }
    # A pad's own fault stands for the same one of a window screen, as the climate module's for the bus.
    missing = set()
    for device in DEVICE_TYPES.values():
        model = device.make(0, None)
        own = set(model.own_faults) | {name for unit in model.units.values() for name in unit.fault_help}
        missing |= {(model.kind, name) for name in own if (model.kind, name) not in here}
    left = {one for one in missing if one not in tables.UNNAMED and (one[0], "*") not in tables.UNNAMED}
    assert left == set()
    assert {one for one in tables.UNNAMED if one[1] != "*"} <= missing, "accounted for twice"


def test_every_code_that_a_device_can_raise_by_itself_is_known() -> None:
    assert {row.code for row in ROWS if row.code} | {code for _, _, code in CASES} <= FAULTS.keys()


def test_the_page_says_the_same() -> None:
    assert tables.DOC.read_text("utf-8") == tables.page(), "python -m tests.edge_agent.devices.failure_tables"


# --------------------------------------------------------------------------------------------------------- rows that no other test runs


def of_this_file(function: str) -> list[Row]:
    return [row for row in ROWS if row.seen == f"{tables.HERE}::{function}"]


@pytest.mark.parametrize("row", of_this_file("test_no_fault"), ids=label)
def test_no_fault(row: Row) -> None:
    """It is met, and nobody is called."""

    async def story() -> None:
        slot = BUILD[row.form]()
        async with Bench(slot) as bench:
            await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"})
            bench.terminal.do(["fault", *_words(slot.name, row.fault)])
            await asyncio.sleep(600)
            assert bench.records.of(Fault) == []
            assert set(bench.states().values()) == {"inUse" if "inUse" in row.instead else "online"}

    in_virtual_time(story())


@pytest.mark.parametrize("row", of_this_file("test_held_by_another_program"), ids=label)
def test_held_by_another_program(row: Row) -> None:
    async def story() -> None:
        slot = BUILD[row.form]()
        slot.model.set(row.name, 0.0)
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "inUse")
            await asyncio.sleep(600)
            assert bench.records.of(Fault) == []
            bench.terminal.clear(slot.name, row.name)
            await bench.until_state(slot.name, "online", within_s=120)

    in_virtual_time(story())


@pytest.mark.parametrize("row", of_this_file("test_a_port_that_is_refused"), ids=label)
def test_a_port_that_is_refused(row: Row) -> None:
    """There, and not to be opened; what the system says to it, `test_real_ports.py` shows."""

    async def story() -> None:
        slot = BUILD[row.form]()
        slot.model.set(row.name, 0.0)
        async with Bench(slot) as bench:
            assert row.code is not None
            await bench.until_open(row.code, within_s=120)
            assert bench.records.open_codes() == {row.code}
            assert {view.state.action for view in bench.monitor.slot_views() if view.state} == {SuggestedAction.CONFIGURATION}
            bench.terminal.clear(slot.name, row.name)
            await bench.until(lambda: not bench.records.open_codes(), within_s=600)
            await bench.until(lambda: set(bench.states().values()) == {"online"}, within_s=120)

    in_virtual_time(story())


@pytest.mark.parametrize("row", of_this_file("test_a_fault_that_is_not_alone"), ids=label)
def test_a_fault_that_is_not_alone(row: Row) -> None:
    """Spoiled frames end in silences too; each has its code, and both go."""

    async def story() -> None:
        slot = BUILD[row.form]()
        async with Bench(slot) as bench:
            await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"})
            bench.terminal.do(["fault", *_words(slot.name, row.fault)])
            assert row.code is not None
            await bench.until_open(row.code, within_s=1200)
            bench.terminal.do(["clear", *_words(slot.name, row.fault)])
            await bench.until(lambda: not bench.records.open_codes(), within_s=3600)

    in_virtual_time(story())


@pytest.mark.parametrize("row", of_this_file("test_another_speed_is_a_fault_until_it_is_found"), ids=label)
def test_another_speed_is_a_fault_until_it_is_found(row: Row) -> None:
    async def story() -> None:
        slot = BUILD[row.form]()
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            bench.terminal.set(slot.name, row.name)
            assert row.code is not None
            await bench.until_open(row.code)
            await bench.until(lambda: not bench.records.open_codes(), within_s=1200)
            await bench.until_state(slot.name, "online")
            assert bench.terminal.faults() == {slot.name: [row.name]}, "it was found, nobody set it back"

    in_virtual_time(story())


def test_cards_that_are_found_and_not_selected() -> None:
    async def people(desk: Desk, one: Talker, reader: SdtReader) -> None:
        (row,) = of_this_file("test_cards_that_are_found_and_not_selected")
        desk.bench.terminal.set("id-reader", row.name)
        for _ in range(6):
            reader.place_card(CARD)
            await one.ask("KioskFleet.Renew")
            asked = one.post(READ, {"chip": True}, timeout_ms=3_000)
            await asyncio.sleep(2)
            reader.remove_card()
            assert code_of(await one.answer(asked)) == "invalidMedia"
            await asyncio.sleep(15)
        assert row.code is not None
        await desk.bench.until_open(row.code, within_s=60)
        assert desk.bench.records.open_codes() == {row.code}

    on_an_id_desk(FORMS["split"](), people)


def test_a_contactless_reader_that_finds_nothing() -> None:
    """The reader itself says that its slot is empty, which is what a healthy one says too."""

    async def people(desk: Desk, one: Talker, reader: CcidReader) -> None:
        (row,) = of_this_file("test_a_contactless_reader_that_finds_nothing")
        desk.bench.terminal.set("card-reader", row.name)
        came = 0
        while not desk.bench.records.of(Fault):
            await one.claim()
            desk.bench.terminal.press("card-reader", "insert-card")
            assert code_of(await one.ask(READ, {"chip": True}, timeout_ms=10_000)) == "timeOut"
            desk.bench.terminal.press("card-reader", "remove-card")
            came += 1
            assert came <= 10 * 4
            await asyncio.sleep(880)
        assert came >= 7 * 4
        assert desk.bench.records.open_codes() == {row.code}

    on_a_desk(contactless(), people)


# ------------------------------------------------------------------------------------------------------------------------------ helpers


def _words(slot: str, name: str) -> list[str]:
    """As a person would script it: a unit of a bus by its own name or its number."""
    return name.split() if " " in name and not name[0].isdigit() else [slot, *name.split()]


def _target(model: Model, name: str) -> tuple[Controllable, str]:
    *unit, last = name.split()
    return (model.units[unit[0]] if unit else model), last


@cache
def _functions(file: Path) -> dict[str, str]:
    """Tests of a file with what decorates them."""
    text = file.read_text("utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found
