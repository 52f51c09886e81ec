"""What is cut off between network and disk: a transfer, a look at both repositories with all that is remembered of it, and artifacts put to use.

The steps run in processes of their own; what they need to know lies in files under their folder, and the mirror is the test's.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.artifacts.profiles import ProfilesInstaller
from edge_agent.content.shelf import Shelf
from edge_agent.updater import fetch, trust
from edge_agent.updater.counters import Counters
from edge_agent.updater.download import Downloader, Item
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import Artifact
from protocols.packages import content, profiles
from protocols.packages.content import Manifest, Page
from tests.edge_agent.attacks import world as worlds
from tests.edge_agent.attacks.world import World
from tests.edge_agent.firmware.bench import UNIT

# ----------------------------------------------------------------------------------------------------------------------- a transfer

IMAGE = hashlib.shake_256(b"an image").digest(64 * 1024)
SHA256 = hashlib.sha256(IMAGE).digest()
SYNC_EVERY, PIECE = 16 * 1024, 8 * 1024
LONG = fetch.Pace(connect_s=10, silence_s=10, window_s=10, min_bytes_s=1, deadline_s=None)
"""A machine that is busy with other tests is no slow server."""


class _EvenPieces:
    """An answer of the real fetcher, cut the same way in every run: how the kernel groups bytes would move the system calls."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    def pieces(self) -> Iterator[bytes]:
        held = b""
        for piece in self._answer.pieces():
            held += piece
            while len(held) >= PIECE:
                yield held[:PIECE]
                held = held[PIECE:]
        if held:
            yield held


class _EvenFetcher(fetch.Fetcher):
    @contextmanager
    def get(self, *args: Any, **more: Any) -> Iterator[Any]:
        with super().get(*args, **more) as answer:
            yield _EvenPieces(answer)


def download(place: Path) -> None:
    """The real downloader, with a ledger every 16 KiB."""
    url = (place / "url").read_text("ascii")
    with _EvenFetcher(fetch.Origin.of(url), tls=None, pace=LONG) as fetcher:
        downloader = Downloader(place / "downloads", fetcher, pace=LONG, reserve_bytes=0, sync_every_bytes=SYNC_EVERY)
        downloader.get(Item(f"{url}/image", len(IMAGE), SHA256))


def lay_part(place: Path, part: bytes, synced: int) -> None:
    """As a cut left it: a part, and what its ledger vouches for."""
    (place / "downloads").mkdir()
    (place / "downloads" / f"{SHA256.hex()}.part").write_bytes(part)
    ledger = {"length": len(IMAGE), "synced": synced}
    (place / "downloads" / f"{SHA256.hex()}.ledger").write_bytes(msgspec.json.encode(ledger))


def vouched(place: Path) -> int:
    """Bytes of which the ledger says that they are surely there; 0 without a ledger."""
    try:
        return int(msgspec.json.decode((place / "downloads" / f"{SHA256.hex()}.ledger").read_bytes())["synced"])
    except FileNotFoundError:
        return 0


# ------------------------------------------------------------------------------------------------- what is remembered of what was signed


def parts(place: Path) -> tuple[TimeFloor, Counters]:
    """As the updater makes them: the counters in two places."""
    return TimeFloor(place / "state" / "floor.json"), Counters(
        place / "state" / "counters.json", place / "second" / "counters.json"
    )


