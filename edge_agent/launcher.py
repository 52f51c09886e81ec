"""The launcher: decides which version starts. Standard library only, no import of the rest, installed outside `versions/` and not updated with it.

`state.json` under the root is the truth; the links `current` (agent) and `updater` follow it. A seat (agent, updater) has a `good` version and
maybe a `trial` with a number of tries. Each start counts; a trial that used its tries up, or whose tree is not whole, gives way to the good
version, and the verdict says why. Every step may be cut off: the next `count` goes on from the file. Needs Python 3.9 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FORMAT = 1
STATE, LOCK, RESERVE, SWITCH, VERSIONS, COMPLETE = "state.json", ".lock", "reserve", "switch", "versions", ".complete"
LINKS = {"agent": "current", "updater": "updater"}
STATE_MAX_BYTES = 64 * 1024
MARK_MAX_BYTES = 16 * 1024 * 1024
ENDS_KEPT = 5
RESULTS = {"watchdog": "hung", "timeout": "hung", "oom-kill": "memory", "success": ""}
"""$SERVICE_RESULT of systemd.exec(5) as our reasons; everything else is `crashed`."""

State = dict[str, Any]
Complete = Callable[[str], bool]


# ---------------------------------------------------------------------------------------------------------------------- decisions


def decide(state: State, seat: str, complete: Complete, names: list[str]) -> tuple[str | None, State]:
    """Which version of `names` starts now, and the state that says so. Pure; None if no complete version is there."""
    state = json.loads(json.dumps(state))
    seats = state.setdefault("seats", {})
    own = seats.setdefault(seat, {})
    trial = own.get("trial")
    if isinstance(trial, dict):
        name, tries, most = str(trial.get("name")), _number(trial.get("tries")), _number(trial.get("max"))
        whole = complete(name)
        if whole and tries < most:
            trial["tries"] = tries + 1
            return name, state
        ends = [one for one in trial.get("ends") or [] if isinstance(one, str)]
        reason = "interrupted" if not whole else ends[-1] if ends else "crashed"
        own["verdict"] = {"name": name, "reason": reason, "tries": tries, "bundle": trial.get("bundle")}
    own["trial"] = None
    for found in (own.get("good"), own.get("previous"), state.get("factory"), *names):
        if isinstance(found, str) and complete(found):
            own["good"] = found
            return found, state
    return None, state


def end(state: State, seat: str, reason: str) -> State:
    """The same state, with how a trial's process ended."""
    state = json.loads(json.dumps(state))
    trial = state.get("seats", {}).get(seat, {}).get("trial")
    if isinstance(trial, dict) and reason:
        trial["ends"] = [*(trial.get("ends") or []), reason][-ENDS_KEPT:]
    return state


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


