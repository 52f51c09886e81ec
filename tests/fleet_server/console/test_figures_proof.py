"""The number on the page is the number that comes out of the exported, signed originals: records through the real ledger, files verified."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fleet_server.engine import FleetEngine
from tests.fleet_server.figures.conftest import at
from tests.fleet_server.figures.test_recompute import NOW, Server, Spool
from tests.support.console import desk_for
from tests.support.person import BASE, Person, running_at
from tests.support.seed import OPERATOR, _accounts


@pytest.fixture
def server(schema: Path, tmp_path: Path) -> Server:
    """June of one terminal: forty cases on many days, one of them told twice, three levels of outcome, and served time."""
    server = Server(schema, tmp_path / "fleet.sqlite")
    spool = Spool(1, up_ms=at("06-01 00:00"))
    for n in range(40):
        moment = at(f"06-{1 + n % 28:02} {8 + n % 11:02}:{n % 60:02}")
        spool.case(n, moment, outcome=("success", "success", "success", "failed", "abandoned")[n % 5])
    spool.case(3, at("06-29 10:00"))
    spool.served(at("06-09 11:00"), 800)
    server.receive(spool.seal(at("06-30 07:59")), at("06-30 08:00"))
    server.settle_days()
    _accounts(server.conn, NOW)
    return server


@pytest.fixture
async def operator(server: Server, tmp_path: Path) -> AsyncIterator[Person]:
    engine = FleetEngine()
    engine.use(tmp_path / "fleet.sqlite")
    async with running_at(desk_for(tmp_path, engine, lambda: NOW)) as app:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # Litestar's scope type is its own
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            person = Person(client)
            await person.sign_in(OPERATOR, lang="en")
            yield person
    engine.close()


async def test_numbers_of_the_page_come_out_of_the_exported_originals(operator: Person, server: Server) -> None:
    compared = server.compare(server.exported())
    assert compared.is_same
    evidence = {line.name: line.from_evidence for line in compared.lines}
    assert evidence["cases"] == 40

    page = await operator.get("/figures?period=2026-06")
    shown = {name: re.findall(r">([\d,.]+)</a>", tile) for name, tile in tiles(page).items()}
    assert shown["cases"][0] == str(evidence["cases"])
    assert shown["success_rate"][-2:] == [str(evidence["cases_success"]), str(evidence["cases"])]
    assert shown["active_share"][-2:] == [str(evidence["active_terminals"]), "1"]
    assert shown["offhours_share"][-2:] == [str(evidence["offhours_cases"]), str(evidence["cases"])]
    assert shown["availability"][-2] == f"{evidence['served_s'] / 3600:,.1f}"


async def test_each_case_of_the_page_opens_a_signed_record(operator: Person) -> None:
    page = await operator.get("/figures/behind?figure=cases&period=2026-06")
    proofs = re.findall(r'href="(/evidence/\d+/\d+)"', page)
    assert len(proofs) == len(set(proofs)) == 40
    for proof in proofs[::13]:
        assert "Signature valid" in await operator.seen(proof)


async def test_a_case_missing_in_the_originals_is_found(server: Server) -> None:
    """The comparison would notice if the page counted something nobody signed."""
    server.conn.execute("UPDATE session SET outcome = 'success' WHERE outcome = 'failed'")
    assert not server.compare(server.exported()).is_same


def tiles(page: str) -> dict[str, str]:
    found = re.findall(r'data-figure="(\w+)">(.*?)</div>', page, flags=re.DOTALL)
    assert len(found) == 16
    return dict(found)
