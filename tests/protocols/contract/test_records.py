"""Records: what fits, what is refused, and that no field has room for a citizen."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import cbor2
import msgspec
import pytest

from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract import records
from protocols.contract.records import KINDS, ClockQuality
from tests.support.contract import NOW_MS

PLANTED = (
    "张三",
    "Zhang San",
    "330702199001011231",
    "33070219900101123X",
    "浙江省金华市婺城区某路1号",
    "13800138000",
    "6222021208001234567",
)
"""Synthetic: a name in two scripts, a resident number in two forms (check digits wrong: nobody has it), an address, a phone number, a card number."""


def text_fields(kind: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, inspected type) of every text field below a struct."""
    info = msgspec.inspect.type_info(kind)
    yield from _walk(info, path)


def _walk(info: Any, path: str) -> Iterator[tuple[str, Any]]:
    match info:
        case msgspec.inspect.StructType():
            for field in info.fields:
                yield from _walk(field.type, f"{path}.{field.encode_name}")
        case msgspec.inspect.UnionType():
            for member in info.types:
                yield from _walk(member, path)
        case msgspec.inspect.VarTupleType() | msgspec.inspect.ListType():
            yield from _walk(info.item_type, f"{path}[]")
        case msgspec.inspect.TupleType():
            for member in info.item_types:
                yield from _walk(member, f"{path}[]")
        case msgspec.inspect.StrType() | msgspec.inspect.AnyType() | msgspec.inspect.DictType() | msgspec.inspect.RawType():
            yield path, info


ALL_TEXT = [entry for kind, body in KINDS.items() for entry in text_fields(body, kind)]


@pytest.mark.spec("C-202")
@pytest.mark.parametrize(("path", "info"), ALL_TEXT, ids=[path for path, _ in ALL_TEXT])
def test_every_text_field_is_a_pattern_that_no_personal_text_matches(path: str, info: Any) -> None:
    assert isinstance(info, msgspec.inspect.StrType), f"{path} is untyped"
    assert info.pattern, f"{path} is free text"
    for planted in PLANTED:
        assert not re.search(info.pattern, planted), f"{path} has room for {planted!r}"


@pytest.mark.spec("C-202")
def test_byte_fields_are_ids_digests_or_evidence() -> None:
    """Bytes could hold anything: only fixed-size ids and the masked evidence may."""
    for kind, body in KINDS.items():
        for name, hint in typing.get_type_hints(body, include_extras=True).items():
            if "bytes" in str(hint):
                plain = (
                    [member for member in typing.get_args(hint) if member is not type(None)]
                    if type(None) in typing.get_args(hint)
                    else [hint]
                )
                assert all(member in (records.Id8, records.Id16) for member in plain), (kind, name)


@pytest.mark.spec("C-201", "C-203")
@pytest.mark.parametrize("planted", PLANTED)
def test_planted_data_is_refused_and_not_repeated(planted: str) -> None:
    for field in ("item", "outcome", "channel", "cause"):
        values: dict[str, Any] = {"item": "social.query", "outcome": "success", field: planted}
        body = records.Session(id=b"s" * 16, began_ms=1, duration_ms=2, **values)
        with pytest.raises(records.RecordError) as refused:
            records.encode_record(body, wall_ms=NOW_MS, quality=ClockQuality.SYNCED, boot_ms=1)
        assert planted not in str(refused.value)
        assert field in str(refused.value)


@pytest.mark.spec("C-204")
def test_oversized_evidence_and_records_are_refused() -> None:
    big = records.Evidence(codec="escpos", reply=bytes(513))
    with pytest.raises(records.RecordError, match="reply"):
        _encode(records.Device(slot="receipt-printer", family="escpos", device=DeviceState.ONLINE, evidence=big))
    slots = tuple(
        records.SlotCount(
            slot=f"abcdefghijklmnop-abcdefghijklmnop-abcdefghijklm-{n:03}", total=2**50, ok=2**50, failed=2**50, lifetime=2**50
        )
        for n in range(40)
    )
    with pytest.raises(records.RecordError, match="4096"):
        _encode(records.Counters(from_ms=1, to_ms=2, slots=slots))


@pytest.mark.spec("C-101")
def test_records_are_deterministic_cbor() -> None:
    for body in EXAMPLES:
        raw = _encode(body)
        assert cbor2.dumps(cbor2.loads(raw), canonical=True) == raw
        assert records.body_of(records.decode_record(cbor2.loads(raw))) == body


