"""What is cut off: steps of the updater and the launcher, each by itself, and a whole update from the desired state to the new version."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent import launcher
from edge_agent.identity import Identity, MqttAddress
from edge_agent.updater import install
from edge_agent.updater.counters import Counters
from edge_agent.updater.delta import Base, Got
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import AgentSide, Grant, Health
from edge_agent.updater.layout import Layout
from edge_agent.updater.service import Service
from edge_agent.updater.settings import LimitsTable, Settings
from edge_agent.updater.source import Tell
from edge_agent.updater.trust import Component, Plan, Refused
from edge_agent.updater.workflow import ENDS
from protocols.contract import certs, orders
from protocols.contract.artifacts import ImageCustom
from protocols.contract.envelope import key_id
from protocols.contract.orders import Bundle, Desired, Wanted
from protocols.contract.records import ClockQuality
from tests.edge_agent.updater import fetching, places

FLEET, TERMINAL = "testfleet", "kiosk-0007"
WALL_MS, BOOT_ID = 1_800_000_000_000, bytes(15) + b"\5"
BUNDLE_ID = bytes(15) + b"\3"


def stage_and_begin(root: Path) -> None:
    places.begin(Layout(root))


def commit_and_clean(root: Path) -> None:
    layout = Layout(root)
    install.commit(layout, places.NEW_NAME)
    layout.clean()


def roll_back_and_clean(root: Path) -> None:
    layout = Layout(root)
    install.roll_back(layout, places.NEW_NAME, "memory")
    layout.clean()


def count(root: Path) -> None:
    launcher.count(root)


def ended(root: Path) -> None:
    launcher.ended(root, "agent", "crashed")


# ------------------------------------------------------------------------------------------------------------------- a whole update


class FixedKey:
    """The same in every process."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = key_id(self.public)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


FLEET_ROOT, ORDER_KEY = FixedKey(1), FixedKey(2)


class StepClock:
    """Moves when it is told to; the same in every run."""

    def __init__(self) -> None:
        self.now_ms = 10_000

    def boot_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return WALL_MS + self.now_ms

    def quality(self) -> ClockQuality:
        return ClockQuality.SYNCED


class FolderSource:
    """A server that is always there: copies the image from `folder`."""

    def __init__(self, folder: Path, downloads: Path) -> None:
        self._folder, self._downloads = folder, downloads

    def look(self, bundle: Bundle, bases: dict[str, bytes]) -> Plan | Refused:
        wanted = bundle.wanted[0]
        image = ImageCustom(component="agent", version=wanted.version, release=wanted.release)
        return Plan(bundle, (Component(wanted, image),))

    def obtain(self, component: Component, base: Base | None, tell: Tell, keep_on: Callable[[], bool]) -> Got:
        self._downloads.mkdir(exist_ok=True)
        path = self.path(component.wanted.sha256)
        shutil.copyfile(self._folder / f"{path.name}.tar", path)
        return Got(path, "full", component.wanted.length)

    def path(self, sha256: bytes) -> Path:
        return self._downloads / sha256.hex()

    def limit(self, rate_bytes_s: int | None) -> None:
        """As fast as the disk."""

    def discard(self, keep: Collection[bytes]) -> None:
        if self._downloads.is_dir():
            for path in sorted(self._downloads.iterdir()):
                path.unlink()


class Agent:
    """What the agent writes: it runs what `current` names, is well, and grants what is asked."""

    def __init__(self, place: Path, clock: StepClock) -> None:
        self._clock, self._layout = clock, Layout(place / "root")
        self._side = AgentSide(place / "requests", place / "updates")

    def step(self) -> None:
        about = self._layout.about(self._layout.pointed("agent") or "")
        health = Health(
            boot_id=BOOT_ID.hex(),
            boot_ms=self._clock.now_ms,
            version=about.version if about is not None else "0",
            pid=os.getpid(),
            idle=True,
            progress=0,
        )
        self._side.write_health(health)
        want = self._side.want()
        until_ms = self._clock.now_ms + 60_000
        self._side.write_grant(Grant(want=want.id, boot_id=BOOT_ID.hex(), until_boot_ms=until_ms) if want is not None else None)


def lay_place(place: Path) -> None:
    """Directories of a terminal with its factory version, and a desired state that wants the new one."""
    for name in ("requests", "updates", "updater", "server"):
        (place / name).mkdir(parents=True)
    places.factory(place / "root")
    new = places.NEW
    new.write(place / "server")
    wanted = Wanted(
        component="agent",
        target="agent/new.tar",
        version=new.version,
        release=new.release,
        length=len(new.raw),
        sha256=bytes.fromhex(new.sha256),
    )
    bundle = Bundle(id=BUNDLE_ID, rollout=bytes(16), wanted=(wanted,), probation_s=600)
    desired = Desired(counter=1, issued_ms=WALL_MS, by="maker", approved_by="checker", bundle=bundle)
    certificate = certs.OrderKeyCert(kid=ORDER_KEY.kid, public_key=ORDER_KEY.public, issued_ms=WALL_MS)
    side = AgentSide(place / "requests", place / "updates")
    side.write_order_keys([certs.seal_order_key_cert(certificate, FLEET_ROOT, FLEET)])
    side.write_desired(orders.seal_desired(desired, ORDER_KEY, FLEET, TERMINAL))


def service(place: Path, clock: Any) -> Service:
    """The updater of the place. It works in the calling thread; its own process stands for the agent's."""
    who = Identity(
        terminal=TERMINAL,
        fleet=FLEET,
        server_url="https://127.0.0.1:1",
        root_key=FLEET_ROOT.public,
        mqtt=MqttAddress(host="127.0.0.1", port=1),
    )
    settings = Settings(
        root=str(place / "root"),
        state_dir=str(place / "updater"),
        requests_dir=str(place / "requests"),
        updates_dir=str(place / "updates"),
        limits=LimitsTable(steady_s=1, device_s=1, keep_free_mib=1),
    )
    proc = place / "proc" / str(os.getpid())
    proc.mkdir(parents=True, exist_ok=True)
    (proc / "cmdline").write_bytes(f"{place / 'root' / 'versions' / places.NEW_NAME}/lib/start.py".encode())
    return Service(
        settings=settings,
        who=who,
        source=FolderSource(place / "server", place / "root" / "downloads"),
        counters=Counters(place / "updater" / "counters.json"),
        floor=TimeFloor(place / "updater" / "time-floor.json"),
        clock=clock,
        boot_id=BOOT_ID,
        proc=place / "proc",
        in_thread=False,
        random_bytes=bytes,
    )


def whole_update(place: Path) -> None:
    """Tick until the bundle has ended and everything is cleaned."""
    clock = StepClock()
    one, agent = service(place, clock), Agent(place, clock)
    for _ in range(200):
        agent.step()
        one.tick()
        clock.now_ms += 1_000
        if one.work is not None and one.work.state in ENDS and not one.work.ended:
            one.tick()
            return
    raise AssertionError(f"no end: {one.work and (one.work.state, one.work.reason)}")


STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step for step in (stage_and_begin, commit_and_clean, roll_back_and_clean, count, ended, whole_update)
} | fetching.STEPS


def main() -> None:
    """One step by hand: `python -m tests.edge_agent.updater.steps <step> <folder>`."""
    STEPS[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
