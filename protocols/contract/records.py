"""Record kinds: a closed list, each with a schema that has no room for a citizen.

Every text field is a word from a list or matches a pattern that excludes names and long digit runs; there is no free text. A record that does not
fit its schema is refused at capture. On the wire unknown fields are ignored and unknown kinds are parked (specification, section 6).

Times are milliseconds. `wall_ms` counts from 1970-01-01 UTC, `boot_ms` is CLOCK_BOOTTIME of the boot named by the batch header.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import cbor2
import msgspec
from msgspec import Meta

from protocols.canon.words import (
    CoverState,
    DeviceState,
    MediaState,
    Ownership,
    PaperState,
    Severity,
    SuggestedAction,
    TonerState,
)
from protocols.contract.limits import EVIDENCE_MAX_BYTES, RECORD_MAX_BYTES
from protocols.errors import ProtocolError

Millis = Annotated[int, Meta(ge=0, lt=2**53)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Seconds = Annotated[int, Meta(ge=0, lt=2**31)]
Offset = Annotated[int, Meta(ge=0, le=EVIDENCE_MAX_BYTES)]
Tenths = Annotated[int, Meta(gt=-(2**53), lt=2**53)]
Id8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Slot = Annotated[str, Meta(pattern=r"^[a-z]{2,16}(-[a-z]{1,16}){0,3}(-[0-9]{1,3})?\Z", max_length=64)]
"""A place in the terminal's inventory: `receipt-printer`, `call-pad-3`."""
Code = Annotated[str, Meta(pattern=r"^[A-Z]{3,4}\.[A-Z0-9_]{2,32}\Z")]
"""Fault code `FAMILY.CODE`."""
ItemCode = Annotated[str, Meta(pattern=r"^[a-z]{2,24}([.-][a-z]{2,24}){0,5}([.-][0-9]{1,4})?\Z", max_length=96)]
"""A service item of the terminal's catalogue: letters, at most four digits at the end, so that no identity number fits."""
Version = Annotated[str, Meta(pattern=r"^(?=.*[0-9])(?!.*[0-9]{9})[A-Za-z0-9][A-Za-z0-9 ._+()/:~-]{0,63}\Z")]
ProfileId = Annotated[str, Meta(pattern=r"^(?!.*[0-9]{9})[a-z][a-z0-9]{0,23}(-[a-z0-9]{1,24}){0,5}\Z", max_length=64)]
PortPath = Annotated[str, Meta(pattern=r"^(?!.*[0-9]{9})[A-Za-z0-9/._:-]{1,96}\Z")]
AssetNumber = Annotated[str, Meta(pattern=r"^[0-9]{2}\.[0-9]{2}-[0-9]{8}-[0-9]{10}-[0-9]{10}\Z")]
"""SAM module number of an ID reader: names the module, never a card (public form `%02d.%02d-%08d-%010d-%010d`)."""


class ClockQuality(StrEnum):
    SYNCED = "synced"
    HOLDOVER = "holdover"
    """Was synchronised in this boot, is not now."""
    UNSET = "unset"
    """Never synchronised in this boot: only `boot_ms` means anything."""


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all bodies: immutable, keyword-only, defaults left off the wire."""


class Evidence(_Body, frozen=True, kw_only=True):
    """The bytes that decided a state. `masked` lists [start, end) spans of `reply` that the codec blanked with zero bytes."""

    codec: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{1,23}\Z")]
    query: Annotated[bytes, Meta(max_length=EVIDENCE_MAX_BYTES)] = b""
    reply: Annotated[bytes, Meta(max_length=EVIDENCE_MAX_BYTES)] = b""
    masked: Annotated[tuple[tuple[Offset, Offset], ...], Meta(max_length=16)] = ()


class Boot(_Body, frozen=True, kw_only=True):
    """First record of a stream: the agent started."""

    agent: Version
    os: Version
    arch: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{1,15}\Z")]
    python: Version
    previous: Literal["clean", "unclean", "none"]
    """How the run before ended; `none`: no earlier run is known on this disk."""
    same_boot: bool = False
    """The host did not reboot in between."""


class Stop(_Body, frozen=True, kw_only=True):
    """A planned end of the agent."""

    reason: Literal["shutdown", "restart", "update", "operator"]


class Clock(_Body, frozen=True, kw_only=True):
    """A fixed point between boot time and wall time, written at synchronisation and at steps over one second."""

    boot_ms: Millis
    wall_ms: Millis
    quality: ClockQuality
    step_ms: Annotated[int, Meta(gt=-(2**53), lt=2**53)] = 0


class Device(_Body, frozen=True, kw_only=True):
    """Canonical state of one inventory slot, written when it changes."""

    slot: Slot
    family: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{1,23}\Z")]
    device: DeviceState
    paper: PaperState = PaperState.NOT_SUPPORTED
    toner: TonerState = TonerState.NOT_SUPPORTED
    media: MediaState = MediaState.NOT_SUPPORTED
    cover: CoverState = CoverState.NOT_SUPPORTED
    action: SuggestedAction = SuggestedAction.NONE
    owner: Ownership = Ownership.OWNER
    limited: bool = False
    """The profile says that this model shows only part of its state."""
    profile: ProfileId | None = None
    port: PortPath | None = None
    vid: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    pid: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    firmware: Version | None = None
    asset: AssetNumber | None = None
    evidence: Evidence | None = None


class Sighting(_Body, frozen=True, kw_only=True):
    """Hardware without a profile: reported, not polled."""

    bus: Literal["usb", "serial", "input", "video"]
    port: PortPath
    vid: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    pid: Annotated[int, Meta(ge=0, le=0xFFFF)] | None = None
    present: bool = True


class Fault(_Body, frozen=True, kw_only=True):
    """One end of a fault episode; both ends carry the same `id`."""

    id: Id8
    code: Code
    change: Literal["open", "clear"]
    severity: Severity
    slot: Slot | None = None
    """None: the terminal itself (network, host, application)."""
    mandatory: bool = False
    """The slot is required by the terminal's inventory, or the terminal itself is meant."""
    since_ms: Millis
    """Wall time of the first observation, before debouncing."""
    profile: ProfileId | None = None
    evidence: Evidence | None = None


