"""Smaller forms of released artifacts: the whole in zstd, and differences from what the fleet runs now. Made beside everything else, kept if smaller.

The `zstd` program does the work, in a process of its own, at the lowest priority and with a limit of memory. Where it is missing there are no
differences, and the whole is packed by the library in a process of this interpreter. Terminals check the result against the image's signed hash.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile

from fleet_server.processes import ask_for_death_signal
from fleet_server.updates import intake, releases, store
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom, PackedCustom
from protocols.contract.wire import WireError

log = logging.getLogger(__name__)

FULL_BELOW = 0.97
"""A packed form that saves less than so much is not worth unpacking."""
DELTA_BELOW = 0.9
"""Of the packed whole: a difference costs the terminal memory."""
FULL_MAX_BYTES = 1 << 30
DELTA_MAX_BYTES = 256 << 20
"""Old and new together: zstd needs about six times the larger one (measured: 364 MB for 66 MB)."""
MEMORY_MAX_BYTES = 2 << 30
"""Address space of the process: it dies instead of the server."""
TIME_MAX_S = 1800.0
MIN_BYTES = 64 * 1024
"""Below, a request costs as much as what could be saved."""
TOP_LEVEL, LARGE_LEVEL = 19, 10
LARGE_BYTES = 256 << 20
NEWEST = 2
"""So many releases of a line get packed forms: the one that is rolled out and the one before, to which it goes back."""
BASES_MAX = 6
"""Differences are made from at most so many versions, those that most terminals run."""


class Job(msgspec.Struct, frozen=True):
    """Pack `to`; as a difference from `base`, or whole."""

    to: str
    base: str | None = None

    @property
    def path(self) -> str:
        return artifacts.packed_path(self.to, self.base)


class Made(msgspec.Struct):
    made: int = 0
    kept: int = 0
    dropped: int = 0


def in_fleet(conn: sqlite3.Connection) -> dict[str, int]:
    """How many terminals say that they run which image (SHA-256)."""
    rows = conn.execute("SELECT sha256, count(*) FROM installed_version WHERE sha256 IS NOT NULL GROUP BY sha256")
    return {bytes(sha256).hex(): int(count) for sha256, count in rows}


def jobs(known: Iterable[TargetFile], installed: dict[str, int]) -> list[Job]:
    """What should be there, most useful first. Pure."""
    images = _images(known)
    lines: dict[object, list[tuple[ImageCustom, TargetFile]]] = {}
    for custom, target in images:
        lines.setdefault(releases.line_of(custom), []).append((custom, target))
    wanted: list[Job] = []
    for line in lines.values():
        line.sort(key=lambda one: one[0].release, reverse=True)
        for _, target in line[:NEWEST]:
            if MIN_BYTES <= target.length <= FULL_MAX_BYTES:
                wanted.append(Job(target.hashes["sha256"]))
        newest, running = line[0][1], [target for _, target in line[1:] if installed.get(target.hashes["sha256"])]
        running.sort(key=lambda target: installed[target.hashes["sha256"]], reverse=True)
        wanted += [
            Job(newest.hashes["sha256"], base.hashes["sha256"])
            for base in running[:BASES_MAX]
            if newest.length >= MIN_BYTES and newest.length + base.length <= DELTA_MAX_BYTES
        ]
    return list(dict.fromkeys(wanted))


def make(updates: Updates, installed: dict[str, int], *, now_ms: int, most: int | None = None) -> Made:
    """Do what is missing of `jobs`, `most` of them; what turned out not to be smaller is remembered and not tried again."""
    known = updates.image.known_targets()
    described = [target for role, target in known.values() if role != "packed"]
    by_hash = {target.hashes["sha256"]: target for target in described}
    given_up = _given_up(updates.layout)
    done = Made()
    for job in jobs(described, installed):
        if job.path in known:
            done.kept += 1
        elif job.path in given_up:
            continue
        elif most is not None and done.made + done.dropped >= most:
            break
        elif _make_one(updates, job, by_hash, known, now_ms):
            done.made += 1
        else:
            done.dropped += 1
            given_up.add(job.path)
            _remember(updates.layout, given_up)
    return done


def clear_away(updates: Updates, installed: dict[str, int], *, now_ms: int) -> list[str]:
    """Take out packed forms that nobody will ask for any more."""
    known = updates.image.known_targets()
    wanted = {job.path for job in jobs([target for role, target in known.values() if role != "packed"], installed)}
    stale = [path for path, (role, _) in known.items() if role == "packed" and path not in wanted]
    return intake.remove_online(updates, "packed", stale, now_ms=now_ms) if stale else []


def step(layout: UpdatesLayout) -> Callable[[sqlite3.Connection, int], bool]:
    """The step of a duty of the dispatch process: one packed form at a time. True while there is more."""

    def turn(conn: sqlite3.Connection, now_ms: int) -> bool:
        updates = Updates(layout)
        if not layout.exists or updates.image.timestamp() is None:
            return False
        installed = in_fleet(conn)
        done = make(updates, installed, now_ms=now_ms, most=1)
        if done.made + done.dropped:
            return True
        clear_away(updates, installed, now_ms=now_ms)
        return False

    return turn


def _make_one(
    updates: Updates, job: Job, by_hash: dict[str, TargetFile], known: dict[str, tuple[str, TargetFile]], now_ms: int
) -> bool:
    target = by_hash[job.to]
    folder = store.staging_folder(updates.layout)
    try:
        out = folder / "packed.zst"
        base = updates.image.file_of(by_hash[job.base]) if job.base is not None else None
        if not compress(updates.image.file_of(target), out, base):
            return False
        limit = target.length * FULL_BELOW
        whole = known.get(artifacts.packed_path(job.to))
        if job.base is not None:
            limit = min(limit, (whole[1].length if whole is not None else target.length) * DELTA_BELOW)
        length = out.stat().st_size
        if length >= limit:
            log.info("%s would have %d bytes: not kept", job.path, length)
            return False
        intake.add_online(updates, "packed", job.path, out, PackedCustom(to=job.to, base=job.base), now_ms=now_ms)
        log.info("%s: %d bytes instead of %d", job.path, length, target.length)
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compress(source: Path, out: Path, base: Path | None = None) -> bool:
    """Pack `source` into `out`; False if it could not be done (no program for differences, out of memory, too long)."""
    command = command_for(source, out, base, shutil.which("zstd"))
    if command is None:
        return False
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TIME_MAX_S,
            check=False,
            preexec_fn=_humble,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        log.warning("packing failed: %s", type(err).__name__)
        return False
    if done.returncode != 0:
        log.warning("packing failed with status %d: %s", done.returncode, done.stderr[-200:].decode("utf-8", "replace").strip())
    return done.returncode == 0 and out.exists()


def command_for(source: Path, out: Path, base: Path | None, program: str | None) -> list[str] | None:
    """None: a difference, but no program that makes it."""
    level = TOP_LEVEL if source.stat().st_size <= LARGE_BYTES else LARGE_LEVEL
    if program is not None:
        # --long=27 is the largest window that terminals unpack; with --patch-from zstd takes what the two files need.
        how = ["--long=27"] if base is None else [f"--patch-from={base}"]
        return [program, "-q", "-f", f"-{level}", "-T1", *how, "-o", str(out), str(source)]
    if base is not None:
        return None
    return [sys.executable, "-m", "fleet_server.updates.packed", str(level), str(source), str(out)]


def _humble() -> None:
    """In the child: last in every queue, with a limit of memory, and not longer than the server."""
    ask_for_death_signal()
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))


def _images(known: Iterable[TargetFile]) -> Sequence[tuple[ImageCustom, TargetFile]]:
    found = []
    for target in known:
        try:
            custom = artifacts.of_custom(target.custom, ImageCustom)
        except WireError:
            continue
        # A firmware goes to the unit as it is; it is small, and one that was cut short must never be near a unit.
        if custom.component != "firmware":
            found.append((custom, target))
    return found


def _given_up(layout: UpdatesLayout) -> set[str]:
    try:
        return set(json.loads((layout.root / "not-smaller.json").read_bytes()))
    except (OSError, ValueError):
        return set()


def _remember(layout: UpdatesLayout, given_up: set[str]) -> None:
    with store.writing(layout):
        store.replace(layout, layout.root / "not-smaller.json", json.dumps(sorted(given_up)).encode())


def _pack_with_library(level: int, source: Path, out: Path) -> None:
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=min(27, max(10, source.stat().st_size.bit_length()))
    )
    with source.open("rb") as reading, out.open("wb") as writing:
        zstandard.ZstdCompressor(compression_params=parameters).copy_stream(reading, writing, size=source.stat().st_size)


if __name__ == "__main__":
    _pack_with_library(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
