"""The spool: what is captured stays, chains, and leaves only on the server's word."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cbor2
import msgspec
import pytest

from edge_agent.outbox import CaptureRefused, Outbox, OutboxError, OutboxFull, OutboxLimits
from protocols.canon.words import DeviceState, Severity
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract import messages, records
from protocols.contract.limits import BATCH_MAX_BYTES, BATCH_MAX_RECORDS, BIRTH_MAX_STREAMS, ENVELOPE_MAX_BYTES
from tests.support.contract import BOOT_ID, FLEET, RECORD, STRANGER, TERMINAL, StepClock, notice
from tests.together.power_cut import NoPowerSwitch
from tests.together.small_disk import SmallDisk, small_disk

SESSION = records.Session(id=b"s" * 16, item="social.query", outcome="success", began_ms=1, duration_ms=2)
SUMMARY = records.Serviceability(from_ms=1, to_ms=2, observed_s=900, usable_s=900, partial_s=0, unusable_s=0)
FAULT = records.Fault(id=b"12345678", code="PRN.JAM", change="open", severity=Severity.P2, since_ms=1)


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


class Boxes:
    """Opens outboxes on one path, and closes what a test left open."""

    def __init__(self, path: Path, clock: StepClock) -> None:
        self.path, self.clock = path, clock
        self.open: list[Outbox] = []

    def __call__(self, **options: object) -> Outbox:
        box = Outbox(self.path, RECORD, FLEET, TERMINAL, self.clock, durable=False, **options)  # type: ignore[arg-type]
        self.open.append(box)
        return box

    def started(self, **options: object) -> Outbox:
        box = self(**options)
        box.start_stream(BOOT_ID)
        return box


@pytest.fixture
def boxes(tmp_path: Path, clock: StepClock) -> Iterator[Boxes]:
    made = Boxes(tmp_path / "outbox.db", clock)
    yield made
    for box in made.open:
        box._db.close()


def read(envelope: bytes) -> batches.Batch:
    opened = cose.verify(cose.parse(envelope, ENVELOPE_MAX_BYTES), RECORD.verifier, batches.BATCH_CONTEXT, FLEET, TERMINAL)
    return batches.read_batch(opened)


def sent(box: Outbox) -> list[batches.Batch]:
    return [read(item.envelope) for item in box.unacknowledged(0, max_count=1_000, max_bytes=1 << 30) if item.kind == "data"]


def ack(box: Outbox, no: int, mode: messages.AckMode = messages.AckMode.UP_TO, digest: bytes | None = None) -> int:
    batch = next(b for b in sent(box) if b.header.no == no)
    entry = messages.AckEntry(batch.header.stream, no, digest or batch.opened.digest, mode)
    return box.apply_ack(messages.Ack(nonce=b"n" * 16, entries=(entry,))).count


@pytest.mark.spec("C-301", "C-307")
def test_a_crash_seals_the_rest_into_its_own_stream_and_the_next_continues_it(boxes: Boxes) -> None:
    box = boxes.started()
    first = box.stream
    box.capture(notice(7))
    box._db.close()  # killed: nothing was sealed
    box = boxes.started()
    box.capture(notice(8))
    box.seal()
    old, new = sent(box)
    assert old.header.stream == first
    assert old.records[0]["v"] == {"code": "recordsRefused", "count": 7}
    assert new.header.stream == box.stream != first
    assert new.header.parent == batches.Parent(first, 1, old.opened.digest)
    assert (old.header.boot_no, new.header.boot_no) == (1, 2)


@pytest.mark.spec("C-301")
def test_a_stream_without_batches_passes_its_parent_on(boxes: Boxes) -> None:
    box = boxes.started()
    box.capture(notice())
    box.seal()
    tip = sent(box)[0].opened.digest
    box._db.close()
    for _ in range(3):
        box = boxes.started()
        box._db.close()
    box = boxes.started()
    box.capture(notice())
    box.seal()
    parent = sent(box)[1].header.parent
    assert parent is not None
    assert parent.digest == tip


@pytest.mark.spec("C-302", "C-303")
def test_numbers_and_hashes_chain_over_both_classes(boxes: Boxes) -> None:
    box = boxes.started()
    for body in (SESSION, SUMMARY, FAULT, SUMMARY):
        box.capture(body)
        box.seal()
    chain = sent(box)
    assert [b.header.no for b in chain] == [1, 2, 3, 4]
    assert [b.header.batch_class for b in chain] == ["event", "summary", "event", "summary"]
    assert [b.header.prev for b in chain] == [b"", *(b.opened.digest for b in chain[:-1])]


@pytest.mark.spec("C-304", "C-306")
def test_batches_keep_their_limits(boxes: Boxes) -> None:
    box = boxes.started()
    big = records.Device(
        slot="receipt-printer", family="escpos", device=DeviceState.ONLINE,
        evidence=records.Evidence(codec="escpos", query=bytes(512), reply=bytes(512)),
    )  # fmt: skip
    for _ in range(BATCH_MAX_RECORDS * 2 + 50):
        box.capture(big)
    assert box.seal_due_s() == 0.0
    box.seal()
    assert box.seal_due_s() is None
    chain = sent(box)
    assert sum(len(b.records) for b in chain) == BATCH_MAX_RECORDS * 2 + 50
    for item in box.unacknowledged(0, max_count=1_000, max_bytes=1 << 30):
        batch = read(item.envelope)
        assert len(batch.records) <= BATCH_MAX_RECORDS
        assert sum(len(cbor2.dumps(r, canonical=True)) for r in batch.records) <= BATCH_MAX_BYTES
        assert len(item.envelope) <= ENVELOPE_MAX_BYTES


@pytest.mark.spec("C-305")
def test_sealing_is_due_after_five_seconds_and_at_once_for_a_fault(boxes: Boxes, clock: StepClock) -> None:
    box = boxes.started()
    assert box.seal_due_s() is None
    box.capture(notice())
    clock.advance(3_000)
    assert box.seal_due_s() == 2.0
    clock.advance(3_000)
    assert box.seal_due_s() == 0.0
    box.seal()
    box.capture(FAULT, urgent=True)
    assert box.seal_due_s() == 0.0


@pytest.mark.spec("C-306")
def test_a_crash_inside_sealing_changes_nothing(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    box = boxes.started()
    box.capture(notice(5))

    real = batches.seal_batch

    def power_cut(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "seal_batch", power_cut)
    with pytest.raises(KeyboardInterrupt):
        box.seal()
    monkeypatch.undo()
    assert (box.depth(), box.seal()) == (0, 1)
    assert sent(box)[0].records[0]["v"]["count"] == 5


@pytest.mark.spec("C-201", "C-203")
def test_a_refused_record_leaves_no_trace(boxes: Boxes) -> None:
    box = boxes.started()
    with pytest.raises(CaptureRefused) as refused:
        box.capture(records.Session(id=b"s" * 16, item="330702199001011238", outcome="success", began_ms=1, duration_ms=2))
    assert "330702" not in str(refused.value)
    assert box.seal() == 0
    assert b"330702" not in boxes.path.read_bytes()


@pytest.mark.spec("C-503")
def test_only_the_right_hash_releases(boxes: Boxes) -> None:
    box = boxes.started()
    for _ in range(3):
        box.capture(notice())
        box.seal()
    assert ack(box, 2, digest=b"x" * 32) == 0
    assert ack(box, 2, messages.AckMode.ALONE) == 1
    assert [b.header.no for b in sent(box)] == [1, 3]
    assert ack(box, 3) == 2
    assert box.depth() == 0


@pytest.mark.spec("C-308")
def test_a_resend_is_byte_identical(boxes: Boxes) -> None:
    box = boxes.started()
    box.capture(notice())
    box.seal()
    once = box.unacknowledged(0, max_count=9, max_bytes=1 << 20)
    box._db.close()
    assert boxes.started().unacknowledged(0, max_count=9, max_bytes=1 << 20) == once


@pytest.mark.spec("C-408")
def test_a_head_puts_back_what_the_server_does_not_have(boxes: Boxes) -> None:
    box = boxes.started()
    for _ in range(4):
        box.capture(notice())
        box.seal()
    digests = {b.header.no: b.opened.digest for b in sent(box)}
    ack(box, 4)
    stream = box.stream

    def head(no: int, digest: bytes, aside: tuple[tuple[int, bytes], ...] = ()) -> list[int]:
        box.apply_head(messages.Head(nonce=b"n" * 16, heads=(messages.StreamHead(stream, no, digest, aside),)))
        waiting = [b.header.no for b in sent(box)]
        if waiting:
            ack(box, max(waiting))
        return waiting

    assert head(4, digests[4]) == []
    assert head(2, digests[2]) == [3, 4], "a server restored from an older backup"
    assert head(2, b"x" * 32) == [1, 2, 3, 4], "a server with another story"
    assert head(2, b"x" * 32, ((3, digests[3]), (4, digests[4]))) == [1, 2], "which has set two of them aside already"
    assert head(0, b"") == [1, 2, 3, 4], "a server that lost everything"


@pytest.mark.spec("C-405", "C-409")
def test_a_birth_lists_at_most_400_streams_and_says_that_there_are_more(boxes: Boxes) -> None:
    box = boxes()
    for _ in range(BIRTH_MAX_STREAMS + 2):
        box.start_stream(BOOT_ID)
        box.capture(notice())
    box.seal()
    held, more = box.held()
    assert (len(held), more) == (BIRTH_MAX_STREAMS, True)
    assert held[0].first == held[0].last == 1


@pytest.mark.spec("C-311")
def test_acknowledged_batches_are_kept_for_their_time(boxes: Boxes, clock: StepClock) -> None:
    box = boxes.started()
    for _ in range(3):
        box.capture(notice())
        box.seal()
    ack(box, 2)
    clock.advance(13 * 24 * 3600 * 1000)
    assert box.purge() == 0
    clock.advance(2 * 24 * 3600 * 1000)
    assert box.purge() == 2
    held, _ = box.held()
    assert [(span.first, span.last) for span in held] == [(3, 3)]
    assert held[0].prev == sent(box)[0].header.prev


@pytest.mark.spec("C-309", "C-310")
def test_a_full_spool_sheds_summaries_then_plain_events_then_the_rest(boxes: Boxes) -> None:
    box = boxes.started(limits=OutboxLimits(max_bytes=1 << 30))
    bulk: dict[str, records.Body] = {"summary": SUMMARY, "plain": notice(), "precious": SESSION}
    for name in ("precious", "plain", "summary"):
        for _ in range(BATCH_MAX_RECORDS):
            box.capture(bulk[name])
        box.seal()
    order = []
    before = {b.header.no: b for b in sent(box)}
    size = box._held_bytes
    for _ in range(3):
        box._limits = OutboxLimits(max_bytes=size - 1)
        box.seal()
        box._make_room(0)
        size = box._held_bytes
        lost = [item for item in box.unacknowledged(0, max_count=9, max_bytes=1 << 30) if item.kind == "loss"]
        order = [item.no for item in sorted(lost, key=lambda item: item.no)]
        if len(order) == 3:
            break
    assert order == [1, 2, 3]
    for item in box.unacknowledged(0, max_count=9, max_bytes=1 << 30):
        opened = cose.verify(cose.parse(item.envelope, 4096), RECORD.verifier, batches.LOSS_CONTEXT, FLEET, TERMINAL)
        loss = batches.read_loss(opened)
        assert (loss.digest, loss.prev) == (before[loss.no].opened.digest, before[loss.no].header.prev)
        assert sum(loss.counts.values()) == BATCH_MAX_RECORDS


@pytest.mark.spec("C-309")
def test_the_order_of_eviction_one_by_one(boxes: Boxes) -> None:
    box = boxes.started()
    for body in (SESSION, notice(), SUMMARY):
        for _ in range(BATCH_MAX_RECORDS):
            box.capture(body)
        box.seal()

    def lost() -> set[int]:
        return {item.no for item in box.unacknowledged(0, max_count=9, max_bytes=1 << 30) if item.kind == "loss"}

    for expected in ({3}, {2, 3}, {1, 2, 3}):
        box._limits = OutboxLimits(max_bytes=box._held_bytes - 1)
        box._make_room(0)
        assert lost() == expected


@pytest.mark.spec("C-309")
def test_what_is_acknowledged_goes_first(boxes: Boxes) -> None:
    box = boxes.started()
    for _ in range(2):
        for _ in range(BATCH_MAX_RECORDS):
            box.capture(SUMMARY)
        box.seal()
    ack(box, 1)
    box._limits = OutboxLimits(max_bytes=box._held_bytes - 1)
    box._make_room(0)
    assert [item.kind for item in box.unacknowledged(0, max_count=9, max_bytes=1 << 30)] == ["data"]
    assert box.held()[0][0].first == 2


@pytest.mark.spec("C-205", "C-312")
def test_a_full_disk_refuses_counts_and_says_so_later(boxes: Boxes) -> None:
    box = boxes.started()
    pages = box._db.execute("PRAGMA page_count").fetchone()[0]
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    refused = 0
    for number in range(400):
        try:
            box.capture(msgspec.structs.replace(SESSION, id=number.to_bytes(16, "big")))
        except OutboxFull:
            refused += 1
    assert refused
    box._db.execute("PRAGMA max_page_count = 100000")
    box.note_refusals()
    box.seal()
    kept = [record for b in sent(box) for record in b.records]
    assert sum(r["k"] == "session" for r in kept) == 400 - refused
    assert [r["v"] for r in kept if r["k"] == "notice"] == [{"code": "recordsRefused", "count": refused}]


@pytest.mark.spec("C-312")
def test_what_was_tried_again_and_stored_at_last_is_not_counted_as_refused(boxes: Boxes) -> None:
    """An application repeats its case until it is taken, a driver the state that it sees: missing facts are counted, not tries."""
    box = boxes.started()
    pages = box._db.execute("PRAGMA page_count").fetchone()[0]
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    refused = 0
    for number in range(400):
        try:
            box.capture(msgspec.structs.replace(SESSION, id=(1_000 + number).to_bytes(16, "big")))
        except OutboxFull:
            refused += 1
    assert refused
    rating = records.Rating(slot="evaluator", level=5)
    for _ in range(50):
        for body in (SESSION, FAULT, rating):
            with pytest.raises(OutboxFull):
                box.capture(body)
    with pytest.raises(OutboxFull):
        box.note_refusals()
    box._db.execute("PRAGMA max_page_count = 100000")
    box.capture(SESSION)
    box.note_refusals()
    box.note_refusals()
    box.seal()
    told = [r["v"] for b in sent(box) for r in b.records if r["k"] == "notice"]
    # The cases that filled the disk, the fault, and each of the reviews: of those two that look the same may be two.
    assert told == [{"code": "recordsRefused", "count": refused + 1 + 50}]


@pytest.mark.spec("C-309", "C-311")
def test_a_disk_that_others_filled_gets_room_from_what_the_server_has(boxes: Boxes) -> None:
    """The spool is far below its own limit; acknowledged batches go all the same, unacknowledged ones stay."""
    box = boxes.started()
    for number in range(60):
        for _ in range(20):
            box.capture(msgspec.structs.replace(SESSION, id=number.to_bytes(16, "big")))
        box.seal()
    ack(box, 50)
    waiting = box.depth()
    pages = box._db.execute("PRAGMA page_count").fetchone()[0]
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(400):
        box.capture(msgspec.structs.replace(SESSION, id=(1_000 + number).to_bytes(16, "big")))
    box.seal()
    assert box.depth() > waiting
    assert [item.kind for item in box.unacknowledged(0, max_count=999, max_bytes=1 << 30)] == ["data"] * box.depth()
    assert box.held()[0][0].first > 1, "the oldest of what the server has went"
    assert len(box.held()[0]) == 1, "and without a gap"


@contextmanager
def small_disk_or_skip(folder: Path) -> Iterator[SmallDisk]:
    try:
        with small_disk(folder, "tmpfs", mib=8) as disk:
            yield disk
    except NoPowerSwitch as err:
        pytest.skip(str(err))


@pytest.mark.spec("C-311")
def test_a_real_disk_that_others_filled_to_the_last_byte(tmp_path: Path, clock: StepClock) -> None:
    with small_disk_or_skip(tmp_path) as disk:
        boxes = Boxes(disk.mount / "outbox.db", clock)
        box = boxes.started()
        for number in range(200):
            for _ in range(20):
                box.capture(msgspec.structs.replace(SESSION, id=number.to_bytes(16, "big")))
            box.seal()
        ack(box, 190)
        box.purge()  # as housekeeping does
        disk.fill()
        for number in range(400):
            box.capture(msgspec.structs.replace(SESSION, id=(1_000 + number).to_bytes(16, "big")))
        assert disk.free_bytes < 65_536, "what became free stays with the spool"
        box.seal()
        kept = [r["v"]["id"] for b in sent(box) for r in b.records]
        assert {(1_000 + number).to_bytes(16, "big") for number in range(400)} <= set(map(bytes, kept))
        box._db.close()


def test_a_spool_of_another_key_is_not_opened(boxes: Boxes, clock: StepClock) -> None:
    boxes.started()._db.close()
    with pytest.raises(OutboxError, match="another record key"):
        Outbox(boxes.path, STRANGER, FLEET, TERMINAL, clock)


def test_garbage_instead_of_a_spool_is_said_plainly(tmp_path: Path, clock: StepClock) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OutboxError, match="cannot be opened"):
        Outbox(path, RECORD, FLEET, TERMINAL, clock)


@pytest.mark.spec("C-1002")
def test_rotation_ends_the_old_key_with_its_last_record(boxes: Boxes) -> None:
    box = boxes.started()
    box.capture(SESSION)
    box.rotate(STRANGER, generation=2)
    box.capture(notice())
    box.seal()
    waiting = box.unacknowledged(0, max_count=9, max_bytes=1 << 20)
    kids = [cose.parse(item.envelope, 1 << 16).kid for item in waiting]
    assert kids == [RECORD.kid, RECORD.kid, STRANGER.kid]
    last = read(waiting[1].envelope)
    assert last.records[-1]["k"] == "key"
    assert last.records[-1]["v"] == {"kid": STRANGER.kid, "generation": 2}
    assert Outbox.key_in_use(boxes.path) == STRANGER.kid


def test_memory_of_other_modules_survives(boxes: Boxes) -> None:
    box = boxes.started()
    assert box.get("faults") is None
    box.put("faults", b"one")
    box.put("faults", b"two")
    box._db.close()
    assert boxes.started().get("faults") == b"two"


@pytest.mark.spec("C-205")
def test_the_spool_is_synchronised_at_every_commit(tmp_path: Path, clock: StepClock) -> None:
    box = Outbox(tmp_path / "outbox.db", RECORD, FLEET, TERMINAL, clock)
    assert box._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    assert box._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    box.start_stream(BOOT_ID)
    box.capture(notice())
    with sqlite3.connect(tmp_path / "outbox.db") as other:  # another process sees it: it is committed
        assert other.execute("SELECT count(*) FROM pending").fetchone()[0] == 1
    other.close()
    box.close(clean=True)
