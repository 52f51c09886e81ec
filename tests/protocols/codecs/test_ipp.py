"""IPP answers: bytes built after RFC 8010, words of RFC 8011; and what a hostile one may do."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.canon.words import CoverState, DeviceState, PaperState, TonerState
from protocols.codecs import ipp
from protocols.errors import EncodeError, FrameError, ProtocolError

URI = "ipp://127.0.0.1:60000/ipp/print"


def value(tag: int, name: str, data: bytes) -> bytes:
    return bytes((tag,)) + struct.pack(">H", len(name)) + name.encode() + struct.pack(">H", len(data)) + data


def keywords(name: str, *words: str) -> bytes:
    return b"".join(value(0x44, "" if at else name, word.encode()) for at, word in enumerate(words))


def integers(name: str, *numbers: int, tag: int = 0x21) -> bytes:
    return b"".join(value(tag, "" if at else name, struct.pack(">i", number)) for at, number in enumerate(numbers))


def answer(*attributes: bytes, state: int = 3, request: int = 1, status: int = 0) -> bytes:
    head = b"\x01\x01" + struct.pack(">HI", status, request) + b"\x01" + value(0x47, "attributes-charset", b"utf-8")
    return head + b"\x04" + integers("printer-state", state, tag=0x23) + b"".join(attributes) + b"\x03"


def test_the_question_asks_for_a_few_attributes_of_the_printer() -> None:
    query = ipp.encode_status_query(URI, 7)
    assert query[:9] == bytes.fromhex("0101 000b 00000007 01")
    assert query[-1] == 3
    assert value(0x45, "printer-uri", URI.encode()) in query
    assert keywords("requested-attributes", "printer-state", "printer-state-reasons") in query
    assert b"job" not in query
    assert len(query) <= 512
    for uri in ("http://127.0.0.1/", "ipp://a b/"):
        with pytest.raises(EncodeError):
            ipp.encode_status_query(uri, 1)


@pytest.mark.parametrize(
    ("uri", "host", "port", "path", "loopback"),
    [
        (URI, "127.0.0.1", 60000, "/ipp/print", True),
        ("ipp://localhost:60001/ipp/print", "127.0.0.1", 60001, "/ipp/print", True),
        ("ipp://[::1]:60000/ipp/print", "::1", 60000, "/ipp/print", True),
        ("ipp://192.0.2.7/ipp/print", "192.0.2.7", 631, "/ipp/print", False),
        ("ipp://192.0.2.7", "192.0.2.7", 631, "/", False),
    ],
)
def test_addresses(uri: str, host: str, port: int, path: str, loopback: bool) -> None:
    found = ipp.address_of(uri)
    assert (found.host, found.port, found.path, found.is_loopback) == (host, port, path, loopback)


@pytest.mark.parametrize(
    "uri",
    [
        "ipp://printer.example/ipp/print", "ipp://user:pw@127.0.0.1/", "ipp://127.0.0.1:99999/", "ipps://127.0.0.1/", "http://127.0.0.1/",
        "ipp://127.0.0.1/a?b=c", "ipp://127.0.0.1/a b", "ipp:///ipp/print", "ipp://127.0.0.1:60000/\r\nX: y",
    ],
)  # fmt: skip
def test_what_is_no_address(uri: str) -> None:
    with pytest.raises(EncodeError):
        ipp.address_of(uri)


@pytest.mark.parametrize(
    ("state", "reasons", "device", "paper", "toner", "cover", "conditions"),
    [
        (3, ["none"], "online", "full", "unknown", "closed", ()),
        (4, ["none"], "deviceBusy", "full", "unknown", "closed", ()),
        (3, ["media-jam-error"], "hardwareError", "jammed", "unknown", "closed", ("JAM",)),
        (5, ["media-empty-error", "media-needed"], "online", "out", "unknown", "closed", ("PAPER_OUT",)),
        (3, ["media-empty-warning"], "online", "low", "unknown", "closed", ("PAPER_NEAR_END",)),
        (3, ["media-empty-report"], "online", "full", "unknown", "closed", ()),
        (5, ["cover-open"], "userError", "full", "unknown", "open", ("COVER_OPEN",)),
        (5, ["interlock-open-error", "door-open-error"], "userError", "full", "unknown", "open", ("COVER_OPEN",)),
        (3, ["toner-low-warning"], "online", "full", "low", "closed", ("TONER_LOW",)),
        (5, ["toner-empty-error", "toner-low"], "hardwareError", "full", "out", "closed", ("TONER_EMPTY",)),
        (5, ["output-area-full-error"], "online", "full", "unknown", "closed", ("OUTPUT_NOT_TAKEN",)),
        (5, ["fuser-over-temp-error"], "hardwareError", "full", "unknown", "closed", ("HARDWARE",)),
        (5, ["shutdown"], "offline", "full", "unknown", "closed", ("OFFLINE",)),
        (5, ["paused"], "offline", "full", "unknown", "closed", ("OFFLINE",)),
        (5, ["none"], "hardwareError", "full", "unknown", "closed", ("PRINT_ERROR",)),
        (5, ["acme-flux-capacitor-error"], "hardwareError", "full", "unknown", "closed", ("PRINT_ERROR",)),
        (3, ["other-warning", "opc-near-eol-warning"], "online", "full", "unknown", "closed", ()),
    ],
)
def test_states_and_reasons(
    state: int, reasons: list[str], device: str, paper: str, toner: str, cover: str, conditions: tuple[str, ...]
) -> None:
    reading = ipp.reading_of(ipp.decode_status(answer(keywords("printer-state-reasons", *reasons), state=state), 1))
    assert reading.device == DeviceState(device)
    assert (reading.paper, reading.toner, reading.cover) == (PaperState(paper), TonerState(toner), CoverState(cover))
    assert reading.conditions == conditions


@pytest.mark.parametrize(
    ("types", "levels", "lows", "toner"),
    [
        (["toner-cartridge"], [80], [10], "full"),
        (["toner-cartridge"], [10], [10], "low"),
        (["toner-cartridge", "waste-toner"], [50, 0], [10, 5], "full"),
        (["toner-cartridge"], [-2], [10], "unknown"),
        (["toner-cartridge"], [-3], [10], "unknown"),
        (["toner-cartridge"], [5], [], "full"),
        (["toner-cartridge", "toner"], [5], [10], "unknown"),
    ],
)
def test_toner_levels(types: list[str], levels: list[int], lows: list[int], toner: str) -> None:
    attributes = [keywords("marker-types", *types), integers("marker-levels", *levels), integers("marker-low-levels", *lows)]
    assert ipp.reading_of(ipp.decode_status(answer(*attributes))).toner == TonerState(toner)


def test_counters_and_firmware() -> None:
    status = ipp.decode_status(
        answer(integers("printer-impressions-completed", 4321), value(0x41, "printer-firmware-string-version", b"2409.1"))
    )
    assert (status.impressions, status.firmware) == (4321, "2409.1")


def test_evidence_holds_the_deciding_attributes_and_no_word_of_a_maker() -> None:
    planted = "PLANTED-zhang-san-report"
    whole = answer(
        value(0x41, "printer-state-message", b"PLANTED message"),
        keywords("printer-state-reasons", "media-jam-error", planted),
        state=5,
    )
    status = ipp.decode_status(whole)
    assert status.strange_reasons == 1
    assert b"PLANTED" not in status.reply
    assert "PLANTED" not in repr(status)
    ((start, end),) = status.masked
    assert status.reply[start:end] == bytes(len(planted))
    keys = {status.reply[hit.offset : hit.offset + hit.length]: hit.key for hit in ipp.explain(b"", status.reply)}
    assert keys == {b"\x05": "ipp.stopped", b"media-jam-error": "ipp.jam"}
    assert len(ipp.decode_status(answer(keywords("printer-state-reasons", *["media-jam-error"] * 64))).reply) <= 512


@pytest.mark.parametrize(
    "spoiled",
    [
        b"", b"\x01\x01", b"HTTP/1.1 200 OK\r\n", answer()[:-1], answer(status=0x0501), answer(request=2), answer(state=9),
        b"\x01\x01\0\0\0\0\0\x01\x03", b"\x01\x01\0\0\0\0\0\x01\x04\x44\xff\xffa", b"\x01\x01\0\0\0\0\0\x01\x04\x44\x00\x01a\xff\xff",
        answer(integers("printer-state", 5, tag=0x23)), b"\x01" * (ipp.ANSWER_MAX_BYTES + 1), answer() + bytes(ipp.ANSWER_MAX_BYTES),
    ],
    ids=[
        "empty", "short", "text", "no-end", "refused", "another-question", "no-state", "nothing", "name-too-long", "value-too-long",
        "two-states", "huge", "huge-after-the-end",
    ],
)  # fmt: skip
def test_what_is_no_sound_answer(spoiled: bytes) -> None:
    with pytest.raises(FrameError):
        ipp.decode_status(spoiled, 1)


def test_collections_are_stepped_over() -> None:
    inner = (
        value(0x34, "media-col", b"")
        + value(0x4A, "", b"printer-state")
        + value(0x23, "", struct.pack(">i", 5))
        + value(0x37, "", b"")
    )
    assert ipp.decode_status(answer(inner)).state == 3


def test_a_length_with_its_high_bit_set_is_a_long_value_and_no_way_back() -> None:
    """Readers that take lengths as signed go back and never end."""
    with pytest.raises(FrameError):
        ipp.decode_status(b"\x01\x01\0\0\0\0\0\x01\x04\x44\x00\x01a\xff\xfb" + bytes(200) + b"\x03")


@settings(deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_end_in_a_status_or_an_error(data: bytes) -> None:
    for raw in (data, b"\x01\x01\x00\x00\x00\x00\x00\x01" + data):
        with suppress(ProtocolError):
            ipp.reading_of(ipp.decode_status(raw))


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_any_changed_byte_ends_in_a_status_or_an_error(at: int, byte: int) -> None:
    whole = bytearray(answer(keywords("printer-state-reasons", "media-low-warning", "door-open"), integers("marker-levels", 5)))
    whole[at % len(whole)] = byte
    try:
        status = ipp.decode_status(bytes(whole))
    except ProtocolError:
        return
    ipp.reading_of(status)
    assert len(status.reply) <= 512
