"""An excerpt of the log on its way to a real HTTPS server, under the terminal's own certificate."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.cli import load_profiles
from edge_agent.enrol import Request, Trust, enrol
from edge_agent.signing import FileKeyStore
from protocols.contract import certs
from protocols.contract.orders import PullLogs
from tests.edge_agent.orders.test_agent import FAR_MS, Here, ended, opened
from tests.edge_agent.small_agent import Home
from tests.edge_agent.small_fleet import SmallFleet
from tests.edge_agent.test_supervisor import one_printer, running
from tests.support.contract import ORDERS

CODE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    with SmallFleet(tmp_path, {"kiosk-0007": CODE}) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, fleet: SmallFleet) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    (made.identity_dir / "identity.json").unlink()
    request = Request(
        server_url=fleet.url,
        terminal="kiosk-0007",
        code=CODE,
        trust=Trust(fingerprint=fleet.ca.fingerprint),
        hardware={},
        check_dates=True,
    )
    made.who = enrol(request, FileKeyStore(made.identity_dir), made.identity_dir)
    made.root = fleet.root
    yield made
    made.remove()


@pytest.mark.spec("O-402")
@pytest.mark.parametrize(("status", "end"), [(204, ("done", "none")), (409, ("done", "none")), (403, ("failed", "upload"))])
async def test_it_arrives_signed_and_under_the_terminals_certificate(
    home: Home, fleet: SmallFleet, status: int, end: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge_agent")
    office = Here(home)
    cert = certs.OrderKeyCert(kid=ORDERS.kid, public_key=ORDERS.public, issued_ms=0)
    office.certificate = certs.seal_order_key_cert(cert, fleet.root, fleet.fleet)
    fleet.refuse = None if status == 204 else (status, "word")
    agent = home.agent(one_printer(), load_profiles(None))
    async with running(agent):
        office.greet(agent)
        order = office.ask(agent, PullLogs(from_ms=0, to_ms=FAR_MS))
        assert await ended(home, order) == end
    ((peer, content_type, body),) = fleet.excerpts
    assert (peer, content_type) == ("kiosk-0007", "application/cose")
    excerpt = opened(home, body)
    assert excerpt.order == order
    assert b"agent started" in gzip.decompress(excerpt.text)
