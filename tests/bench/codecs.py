"""Rows: answers per second through the codecs when a tenth of the bytes is noise, beside the same without noise."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocols.codecs import callpad, escpos, modbus, pjl, sdt
from protocols.codecs.common import StreamDecoder
from protocols.errors import ProtocolError
from tests.bench.table import Budget, Row

MEASURE_S = 0.4
CHUNK_BYTES = 64
"""What a read of a serial line usually brings."""
NOISE_SHARE = 0.1
REPLIES = 500
CLIMATE = modbus.ReadRequest(1, 4, 1, 2)


@dataclass(frozen=True)
class Subject:
    """A codec, a decoder that waits for answers, an answer, and the line's usual speed in bits per second (10 bits carry a byte)."""

    name: str
    make: Callable[[], StreamDecoder[Any]]
    answer: bytes
    baud: int


def _sdt() -> StreamDecoder[Any]:
    decoder = sdt.SdtReader()
    decoder.expect(sdt.Command.STATUS)
    return decoder


def _with_crc(body: bytes) -> bytes:
    return body + modbus.crc16(body).to_bytes(2, "little")


SUBJECTS = (
    Subject("ESC/POS automatic status", escpos.EscPosReader, bytes.fromhex("14000c0f"), 115_200),
    Subject("SDT status", _sdt, bytes.fromhex("aaaaaa96690004000090 94".replace(" ", "")), 115_200),
    Subject("call pad key", callpad.CallPadReader, callpad.encode_frame(1, 1, b"\x12"), 9_600),
    Subject("Modbus registers", lambda: modbus.ReplyReader(CLIMATE), _with_crc(bytes.fromhex("01040400e601f4")), 9_600),
    Subject("PJL status", pjl.PjlReader, b'@PJL INFO STATUS\r\nCODE=10001\r\nDISPLAY="READY"\r\nONLINE=TRUE\r\n\f', 115_200),
)


def rows() -> list[Row]:
    return [_row(subject) for subject in SUBJECTS]


def _row(subject: Subject) -> Row:
    rng = random.Random(subject.name)
    clean = subject.answer * REPLIES
    spoiled = b"".join(subject.answer + _noise(rng, len(subject.answer)) for _ in range(REPLIES))
    clean_per_s, whole = _speed(subject, clean)
    noisy_per_s, found = _speed(subject, spoiled)
    if whole != REPLIES:
        raise RuntimeError(f"{subject.name}: {whole} of {REPLIES} clean answers were read")
    line_per_s = subject.baud / 10 / len(subject.answer)
    return Row(
        what=f"Codec: {subject.name}",
        ours=noisy_per_s,
        unit="answers/s",
        beside="the same without noise",
        peer=clean_per_s,
        budgets=(Budget(rule="at_least", limit=10 * line_per_s, of="figure", unit="answers/s"),),
        notes=(
            f"{noisy_per_s / line_per_s:,.0f} times what a line of {subject.baud:,} baud can bring.",
            f"{found} events came out where {REPLIES} answers lay in a stream of which {NOISE_SHARE:.0%} was noise.",
        ),
    )


def _noise(rng: random.Random, size: int) -> bytes:
    """So many random bytes that on average NOISE_SHARE of the stream is noise."""
    wanted = size * NOISE_SHARE / (1 - NOISE_SHARE)
    return rng.randbytes(int(wanted) + (rng.random() < wanted % 1))


def _speed(subject: Subject, stream: bytes) -> tuple[float, int]:
    """(sent answers per second, answers read in one pass)."""
    chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    passes = found = 0
    started = time.perf_counter()
    while (took_s := time.perf_counter() - started) < MEASURE_S:
        found = _read(subject.make(), chunks)
        passes += 1
    return passes * REPLIES / took_s, found


def _read(decoder: StreamDecoder[Any], chunks: list[bytes]) -> int:
    found = 0
    for chunk in chunks:
        decoder.feed(chunk)
        while True:
            try:
                if decoder.next_event() is None:
                    break
            except ProtocolError:
                continue
            found += 1
    return found
