"""The committed test vectors: `python -m tests.protocols.contract.make_vectors` writes them, `test_vectors.py` proves that nothing has drifted."""

from __future__ import annotations

import json
from pathlib import Path

from protocols.canon.words import Severity
from protocols.contract import batch as batches
from protocols.contract import certs, messages, records, topics, wire
from protocols.contract.records import ClockQuality
from tests.support.contract import (
    BOOT_ID,
    FLEET,
    NOW_MS,
    RECORD,
    ROOT,
    SERVER,
    SERVER_CERT,
    TERMINAL,
    Chain,
    encoded,
    record_cert,
)

FILE = Path(__file__).parent / "vectors" / "contract-1.json"


def make() -> dict[str, object]:
    """All vectors as hex, from fixed keys and times."""
    chain = Chain(b"\x10" * 16)
    fault = records.Fault(
        id=b"\x20" * 8, code="PRN.PAPER_OUT", change="open", severity=Severity.P2, slot="receipt-printer", mandatory=True, since_ms=NOW_MS,
        profile="epson-tm-t88", evidence=records.Evidence(codec="escpos", query=b"\x10\x04\x04", reply=b"\x7e"),
    )  # fmt: skip
    session = records.Session(
        id=b"\x21" * 16, item="social-insurance.query", outcome="success", began_ms=NOW_MS, duration_ms=95_000
    )
    reading = records.Reading(
        slot="climate", from_ms=NOW_MS - 900_000, to_ms=NOW_MS, quantity="temperature", unit="celsius",
        min_tenths=251, mean_tenths=256, max_tenths=260,
    )  # fmt: skip
    volts = records.Reading(
        slot="ups", from_ms=NOW_MS - 900_000, to_ms=NOW_MS, quantity="batteryVoltage", unit="volt",
        min_tenths=274, mean_tenths=275, max_tenths=275,
    )  # fmt: skip
    first = chain.seal(fault, session)
    first_tip = chain.tip
    second = chain.seal(records.Rating(level=5, slot="evaluator"))
    second_digest = chain.digest
    loss = batches.seal_loss(chain.loss_of(prev=first_tip.digest), RECORD, FLEET, TERMINAL)
    child = Chain(b"\x11" * 16, parent=chain.tip)
    nonce = b"\x30" * 16
    birth = messages.Birth(
        nonce=nonce, agent="0.1.0", boot_no=2, boot_id=BOOT_ID, stream=child.stream, wall_ms=NOW_MS, boot_ms=1_000, quality=ClockQuality.SYNCED,
        held=(messages.Held(chain.stream, 1, b"", 2),),
        faults=(messages.OpenFault(fault.id, fault.code, fault.severity, fault.since_ms, fault.slot, mandatory=True),),
    )  # fmt: skip
    challenge = messages.Challenge(connection=b"\x31" * 8, nonce=nonce, version=1, server_ms=NOW_MS, certificate=SERVER_CERT)
    head = messages.Head(nonce=nonce, heads=(messages.StreamHead(chain.stream, 1, first_tip.digest),))
    ack = messages.Ack(nonce=nonce, entries=(messages.AckEntry(chain.stream, 2, second_digest, messages.AckMode.UP_TO),))
    checkpoint = certs.Checkpoint(terminal=TERMINAL, stream=chain.stream, no=2, digest=second_digest, made_ms=NOW_MS)
    binary = {
        "record_fault": encoded(fault),
        "record_session": encoded(session),
        "record_reading": encoded(reading),
        "record_reading_volt": encoded(volts),
        "record_position": encoded(records.Position(slot="gps", lat_e4=290_790, lon_e4=1_196_470, fix="gps", satellites=12)),
        "batch_1": first,
        "batch_1_digest": first_tip.digest,
        "batch_2": second,
        "batch_2_digest": second_digest,
        "batch_2_loss_notice": loss,
        "child_batch_1": child.seal(records.Stop(reason="shutdown")),
        "hello": wire.dump(messages.Hello(connection=b"\x31" * 8)),
        "challenge": wire.seal(challenge, SERVER, messages.CHALLENGE_CONTEXT, FLEET, TERMINAL),
        "birth": wire.seal(birth, RECORD, messages.BIRTH_CONTEXT, FLEET, TERMINAL),
        "head": wire.seal(head, SERVER, messages.HEAD_CONTEXT, FLEET, TERMINAL),
        "ack": wire.seal(ack, SERVER, messages.ACK_CONTEXT, FLEET, TERMINAL),
        "heartbeat": wire.dump(messages.Heartbeat(boot_no=2, depth=1, oldest_ms=NOW_MS)),
        "record_key_certificate": record_cert(RECORD),
        "server_key_certificate": SERVER_CERT,
        "checkpoint": certs.seal_checkpoint(checkpoint, SERVER, FLEET),
    }
    keys = {"root": ROOT, "server": SERVER, "record": RECORD}
    return {
        "contract": 1,
        "fleet": FLEET,
        "terminal": TERMINAL,
        "shard": topics.shard(TERMINAL),
        "keys": {
            name: {"seed": key.private.private_bytes_raw().hex(), "public": key.public.hex(), "kid": key.kid.hex()}
            for name, key in keys.items()
        },
        "hex": {name: value.hex() for name, value in binary.items()},
    }


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(make(), indent=1) + "\n", "utf-8")
