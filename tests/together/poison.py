"""Payloads that are well signed and meant to hurt: everything a hostile terminal can put into its own envelopes, by seed."""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec

from protocols.canon.faults import FAULTS
from protocols.canon.words import DeviceState, Severity
from protocols.contract import batch as batches
from protocols.contract import records
from protocols.contract.limits import ENVELOPE_MAX_BYTES, TIME_LIMIT_MS

HUGE = (2**63, 2**64 - 1, 2**64, 2**70, -(2**63) - 1, -(2**70), 2**2000)
EDGES = (0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**62, -(2**62))
WRONG: tuple[Any, ...] = (
    None,
    True,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "nul\0nul",
    "' OR 1=1 --",
    "\u202e\ufeff名",
    b"",
    bytes(5000),
    [],
    {},
    [[[[[[]]]]]],
    {"a": {"b": {"c": {}}}},
    dt.datetime(9999, 12, 31, tzinfo=dt.UTC),
    cbor2.CBORTag(0, "not a time"),
    cbor2.CBORTag(1, 2**70),
    cbor2.CBORTag(258, [1, 2]),
    cbor2.undefined,
    cbor2.CBORSimpleValue(99),
)
_MILLIS, _COUNT = TIME_LIMIT_MS - 1, 2**53 - 1
_NOW_MS = 1_790_000_000_000


def bodies(rng: random.Random) -> Iterator[records.Body]:
    """One of each kind within its schema, at the ends of what the schema allows."""
    moment = rng.choice((0, 1, _NOW_MS, _MILLIS))
    other = rng.choice((0, _NOW_MS + 86_400_000 * 400, _MILLIS))
    slot = rng.choice(("receipt-printer", "call-pad-3", "zz"))
    yield records.Boot(agent="1", os="1", arch="x86_64", python="3", previous="none")
    yield records.Stop(reason="shutdown")
    yield records.Clock(boot_ms=moment, wall_ms=other, quality=rng.choice(list(records.ClockQuality)), step_ms=-(2**53) + 1)
    yield records.Device(slot=slot, family="receipt-printer", device=rng.choice(list(DeviceState)))
    yield records.Sighting(bus="usb", port="1-1.4", vid=0xFFFF, pid=0, present=rng.random() < 0.5)
    yield records.Fault(
        id=rng.randbytes(8),
        code=rng.choice((*FAULTS, "ZZZ.NO_SUCH_CODE")),
        change=rng.choice(("open", "clear")),
        severity=rng.choice(list(Severity)),
        slot=slot,
        since_ms=moment,
    )
    yield records.Session(
        id=rng.randbytes(16),
        item="tax.query",
        outcome=rng.choice(("success", "failed", "abandoned")),
        began_ms=moment,
        duration_ms=other,
    )
    yield records.Rating(level=rng.randrange(6), slot=slot)
    yield records.Queue(slot=slot, action="callNext")
    yield records.Consumable(
        slot=slot, item="roll", event="level", remaining=_COUNT, capacity=rng.choice((0, _COUNT)), unit="mm", source="sensor"
    )
    count = records.SlotCount(slot=slot, total=_COUNT, ok=_COUNT, failed=_COUNT, lifetime=_COUNT)
    yield records.Counters(from_ms=moment, to_ms=other, slots=(count,) * rng.choice((0, 1, 40)))
    yield records.Serviceability(
        from_ms=moment, to_ms=other, observed_s=2**31 - 1, usable_s=2**31 - 1, partial_s=2**31 - 1, unusable_s=2**31 - 1
    )
    yield records.Host(
        from_ms=moment, to_ms=other, cpu_pct=100, mem_free_mib=_COUNT, disk_free_mib=0, uptime_s=2**31 - 1, agent_rss_kib=0, outbox_batches=_COUNT
    )  # fmt: skip
    yield records.Reading(
        slot=slot, from_ms=moment, to_ms=other, quantity="temperature", unit="celsius",
        min_tenths=rng.choice((-(2**53) + 1, -(2**62), 0)), mean_tenths=0, max_tenths=rng.choice((2**53 - 1, 2**63, 2**2000, 0)),
    )  # fmt: skip
    yield records.Link(state="up", reason="connected", attempts=_COUNT)
    yield records.Notice(code="spoolLost", count=_COUNT)


def poisoned_payloads(rng: random.Random, count: int) -> Iterator[tuple[str, str, bytes]]:
    """(context, topic kind, payload) of batches and loss notices; each fits into an envelope."""
    made = 0
    while made < count:
        context, kind, value = _loss(rng) if rng.random() < 0.15 else _batch(rng)
        # Mostly inside the records: a spoilt head is refused as a whole and hurts nobody.
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            inside = kind == "batch" and isinstance(value, list) and len(value) == 2 and rng.random() < 0.85
            value = [value[0], _spoil(rng, value[1])] if inside else _spoil(rng, value)
        try:
            payload = cbor2.dumps(value, canonical=rng.random() < 0.5)
        except (ValueError, TypeError, cbor2.CBOREncodeError):
            continue
        if rng.random() < 0.05:
            payload = _bytes_to_hurt(rng)
        if len(payload) < ENVELOPE_MAX_BYTES - 200:
            made += 1
            yield context, kind, payload


