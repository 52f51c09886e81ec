"""Owns where versions lie and which one starts: the directories under the root, and `state.json` together with the launcher.

    versions/<name>/      a complete tree with its mark `.complete`; `<name>.part` while it is made, `<name>.trash` while it goes
    current, updater      links that follow state.json: what the agent's and the updater's units start
    state.json            per seat: good version, trial and its tries, last verdict (see `edge_agent.launcher`)
    images/<sha256>.tar   images of the versions kept, bases for differences
    switch                rewritten when the agent must be started again
    reserve               some disk that is given up so that a full disk cannot keep a bad version running

One process writes here besides the launcher; both hold the lock while they change the state.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent import launcher

RESERVE_BYTES = 256 * 1024
Seat = Literal["agent", "updater"]


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a tree is; written into its mark."""

    version: str
    release: int
    sha256: str
    """Of the image it was unpacked from."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """`.complete`: exists only in a tree that is whole."""

    format: Literal[1] = 1
    about: About
    files: dict[str, int]
    links: dict[str, str]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    tries: int = 0
    max: int = 3
    bundle: str = ""
    """Which bundle asked for it, in hex."""
    ends: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Why the last trial was given up."""

    name: str | None = None
    reason: str
    bundle: str | None = None
    tries: int | None = None


class SeatState(msgspec.Struct, frozen=True, kw_only=True):
    good: str | None = None
    previous: str | None = None
    """Was good before `good`; kept, so that there is a way back that was proved."""
    trial: Trial | None = None
    verdict: Verdict | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    format: int = launcher.FORMAT
    factory: str | None = None
    seats: dict[str, SeatState] = {}

    def seat(self, seat: Seat) -> SeatState:
        return self.seats.get(seat, SeatState())

    def with_seat(self, seat: Seat, value: SeatState) -> State:
        return msgspec.structs.replace(self, seats={**self.seats, seat: value})

    def names(self) -> frozenset[str]:
        """Every version that the state may still start."""
        found = {self.factory}
        for one in self.seats.values():
            found |= {one.good, one.previous, one.trial.name if one.trial else None}
        return frozenset(name for name in found if name)


def name_of(version: str, sha256: str) -> str:
    """Directory of a version: readable, one part, and another one for another image of the same version."""
    return f"{re.sub(r'[^A-Za-z0-9._+-]', '_', version)}-{sha256[:12]}"


class Layout:
    """The directories under one root, all of them paths only; nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions = root / launcher.VERSIONS
        self.images = root / "images"

    def prepare(self) -> None:
        """Make what is missing."""
        for folder in (self.root, self.versions, self.images):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        launcher.sync(self.root)
        self.keep_reserve()

    def keep_reserve(self) -> None:
        """Set some disk aside again; a full disk is no error here."""
        keep_reserve(self.root / launcher.RESERVE, RESERVE_BYTES)

    def give_up_reserve(self) -> None:
        """Make room for what must be written now."""
        with contextlib.suppress(OSError):
            (self.root / launcher.RESERVE).unlink()

    # ------------------------------------------------------------------------------------------------------------------------- state

    @contextlib.contextmanager
    def changing(self) -> Iterator[State]:
        """Hold the lock; the state as it is. Write it with `write` before the block ends."""
        with launcher.locked(self.root):
            yield self.state()

    def state(self) -> State:
        """What the file says; seats that are spoiled read as empty."""
        raw = launcher.read_state(self.root)
        seats: dict[str, SeatState] = {}
        for seat, value in raw["seats"].items():
            try:
                seats[seat] = msgspec.convert(value, SeatState)
            except msgspec.ValidationError:
                good = value.get("good")
                seats[seat] = SeatState(good=good if isinstance(good, str) else None)
        factory = raw.get("factory")
        return State(factory=factory if isinstance(factory, str) else None, seats=seats)

    def write(self, state: State) -> None:
        """Durable when it returns. Only inside `changing`."""
        launcher.write_state(self.root, msgspec.to_builtins(state))

    def point(self, seat: Seat, name: str) -> None:
        launcher.point(self.root, launcher.LINKS[seat], name)

    def pointed(self, seat: Seat) -> str | None:
        try:
            return (self.root / launcher.LINKS[seat]).readlink().name
        except OSError:
            return None

    def restart_agent(self) -> None:
        """Ask whoever starts the agent (the `run` loop, or systemd's path unit) to start it again."""
        path = self.root / launcher.SWITCH
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(b"")
        temporary.replace(path)

    # ------------------------------------------------------------------------------------------------------------------------- trees

    def tree(self, name: str) -> Path:
        return self.versions / name

    def part(self, name: str) -> Path:
        return self.versions / f"{name}.part"

    def image(self, sha256: str) -> Path:
        return self.images / f"{sha256}.tar"

    def complete(self, name: str) -> bool:
        return launcher.is_complete(self.root, name)

    def about(self, name: str) -> About | None:
        """What the mark of a tree says; None if it has none."""
        try:
            return msgspec.json.decode((self.tree(name) / launcher.COMPLETE).read_bytes(), type=Mark).about
        except (OSError, msgspec.DecodeError):
            return None

    def installed(self) -> About | None:
        """What the agent's seat counts as good."""
        good = self.state().seat("agent").good
        return self.about(good) if good else None

    def clean(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove trees and images that the state cannot start any more, and remains of steps that were cut off. `keep`: names besides.

        Does nothing while the state names no good version that is whole: then every tree may be the one that is needed.
        """
        state = self.state()
        good = state.seat("agent").good
        if good is None or not self.complete(good):
            return
        wanted = state.names() | keep | {name for name in (self.pointed("agent"), self.pointed("updater")) if name}
        for path in sorted(self.versions.iterdir()):
            if path.name in wanted:
                continue
            discard(self._aside(path))
        images = {about.sha256 for name in wanted if (about := self.about(name)) is not None}
        for image in sorted(self.images.iterdir()):
            if image.stem not in images:
                discard(image)
        for stray in self.root.glob(".*.new"):
            stray.unlink(missing_ok=True)

    def _aside(self, path: Path) -> Path:
        """A tree that is half removed must not carry the name of a whole one."""
        if path.suffix == ".trash" or path.is_symlink() or not path.is_dir():
            return path
        gone = path.with_name(f"{path.name}.trash")
        if gone.exists():
            discard(gone)
        path.rename(gone)
        launcher.sync(self.versions)
        return gone


def keep_reserve(path: Path, size: int) -> None:
    """Let `path` take up `size` bytes; nothing happens where they are not to be had."""
    try:
        if path.stat().st_size >= size:
            return
    except OSError:
        pass
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a file, a link or a tree; gone is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)