class Session(_Body, frozen=True, kw_only=True):
    """One finished case at the terminal, without the person."""

    id: Id16
    """Salted hash of the application's random client id: the same case sent twice is one case."""
    item: ItemCode
    channel: Literal["touch", "scan", "assist", "pad", "other"] = "touch"
    outcome: Literal["success", "failed", "abandoned"]
    cause: Literal["none", "device", "backend", "network", "citizen", "lease", "application"] = "none"
    began_ms: Millis
    duration_ms: Millis


class Rating(_Body, frozen=True, kw_only=True):
    """A good/bad review (GB/T 39735-2020: five levels, 5 best); 0: asked, not answered."""

    level: Annotated[int, Meta(ge=0, le=5)]
    channel: Literal["evaluator", "terminal"] = "evaluator"
    slot: Slot | None = None
    session: Id16 | None = None


class Queue(_Body, frozen=True, kw_only=True):
    """A key of a call pad."""

    slot: Slot
    action: Literal[
        "callNext", "recall", "evaluate", "cancel", "confirm", "oneMetre", "pause", "transfer", "drop", "hold", "callBack"
    ]


class Consumable(_Body, frozen=True, kw_only=True):
    """Level of a consumable, or its refill."""

    slot: Slot
    item: Literal["paper", "roll", "toner", "drum", "ribbon", "cards", "booklets", "labels"]
    event: Literal["level", "refill"]
    remaining: Count
    capacity: Count
    unit: Literal["sheet", "mm", "percent", "piece"]
    source: Literal["sensor", "counter", "manual"]


class SlotCount(_Body, frozen=True, kw_only=True):
    slot: Slot
    total: Count
    ok: Count
    failed: Count
    lifetime: Count | None = None
    """Of the place: it goes on when the unit is exchanged."""
    derived: bool = False
    """Counted from page counters by an observer, not from jobs."""


class Counters(_Body, frozen=True, kw_only=True):
    """Summary: what each device did in a span of wall time."""

    from_ms: Millis
    to_ms: Millis
    slots: Annotated[tuple[SlotCount, ...], Meta(max_length=40)]


class Serviceability(_Body, frozen=True, kw_only=True):
    """Summary: how long the terminal could serve. The parts add up to `observed_s`; what is missing up to the span was not observed."""

    from_ms: Millis
    to_ms: Millis
    observed_s: Seconds
    usable_s: Seconds
    partial_s: Seconds
    unusable_s: Seconds
    in_use_s: Seconds = 0


class Host(_Body, frozen=True, kw_only=True):
    """Summary: health of the computer."""

    from_ms: Millis
    to_ms: Millis
    cpu_pct: Annotated[int, Meta(ge=0, le=100)]
    mem_free_mib: Count
    disk_free_mib: Count
    temp_c: Annotated[int, Meta(ge=-60, le=150)] | None = None
    uptime_s: Seconds
    agent_rss_kib: Count
    outbox_batches: Count


Quantity = Literal["temperature", "humidity", "load", "batteryVoltage", "inputVoltage"]
Unit = Literal["celsius", "percent", "volt"]