# ---------------------------------------------------------------------------------------------------------------------------- disk


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Only one process changes the state at a time. Where no lock can be made (a read-only disk), nobody can change it either."""
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if handle is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def read_state(root: Path) -> State:
    """A state that is missing or spoiled reads as an empty one: then what runs is good. OSError if the disk cannot be read: nothing is known then."""
    try:
        with (root / STATE).open("rb") as file:
            raw = file.read(STATE_MAX_BYTES)
    except FileNotFoundError:
        raw = b""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    return found if _sound(found) else {"format": FORMAT, "factory": None, "seats": {}}


def _sound(found: object) -> bool:
    seats = found.get("seats") if isinstance(found, dict) else None
    return isinstance(seats, dict) and all(isinstance(seat, dict) for seat in seats.values())


def write_state(root: Path, state: State) -> None:
    """Whole or not at all, and on the disk when it returns. A full disk gives up its reserve."""
    body = json.dumps(state, sort_keys=True).encode()
    try:
        _replace(root, STATE, body)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _free_reserve(root)
        _replace(root, STATE, body)


def point(root: Path, link: str, name: str) -> None:
    """Let `link` name `versions/name`; atomic, on the disk when it returns. Does nothing if it does already."""
    target = f"{VERSIONS}/{name}"
    with contextlib.suppress(OSError):
        if str((root / link).readlink()) == target:
            return
    temporary = root / f".{link}.new"
    try:
        _link(temporary, target)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _free_reserve(root)
        _link(temporary, target)
    temporary.replace(root / link)
    sync(root)


def is_complete(root: Path, name: str) -> bool:
    """The tree has its mark, and every file and link that the mark lists, with its size."""
    if "/" in name or name.startswith(".") or not name:
        return False
    tree = root / VERSIONS / name
    try:
        with (tree / COMPLETE).open("rb") as file:
            mark = json.loads(file.read(MARK_MAX_BYTES))
        files, links = mark["files"], mark["links"]
        for path, size in files.items():
            found = (tree / path).lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return False
        return all(str((tree / path).readlink()) == target for path, target in links.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def version_names(root: Path) -> list[str]:
    """Directories under `versions/`, the one that runs first, then the newest."""
    try:
        found = [(path.stat().st_mtime_ns, path.name) for path in (root / VERSIONS).iterdir() if path.is_dir()]
    except OSError:
        return []
    running = _pointed(root, "agent")
    return sorted((name for _, name in sorted(found, reverse=True)), key=lambda name: name != running)


def sync(directory: Path) -> None:
    """Make a rename in `directory` last."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(root: Path, name: str, body: bytes) -> None:
    temporary = root / f".{name}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        at = 0
        while at < len(body):
            at += os.write(handle, body[at:])
        os.fchmod(handle, 0o644)
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(root / name)
    sync(root)


def _link(temporary: Path, target: str) -> None:
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)


def _free_reserve(root: Path) -> None:
    with contextlib.suppress(OSError):
        (root / RESERVE).unlink()
        sync(root)


# ------------------------------------------------------------------------------------------------------------------------ commands


def count(root: Path, seat: str = "agent") -> str | None:
    """Count a start and point the seat's link at what starts; its name. What cannot be written is said: the start itself must not fail for it."""
    with locked(root):
        try:
            before = read_state(root)
        except OSError as err:
            _say(f"{root}: cannot be read ({os.strerror(err.errno or 0)}); starting what is there")
            return _pointed(root, seat)
        name, after = decide(before, seat, lambda one: is_complete(root, one), version_names(root))
        if name is None:
            _say(f"no complete version in {root / VERSIONS}")
            return None
        try:
            if after != before:
                write_state(root, after)
            point(root, LINKS[seat], name)
        except OSError as err:
            _say(f"{root}: cannot be written ({os.strerror(err.errno or 0)}); starting what is there")
        return name


def _pointed(root: Path, seat: str) -> str | None:
    try:
        return (root / LINKS[seat]).readlink().name
    except OSError:
        return None


def ended(root: Path, seat: str, reason: str) -> None:
    """Remember how a trial's process ended."""
    with locked(root), contextlib.suppress(OSError):
        before = read_state(root)
        after = end(before, seat, reason)
        if after != before:
            write_state(root, after)


