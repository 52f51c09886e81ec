"""Rows: answers per second through the codecs when a tenth of the bytes is noise, beside the same without noise."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocols.codecs import (
    callpad,
    card_d1801,
    card_f2,
    card_stx,
    ccid,
    escpos,
    megatec,
    modbus,
    nmea,
    pjl,
    rating,
    scanner,
    sdt,
    star,
)
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


def _with_xor(body: bytes) -> bytes:
    check = 0
    for byte in body:
        check ^= byte
    return body + bytes((check,))


def _sentence(body: bytes) -> bytes:
    return b"$" + body + b"*%02X\r\n" % _with_xor(body)[-1]


def _ccid() -> StreamDecoder[Any]:
    decoder = ccid.CcidReader()
    decoder.expect(0, 1)
    return decoder


SUBJECTS = (
    Subject("ESC/POS automatic status", escpos.EscPosReader, bytes.fromhex("14000c0f"), 115_200),
    Subject("SDT status", _sdt, bytes.fromhex("aaaaaa96690004000090 94".replace(" ", "")), 115_200),
    Subject("call pad key", callpad.CallPadReader, callpad.encode_frame(1, 1, b"\x12"), 9_600),
    Subject("Modbus registers", lambda: modbus.ReplyReader(CLIMATE), _with_crc(bytes.fromhex("01040400e601f4")), 9_600),
    Subject("PJL status", pjl.PjlReader, b'@PJL INFO STATUS\r\nCODE=10001\r\nDISPLAY="READY"\r\nONLINE=TRUE\r\n\f', 115_200),
    Subject("Star automatic status", star.StarReader, bytes.fromhex("230600000000000000"), 9_600),
    Subject("F2 card unit status", card_f2.F2Reader, _with_xor(bytes.fromhex("f200000650313030323003")), 115_200),
    Subject("older card reader status", card_stx.StxReader, _with_xor(bytes.fromhex("0200043130404003")), 9_600),
    Subject("D1801 board state", card_d1801.D1801Reader, _with_xor(b"\x02SF000\x03"), 9_600),
    Subject("CCID slot status (on USB)", _ccid, bytes.fromhex("81000000000001020000"), 115_200),
    Subject("UPS status", megatec.MegatecReader, b"(226.1 195.0 226.1 014 49.0 27.5 30.0 00001000\r", 2_400),
    Subject(
        "position sentence",
        nmea.NmeaReader,
        _sentence(b"GNRMC,081836.00,A,3141.40000,N,11322.96200,E,0.0,,130926,,,A"),
        9_600,
    ),
    Subject("rating", lambda: rating.RatingReader(rating.RatingRules(framing="frame")), b"\xaa\x01\x55", 9_600),
    Subject("scanned code", scanner.ScannerReader, b"6901234567892\r\n", 9_600),
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