class Reading(_Body, frozen=True, kw_only=True):
    """Summary: a measured quantity of a sensor slot, tenths of the unit."""

    slot: Slot
    from_ms: Millis
    to_ms: Millis
    quantity: Quantity
    unit: Unit
    min_tenths: Tenths
    mean_tenths: Tenths
    max_tenths: Tenths


class Link(_Body, frozen=True, kw_only=True):
    """The agent's own view of its uplink."""

    state: Literal["up", "down"]
    reason: Literal["connected", "dns", "refused", "tls", "timeout", "closed", "notAuthorised", "noAck", "stopping"]
    attempts: Count = 0


class Key(_Body, frozen=True, kw_only=True):
    """Last record under the old record key: everything after it is signed by `kid`."""

    kid: Id16
    generation: Annotated[int, Meta(ge=1, lt=2**31)]


class Notice(_Body, frozen=True, kw_only=True):
    """Something about the agent's own bookkeeping that an operator may have to explain."""

    code: Literal["spoolLost", "recordsRefused", "summariesThinned", "batchesEvicted", "clockWentBack", "unexpectedReboot"]
    count: Count = 1


class Order(_Body, frozen=True, kw_only=True):
    """What became of an order; written at each change of its state. `id` None: what came was no authentic order."""

    id: Id16 | None = None
    counter: Count = 0
    kind: Literal["selfTest", "restart", "pullLogs", "cancel", "unknown"] = "unknown"
    state: Literal["received", "waiting", "running", "done", "failed", "refused", "expired", "cancelled"]
    reason: Literal[
        "none", "session", "replayed", "stale", "counter", "expired", "otherTerminal", "notAuthentic", "withdrawnKey", "unknownKind", "unreadable",
        "notApproved", "noSlot", "unsupported", "inUse", "device", "timeout", "interrupted", "noSpace", "upload", "noHook", "ordered",
    ] = "none"  # fmt: skip
    slot: Slot | None = None
    count: Count = 1
    """How many of the same were refused since the last such record; refusals of strangers' bytes are summed up."""


class Desired(_Body, frozen=True, kw_only=True):
    """What became of a desired state."""

    counter: Count
    state: Literal["applied", "refused", "rolledBack"]
    reason: Literal[
        "none", "replayed", "counter", "otherTerminal", "notAuthentic", "withdrawnKey", "unreadable", "notApproved", "configuration",
        "startFailed", "noSpace",
    ] = "none"  # fmt: skip
    config_version: Count = 0
    locked: bool = False
    count: Count = 1


ComponentName = Annotated[
    str,
    Meta(
        pattern=r"^(agent|profiles|catalogue|image|(content|firmware)/[a-z]{2,16}(-[a-z]{1,16}){0,3}(-[0-9]{1,3})?)\Z",
        max_length=72,
    ),
]
"""What can be updated: agent, profiles, catalogue of items, an operating-system image, a content package by its name, the firmware of a slot."""
UpdateState = Literal[
    "pending", "downloading", "verifying", "staged", "waiting", "installing", "probation", "committed", "rolledBack", "failed", "refused",
    "cancelled",
]  # fmt: skip
UpdateReason = Literal[
    "none", "idle", "window", "hold", "notBefore", "rate", "inUse", "otherFirmware", "noSpace", "readOnly", "unreachable", "slow", "certificate",
    "notFound", "notAuthentic", "metadataExpired", "metadataRollback", "mixedBundle", "partialBundle", "notInDirector", "notInImages", "differs",
    "wrongTerminal", "wrongHardware", "wrongArch", "downgrade", "length", "hash", "badArchive", "delta", "selfTest", "crashed", "hung", "memory",
    "peripheralLost", "noConfirmation", "noProgress", "aborted", "superseded", "interrupted", "bootloader", "wrongPart", "readBack", "transfer",
    "tooOften", "configuration", "clock", "noUpdater",
]  # fmt: skip


class Update(_Body, frozen=True, kw_only=True):
    """A step of an update of one component, written when its state or reason changes, and at most once a minute while bytes arrive."""

    bundle: Id16
    rollout: Id16
    component: ComponentName
    state: UpdateState
    reason: UpdateReason = "none"
    since_ms: Millis
    """Wall time at which this state began."""
    from_version: Version | None = None
    to_version: Version
    via: Literal["full", "packed", "delta", "none"] = "none"
    bytes_done: Count = 0
    bytes_total: Count = 0
    tries: Count = 0
    resumed: Count = 0
    """How often the download went on after an interruption instead of starting anew."""


class Installed(msgspec.Struct, frozen=True, array_like=True):
    component: ComponentName
    version: Version
    release: Count
    sha256: Digest | None = None


