"""Owns how a checked image becomes a version that can start, and how it is put in charge, confirmed or taken back.

Each function may be cut off anywhere and called again. What decides is `state.json`: until `begin_trial` has written it, the old version starts;
from then on the launcher starts the new one, at most `tries` times, until `commit` or `roll_back`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge_agent import launcher
from edge_agent.updater import archive
from edge_agent.updater.archive import Limits, Unpacked
from edge_agent.updater.errors import NotTrusted, Unavailable
from edge_agent.updater.layout import About, Layout, Mark, Seat, SeatState, Trial, Verdict, discard, name_of
from protocols.contract.records import UpdateReason

MAX_TRIES = 3
KEEP_FREE_BYTES = 16 * 1024 * 1024
"""Stays free besides the new tree: outbox and logs go on."""
BLOCK_BYTES = 4096
SELFTEST_OUTPUT_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SelfTestLimits:
    timeout_s: float = 60.0
    memory_mib: int = 1024
    """Address space; a Python with its libraries mapped takes about a third of it."""
    cpu_s: int = 60


SelfTest = Callable[[Path, str, SelfTestLimits], None]
"""As `self_test`."""


def architecture() -> str:
    """This machine's word for `ImageCustom.arch`."""
    return platform.machine().lower().replace("-", "_")


def preflight(layout: Layout, unpacked_bytes: int, unpacked_files: int, *, keep_free_bytes: int = KEEP_FREE_BYTES) -> None:
    """Room for the tree beside those that are kept. Unavailable (`noSpace`, `readOnly`)."""
    found = os.statvfs(layout.root)
    if found.f_flag & os.ST_RDONLY:
        raise Unavailable("readOnly", f"{layout.root} is on a disk that cannot be written")
    need = unpacked_bytes + unpacked_files * BLOCK_BYTES + keep_free_bytes
    free = found.f_bavail * found.f_frsize
    if free < need:
        raise Unavailable("noSpace", f"{free // 2**20} MiB are free, {need // 2**20} MiB are needed")
    if found.f_files and found.f_favail < unpacked_files + 64:
        raise Unavailable("noSpace", f"{found.f_favail} inodes are free, {unpacked_files + 64} are needed")


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """What the disk says, in our words: a full or a read-only disk may be another one tomorrow."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("noSpace", "the disk is full") from err
        if err.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            raise Unavailable("readOnly", f"the disk cannot be written ({os.strerror(err.errno)})") from err
        raise


def stage(layout: Layout, image: BinaryIO, about: About, limits: Limits, *, alive: Callable[[], None] = lambda: None) -> str:
    """Unpack the open, checked image beside the others; the tree's name when it is whole and on the disk. BadArchive, Unavailable."""
    name = name_of(about.version, about.sha256)
    if layout.complete(name):
        return name
    with disk_errors():
        part = layout.part(name)
        for remains in (part, layout.tree(name)):
            if remains.is_symlink() or remains.exists():
                discard(remains)
        try:
            unpacked = archive.unpack(image, part, sha256=about.sha256, limits=limits, alive=alive)
            _mark(part, about, unpacked)
            sync_tree(part, unpacked, alive)
        except BaseException:
            with contextlib.suppress(OSError):
                discard(part)
            raise
        part.rename(layout.tree(name))
        launcher.sync(layout.versions)
    return name


def _mark(tree: Path, about: About, unpacked: Unpacked) -> None:
    if not (tree / "bin" / "edge-agent").is_file() or not os.access(tree / "bin" / "edge-agent", os.X_OK):
        raise archive.BadArchive("bin/edge-agent is missing, or cannot be executed")
    mark = Mark(about=about, files=unpacked.files, links=unpacked.links)
    (tree / launcher.COMPLETE).write_bytes(msgspec.json.encode(mark))
    (tree / launcher.COMPLETE).chmod(0o644)


