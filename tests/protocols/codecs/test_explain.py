"""The evidence drawer: every key that a codec can produce has words in both languages."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import (
    callpad,
    card_d1801,
    card_f2,
    card_stx,
    ccid,
    escpos,
    ipp,
    megatec,
    modbus,
    nmea,
    pcsc,
    pjl,
    rating,
    scanner,
    sdt,
    star,
    usb_printer,
)
from protocols.codecs.explain import MEANINGS, explain
from tests.protocols.codecs.feeding import h

CODECS = [
    module.CODEC
    for module in (
        callpad,
        card_d1801,
        card_f2,
        card_stx,
        ccid,
        escpos,
        ipp,
        megatec,
        modbus,
        nmea,
        pcsc,
        pjl,
        rating,
        scanner,
        sdt,
        star,
        usb_printer,
    )
]


def test_words() -> None:
    for key, (zh, en) in MEANINGS.items():
        assert key.partition(".")[0] in CODECS
        assert re.search(r"[一-鿿]", zh)
        assert en
        assert not re.search(r"[一-鿿]", en)


def test_every_codec_explains() -> None:
    samples = {
        "escpos": (h("10 04 04"), h("7E")),
        "usb_printer": (b"", b"\x38"),
        "star": (b"", h("23 86 20 00 00 08 00 00 00")),
        "ipp": (b"", h("01 01 00 00 00 00 00 01 04 23 00 0D") + b"printer-state" + h("00 04 00 00 00 05 03")),
        "pjl": (b"", b"@PJL INFO STATUS\r\nCODE=41203\r\nONLINE=FALSE\r\n\x0c"),
        "sdt": (b"", h("AA AA AA 96 69 00 04 00 00 60 64")),
        "ccid": (b"", h("81 00 00 00 00 00 01 41 FB 00")),
        "pcsc": (b"", h("80 10 00 1D")),
        "scanner": (b"", h("02 00 03 01 00 6A 61")),
        "callpad": (b"", h("FF 68 03 03 68 01 01 12 14 16")),
        "modbus": (b"", h("01 84 02 C2 C1")),
        "rating": (h("aa 01 f0 f0 55"), h("aa 01 f1 f1 55")),
        "card_f2": (b"", h("F2 00 00 05 4E 32 30 31 30 03 B9")),
        "card_stx": (b"", h("02 00 05 31 30 4E 49 4A 03 48")),
        "card_d1801": (h("02 52 46 03 15"), h("02 53 46 30 32 30 03 26")),
        "megatec": (b"Q1\r", b"(226.0 195.0 226.0 014 50.0 27.5 30.0 00001000\r"),
        "nmea": (b"", b"$GPRMC,,V,,,,,,,,,,N*53\r\n"),
    }
    assert set(samples) == set(CODECS)
    for codec, (query, reply) in samples.items():
        assert explain(codec, query, reply), codec


def test_the_consoles_example() -> None:
    (end, near) = explain("escpos", h("10 04 04"), h("7E"))
    assert (end.mask, MEANINGS[end.key][0]) == (0x60, "缺纸")
    assert near.mask == 0x0C


def test_every_status_byte_is_worded() -> None:
    for byte in range(256):
        replies = {
            "escpos": [(h("10 04 01"), bytes((byte,))), (h("10 04 02"), bytes((byte,))), (h("10 04 03"), bytes((byte,)))],
            "usb_printer": [(b"", bytes((byte,)))],
            "sdt": [(b"", h("AA AA 96 69 00 04 00 00") + bytes((byte, 0)))],
            "ccid": [(b"", h("81 00 00 00 00 00 01") + bytes((status, byte, 0))) for status in (0, 1, 2, 3, 0x40, 0x80, 0xC0)],
            "pcsc": [(b"", h("80 10 00") + bytes((byte,))), (b"", h("00 01") + bytes((byte & 3, byte)))],
            "modbus": [(b"", _closed(bytes((1, 0x84, byte))))],
            "scanner": [(b"", bytes((2, 0, byte, 1, 0, 0, 0)))],
        }
        for codec, pairs in replies.items():
            for query, reply in pairs:
                for hit in explain(codec, query, reply):
                    assert hit.key in MEANINGS, hit.key
    for code in range(10000, 60000, 1):
        assert pjl.meaning_of(code)[0] in MEANINGS


def test_an_unknown_codec_says_nothing() -> None:
    assert explain("card", b"", b"\x00") == ()


@given(st.sampled_from([*CODECS, "nope"]), st.binary(max_size=40), st.binary(max_size=200))
def test_stored_bytes_of_any_kind_are_taken(codec: str, query: bytes, reply: bytes) -> None:
    for hit in explain(codec, query, reply):
        assert 0 <= hit.offset
        assert hit.offset + hit.length <= len(reply)
        assert hit.key in MEANINGS


def _closed(body: bytes) -> bytes:
    return body + modbus.crc16(body).to_bytes(2, "little")
