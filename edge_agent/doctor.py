"""Owns what `edge-agent doctor` says: in plain words what is plugged in, what works, and what to do. Looks only; opens no device.

While the agent runs it is asked through its local API; otherwise the configuration, the identity and the plugged-in hardware are looked at.
"""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent import discovery
from edge_agent.config import Config
from edge_agent.discovery import Binding
from edge_agent.status import FaultStatus, SlotStatus, StatusDocument
from edge_agent.transports.base import Sighting
from protocols.canon.words import Ownership
from protocols.profile.schema import Profile

Level = Literal["ok", "note", "bad"]
Language = Literal["en", "zh"]

ASK_TIMEOUT_S = 5.0
ANSWER_MAX_BYTES = 1024 * 1024
FINE, TROUBLE, CANNOT_START = 0, 1, 2
"""Exit codes: all works; something does not; the agent cannot start like this."""

_MARKS: Mapping[Level, str] = {"ok": "ok  ", "note": "note", "bad": "BAD "}
_SILENT_WORDS = frozenset({"notSupported", "unknown"})
_NEUTRAL_DEVICES = frozenset({"online", "inUse", "deviceBusy", "starting"})


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `what` names the part, `text` says how it is."""

    level: Level
    what: str
    text: str


def exit_code(lines: Iterable[Line]) -> int:
    return TROUBLE if any(line.level == "bad" for line in lines) else FINE


def render(lines: Sequence[Line]) -> str:
    width = max((len(line.what) for line in lines), default=0)
    return "\n".join(f"{_MARKS[line.level]}  {line.what.ljust(width)}  {line.text}" for line in lines)


# ------------------------------------------------------------------------------------------------------------------ a running agent


class _SocketConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_TIMEOUT_S)
        self.sock.connect(self._path)


def ask_agent(socket_path: str) -> StatusDocument | str:
    """The running agent's status, or a sentence that says why there is none."""
    connection = _SocketConnection(socket_path)
    try:
        connection.request("GET", "/v1/status")
        response = connection.getresponse()
        raw = response.read(ANSWER_MAX_BYTES)
    except (FileNotFoundError, ConnectionRefusedError):
        return f"the agent does not run (nobody answers at {socket_path})"
    except OSError as err:
        return f"the agent cannot be asked at {socket_path}: {os.strerror(err.errno) if err.errno else type(err).__name__}"
    except http.client.HTTPException:
        return f"what answers at {socket_path} is not the agent"
    finally:
        connection.close()
    if response.status == http.HTTPStatus.FORBIDDEN:
        return "the agent runs, but this user may not ask it; use sudo, or local_api.allowed_uids"
    try:
        return msgspec.json.decode(raw, type=StatusDocument)
    except msgspec.DecodeError:
        return f"what answers at {socket_path} is not this version of the agent"