def poisoned_births(rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Births whose nonce the caller puts in."""
    for _ in range(count):
        numbers = (*HUGE, *EDGES)
        held = [
            [rng.randbytes(16), rng.choice(numbers), rng.choice((b"", bytes(32))), rng.choice(numbers), _parent(rng, numbers)]
            for _ in range(rng.choice((0, 1, 5, 400)))
        ]
        faults = [
            [rng.randbytes(8), rng.choice((*FAULTS, "ZZZ.NO_SUCH_CODE")), "P1", rng.choice((0, _NOW_MS, _MILLIS)), None, False]
            for _ in range(rng.choice((0, 1, 128)))
        ]
        value: dict[str, Any] = {
            "v": [1], "g": "1", "o": _COUNT, "i": bytes(16), "s": bytes(16), "t": rng.choice((0, _MILLIS)), "b": _MILLIS, "q": "unset", "h": held,
            "f": faults, "x": _COUNT,
        }  # fmt: skip
        if rng.random() < 0.3:
            key = rng.choice(list(value))
            value[key] = rng.choice((*HUGE, *WRONG[:14]))
        yield value


def _parent(rng: random.Random, numbers: tuple[int, ...]) -> list[Any] | None:
    return rng.choice((None, [bytes(16), rng.choice(numbers), bytes(32)]))


def _batch(rng: random.Random) -> tuple[str, str, Any]:
    number = 1 if rng.random() < 0.8 else rng.choice((2, 2**53 - 1, 2**53, 2**63 - 1, *HUGE[:4]))
    header: dict[str, Any] = {
        "s": rng.randbytes(16), "n": number, "p": b"" if number == 1 else bytes(32), "c": rng.choice(("event", "summary")),
        "o": rng.choice((0, _COUNT)), "i": rng.choice((bytes(16), rng.randbytes(16))), "w": rng.choice((0, _NOW_MS, _MILLIS)),
        "a": _parent(rng, (1, 1, 1, 2**53 - 1, HUGE[0])) if number == 1 and rng.random() < 0.3 else None,
    }  # fmt: skip
    kinds = list(bodies(rng))
    chosen = rng.sample(kinds, rng.randrange(1, 4)) if rng.random() < 0.8 else kinds
    items = [
        {
            "t": rng.choice((0, _NOW_MS, _MILLIS)),
            "q": rng.choice(("synced", "holdover", "unset")),
            "b": rng.choice((0, 1000, _MILLIS)),
            "k": records.KIND_OF[type(body)],
            "v": msgspec.to_builtins(body, builtin_types=(bytes,)),
        }
        for body in chosen
    ]
    return batches.BATCH_CONTEXT, "batch", [header, items]


def _loss(rng: random.Random) -> tuple[str, str, Any]:
    number = 1 if rng.random() < 0.7 else rng.choice((2, 2**53 - 1, 2**63 - 1, *HUGE[:3]))
    value = {
        "s": rng.randbytes(16), "n": number, "h": rng.randbytes(32), "p": b"" if number == 1 else bytes(32), "a": None, "c": "event",
        "o": _COUNT, "i": bytes(16), "f": rng.choice((0, _MILLIS)), "l": _MILLIS, "w": _MILLIS,
        "k": {f"kind-{n}": _COUNT for n in range(rng.choice((0, 1, 2000)))},
    }  # fmt: skip
    return batches.LOSS_CONTEXT, "loss", value


def _spoil(rng: random.Random, value: Any) -> Any:
    """`value` with one leaf somewhere replaced, an entry added or one taken away."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {**value, rng.choice(("zz", 1, b"k")): rng.choice(WRONG)}
        if rng.random() < 0.1:
            return {name: entry for name, entry in value.items() if name != key}
        return {**value, key: _spoil(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.95:
        at = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value * rng.choice((0, 2, 60))
        return [*value[:at], _spoil(rng, value[at]), *value[at + 1 :]]
    if isinstance(value, int) and rng.random() < 0.7:
        return rng.choice((*HUGE, *EDGES))
    return rng.choice((*HUGE, *EDGES, *WRONG))


def _bytes_to_hurt(rng: random.Random) -> bytes:
    """Not made by an encoder: nesting, lengths that lie, references to themselves."""
    return rng.choice(
        (
            b"\x81" * 20_000 + b"\x00",
            b"\xa1\x00" * 10_000 + b"\x00",
            b"\xd8\x1c" * 5_000 + b"\x00",
            b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
            b"\x5b\x00\x00\x00\x00\xff\xff\xff\xff",
            b"\x82" + b"\x9f" * 1000,
            b"\xd8\x1c\x82\xd8\x1d\x00\xd8\x1d\x00",
            b"\x82\xa0\xd8\x1c\x81\xd8\x1d\x00",
            b"\xc2\x5a\x00\x00\xb0\x00" + bytes(0xB000),
            os.urandom(0) + rng.randbytes(3000),
        )
    )
