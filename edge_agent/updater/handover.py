"""Owns the files by which agent and updater talk. Each writes only its own directory and reads the other's as a stranger's.

Agent to updater, `requests/`: `desired.cose` (the signed desired state as it came), `order-keys.json` (certificates of order keys, from the
challenge), `health.json`, `grant.json`, `applied.json`.
Updater to agent, `updates/`: `want.json`, `apply.json`, `artifacts/<sha256>`, `progress.ndjson`.
A file that is missing, too large, not a plain file or not what it should be reads as None: the other side may be broken or hostile, and neither
may stop this one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_agent import files
from protocols.contract import records
from protocols.contract.limits import BUNDLE_MAX_COMPONENTS, DESIRED_MAX_BYTES, ORDER_KEYS_MAX
from protocols.contract.records import ComponentName, Count, Millis, ProfileId, Slot, Update, Version, Versions

SHARED = 0o640
"""Mode of every file: the other side reads it through the directory's group."""
SMALL_MAX_BYTES = 512 * 1024
PROGRESS_MAX_BYTES = 1024 * 1024
PROGRESS_KEPT = 400
"""Lines that stay when the agent does not read: the newest ones that tell an end are kept first."""
CERTIFICATE_MAX_BYTES = 4096
NUMBER_LIMIT = 2**50
"""A number of the agent above it is no honest one; it would use the numbers up."""

HexId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Number = Annotated[int, Meta(ge=0, lt=2**53)]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,48}\Z")]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`health.json`: the agent's word on itself, written every few seconds and at each change. Read together with the process it names."""

    boot_id: HexId
    boot_ms: Number
    version: Version
    pid: Annotated[int, Meta(ge=1, lt=2**31)]
    idle: bool
    """No citizen is at the terminal, and no session is promised."""
    devices: Annotated[dict[Slot, Word], Meta(max_length=64)] = {}
    """State word of each slot of the inventory (`records.Device.device`)."""
    mandatory: Annotated[tuple[Slot, ...], Meta(max_length=64)] = ()
    faults: Annotated[tuple[Word, ...], Meta(max_length=256)] = ()
    """Codes of open faults."""
    progress: Number = 0
    """Number of the last line of `progress.ndjson` that became a record."""


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """`want.json`: the updater asks that no new session begins for a while. Gone when it no longer wants."""

    id: HexId
    """New for each asking; the grant repeats it."""
    bundle: HexId
    what: Literal["install", "apply"]
    seconds: Annotated[int, Meta(ge=1, le=3600)]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """`grant.json`: no citizen is here and no session begins until the boot clock says so."""

    want: HexId
    boot_id: HexId
    until_boot_ms: Number


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One verified file that the agent is to put to use: profiles, catalogue, content, firmware. It lies in `artifacts/<sha256>`."""

    component: ComponentName
    version: Version
    release: Count
    sha256: HexDigest
    length: Count
    hardware: Annotated[tuple[ProfileId, ...], Meta(max_length=64)] = ()
    min_from: Version | None = None


class Apply(msgspec.Struct, frozen=True, kw_only=True):
    """`apply.json`: what the agent is to do, whole. `revert`: go back to what was before this bundle."""

    id: HexId
    bundle: HexId
    artifacts: Annotated[tuple[Artifact, ...], Meta(max_length=BUNDLE_MAX_COMPONENTS)]
    revert: bool = False


class AppliedOne(msgspec.Struct, frozen=True, kw_only=True):
    component: ComponentName
    state: Literal["waiting", "installing", "done", "failed"]
    reason: records.UpdateReason = "none"
    version: Version | None = None
    """What runs now, read back where it can be."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """`applied.json`: the agent's answer to the `Apply` of this id, rewritten as it goes on."""

    id: HexId
    results: Annotated[tuple[AppliedOne, ...], Meta(max_length=BUNDLE_MAX_COMPONENTS)]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `progress.ndjson`: a body that the agent captures as it is. `wall_ms`: when the updater wrote it."""

    n: Annotated[int, Meta(ge=1, lt=2**53)]
    wall_ms: Millis
    update: Update | None = None
    versions: Versions | None = None


class _Certificates(msgspec.Struct, frozen=True, kw_only=True):
    certificates: Annotated[tuple[Annotated[bytes, Meta(max_length=CERTIFICATE_MAX_BYTES)], ...], Meta(max_length=ORDER_KEYS_MAX)]


T = TypeVar("T")


class AgentSide:
    """The agent's end: writes `requests`, reads `updates`."""

    def __init__(self, requests: Path, updates: Path) -> None:
        self._requests, self._updates = requests, updates

    @property
    def artifacts(self) -> Path:
        return self._updates / "artifacts"

    def write_desired(self, raw: bytes) -> None:
        files.write_atomically(self._requests / "desired.cose", raw, SHARED)

    def write_order_keys(self, certificates: Iterable[bytes]) -> None:
        body = msgspec.json.encode(_Certificates(certificates=tuple(certificates)))
        files.write_atomically(self._requests / "order-keys.json", body, SHARED)

    def write_health(self, health: Health) -> None:
        """Not synchronised to the disk: it is worth nothing after a reboot, and written every few seconds."""
        _write_lightly(self._requests / "health.json", msgspec.json.encode(health))

    def write_grant(self, grant: Grant | None) -> None:
        _write_or_remove(self._requests / "grant.json", grant)

    def write_applied(self, applied: Applied | None) -> None:
        _write_or_remove(self._requests / "applied.json", applied)

    def want(self) -> Want | None:
        return _read(self._updates / "want.json", Want)

    def apply(self) -> Apply | None:
        return _read(self._updates / "apply.json", Apply)

    def told_after(self, number: int) -> tuple[Told, ...]:
        """Lines with a higher number, in order. A number far below what was captured before means that the updater started anew."""
        return tuple(line for line in read_progress(self._updates / "progress.ndjson") if line.n > number)


