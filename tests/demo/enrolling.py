"""Makes the terminals known and lets each exchange its one-time code for an identity, over the same HTTPS as in the field."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import Final

from edge_agent import enrol, host
from edge_agent.identity import IDENTITY_FILE
from edge_agent.signing import FileKeyStore
from edge_agent.version import AGENT_VERSION
from fleet_server import db
from fleet_server.channel import transact
from fleet_server.enrolment import registry
from tests.demo.city import City, Member, area_rows, item_rows, site_rows
from tests.demo.setup import Places, Setup, server_settings

AT_ONCE: Final = 6
"""The server signs one certificate after the other; more only wait longer."""
BY: Final = "demo"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def register(places: Places, setup: Setup, city: City) -> dict[str, str]:
    """Areas, sites and terminals into the server's registry, and a code for each terminal that has no identity yet. Can be repeated."""
    wanting = [member for member in city.members if not _has_identity(places, member)]

    def work(connection: sqlite3.Connection) -> dict[str, str]:
        registry.import_sites(connection, area_rows(), site_rows(city.sites()))
        known = {row[0] for row in connection.execute("SELECT id FROM terminal")}
        for member in city.members:
            if member.id not in known:
                registry.add_terminal(connection, member.registration(places.terminal_ports(member.id)), now_ms=now_ms())
        return {member.id: registry.new_code(connection, member.id, by=BY, now_ms=now_ms()) for member in wanting}

    with closing(db.open_raw(server_settings(places, setup).layout.database)) as connection:
        return transact(connection, work)


def enrol_all(places: Places, setup: Setup, codes: dict[str, str], told: Callable[[int], None]) -> None:
    """Raises what the first refused terminal was told. `told` hears how many are done."""
    ca_pem = (server_settings(places, setup).layout.authority / "ca.pem").read_text("ascii")
    hardware = host.facts().for_enrolment(AGENT_VERSION)

    def one(terminal: str) -> None:
        request = enrol.Request(
            server_url=f"https://127.0.0.1:{setup.enrolment_port}",
            terminal=terminal,
            code=codes[terminal],
            trust=enrol.Trust(ca_pem=ca_pem),
            hardware=hardware,
            check_dates=True,
        )
        folder = places.identity(terminal)
        enrol.enrol(request, FileKeyStore(folder), folder)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, finished in enumerate(as_completed([pool.submit(one, terminal) for terminal in codes]), start=1):
            finished.result()
            told(done)


def config_text(places: Places, setup: Setup, member: Member) -> str:
    """The file of an agent that is a process of its own; every device by its port, as an installer would write it."""
    lines = [
        "schema = 1",
        f'identity_dir = "{places.identity(member.id)}"',
        f'state_dir = "{places.state(member.id)}"',
        "",
        "[server]",
        f'url = "https://127.0.0.1:{setup.enrolment_port}"',
        "",
        "[mqtt]",
        'host = "127.0.0.1"',
        f"port = {setup.mqtt_port}",
        "",
        "[updater]",
        f'requests_dir = "{places.handover(member.id) / "requests"}"',
        f'updates_dir = "{places.handover(member.id) / "updates"}"',
        "",
        "[local_api]",
        f'socket_path = "{places.agent_socket(member.id)}"',
        *_tables("devices", member.inventory(places.terminal_ports(member.id))),
        *_tables("items", item_rows()),
    ]
    return "\n".join(lines) + "\n"


def _tables(name: str, rows: Sequence[dict[str, object]] | Sequence[dict[str, str]]) -> Iterator[str]:
    for row in rows:
        yield ""
        yield f"[[{name}]]"
        for key, value in row.items():
            yield f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f'"{value}"'


def write_configs(places: Places, setup: Setup, city: City) -> None:
    for member in city.processes:
        path: Path = places.config(member.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config_text(places, setup, member), encoding="utf-8")


def _has_identity(places: Places, member: Member) -> bool:
    return (places.identity(member.id) / IDENTITY_FILE).exists()