@pytest.mark.spec("C-110")
def test_unknown_fields_are_ignored() -> None:
    item = cbor2.loads(_encode(EXAMPLES[0]))
    item["new"] = 1
    item["v"]["new"] = {"deep": [1]}
    assert records.body_of(records.decode_record(item)) == EXAMPLES[0]


@pytest.mark.spec("C-207")
def test_an_unknown_kind_is_not_an_error_and_a_broken_body_is() -> None:
    item = cbor2.loads(_encode(EXAMPLES[0]))
    assert records.body_of(records.decode_record(item | {"k": "hologram"})) is None
    with pytest.raises(records.RecordError):
        records.body_of(records.decode_record(item | {"v": {"reason": "because"}}))


@pytest.mark.parametrize(
    "item", [None, 3, [], {}, {"t": -1}, {"t": 1, "q": "maybe", "b": 1, "k": "stop", "v": {}}, {"k": 5}], ids=str
)
def test_a_record_that_is_no_record_raises_our_error(item: object) -> None:
    with pytest.raises(records.RecordError):
        records.decode_record(item)


def _encode(body: records.Body) -> bytes:
    return records.encode_record(body, wall_ms=NOW_MS, quality=ClockQuality.SYNCED, boot_ms=77)


EXAMPLES: list[records.Body] = [
    records.Stop(reason="shutdown"),
    records.Boot(agent="0.1.0", os="Debian GNU/Linux 12", arch="x86_64", python="3.11.7", previous="unclean"),
    records.Clock(boot_ms=5, wall_ms=NOW_MS, quality=ClockQuality.SYNCED, step_ms=-86_400_000),
    records.Device(
        slot="receipt-printer",
        family="escpos",
        device=DeviceState.ONLINE,
        paper=PaperState.LOW,
        profile="epson-tm-t88",
        vid=0x04B8,
        pid=0x0202,
    ),
    records.Sighting(bus="usb", port="1-1.4", vid=1, pid=2),
    records.Fault(
        id=b"12345678",
        code="PRN.PAPER_OUT",
        change="open",
        severity=Severity.P2,
        slot="receipt-printer",
        mandatory=True,
        since_ms=NOW_MS,
        evidence=records.Evidence(codec="escpos", query=b"\x10\x04\x04", reply=b"\x7e"),
    ),
    records.Session(id=b"s" * 16, item="social-insurance.query", outcome="abandoned", cause="lease", began_ms=1, duration_ms=2),
    records.Rating(level=5, slot="evaluator"),
    records.Queue(slot="call-pad-3", action="callNext"),
    records.Consumable(
        slot="laser-printer", item="paper", event="refill", remaining=500, capacity=500, unit="sheet", source="manual"
    ),
    records.Counters(from_ms=1, to_ms=2, slots=(records.SlotCount(slot="scanner", total=3, ok=2, failed=1),)),
    records.Serviceability(from_ms=1, to_ms=2, observed_s=900, usable_s=800, partial_s=50, unusable_s=50),
    records.Host(from_ms=1, to_ms=2, cpu_pct=3, mem_free_mib=1, disk_free_mib=1, uptime_s=9, agent_rss_kib=4, outbox_batches=0),
    records.Reading(
        slot="climate", from_ms=1, to_ms=2, quantity="temperature", unit="celsius", min_tenths=-5, mean_tenths=0, max_tenths=9
    ),
    records.Link(state="down", reason="tls"),
    records.Key(kid=b"k" * 16, generation=2),
    records.Notice(code="spoolLost"),
    records.Order(id=b"o" * 16, counter=7, kind="restart", state="waiting", reason="session"),
    records.Desired(counter=8, state="rolledBack", reason="startFailed", config_version=3),
    records.Update(
        bundle=b"b" * 16,
        rollout=b"r" * 16,
        component="firmware/receipt-printer",
        state="downloading",
        since_ms=NOW_MS,
        from_version="4.2",
        to_version="4.3",
        via="delta",
        bytes_done=1,
        bytes_total=2,
        resumed=1,
    ),
    records.Versions(installed=(records.Installed("agent", "0.2.0", 2, b"h" * 32),)),
    records.Plays(
        component="content/guides", version="1.0", from_ms=1, to_ms=2, pages=(records.Play("guide.social-insurance", 3, 90),)
    ),
    records.Position(slot="gps", lat_e4=290_790, lon_e4=1_196_470, fix="dgps", satellites=9),
]


def test_the_examples_cover_every_kind() -> None:
    assert {type(body) for body in EXAMPLES} == set(KINDS.values())
