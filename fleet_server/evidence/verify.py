"""Checks an exported evidence file offline, with the fleet's root key alone, and names the first byte that does not hold."""

from __future__ import annotations

import argparse
import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.evidence.export import FORMAT
from protocols.contract import batch as batches
from protocols.contract import certs, messages, records, wire
from protocols.contract import envelope as cose
from protocols.contract.limits import CONTROL_MAX_BYTES, ENVELOPE_MAX_BYTES
from protocols.errors import ProtocolError


class EvidenceBroken(Exception):
    """The file does not hold from byte `offset` on."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass
class Report:
    """What held."""

    fleet: str = ""
    terminal: str = ""
    batches: int = 0
    records: int = 0
    losses: int = 0
    gone: int = 0
    erased: int = 0
    aside: int = 0
    forks: int = 0
    """Streams that continue another story than the one kept here: a restored or copied disk."""
    streams: int = 0


@dataclass
class _Stream:
    id: bytes
    no: int
    digest: bytes
    erased_until: int = 0
    retired: set[bytes] = field(default_factory=set)


def verify(data: bytes, root: Ed25519PublicKey) -> Report:
    """Read the whole file; EvidenceBroken with the offset of the first item, field or missing byte that does not hold."""
    return _Verifier(data, root).run()


class _Verifier:
    def __init__(self, data: bytes, root: Ed25519PublicKey) -> None:
        self._data, self._root = data, root
        self._report = Report()
        self._record_keys: dict[bytes, Ed25519PublicKey] = {}
        self._server_keys: dict[bytes, Ed25519PublicKey] = {}
        self._stream: _Stream | None = None
        self._closed: dict[bytes, _Stream] = {}

    def run(self) -> Report:
        active = wire.active_tag(self._data)
        if active is not None:
            raise EvidenceBroken(active, "a tag that no evidence file holds")
        stream = io.BytesIO(self._data)
        ended = False
        first = True
        while stream.tell() < len(self._data):
            at = stream.tell()
            item = self._item(stream, at)
            if ended:
                raise EvidenceBroken(at, "something follows the end mark")
            if first:
                self._head(item, at)
                first = False
                continue
            ended = self._step(item, at)
        if not ended:
            raise EvidenceBroken(len(self._data), "the file ends before its end mark")
        return self._report

    def _item(self, stream: io.BytesIO, at: int) -> Any:
        try:
            return cbor2.CBORDecoder(stream).decode()
        except Exception as err:  # noqa: BLE001 - cbor2 lets several builtin errors through
            raise EvidenceBroken(at, f"not CBOR: {type(err).__name__}") from None

    def _head(self, item: Any, at: int) -> None:
        if not isinstance(item, dict) or item.get("format") != FORMAT:
            raise EvidenceBroken(at, f"not a file of format {FORMAT}")
        fleet, terminal = item.get("fleet"), item.get("terminal")
        if not isinstance(fleet, str) or not isinstance(terminal, str):
            raise EvidenceBroken(at, "fleet and terminal are missing")
        self._report.fleet, self._report.terminal = fleet, terminal

    def _step(self, item: Any, at: int) -> bool:
        if not isinstance(item, list) or not item or not isinstance(item[0], str):
            raise EvidenceBroken(at, "not an evidence item")
        match item:
            case ["server-key", bytes(raw)]:
                self._server_key(raw, at)
            case ["record-key", bytes(raw)]:
                self._record_key(raw, at)
            case ["data", bytes(raw)]:
                self._batch(raw, at)
            case ["loss", bytes(raw)]:
                self._loss(raw, at)
            case ["gone", bytes(stream), int(first), int(last), bytes(birth)]:
                self._gone(stream, first, last, birth, at)
            case ["erased", bytes(stream), int(no), bytes(digest), bytes(prev), str()]:
                self._erased(stream, no, digest, prev, at)
            case ["checkpoint", bytes(raw)]:
                self._checkpoint(raw, at)
            case ["aside", bytes(raw)]:
                self._opened(raw, batches.BATCH_CONTEXT, at, or_context=batches.LOSS_CONTEXT)
                self._report.aside += 1
            case ["end", int(count)]:
                if self._stream is not None:
                    raise EvidenceBroken(at, "the last stream has no checkpoint")
                if count != self._report.batches + self._report.losses:
                    raise EvidenceBroken(
                        at, f"the end mark counts {count} batches, the file holds {self._report.batches + self._report.losses}"
                    )
                return True
            case _:
                raise EvidenceBroken(at, f"unknown evidence item {item[0][:20]!r}")
        return False

    def _server_key(self, raw: bytes, at: int) -> None:
        try:
            cert = certs.open_server_key_cert(raw, self._root, self._report.fleet)
        except ProtocolError as err:
            raise EvidenceBroken(self._inside(at, raw), f"server key not certified by this root: {err}") from None
        self._server_keys[cert.kid] = Ed25519PublicKey.from_public_bytes(cert.public_key)

    def _record_key(self, raw: bytes, at: int) -> None:
        try:
            cert = certs.open_record_key_cert(raw, self._root, self._report.fleet, self._report.terminal)
        except ProtocolError as err:
            raise EvidenceBroken(self._inside(at, raw), f"record key not certified by this root: {err}") from None
        self._record_keys[cert.kid] = Ed25519PublicKey.from_public_bytes(cert.public_key)

    def _batch(self, raw: bytes, at: int) -> None:
        opened = self._opened(raw, batches.BATCH_CONTEXT, at)
        try:
            batch = batches.read_batch(opened)
        except ProtocolError as err:
            raise EvidenceBroken(self._inside(at, raw), str(err)) from None
        header = batch.header
        stream = self._follow(
            header.stream, header.no, header.prev, opened.digest, header.parent, self._inside(at, opened.payload)
        )
        if opened.kid in stream.retired:
            raise EvidenceBroken(self._inside(at, raw), f"batch {header.no} is signed by a key after its last record")
        if any(isinstance(item, dict) and item.get("k") == records.KIND_OF[records.Key] for item in batch.records):
            stream.retired.add(opened.kid)
        self._report.batches += 1
        self._report.records += len(batch.records)

    def _loss(self, raw: bytes, at: int) -> None:
        opened = self._opened(raw, batches.LOSS_CONTEXT, at)
        try:
            loss = batches.read_loss(opened)
        except ProtocolError as err:
            raise EvidenceBroken(self._inside(at, raw), str(err)) from None
        self._follow(loss.stream, loss.no, loss.prev, loss.digest, loss.parent, self._inside(at, opened.payload))
        self._report.losses += 1

    def _gone(self, stream: bytes, first: int, last: int, raw: bytes, at: int) -> None:
        opened = self._opened(raw, messages.BIRTH_CONTEXT, at, max_bytes=CONTROL_MAX_BYTES)
        birth = wire.read(opened.payload, messages.Birth)
        span = next((held for held in birth.held if held.stream == stream), None)
        if span is None or span.first != last + 1:
            raise EvidenceBroken(at, f"the birth does not say that numbers {first} to {last} are gone")
        current = self._enter(stream, first, at)
        if current.no != first - 1:
            raise EvidenceBroken(at, f"numbers {current.no + 1} to {first - 1} are missing without a reason")
        current.no, current.digest = last, span.prev
        self._report.gone += last - first + 1

    def _erased(self, stream: bytes, no: int, digest: bytes, prev: bytes, at: int) -> None:
        self._follow(stream, no, prev, digest, None, at).erased_until = no
        self._report.erased += 1

    def _checkpoint(self, raw: bytes, at: int) -> None:
        inside = self._inside(at, raw)
        try:
            envelope = cose.parse(raw, certs.CHECKPOINT_MAX_BYTES)
            key = self._server_keys.get(envelope.kid)
            if key is None:
                raise EvidenceBroken(inside, "the checkpoint is not signed by a certified server key")
            checkpoint = certs.open_checkpoint(raw, key, self._report.fleet, self._report.terminal)
        except ProtocolError as err:
            raise EvidenceBroken(inside, str(err)) from None
        stream = self._stream
        if stream is None or checkpoint.stream != stream.id or (checkpoint.no, checkpoint.digest) != (stream.no, stream.digest):
            raise EvidenceBroken(inside, f"the checkpoint stands at number {checkpoint.no}, the file does not")
        if checkpoint.erased_up_to < stream.erased_until:
            raise EvidenceBroken(inside, f"erased up to {stream.erased_until}, the checkpoint allows {checkpoint.erased_up_to}")
        self._closed[stream.id] = stream
        self._stream = None
        self._report.streams += 1

    def _enter(self, stream: bytes, no: int, at: int) -> _Stream:
        """The stream that item `no` belongs to, opened here if it is a new one."""
        if self._stream is not None and self._stream.id == stream:
            return self._stream
        if self._stream is not None:
            raise EvidenceBroken(at, "a new stream starts before the checkpoint of the last one")
        if stream in self._closed:
            raise EvidenceBroken(at, "a stream appears twice")
        self._stream = _Stream(stream, no - 1, b"")
        return self._stream

    def _follow(self, stream: bytes, no: int, prev: bytes, digest: bytes, parent: batches.Parent | None, at: int) -> _Stream:
        starts = self._stream is None
        current = self._enter(stream, no, at)
        if no != current.no + 1:
            raise EvidenceBroken(at, f"number {current.no + 1} expected, {no} found")
        if not starts and prev != current.digest:
            raise EvidenceBroken(at, f"number {no} does not continue number {current.no}: the previous hash differs")
        if parent is not None and parent.stream in self._closed:
            known = self._closed[parent.stream]
            # Both stories are signed by the terminal itself, so this is a restored or copied disk and nothing that was tampered with.
            self._report.forks += parent.no < known.no or (parent.no == known.no and parent.digest != known.digest)
        current.no, current.digest = no, digest
        return current

    def _opened(
        self, raw: bytes, context: str, at: int, *, or_context: str | None = None, max_bytes: int = ENVELOPE_MAX_BYTES
    ) -> cose.Opened:
        inside = self._inside(at, raw)
        try:
            envelope = cose.parse(raw, max_bytes)
        except cose.EnvelopeError as err:
            raise EvidenceBroken(inside, str(err)) from None
        key = self._record_keys.get(envelope.kid)
        if key is None:
            raise EvidenceBroken(inside, f"signed by key {envelope.kid.hex()}, which has no certificate here")
        for candidate in (context, or_context):
            if candidate is None:
                continue
            try:
                return cose.verify(envelope, key, candidate, self._report.fleet, self._report.terminal)
            except cose.EnvelopeError:
                pass
        raise EvidenceBroken(inside, "the signature does not hold")

    def _inside(self, at: int, part: bytes) -> int:
        """File offset of `part`, which lies somewhere behind item offset `at`."""
        found = self._data.find(part, at) if part else -1
        return at if found < 0 else found


def main(argv: Sequence[str] | None = None) -> int:
    """`verify-evidence FILE --root FILE`: exit code 0 holds, 1 does not hold, 2 cannot be read."""
    parser = argparse.ArgumentParser(prog="fleet-server verify-evidence", description="Check an exported evidence file offline.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="the fleet's root key: 32 raw bytes in base64")
    options = parser.parse_args(argv)
    try:
        root = Ed25519PublicKey.from_public_bytes(base64.b64decode(options.root.read_text("ascii").strip(), validate=True))
        data = options.file.read_bytes()
    except (OSError, ValueError) as err:
        sys.stderr.write(f"cannot read: {err}\n")
        return 2
    try:
        report = verify(data, root)
    except EvidenceBroken as broken:
        sys.stdout.write(f"DOES NOT HOLD from byte {broken.offset} on: {broken}\n")
        return 1
    sys.stdout.write(
        f"holds: {report.batches} batches with {report.records} records of {report.terminal} in {report.streams} streams; "
        f"{report.losses} loss notices, {report.gone} declared gone, {report.erased} erased, {report.aside} set aside, {report.forks} forks\n"
    )
    return 0
