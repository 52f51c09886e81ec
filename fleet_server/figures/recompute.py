"""Makes cases, reviews, queue keys and served time from exported evidence alone: a second way from signed originals to figures.

It shares nothing with the projection but the record contract, so that a mistake there cannot confirm itself. What a terminal did not sign and
only the server can know is passed in as `Standing`: when a batch arrived, and whether it is disputed. No database here.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import cbor2

from fleet_server.errors import FleetServerError
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.records import (
    Body,
    Clock,
    ClockQuality,
    Queue,
    Rating,
    RecordError,
    Serviceability,
    Session,
    body_of,
    decode_record,
)

FORMAT: Final = "kf-evidence/1"
AGREE_MS: Final = 600_000
"""C-702: two clocks further apart than ten minutes cannot both be right."""
FLOOR_MS: Final = 1_767_225_600_000
"""2026-01-01 UTC: before it nothing was recorded, so a clock that was never set and says so is wrong."""
LONGEST_SPAN_MS: Final = 2 * 86_400_000
_NO_BOOT: Final = bytes(16)
_RANK: Final = {"success": 0, "failed": 1, "abandoned": 2}


class NoEvidence(FleetServerError):
    """A file that cannot be read as evidence."""


class Place(NamedTuple):
    """Where a batch stands: a stream's id is its terminal's own choice."""

    terminal: str
    stream: bytes
    no: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What the server says about a batch: arrival in ms UTC, and whether another batch contradicts it and nobody has called it right."""

    received_ms: int
    disputed: bool


@dataclass(frozen=True, slots=True)
class Told:
    """One record with its body, as it was signed."""

    idx: int
    wall_ms: int
    quality: ClockQuality
    boot_ms: int
    body: Body


@dataclass(frozen=True, slots=True)
class Original:
    """One batch of a file."""

    terminal: str
    place: Place
    boot: bytes
    """Of one boot of the host; of one stream where the kernel tells no boot id."""
    told: tuple[Told, ...]


@dataclass
class Evidence:
    """What the files hold."""

    terminals: set[str] = field(default_factory=set)
    originals: dict[Place, Original] = field(default_factory=dict)
    erased: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that counts on a day. `key` is the case's id, else empty; `value` what it says: (item, outcome), level, action, seconds."""

    terminal: str
    place: Place
    idx: int
    key: bytes
    at_ms: int
    value: tuple[object, ...]


@dataclass
class Retold:
    """Facts made from evidence. Served spans are (usable_s, partial_s, unusable_s, to_ms) from `at_ms` on."""

    cases: dict[tuple[str, bytes], Fact] = field(default_factory=dict)
    ratings: list[Fact] = field(default_factory=list)
    queue: list[Fact] = field(default_factory=list)
    served: list[Fact] = field(default_factory=list)
    doubled: int = 0
    """Cases that were told more than once."""
    disputed: int = 0
    """Batches left out because they are disputed."""
    corrected: int = 0
    """Counted facts whose own clock was wrong."""
    unknown: list[Place] = field(default_factory=list)
    """Batches that the server does not have."""


# Reading --------------------------------------------------------------------------------------------------------------------------------


def read_evidence(files: Iterable[bytes]) -> Evidence:
    """The originals of verified files; a batch that is in two of them counts once. NoEvidence if a file cannot be read."""
    found = Evidence()
    for data in files:
        items = _items(data)
        head = next(items, None)
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise NoEvidence(f"not a file of format {FORMAT}")
        terminal = str(head["terminal"])
        found.terminals.add(terminal)
        boots: dict[bytes, bytes] = {}
        for item in items:
            match item:
                case ["data", bytes(raw)]:
                    original = _original(terminal, raw, boots)
                    found.originals[original.place] = original
                case ["erased", *_]:
                    found.erased += 1
                case ["loss", *_]:
                    found.lost += 1
    return found


def _items(data: bytes) -> Iterator[object]:
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield cbor2.CBORDecoder(stream).decode()
        except (cbor2.CBORDecodeError, ValueError) as err:
            raise NoEvidence(f"byte {stream.tell()}: not CBOR ({type(err).__name__})") from None


def _original(terminal: str, raw: bytes, boots: dict[bytes, bytes]) -> Original:
    envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
    # The file was verified as a whole before; only the payload is of interest here.
    batch = batches.read_batch(cose.Opened(payload=envelope.payload, kid=envelope.kid, digest=b"", raw=raw))
    header = batch.header
    told = []
    for idx, item in enumerate(batch.records):
        try:
            record = decode_record(item)
            body = body_of(record)
        except RecordError:
            continue
        if body is not None:
            told.append(Told(idx, record.wall_ms, record.quality, record.boot_ms, body))
    boot = boots.setdefault(header.stream, header.stream if header.boot_id == _NO_BOOT else header.boot_id)
    return Original(terminal, Place(terminal, header.stream, header.no), boot, tuple(told))