def lay_given(place: Path, world: World) -> None:
    """What a terminal is given: its pinned roots and keys, the server's address, and the signed desired state."""
    for name in ("given", "state", "second"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for name, data in {
        "url": world.mirror.url.encode("ascii"),
        "desired": world.desired,
        "certificate": world.certificates[0],
        "root-key": world.root.public,
        "image-root": world.roots.image,
        "director-root": world.roots.director,
    }.items():
        (place / "given" / name).write_bytes(data)


def look_and_remember(place: Path) -> None:
    """From the desired state to the counted release: counters, time floor and the metadata of both repositories are written on the way."""

    def given(name: str) -> bytes:
        return (place / "given" / name).read_bytes()

    url, raw = given("url").decode("ascii"), given("desired")
    floor, counters = parts(place)
    root = Ed25519PublicKey.from_public_bytes(given("root-key"))
    desired = trust.open_desired(raw, [given("certificate")], root=root, fleet=worlds.FLEET, terminal=worlds.TERMINAL)
    counters.accept_desired(desired.counter, raw)
    floor.hear_server(desired.counter, desired.issued_ms)
    assert desired.bundle is not None
    with fetch.Fetcher(fetch.Origin.of(url), tls=None, pace=LONG) as fetcher:
        looker = trust.Trust(
            place / "state" / "tuf",
            base_url=url,
            roots=trust.Roots(given("image-root"), given("director-root")),
            fetcher=fetcher,
            floor=floor,
            counters=counters,
        )
        terminal = trust.Terminal(worlds.TERMINAL, worlds.ARCH, None)
        plan = looker.look(desired.bundle, terminal, system_ms=worlds.NOW_MS)
    assert isinstance(plan, trust.Plan), plan
    for component in plan.components:
        counters.installed(component.wanted.component, component.wanted.release)


def remembered(place: Path) -> dict[str, int]:
    """Every number that must never fall, read from the disk as the next start would. A file that is not whole raises.

    Of roots the history counts: a look begins at the pinned one and follows it. python-tuf's link `root.json` is for people.
    """
    floor, counters = parts(place)
    found = {"desired": counters.desired, "floor": floor.ms}
    found |= {f"release of {name}": release for name, release in counters.releases.items()}
    tuf = place / "state" / "tuf"
    for path in sorted((*tuf.glob("*/*.json"), *tuf.glob("*/root_history/*.json"))):
        if not path.is_symlink():
            found[str(path.relative_to(tuf))] = msgspec.json.decode(path.read_bytes())["signed"]["version"]
    return found


# ----------------------------------------------------------------------------------------------------------------- artifacts put to use

NAME, PAGE = "tax-guide", "tax.page.0"
FILES = {
    version: {"guide/index.html": f"<h1>{version}</h1>".encode(), "guide/film.mp4": hashlib.shake_256(version.encode()).digest(20_000)}
    for version in ("1.0", "1.1")
}  # fmt: skip
PROFILE_SETS = {
    version: profiles.encode(version, {"acme-fu100": UNIT.replace("Acme FU-100", f"Acme {version}")}) for version in FILES
}


def package(version: str) -> bytes:
    files, out = FILES[version], io.BytesIO()
    manifest = Manifest(
        name=NAME,
        version=version,
        pages=(Page(id=PAGE, zh="指南", en="Guide", file="guide/index.html"),),
        files=tuple(content.file_of(name, data) for name, data in files.items()),
        created_by="li",
        reviewed_by="wang",
    )
    content.write(manifest, {name: io.BytesIO(data) for name, data in files.items()}, out)
    return out.getvalue()


PACKAGES = {version: package(version) for version in FILES}
KEPT_TREES = {hashlib.sha256(raw).hexdigest() for raw in PACKAGES.values()}
"""Of content: the version in use and the one before."""


def artifact(component: str, version: str, raw: bytes) -> Artifact:
    return Artifact(component=component, version=version, release=1, sha256=hashlib.sha256(raw).hexdigest(), length=len(raw))


def shelf_in(place: Path) -> Shelf:
    return Shelf(
        place / "content",
        artifacts_dir=place / "artifacts",
        now_ms=lambda: worlds.NOW_MS,
        connected=lambda: True,
        free_bytes=lambda _: 1 << 40,
    )


def profiles_in(place: Path) -> ProfilesInstaller:
    return ProfilesInstaller(
        artifacts_dir=place / "artifacts",
        folder=place / "profiles",
        shipped={},
        own={},
        pinned=frozenset,
        on_change=lambda merged: None,
    )


def lay_artifacts(place: Path) -> None:
    """Both versions as the updater leaves them, the first in use."""
    for name in ("artifacts", "content"):
        (place / name).mkdir(parents=True)
    for raw in (*PACKAGES.values(), *PROFILE_SETS.values()):
        (place / "artifacts" / hashlib.sha256(raw).hexdigest()).write_bytes(raw)
    _use_content(place, "1.0")
    _use_profiles(place, "1.0")


class _AtOnce(ThreadPoolExecutor):
    """Does the work where it is asked for: strace counts the calls of each thread by itself."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **more))
        except Exception as err:  # noqa: BLE001 -- it goes to whoever waits, as from a thread
            done.set_exception(err)
        return done


def _use_content(place: Path, version: str) -> None:
    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(_AtOnce())
        shelf = shelf_in(place)
        shelf.load()
        await shelf.install(artifact(f"content/{NAME}", version, PACKAGES[version]), lambda state, reason: None)

    asyncio.run(work())


def _use_profiles(place: Path, version: str) -> None:
    installer = profiles_in(place)
    installer.load()
    asyncio.run(installer.install(artifact("profiles", version, PROFILE_SETS[version]), lambda state, reason: None))


def use_content(place: Path) -> None:
    _use_content(place, "1.1")


def use_profiles(place: Path) -> None:
    _use_profiles(place, "1.1")


def shown(place: Path) -> str | None:
    """Version of the package that a start would show now; its files must be the very ones of that version."""
    shelf = shelf_in(place)
    shelf.load()
    version = shelf.version_of(NAME, PAGE)
    for name, data in FILES.get(version or "", {}).items():
        found = shelf.find(NAME, name)
        assert found is not None and found.path.read_bytes() == data, name
    return version


def in_use(place: Path) -> str | None:
    """Version of the profile set that a start would use now."""
    installer = profiles_in(place)
    loaded = installer.load()
    assert installer.version is None or loaded["acme-fu100"].display_name == f"Acme {installer.version}"
    return installer.version


STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step for step in (download, look_and_remember, use_content, use_profiles)
}
