"""The exported file: holds as it is, and every change to it is found."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path

import cbor2
import pytest

from fleet_server.evidence.export import export, export_file
from fleet_server.evidence.retention import erase_before
from fleet_server.evidence.verify import EvidenceBroken, main, verify
from protocols.contract import batch as batches
from protocols.contract import messages, records, wire
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.messages import Held
from protocols.contract.records import ClockQuality
from tests.fleet_server.evidence.conftest import Bench
from tests.support.contract import (
    BOOT_ID,
    FLEET,
    NOW_MS,
    RECORD,
    ROOT,
    SERVER,
    SERVER_CERT,
    STRANGER,
    TERMINAL,
    Chain,
    MemoryKey,
    notice,
)

A, B = b"\xaa" * 16, b"\xbb" * 16
NEW_KEY = MemoryKey(b"\x09" * 32)


def history(bench: Bench) -> None:
    """Two streams with everything in them: a loss notice, a hole with its birth, a second story, a rotated key."""
    chain = Chain(A)
    for no in range(1, 4):
        bench.send(chain.seal(notice(no)))
    prev = chain.digest
    chain.seal(notice(4))
    bench.send(batches.seal_loss(chain.loss_of(prev=prev), RECORD, FLEET, TERMINAL), kind="loss")
    chain.seal(notice(5))
    sixth = chain.seal(notice(6))
    held = Held(
        A, 6, batches.read_batch(bench.ledger.open(TERMINAL, batches.BATCH_CONTEXT, sixth, ENVELOPE_MAX_BYTES)).header.prev, 6
    )
    birth = messages.Birth(
        nonce=b"n" * 16, agent="0.1.0", boot_no=1, boot_id=BOOT_ID, stream=A, wall_ms=NOW_MS, boot_ms=1,
        quality=ClockQuality.SYNCED, held=(held,),
    )  # fmt: skip
    bench.birth = wire.seal(birth, RECORD, messages.BIRTH_CONTEXT, FLEET, TERMINAL)
    bench.send(sixth, held)
    bench.enrol(TERMINAL, NEW_KEY, generation=2)
    bench.send(chain.seal(records.Key(kid=NEW_KEY.kid, generation=2)))
    child = Chain(B, key=NEW_KEY, parent=chain.tip)
    for no in range(3):
        bench.send(child.seal(notice(no)))
    copy = Chain(B, key=NEW_KEY, parent=chain.tip)
    bench.send(copy.seal(notice(99)))


def exported(bench: Bench, **options: int) -> bytes:
    out = io.BytesIO()
    export(
        bench.conn, out, fleet=FLEET, terminal=TERMINAL, signer=SERVER, server_certificates=[SERVER_CERT], now_ms=NOW_MS, **options
    )  # fmt: skip
    return out.getvalue()


def items(data: bytes) -> list[object]:
    stream, out = io.BytesIO(data), []
    while stream.tell() < len(data):
        out.append(cbor2.CBORDecoder(stream).decode())
    return out


def packed(parts: list[object]) -> bytes:
    return b"".join(cbor2.dumps(part, canonical=True) for part in parts)


@pytest.mark.spec("C-1006")
def test_what_was_exported_holds(bench: Bench) -> None:
    history(bench)
    report = verify(exported(bench), ROOT.verifier)
    assert (report.terminal, report.batches, report.losses, report.gone, report.aside, report.streams) == (
        TERMINAL,
        8,
        1,
        1,
        1,
        2,
    )


@pytest.mark.spec("C-1006")
def test_every_flipped_byte_is_found_at_or_before_its_place(bench: Bench) -> None:
    """All bytes of a small file, and 400 seeded ones of the full one; only the file's own date is not covered by any signature."""
    history(bench)
    data = exported(bench)
    undated = {at for at in range(len(data)) if data.find(b"made_ms") <= at < data.find(b"made_ms") + 16}
    for at in random.Random(7).sample(sorted(set(range(len(data))) - undated), 400):
        bent = data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
        with pytest.raises(EvidenceBroken) as broken:
            verify(bent, ROOT.verifier)
        assert 0 <= broken.value.offset <= len(data)


@pytest.mark.spec("C-1006")
@pytest.mark.parametrize("change", ["removed", "doubled", "swapped", "cut off", "end mark removed", "appended"])
def test_every_rearrangement_is_found(bench: Bench, change: str) -> None:
    history(bench)
    data = exported(bench)
    parts = items(data)
    batch_at = [n for n, part in enumerate(parts) if isinstance(part, list) and part[0] == "data"]
    for at in batch_at:
        bent = list(parts)
        if change == "removed":
            del bent[at]
        elif change == "doubled":
            bent.insert(at, bent[at])
        elif change == "swapped":
            if at + 1 not in batch_at:
                continue
            bent[at], bent[at + 1] = bent[at + 1], bent[at]
        elif change == "cut off":
            bent = bent[: at + 1]
        elif change == "end mark removed":
            bent = bent[:-1]
        else:
            bent.append(["data", b""])
        with pytest.raises(EvidenceBroken):
            verify(packed(bent), ROOT.verifier)