# Telling again --------------------------------------------------------------------------------------------------------------------------


def retell(evidence: Evidence, standing: Mapping[Place, Standing]) -> Retold:
    """Facts of everything undisputed: times put right by the fixed points of each boot, a case that was told twice once."""
    out = Retold()
    counted: list[tuple[Original, Standing]] = []
    for place, original in sorted(evidence.originals.items()):
        stands = standing.get(place)
        if stands is None:
            out.unknown.append(place)
        elif stands.disputed:
            out.disputed += 1
        elif original.told:
            counted.append((original, stands))
    clocks = _clocks(counted)
    for original, stands in counted:
        _retell_one(out, original, stands, clocks[original.terminal, original.boot])
    return out


def _retell_one(out: Retold, original: Original, stands: Standing, clock: RightClock) -> None:
    last_boot_ms = max(one.boot_ms for one in original.told)
    for one in original.told:
        at_ms = clock.right_ms(one, stands.received_ms, last_boot_ms)
        moved_ms = at_ms - one.wall_ms
        body = one.body

        def fact(when_ms: int, *value: object, key: bytes = b"", idx: int = one.idx, moved: bool = moved_ms != 0) -> Fact:
            out.corrected += moved
            return Fact(original.terminal, original.place, idx, key, when_ms, value)

        if isinstance(body, Session):
            began_ms = min(max(0, body.began_ms + moved_ms), at_ms)
            _keep_case(out, fact(began_ms, body.item, body.outcome, key=body.id))
        elif isinstance(body, Rating):
            out.ratings.append(fact(at_ms, body.level))
        elif isinstance(body, Queue):
            out.queue.append(fact(at_ms, body.action))
        elif isinstance(body, Serviceability):
            to_ms = min(max(0, body.to_ms + moved_ms), at_ms)
            from_ms = min(max(body.from_ms + moved_ms, to_ms - LONGEST_SPAN_MS, 0), to_ms)
            out.served.append(fact(from_ms, body.usable_s, body.partial_s, body.unusable_s, to_ms))


def _keep_case(out: Retold, told: Fact) -> None:
    """C-209: the same case is one case. A result stands before a lost lease, then the place in the chain decides, never a time."""
    known = out.cases.get((told.terminal, told.key))
    out.doubled += known is not None
    if known is None or _case_rank(told) < _case_rank(known):
        out.cases[told.terminal, told.key] = told


def _case_rank(case: Fact) -> tuple[int, Place, int]:
    return _RANK[str(case.value[1])], case.place, case.idx


# Clocks ---------------------------------------------------------------------------------------------------------------------------------


class RightClock:
    """C-702: wall time of one boot by its fixed points. The last one is right, and each before it that agrees with the next right one."""

    def __init__(self, fixes: Iterable[tuple[int, int]]) -> None:
        kept: list[tuple[int, int]] = []
        for boot_ms, wall_ms in sorted(fixes, reverse=True):
            offset_ms = wall_ms - boot_ms
            if not kept or abs(offset_ms - kept[0][1]) <= AGREE_MS:
                kept.insert(0, (boot_ms, offset_ms))
        self._boots = [boot_ms for boot_ms, _ in kept]
        self._offsets = [offset_ms for _, offset_ms in kept]

    def right_ms(self, told: Told, received_ms: int, last_boot_ms: int) -> int:
        """The moment of a record; never later than its arrival allows, never before there was anything to record."""
        at_ms = told.wall_ms
        if self._boots:
            nearest = min(bisect_left(self._boots, told.boot_ms), len(self._boots) - 1)
            by_boot_ms = told.boot_ms + self._offsets[nearest]
            if told.quality is ClockQuality.UNSET or abs(at_ms - by_boot_ms) > AGREE_MS:
                at_ms = max(0, by_boot_ms)
        never_set = told.quality is ClockQuality.UNSET and not self._boots
        if at_ms > received_ms + AGREE_MS or (never_set and at_ms < FLOOR_MS):
            at_ms = max(0, received_ms - max(0, last_boot_ms - told.boot_ms))
        return at_ms


def _clocks(counted: Sequence[tuple[Original, Standing]]) -> Mapping[tuple[str, bytes], RightClock]:
    fixes: defaultdict[tuple[str, bytes], dict[int, int]] = defaultdict(dict)
    for original, stands in counted:
        known = fixes[original.terminal, original.boot]
        for one in original.told:
            body = one.body
            if isinstance(body, Clock) and body.quality is ClockQuality.SYNCED and body.wall_ms <= stands.received_ms + AGREE_MS:
                known.setdefault(body.boot_ms, body.wall_ms)
    return {key: RightClock(known.items()) for key, known in fixes.items()}