def sync_tree(tree: Path, unpacked: Unpacked, alive: Callable[[], None] = lambda: None) -> None:
    """Every file, every directory, and the directory that holds the tree. `syncfs` first: then each of the others has nothing left to wait for."""
    _sync_filesystem(tree)
    for path in (*unpacked.files, launcher.COMPLETE):
        handle = os.open(tree / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        alive()
    for folder in sorted(unpacked.folders, key=lambda path: -path.count("/")):
        launcher.sync(tree / folder)
    launcher.sync(tree)
    launcher.sync(tree.parent)


def _sync_filesystem(tree: Path) -> None:
    handle = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is not None and syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")
    finally:
        os.close(handle)


def self_test(tree: Path, version: str, limits: SelfTestLimits) -> None:
    """The new tree loads all it carries and says who it is, in a process of its own. NotTrusted (`selfTest`) with the reason."""
    # The limits are set by a shell: nothing of ours runs between fork and exec. Output goes to a file, since a pipe may be kept open for ever.
    command = (
        f"ulimit -v {limits.memory_mib * 1024}; ulimit -t {limits.cpu_s}; ulimit -c 0; ulimit -f {SELFTEST_OUTPUT_MAX_BYTES // 512}; "
        'exec "$0" selftest'
    )
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", command, str(tree / "bin" / "edge-agent")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=tree,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
        )
        try:
            child.wait(limits.timeout_s)
        except subprocess.TimeoutExpired:
            raise NotTrusted("selfTest", f"the self-test took longer than {limits.timeout_s:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        answer = output.read(SELFTEST_OUTPUT_MAX_BYTES)
    if child.returncode != 0:
        raise NotTrusted("selfTest", f"the self-test ended with {child.returncode}")
    try:
        said = msgspec.json.decode(answer.strip().splitlines()[-1])
        named = said["version"]
    except (msgspec.DecodeError, IndexError, KeyError, TypeError, RecursionError):
        raise NotTrusted("selfTest", "the self-test did not say its version") from None
    if named != version:
        raise NotTrusted("selfTest", "the tree is another version than its metadata say")


# --------------------------------------------------------------------------------------------------------------------- put in charge


def begin_trial(layout: Layout, name: str, bundle: str, *, seat: Seat = "agent", tries: int = MAX_TRIES) -> None:
    """From now on this version is started. Nothing happens if its trial runs already. Unavailable if the disk refuses; then the old one stays."""
    with disk_errors(), layout.changing() as state:
        own = state.seat(seat)
        if own.trial is None or own.trial.name != name:
            if not layout.complete(name):
                raise Unavailable("interrupted", f"the tree {name} is not whole")
            trial = Trial(name=name, max=tries, bundle=bundle)
            layout.write(state.with_seat(seat, SeatState(good=own.good, previous=own.previous, trial=trial)))
        layout.point(seat, name)


def commit(layout: Layout, name: str, *, seat: Seat = "agent") -> bool:
    """The trial is the good version now. False if it is not on trial any more (the launcher was faster)."""
    with disk_errors(), layout.changing() as state:
        own = state.seat(seat)
        if own.trial is None or own.trial.name != name:
            return own.good == name and own.trial is None
        layout.write(state.with_seat(seat, SeatState(good=name, previous=own.good)))
        layout.point(seat, name)
        return True


def roll_back(layout: Layout, name: str, reason: UpdateReason, *, seat: Seat = "agent") -> None:
    """Back to the good version, if `name` is still on trial."""
    with disk_errors(), layout.changing() as state:
        own = state.seat(seat)
        if own.trial is not None and own.trial.name == name:
            verdict = Verdict(name=name, reason=reason, bundle=own.trial.bundle, tries=own.trial.tries)
            layout.write(state.with_seat(seat, SeatState(good=own.good, previous=own.previous, verdict=verdict)))
        if own.good is not None and layout.complete(own.good):
            layout.point(seat, own.good)


def lay_out(root: Path, image: BinaryIO, about: About, limits: Limits | None = None) -> str:
    """A first version, which is the factory's and good for both seats. Nothing changes if there is one already; its name."""
    layout = Layout(root)
    layout.prepare()
    name = stage(layout, image, about, limits or Limits())
    with layout.changing() as state:
        if state.factory is None:
            seats = {seat: SeatState(good=name) for seat in launcher.LINKS}
            layout.write(msgspec.structs.replace(state, factory=name, seats=seats))
    for seat in launcher.LINKS:
        launcher.count(root, seat)
    return name