class Loop:
    """`run`: for machines without systemd. Starts the seat's version again and again, and kills one that hangs or grows too large."""

    def __init__(
        self, root: Path, seat: str, arguments: list[str], *, heartbeat: Path | None, options: argparse.Namespace
    ) -> None:
        self._root, self._seat, self._arguments, self._heartbeat = root, seat, arguments, heartbeat
        self._options = options
        self._stop = False
        self._beat: Any = None

    def stop(self, *_: object) -> None:
        self._stop = True

    def _stopped(self) -> bool:
        return self._stop

    def run(self) -> int:
        wait_s = self._options.backoff_s
        while not self._stopped():
            name = count(self._root, self._seat)
            if name is None:
                return 1
            switch = _mark(self._root / SWITCH)
            began = time.monotonic()
            reason = self._watch(self._root / VERSIONS / name, switch)
            ended(self._root, self._seat, reason)
            if reason:
                _say(f"{name}: {reason}")
            if not reason or time.monotonic() - began > self._options.steady_s:
                wait_s = self._options.backoff_s
            until = time.monotonic() + wait_s
            while not self._stopped() and time.monotonic() < until and _mark(self._root / SWITCH) == switch:
                time.sleep(self._options.poll_s)
            wait_s = min(self._options.backoff_max_s, wait_s * 2)
        return 0

    def _watch(self, tree: Path, switch: object) -> str:
        """Run one process to its end. The reason why it ended, empty if it was asked to."""
        program = tree / "bin" / "edge-agent"
        try:
            child = subprocess.Popen([str(program), *self._arguments], stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as err:
            _say(f"{program}: cannot be started ({os.strerror(err.errno or 0)})")
            return "crashed"
        self._beat, seen = _mark(self._heartbeat), time.monotonic() + self._options.start_s - self._options.hang_s
        asked = False
        while child.poll() is None:
            now = time.monotonic()
            beat = _mark(self._heartbeat)
            if beat != self._beat:
                self._beat, seen = beat, now
            if self._stopped() or _mark(self._root / SWITCH) != switch:
                asked = True
                self._end(child)
            elif self._heartbeat is not None and now - seen > self._options.hang_s:
                _kill(child)
                return "hung"
            elif self._options.rss_mib and _rss_mib(child.pid) > self._options.rss_mib:
                _kill(child)
                return "memory"
            else:
                time.sleep(self._options.poll_s)
        _kill(child)
        return "" if asked or child.returncode == 0 else "crashed"

    def _end(self, child: subprocess.Popen[bytes]) -> None:
        child.terminate()
        try:
            child.wait(self._options.stop_s)
        except subprocess.TimeoutExpired:
            _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _mark(path: Path | None) -> object:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _rss_mib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


def _say(sentence: str) -> None:
    print(f"kiosk-fleet launcher: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 -- it has no other voice than the journal


def become_owner(root: Path) -> None:
    """As root (ExecStartPre=+), work as whoever owns the root: a link that he planted leads us nowhere that he could not go himself."""
    owner = root.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main(words: list[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    at = words.index("--") if "--" in words else len(words)
    words, arguments = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="launcher",
        epilog="for run: -- and what the version is started with",
        description="Decides which version of the terminal's agent starts.",
    )
    parser.add_argument("command", choices=["count", "ended", "run"])
    parser.add_argument("--root", type=Path, default=Path("/opt/kiosk-fleet"))
    parser.add_argument("--seat", choices=sorted(LINKS), default="agent")
    parser.add_argument("--heartbeat", type=Path, help="file that a healthy process rewrites; only for run")
    for name, default in (
        ("hang", 60.0),
        ("start", 60.0),
        ("stop", 20.0),
        ("steady", 300.0),
        ("backoff", 1.0),
        ("backoff-max", 60.0),
    ):
        parser.add_argument(f"--{name}-s", type=float, default=default)
    parser.add_argument("--poll-s", type=float, default=0.25)
    parser.add_argument("--rss-mib", type=int, default=0, help="kill a process that needs more memory; 0: no limit")
    options = parser.parse_args(words)
    if options.command == "count":
        become_owner(options.root)
        return 0 if count(options.root, options.seat) else 1
    if options.command == "ended":
        become_owner(options.root)
        result = os.environ.get("SERVICE_RESULT", "success")
        ended(options.root, options.seat, RESULTS.get(result, "crashed"))
        return 0
    loop = Loop(options.root, options.seat, arguments or ["run"], heartbeat=options.heartbeat, options=options)
    signal.signal(signal.SIGTERM, loop.stop)
    signal.signal(signal.SIGINT, loop.stop)
    return loop.run()


if __name__ == "__main__":
    sys.exit(main())