class UpdaterSide:
    """The updater's end: writes `updates`, reads `requests`."""

    def __init__(self, requests: Path, updates: Path) -> None:
        self._requests, self._updates = requests, updates

    @property
    def artifacts(self) -> Path:
        return self._updates / "artifacts"

    def desired(self) -> bytes | None:
        return read_bounded(self._requests / "desired.cose", DESIRED_MAX_BYTES)

    def order_keys(self) -> tuple[bytes, ...]:
        found = _read(self._requests / "order-keys.json", _Certificates)
        return found.certificates if found is not None else ()

    def health(self) -> Health | None:
        return _read(self._requests / "health.json", Health)

    def grant(self) -> Grant | None:
        return _read(self._requests / "grant.json", Grant)

    def applied(self) -> Applied | None:
        return _read(self._requests / "applied.json", Applied)

    def write_want(self, want: Want | None) -> None:
        _write_or_remove(self._updates / "want.json", want)

    def wanted(self) -> bool:
        """A want lies there, readable or not."""
        return (self._updates / "want.json").exists()

    def asked(self) -> Apply | None:
        """What `write_apply` wrote last."""
        return _read(self._updates / "apply.json", Apply)

    def write_apply(self, apply: Apply | None) -> None:
        _write_or_remove(self._updates / "apply.json", apply)

    def tell(self, wall_ms: int, *bodies: Update | Versions) -> None:
        """Append bodies for the agent to capture; drops what the agent says it has, and the oldest when it says nothing for long."""
        path = self._updates / "progress.ndjson"
        lines = list(read_progress(path))
        health = self.health()
        captured = health.progress if health is not None and health.progress < NUMBER_LIMIT else 0
        last = max(lines[-1].n if lines else 0, captured)  # where the file was lost, numbers go on above those that the agent has
        lines = [line for line in lines if line.n > captured]
        for body in bodies:
            last += 1
            told = (
                Told(n=last, wall_ms=wall_ms, update=body)
                if isinstance(body, Update)
                else Told(n=last, wall_ms=wall_ms, versions=body)
            )
            lines.append(told)
        files.write_atomically(path, b"".join(msgspec.json.encode(line) + b"\n" for line in _thinned(lines)), SHARED)


_PASSING = frozenset({"pending", "downloading", "verifying", "staged", "waiting", "installing"})


def _thinned(lines: list[Told]) -> list[Told]:
    over = len(lines) - PROGRESS_KEPT
    if over <= 0:
        return lines
    passing = [line for line in lines[:-1] if line.update is not None and line.update.state in _PASSING]
    drop = {line.n for line in passing[:over]}
    left = [line for line in lines if line.n not in drop]
    return left[-PROGRESS_KEPT:]


def read_progress(path: Path) -> tuple[Told, ...]:
    """Every readable line, in ascending order of its number; what is not one is skipped."""
    raw = read_bounded(path, PROGRESS_MAX_BYTES)
    found: list[Told] = []
    for line in (raw or b"").splitlines():
        try:
            told = msgspec.json.decode(line, type=Told)
        except (msgspec.DecodeError, RecursionError):
            continue
        if (told.update is None) != (told.versions is None) and (not found or told.n > found[-1].n):
            found.append(told)
    return tuple(found)


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """A plain file of at most `max_bytes`; None for everything else. Never waits for a pipe, never follows a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with os.fdopen(handle, "rb", closefd=False) as file:
            raw = file.read(max_bytes + 1)
    except OSError:
        return None
    finally:
        os.close(handle)
    return raw if len(raw) <= max_bytes else None


def _read(path: Path, kind: type[T]) -> T | None:
    raw = read_bounded(path, SMALL_MAX_BYTES)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError):
        return None


def _write_or_remove(path: Path, value: msgspec.Struct | None) -> None:
    if value is None:
        path.unlink(missing_ok=True)
    else:
        files.write_atomically(path, msgspec.json.encode(value), SHARED)


def _write_lightly(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, SHARED)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, SHARED)  # whatever the unit's umask is
        file.write(data)
    temporary.replace(path)
