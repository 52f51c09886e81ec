"""Agents for tests: enrolled without a network, on simulated ports, and the records that they leave behind."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cbor2
import msgspec

from edge_agent import config as configuration
from edge_agent import host, identity
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.host import HostSample
from edge_agent.identity import Identity, MqttAddress
from edge_agent.signing import FileKeyStore
from edge_agent.spool import SPOOL_FILE
from edge_agent.supervisor import Agent
from edge_agent.transports import base
from protocols.contract import envelope as cose
from protocols.contract import records
from protocols.contract.batch import read_batch
from protocols.contract.records import Body, ClockQuality, Record
from protocols.profile.schema import Profile
from simulators.ports.pipe import PortKit
from simulators.terminal import VirtualTerminal
from tests.edge_agent.small_fleet import RootKey

BOOT = bytes(15) + b"\7"
CALM = HostSample(
    cpu_busy=1,
    cpu_total=100,
    mem_total_mib=8000,
    mem_free_mib=4000,
    disk_total_mib=64_000,
    disk_free_mib=32_000,
    temp_c=45,
    uptime_s=100,
    agent_rss_kib=40_000,
)
FACTS = host.HostFacts(os="Debian GNU/Linux 12", arch="x86_64", python="3.11.7", machine=None, cpus=2, mem_mib=8000)


class CalmProbe:
    """A host without worries."""

    def sample(self) -> HostSample:
        return CALM


class OffsetClock:
    """The loop's own speed, and a wall clock that the test sets."""

    def __init__(self, quality: ClockQuality = ClockQuality.SYNCED) -> None:
        import time

        self._time = time.monotonic_ns
        self.wall_at_boot_ms = 1_790_000_000_000
        self.skipped_ms = 0
        self.clock_quality = quality

    def boot_ms(self) -> int:
        return self._time() // 1_000_000 + self.skipped_ms

    def wall_ms(self) -> int:
        return max(0, self.wall_at_boot_ms + self.boot_ms())

    def quality(self) -> ClockQuality:
        return self.clock_quality


class Home:
    """One terminal's directories and keys; `short` because a socket's path may have 107 bytes only."""

    def __init__(self, folder: Path, terminal: str = "kiosk-0007") -> None:
        self.folder = folder
        self.short = Path(tempfile.mkdtemp(prefix="kf-"))
        self.root = RootKey()
        self.terminal = terminal
        self.identity_dir, self.state_dir = folder / "identity", folder / "state"
        self.socket_path = self.short / "agent.sock"
        self.keys = FileKeyStore(self.identity_dir)
        self.keys.record_key()
        self.who = Identity(
            terminal=terminal,
            fleet="testfleet",
            server_url="https://127.0.0.1:1",
            root_key=self.root.public_key,
            mqtt=MqttAddress(host="127.0.0.1", port=1),
        )
        identity.save(self.identity_dir, self.who)

    def remove(self) -> None:
        shutil.rmtree(self.short, ignore_errors=True)

    def config(self, **tables: Any) -> Config:
        return msgspec.convert(
            {
                "schema": 1,
                "identity_dir": str(self.identity_dir),
                "state_dir": str(self.state_dir),
                "server": {"url": self.who.server_url},
                "items": [{"code": "tax.invoice"}],
                "local_api": {"socket_path": str(self.socket_path)},
            }
            | tables,
            Config,
        )

    def agent(
        self,
        simulated: VirtualTerminal,
        profiles: dict[str, Profile],
        *,
        clock: Clock | None = None,
        boot_id: bytes = BOOT,
        config: Config | None = None,
        **more: Any,
    ) -> Agent:
        kit = PortKit.of(base)
        values: dict[str, Any] = {
            "config": config or self.config(devices=inventory(simulated)),
            "who": self.who,
            "clock": clock or OffsetClock(),
            "boot_id": boot_id,
            "keys": FileKeyStore(self.identity_dir),
            "opener": simulated.opener(kit),
            "discoverer": simulated.discoverer(kit),
            "profiles": profiles,
            "probe": CalmProbe(),
            "facts": FACTS,
            "uplink": False,
            "rng": random.Random(7),
        }
        return Agent(**(values | more))

    def bodies(self) -> list[Body]:
        return [body for record in self.records() if (body := records.body_of(record)) is not None]

    def records(self) -> list[Record]:
        return [record for _, record in self.signed_records()]

    def signed_records(self) -> Iterator[tuple[bytes, Record]]:
        """(key id, record) of everything captured, in order; what is not sealed yet has an empty key id."""
        with closing(sqlite3.connect(self.state_dir / SPOOL_FILE)) as db:
            db.execute("BEGIN")  # both looks see the same moment, whatever a running agent seals between them
            for (raw,) in db.execute("SELECT envelope FROM batch WHERE kind = 'data' ORDER BY seq"):
                envelope = cose.parse(bytes(raw), 1 << 20)
                opened = cose.Opened(payload=envelope.payload, kid=envelope.kid, digest=b"", raw=envelope.raw)
                for item in read_batch(opened).records:
                    yield envelope.kid, records.decode_record(item)
            for (raw,) in db.execute("SELECT record FROM pending ORDER BY id"):
                yield b"", records.decode_record(cbor2.loads(bytes(raw)))


def inventory(simulated: VirtualTerminal) -> list[dict[str, Any]]:
    known = {field.name for field in msgspec.structs.fields(configuration.DeviceEntry)}
    return [{key: value for key, value in entry.items() if key in known} for entry in simulated.ports()]
