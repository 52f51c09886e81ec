"""Keys, clocks and envelopes for tests of the record contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols.contract import batch as batches
from protocols.contract import certs, records
from protocols.contract import envelope as cose
from protocols.contract.records import ClockQuality

FLEET, TERMINAL = "test-fleet", "kf-0001"
NOW_MS = 1_790_000_000_000
BOOT_ID = bytes(range(16))


class MemoryKey:
    """An Ed25519 key in memory, from a 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes_raw()
        self.kid = cose.key_id(self.public)

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)

    @property
    def verifier(self) -> Ed25519PublicKey:
        return self.private.public_key()


ROOT = MemoryKey(b"\x01" * 32)
SERVER = MemoryKey(b"\x02" * 32)
RECORD = MemoryKey(b"\x03" * 32)
STRANGER = MemoryKey(b"\x04" * 32)
ORDERS = MemoryKey(b"\x05" * 32)
"""Signs orders and desired states."""
SERVER_CERT = certs.seal_server_key_cert(certs.ServerKeyCert(kid=SERVER.kid, public_key=SERVER.public, issued_ms=0), ROOT, FLEET)


def order_key_cert(key: MemoryKey = ORDERS, signer: MemoryKey = ROOT) -> bytes:
    return certs.seal_order_key_cert(certs.OrderKeyCert(kid=key.kid, public_key=key.public, issued_ms=0), signer, FLEET)


def record_cert(key: MemoryKey, terminal: str = TERMINAL, generation: int = 1) -> bytes:
    cert = certs.RecordKeyCert(terminal=terminal, kid=key.kid, public_key=key.public, generation=generation, issued_ms=0)
    return certs.seal_record_key_cert(cert, ROOT, FLEET)


@dataclass
class StepClock:
    """Time that only moves when told."""

    now_ms: int = NOW_MS
    boot: int = 1_000
    clock_quality: ClockQuality = ClockQuality.SYNCED

    def wall_ms(self) -> int:
        return self.now_ms

    def boot_ms(self) -> int:
        return self.boot

    def quality(self) -> ClockQuality:
        return self.clock_quality

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.boot += ms


def notice(count: int = 1) -> records.Notice:
    return records.Notice(code="recordsRefused", count=count)


def encoded(body: records.Body | None = None, wall_ms: int = NOW_MS) -> bytes:
    return records.encode_record(body or notice(), wall_ms=wall_ms, quality=ClockQuality.SYNCED, boot_ms=1_000)


class Chain:
    """Seals batches of one stream by hand, so that a test can bend any part of it."""

    def __init__(
        self,
        stream: bytes,
        key: MemoryKey = RECORD,
        terminal: str = TERMINAL,
        parent: batches.Parent | None = None,
        fleet: str = FLEET,
    ) -> None:
        self.stream, self.key, self.terminal, self.parent, self.fleet = stream, key, terminal, parent, fleet
        self.no, self.digest = 0, b""

    def header(self, *, no: int | None = None, prev: bytes | None = None) -> batches.BatchHeader:
        number = self.no + 1 if no is None else no
        return batches.BatchHeader(
            stream=self.stream, no=number, prev=self.digest if prev is None else prev, parent=self.parent if number == 1 else None,
            batch_class="event", boot_no=1, boot_id=BOOT_ID, sealed_ms=NOW_MS,
        )  # fmt: skip

    def seal(self, *bodies: records.Body, no: int | None = None, prev: bytes | None = None) -> bytes:
        return self.seal_items([encoded(b) for b in bodies or (notice(),)], no=no, prev=prev)

    def seal_items(self, items: Sequence[bytes], *, no: int | None = None, prev: bytes | None = None) -> bytes:
        """Already encoded records, which need not fit any schema."""
        header = self.header(no=no, prev=prev)
        raw, digest = batches.seal_batch(header, items, self.key, self.fleet, self.terminal)
        self.no, self.digest = header.no, digest
        return raw

    def loss(self) -> bytes:
        """A loss notice for the batch sealed last."""
        return batches.seal_loss(self.loss_of(), self.key, self.fleet, self.terminal)

    def loss_of(self, prev: bytes = b"") -> batches.Loss:
        return batches.Loss(
            stream=self.stream, no=self.no, digest=self.digest, prev=prev, parent=self.parent if self.no == 1 else None,
            batch_class="event", boot_no=1, boot_id=BOOT_ID, first_ms=NOW_MS, last_ms=NOW_MS, counts={"notice": 1}, written_ms=NOW_MS,
        )  # fmt: skip

    @property
    def tip(self) -> batches.Parent:
        return batches.Parent(self.stream, self.no, self.digest)
