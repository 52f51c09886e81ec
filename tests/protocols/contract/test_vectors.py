"""The committed vectors are what this code makes, and the library `cwt` agrees with every signature in them."""

from __future__ import annotations

import hashlib
import json

import cbor2
import cwt
import pytest

from protocols.contract import envelope as cose
from protocols.contract import messages, records, topics
from protocols.contract.batch import BATCH_CONTEXT, LOSS_CONTEXT
from protocols.contract.certs import CHECKPOINT_CONTEXT, RECORD_KEY_CONTEXT, SERVER_KEY_CONTEXT
from tests.protocols.contract import make_vectors as vectors
from tests.support.contract import FLEET, TERMINAL

SIGNED = {
    "batch_1": ("record", BATCH_CONTEXT, TERMINAL),
    "batch_2": ("record", BATCH_CONTEXT, TERMINAL),
    "child_batch_1": ("record", BATCH_CONTEXT, TERMINAL),
    "batch_2_loss_notice": ("record", LOSS_CONTEXT, TERMINAL),
    "birth": ("record", messages.BIRTH_CONTEXT, TERMINAL),
    "challenge": ("server", messages.CHALLENGE_CONTEXT, TERMINAL),
    "head": ("server", messages.HEAD_CONTEXT, TERMINAL),
    "ack": ("server", messages.ACK_CONTEXT, TERMINAL),
    "checkpoint": ("server", CHECKPOINT_CONTEXT, TERMINAL),
    "record_key_certificate": ("root", RECORD_KEY_CONTEXT, TERMINAL),
    "server_key_certificate": ("root", SERVER_KEY_CONTEXT, ""),
}
COMMITTED = json.loads(vectors.FILE.read_text("utf-8"))


@pytest.mark.spec("C-308", "C-602")
def test_the_code_still_makes_the_committed_bytes() -> None:
    """These bytes are what terminals in the field speak: a difference is a new version of the contract, not a new file."""
    assert vectors.make() == COMMITTED


@pytest.mark.spec("C-101", "C-105", "C-601")
@pytest.mark.parametrize("name", SIGNED)
def test_cwt_verifies_the_vector(name: str) -> None:
    signer, context, terminal = SIGNED[name]
    key_hex = COMMITTED["keys"][signer]
    kid, public = bytes.fromhex(key_hex["kid"]), bytes.fromhex(key_hex["public"])
    key = cwt.COSEKey.new({1: 1, 2: kid, 3: -8, -1: 6, -2: public})
    raw = bytes.fromhex(COMMITTED["hex"][name])
    payload = cwt.COSE().decode(raw, key, external_aad=cbor2.dumps([context, FLEET, terminal]))
    assert cbor2.dumps(cbor2.loads(payload), canonical=True) == payload
    assert cose.parse(raw, 48 * 1024).payload == payload


def test_every_signed_vector_is_checked() -> None:
    enveloped = {name for name, value in COMMITTED["hex"].items() if value.startswith("d284")}
    assert enveloped == set(SIGNED)


@pytest.mark.spec("C-310")
def test_a_loss_notice_keeps_the_chain() -> None:
    notice = cbor2.loads(cose.parse(bytes.fromhex(COMMITTED["hex"]["batch_2_loss_notice"]), 4096).payload)
    header, _ = cbor2.loads(cose.parse(bytes.fromhex(COMMITTED["hex"]["batch_2"]), 4096).payload)
    assert notice["h"].hex() == COMMITTED["hex"]["batch_2_digest"]
    assert {key: notice[key] for key in "snpcoi"} == {key: header[key] for key in "snpcoi"}
    assert notice["k"] == {"notice": 1}
    assert notice["f"] <= notice["l"]


@pytest.mark.spec("C-901")
def test_topics_and_shards() -> None:
    assert COMMITTED["shard"] == topics.shard(TERMINAL)
    assert topics.parse_up(topics.up(TERMINAL, "batch")) == topics.UpTopic(TERMINAL, "batch")
    for wrong in ("KF-1", "", "a" * 33, "kf_1", "kf 1", "../x", "kf/1"):
        with pytest.raises(topics.TopicError):
            topics.check_terminal_id(wrong)


@pytest.mark.spec("C-902")
@pytest.mark.parametrize(
    "topic",
    ["", "kf", "kf/1", f"kf/1/00/{TERMINAL}/up/batch", f"kf/2/{topics.shard(TERMINAL)}/{TERMINAL}/up/batch", f"{topics.up(TERMINAL, 'batch')}/x",
     topics.up(TERMINAL, "batch").replace("/up/", "/down/"), topics.up(TERMINAL, "gossip"), "kf/1/00/A B/up/hb"],
)  # fmt: skip
def test_topics_that_are_not_ours(topic: str) -> None:
    with pytest.raises(topics.TopicError):
        topics.parse_up(topic)


@pytest.mark.spec("C-603", "C-604")
def test_words_that_came_later_changed_no_byte_of_what_was_there() -> None:
    """`record_reading` was written by the code before readings of a UPS and positions existed, and is written so today."""
    reading = bytes.fromhex(COMMITTED["hex"]["record_reading"])
    assert hashlib.sha256(reading).hexdigest() == "6b7f2c5f5196f1fbcc568cbb79a3c1925edf7db8040cd1bbc1ead59b7455070c"
    later = {cbor2.loads(bytes.fromhex(COMMITTED["hex"][name]))["k"] for name in ("record_reading_volt", "record_position")}
    assert later == {"reading", "position"}


@pytest.mark.spec("C-604")
def test_a_reader_that_does_not_know_a_word_says_so_and_nothing_of_it() -> None:
    """What a server does with such a record is C-207."""
    item = cbor2.loads(bytes.fromhex(COMMITTED["hex"]["record_reading_volt"]))
    item["v"]["quantity"] = "pressure"
    with pytest.raises(records.RecordError) as refused:
        records.body_of(records.decode_record(item))
    assert "pressure" not in str(refused.value)
    item["k"] = "altitude"
    assert records.body_of(records.decode_record(item)) is None
