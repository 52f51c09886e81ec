"""Whether a stored batch holds, computed anew from its bytes whenever somebody looks. Pure: bytes and keys in, a verdict out.

The same functions check an exported file offline; the page asks nobody's opinion, not even the database's columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols.contract import batch as batches
from protocols.contract import certs
from protocols.contract import envelope as cose
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.records import Record, RecordError, decode_record
from protocols.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`, a key of the catalogue (`evidence.<key>`), and its parameters."""

    ok: bool
    key: str
    why: str = ""
    first: int = 0
    last: int = 0
    no: int = 0


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the number before a batch. `digest` is None where nothing is stored; `hole` where a terminal declared it gone."""

    digest: bytes | None
    erased: bool = False
    hole: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified or at least readable batch."""

    signature: Verdict
    digest: bytes
    header: batches.BatchHeader | batches.Loss | None
    record: Record | None


def check_signature(
    envelope: bytes | None,
    *,
    context: str,
    fleet: str,
    terminal: str,
    certificate: bytes | None,
    root: Ed25519PublicKey | None,
    idx: int,
) -> Opened:
    """Root → record-key certificate → envelope. Without the root the certificate counts as unproven, and that is said."""
    if envelope is None:
        return Opened(Verdict(False, "signatureErased"), b"", None, None)
    if certificate is None or root is None:
        return Opened(Verdict(False, "signatureNoKey"), b"", None, None)
    try:
        cert = certs.open_record_key_cert(certificate, root, fleet, terminal)
    except ProtocolError as err:
        return Opened(Verdict(False, "certificateBad", why=_reason(err)), b"", None, None)
    try:
        parsed = cose.parse(envelope, ENVELOPE_MAX_BYTES)
        opened = cose.verify(parsed, Ed25519PublicKey.from_public_bytes(cert.public_key), context, fleet, terminal)
    except cose.EnvelopeError as err:
        return Opened(Verdict(False, "signatureBad", why=err.reason), b"", None, None)
    header, record = _inside(opened, context, idx)
    return Opened(Verdict(True, "signatureOk"), opened.digest, header, record)


def check_chain(no: int, prev: bytes, parent: batches.Parent | None, before: Before, parent_digest: bytes | None) -> Verdict:
    """Whether the signed previous hash is the hash of what came before."""
    if no == 1:
        if parent is None:
            return Verdict(True, "chainFirst")
        if parent_digest is None:
            return Verdict(False, "chainGap", no=parent.no)
        return Verdict(True, "chainParent") if parent_digest == parent.digest else Verdict(False, "chainBroken")
    if before.digest is None:
        if before.hole is not None:
            return Verdict(True, "chainHole", first=before.hole[0], last=before.hole[1])
        return Verdict(False, "chainGap", no=no - 1)
    if before.digest != prev:
        return Verdict(False, "chainBroken")
    return Verdict(True, "chainErased" if before.erased else "chainOk")


def _inside(opened: cose.Opened, context: str, idx: int) -> tuple[batches.BatchHeader | batches.Loss | None, Record | None]:
    try:
        if context == batches.LOSS_CONTEXT:
            return batches.read_loss(opened), None
        batch = batches.read_batch(opened)
    except ProtocolError:
        return None, None
    try:
        return batch.header, decode_record(batch.records[idx])
    except (RecordError, IndexError):
        return batch.header, None


def _reason(err: ProtocolError) -> str:
    return err.reason if isinstance(err, cose.EnvelopeError) else "unreadable"