def test_the_offset_names_the_batch_that_does_not_hold(bench: Bench) -> None:
    chain = Chain(A)
    sealed = [chain.seal(notice(n)) for n in range(3)]
    for raw in sealed:
        bench.send(raw)
    data = exported(bench)
    second = data.index(sealed[1])
    bent = bytearray(data)
    bent[second + len(sealed[1]) - 1] ^= 1
    with pytest.raises(EvidenceBroken, match="signature") as broken:
        verify(bytes(bent), ROOT.verifier)
    assert second <= broken.value.offset + 40
    assert broken.value.offset < data.index(sealed[2])


def test_another_root_believes_nothing(bench: Bench) -> None:
    history(bench)
    with pytest.raises(EvidenceBroken, match="not certified"):
        verify(exported(bench), STRANGER.verifier)


@pytest.mark.spec("C-1003")
def test_a_batch_behind_its_keys_last_record_does_not_hold(bench: Bench) -> None:
    chain = Chain(A)
    parts: list[object] = [part for part in items(_small(bench)) if isinstance(part, dict) or part[0].endswith("key")]  # type: ignore[index]
    parts += [["data", chain.seal(records.Key(kid=NEW_KEY.kid, generation=2))], ["data", chain.seal()]]
    with pytest.raises(EvidenceBroken, match="after its last record"):
        verify(packed(parts), ROOT.verifier)


def _small(bench: Bench) -> bytes:
    bench.send(Chain(B).seal())
    return exported(bench)


@pytest.mark.spec("C-1005")
def test_erasure_leaves_a_chain_that_still_verifies(bench: Bench) -> None:
    history(bench)
    erased = erase_before(
        bench.conn, SERVER, fleet=FLEET, terminal=TERMINAL, before_ms=NOW_MS + 1, reason="retention", now_ms=NOW_MS
    )
    assert erased == 9
    assert bench.one("SELECT count(*) FROM checkpoint") == 2
    assert (
        bench.one("SELECT count(*) FROM batch WHERE envelope IS NULL AND erased_reason = 'retention' AND length(digest) = 32")
        == 9
    )
    bench.send(_next(bench))
    report = verify(exported(bench), ROOT.verifier)
    assert (report.erased, report.batches) == (9, 1)
    parts = items(exported(bench))
    erased_at = next(n for n, part in enumerate(parts) if isinstance(part, list) and part[0] == "erased")
    del parts[erased_at + 1]
    with pytest.raises(EvidenceBroken):
        verify(packed(parts), ROOT.verifier)


def _next(bench: Bench) -> bytes:
    """The batch that follows the head of stream B."""
    no, digest = bench.conn.execute("SELECT head_no, head_digest FROM stream WHERE stream = ?", (B,)).fetchone()
    chain = Chain(B, key=NEW_KEY)
    chain.no, chain.digest = no, bytes(digest)
    return chain.seal()


def test_a_range_verifies_alone(bench: Bench) -> None:
    chain = Chain(A)
    for n in range(6):
        bench.send(chain.seal(notice(n)))
        bench.conn.execute("UPDATE batch SET received_ms = ? WHERE no = ?", (n, n + 1))
    report = verify(exported(bench, from_ms=2, to_ms=4), ROOT.verifier)
    assert report.batches == 3


@pytest.mark.spec("C-1006")
def test_the_command_says_in_words_and_exit_code(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history(bench)
    file, root = tmp_path / "kf-0001.evidence", tmp_path / "root.pub"
    root.write_text(base64.b64encode(ROOT.public).decode())
    export_file(
        file, bench.conn, fleet=FLEET, terminal=TERMINAL, signer=SERVER, server_certificates=[SERVER_CERT], now_ms=NOW_MS
    )  # fmt: skip
    assert main([str(file), "--root", str(root)]) == 0
    assert "8 batches with 8 records of kf-0001 in 2 streams" in capsys.readouterr().out
    file.write_bytes(file.read_bytes()[:-1])
    assert main([str(file), "--root", str(root)]) == 1
    assert "DOES NOT HOLD from byte" in capsys.readouterr().out
    assert main([str(tmp_path / "absent"), "--root", str(root)]) == 2