def of_running(document: StatusDocument, language: Language) -> Iterator[Line]:
    """A running agent's own view."""
    yield Line("ok", "agent", f"{document.terminal}, version {document.agent}, {'idle' if document.idle else 'serving somebody'}")
    uplink = document.uplink
    waiting = f"{uplink.waiting_batches} batches waiting"
    if not uplink.connected:
        yield Line("bad", "server", f"not connected ({uplink.reason}), {waiting}; nothing is lost, the outbox keeps it")
    elif not uplink.acknowledged:
        yield Line("bad", "server", f"connected, but it does not acknowledge, {waiting}")
    else:
        yield Line("ok", "server", f"connected, {waiting}")
    if document.lock is not None:
        message = document.lock.zh if language == "zh" else document.lock.en or document.lock.zh
        yield Line("bad", "lock", f"locked by the operator: {message}")
    elif document.closed is not None:
        yield Line(
            "note",
            "sessions",
            {"updating": "none can begin, an update is under way"}.get(document.closed, "none can begin, a restart is under way"),
        )
    yield from _faults("terminal", document.faults, language)
    if not document.slots:
        yield Line("note", "devices", "the inventory is empty; list [[devices]] or let the server do it")
    columns = _Columns.of(document.slots)
    for slot in document.slots:
        yield _slot_line(slot, columns)
        yield from _faults(slot.slot, slot.faults, language)
    for stranger in document.unknown:
        ids = f" {stranger.vid:04x}:{stranger.pid:04x}" if stranger.vid is not None and stranger.pid is not None else ""
        yield Line("note", "unknown", f"{stranger.bus} {stranger.port}{ids}: no profile, so it is reported and left alone")
    words = {"usable": "can serve the public", "partial": "can serve in part", "unusable": "cannot serve the public"}
    yield Line("ok" if document.service == "usable" else "bad", "result", f"this terminal {words[document.service]}")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths, so that thirty devices below each other can be read."""

    kind: int
    profile: int

    @classmethod
    def of(cls, slots: Iterable[SlotStatus]) -> _Columns:
        known = list(slots)
        return cls(
            max((len(slot.family) for slot in known), default=0),
            max((len(slot.profile or _NO_PROFILE) for slot in known), default=0),
        )


_NO_PROFILE = "no profile yet"


def _slot_line(slot: SlotStatus, columns: _Columns) -> Line:
    parts = [slot.device]
    for name in ("paper", "toner", "media", "cover"):
        word = getattr(slot, name)
        if word not in _SILENT_WORDS:
            parts.append(f"{name} {word}")
    if slot.claimed_by is not None:
        parts.append(f"claimed by {slot.claimed_by}")
    if slot.units > 1:
        parts.append(f"unit no. {slot.units} in this place")
    where = f" at {slot.port}" if slot.port else ""
    profile = slot.profile or _NO_PROFILE
    needed = "" if slot.mandatory else " (optional)"
    fine = slot.works and slot.device in _NEUTRAL_DEVICES
    level: Level = "ok" if fine else "bad" if slot.mandatory or not slot.works else "note"
    table = f"{slot.family.ljust(columns.kind)}  {profile.ljust(columns.profile)}"
    return Line(level, slot.slot, f"{table}  {', '.join(parts)}{where}{needed}")


def _faults(what: str, faults: Iterable[FaultStatus], language: Language) -> Iterator[Line]:
    for fault in faults:
        since = datetime.fromtimestamp(fault.since_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
        text, hint = (fault.zh, fault.hint_zh) if language == "zh" else (fault.en, fault.hint_en)
        level: Level = "note" if fault.severity == "P4" else "bad"
        yield Line(level, what, f"{text} ({fault.code}, {fault.severity}, since {since}). {hint}".rstrip())


# -------------------------------------------------------------------------------------------------------------------- without agent


def of_hardware(config: Config, sightings: Sequence[Sighting], profiles: Mapping[str, Profile]) -> Iterator[Line]:
    """What the agent would make of what is plugged in."""
    plan = discovery.make_plan(sightings, config.devices, profiles)
    if not config.devices:
        yield Line("note", "devices", "the inventory is empty; list [[devices]] or let the server do it")
    known = [bound.profile for binding in plan.bindings for bound in binding.slots]
    kinds, names = (max((len(word) for word in words), default=0) for words in ([p.kind for p in known], [p.id for p in known]))
    for binding in plan.bindings:
        for bound in binding.slots:
            table = f"{bound.profile.kind.ljust(kinds)}  {bound.profile.id.ljust(names)}"
            mode = f"{table}  at {binding.sighting.place}, {binding.ownership}"
            problem = _access_problem(binding)
            yield Line("bad" if problem else "ok", bound.slot, f"{mode}; {problem}" if problem else mode)
    for task in plan.probes:
        asked = ", ".join(candidate.profile.id for candidate in task.asked)
        yield Line("note", task.slot, f"at {task.sighting.place}; the agent will ask which of these it is: {asked}")
    for entry in plan.absent:
        where = f"nothing is plugged in at {entry.port}" if entry.port else "no device of this kind is plugged in"
        yield Line("bad" if entry.mandatory else "note", entry.slot, where)
    for entry, reason in plan.unclear:
        yield Line("bad", entry.slot, reason)
    for stranger in plan.unknown:
        yield Line("note", "unknown", f"{_describe(stranger)}: not in the inventory and without a profile")
    bound_places = {binding.sighting.place for binding in plan.bindings}
    strangers = {stranger.place for stranger in plan.unknown}
    for sighting in sightings:
        if sighting.place not in bound_places | strangers:
            yield Line("note", "port", f"{_describe(sighting)}: known, not used by a slot")


def _describe(sighting: Sighting) -> str:
    ids = f" {sighting.vid:04x}:{sighting.pid:04x}" if sighting.vid is not None and sighting.pid is not None else ""
    return f"{sighting.bus} {sighting.place}{ids}"


def _access_problem(binding: Binding) -> str | None:
    sighting = binding.sighting
    if binding.ownership is Ownership.OBSERVER and sighting.bus != "pcsc":
        return None  # seen, never opened
    if sighting.bus in ("serial", "input") and not os.access(sighting.path, os.R_OK | os.W_OK):
        return f"this user may not open {sighting.path}; install 90-kiosk-fleet.rules"
    if sighting.bus == "pcsc":
        if find_spec("smartcard") is None:
            return "no PC/SC library here; install the extra pcsc"
        if not os.access(sighting.path, os.W_OK):
            return f"no PC/SC service answers at {sighting.path}; install and start pcscd"
    return None


def of_key_files(identity_dir: Path) -> Iterator[Line]:
    """Files of the identity that others could touch."""
    for path in sorted(identity_dir.glob("*")):
        if path.is_file() and path.stat().st_mode & 0o077:
            yield Line("bad", "identity", f"{path} can be touched by others: chmod 600 {path}")