class Versions(_Body, frozen=True, kw_only=True):
    """The terminal's word on what runs (Uptane's version report): at start and at each change."""

    installed: Annotated[tuple[Installed, ...], Meta(max_length=64)]


class Play(msgspec.Struct, frozen=True, array_like=True):
    page: ItemCode
    count: Count
    seconds: Seconds


class Plays(_Body, frozen=True, kw_only=True):
    """Summary, proof of play: how often pages of a content package were shown in a span of wall time."""

    component: ComponentName
    version: Version
    from_ms: Millis
    to_ms: Millis
    pages: Annotated[tuple[Play, ...], Meta(max_length=60)]


class Position(_Body, frozen=True, kw_only=True):
    """Summary: about where a van is (WGS-84, units of 0.0001 degrees). Told at most every five minutes and never while a case is open."""

    slot: Slot
    lat_e4: Annotated[int, Meta(ge=-900_000, le=900_000)]
    lon_e4: Annotated[int, Meta(ge=-1_800_000, le=1_800_000)]
    fix: Literal["poor", "gps", "dgps", "rtk"]
    satellites: Annotated[int, Meta(ge=0, le=99)] = 0


Body = (
    Boot | Stop | Clock | Device | Sighting | Fault | Session | Rating | Queue | Consumable
    | Counters | Serviceability | Host | Reading | Link | Key | Notice | Order | Desired | Update | Versions | Plays
    | Position
)  # fmt: skip

KINDS: dict[str, type[_Body]] = {
    "boot": Boot,
    "stop": Stop,
    "clock": Clock,
    "device": Device,
    "sighting": Sighting,
    "fault": Fault,
    "session": Session,
    "rating": Rating,
    "queue": Queue,
    "consumable": Consumable,
    "counters": Counters,
    "serviceability": Serviceability,
    "host": Host,
    "reading": Reading,
    "link": Link,
    "key": Key,
    "notice": Notice,
    "order": Order,
    "desired": Desired,
    "update": Update,
    "versions": Versions,
    "plays": Plays,
    "position": Position,
}
KIND_OF: dict[type, str] = {body: kind for kind, body in KINDS.items()}
SUMMARY_KINDS = frozenset({"counters", "serviceability", "host", "reading", "plays", "position"})
"""Kinds that may be thinned or evicted first; everything else is an event."""


class RecordError(ProtocolError):
    """A record that does not fit its kind's schema. Only the field's path is told, never its value."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as it travels: `{t, q, b, k, v}`."""

    wall_ms: Millis = msgspec.field(name="t")
    quality: ClockQuality = msgspec.field(name="q")
    boot_ms: Millis = msgspec.field(name="b")
    kind: str = msgspec.field(name="k")
    value: dict[str, Any] = msgspec.field(name="v")


def encode_record(body: Body, *, wall_ms: int, quality: ClockQuality, boot_ms: int) -> bytes:
    """Validate `body` against its schema and encode it in deterministic CBOR; at most RECORD_MAX_BYTES, else RecordError."""
    kind = KIND_OF.get(type(body))
    if kind is None:
        raise RecordError(f"not a record body: {type(body).__name__}")
    value = msgspec.to_builtins(body, builtin_types=(bytes,))
    _convert(kind, value)
    encoded = cbor2.dumps({"t": wall_ms, "q": str(quality), "b": boot_ms, "k": kind, "v": value}, canonical=True)
    if len(encoded) > RECORD_MAX_BYTES:
        raise RecordError(f"{kind} record of {len(encoded)} bytes; the limit is {RECORD_MAX_BYTES}")
    return encoded


def decode_record(item: object) -> Record:
    """The header of a decoded record map; the body stays plain until `body_of`."""
    try:
        return msgspec.convert(item, Record)
    except msgspec.ValidationError as err:
        raise RecordError(f"record header: {_path_only(err)}") from None


def body_of(record: Record) -> Body | None:
    """The typed body; None for a kind this version does not know. RecordError if a known kind does not fit its schema."""
    if record.kind not in KINDS:
        return None
    return _convert(record.kind, record.value)


def _convert(kind: str, value: dict[str, Any]) -> Body:
    try:
        return msgspec.convert(value, KINDS[kind])  # type: ignore[return-value]  # KINDS holds exactly the members of Body
    except msgspec.ValidationError as err:
        raise RecordError(f"{kind} record: {_path_only(err)}") from None


def _path_only(err: msgspec.ValidationError) -> str:
    """msgspec quotes offending enum values; they may be somebody's data, so only the rule and the path stay."""
    text = str(err)
    if text.startswith("Invalid"):
        path = text.rpartition(" - at ")[2] if " - at " in text else "`$`"
        return f"word not in its list - at {path}"
    return text
