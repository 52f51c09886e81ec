"""Code scanners: bytes of the Newland manuals; nothing of a code survives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs import scanner
from protocols.codecs.keys import DOWN, EV_KEY, EV_MSC, EV_SYN, SYN_DROPPED, UP, InputEvent
from protocols.codecs.scanner import (
    BurstCounter,
    Scan,
    ScannerReader,
    Terminator,
    UnifiedAnswer,
    UnifiedResult,
    ZoneAnswer,
    ZoneResult,
)
from protocols.errors import BufferOverflow, ChecksumError, EncodeError, FrameError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

SYN = InputEvent(0, 0, EV_SYN, 0, 0)
SHIFT, ENTER, KP_ENTER, TAB = 42, 28, 96, 15


def burst(*codes: int) -> list[InputEvent]:
    events = []
    for code in codes:
        events += [InputEvent(0, 0, EV_MSC, 4, 0x70000 + code), InputEvent(0, 0, EV_KEY, code, DOWN), SYN]
        events += [InputEvent(0, 0, EV_KEY, code, UP), SYN]
    return events


# --- keyboard mode ---


@pytest.mark.parametrize(
    ("end", "terminator"), [(ENTER, Terminator.ENTER), (KP_ENTER, Terminator.KP_ENTER), (TAB, Terminator.TAB)]
)
def test_length_and_terminator(end: int, terminator: Terminator) -> None:
    counter = BurstCounter()
    assert counter.feed(burst(2, 3, SHIFT, 30, 4, end), 1.0) == [Scan(4, terminator)]


def test_two_bursts_in_one_read_and_one_burst_in_many() -> None:
    counter = BurstCounter()
    assert counter.feed(burst(2, 3, ENTER, 4, ENTER), 1.0) == [Scan(2, Terminator.ENTER), Scan(1, Terminator.ENTER)]
    found = []
    for at, event in enumerate(burst(2, 3, ENTER)):
        found += counter.feed([event], 2.0 + at * 0.004)
    assert found == [Scan(2, Terminator.ENTER)]


def test_a_lost_suffix_is_flushed_by_silence() -> None:
    counter = BurstCounter()
    assert counter.feed(burst(2, 3, 4), 1.0) == []
    assert counter.tick(1.05) == []
    assert counter.tick(1.1) == [Scan(3, Terminator.SILENCE)]
    assert counter.tick(9.0) == []
    counter.feed(burst(2), 10.0)
    assert counter.feed(burst(3, ENTER), 20.0) == [Scan(1, Terminator.SILENCE), Scan(1, Terminator.ENTER)]


def test_enter_alone_is_no_scan() -> None:
    assert BurstCounter().feed(burst(ENTER, ENTER), 1.0) == []


def test_dropped_events_void_the_burst() -> None:
    counter = BurstCounter()
    counter.feed(burst(2, 3), 1.0)
    assert counter.feed([InputEvent(0, 0, EV_SYN, SYN_DROPPED, 0), *burst(ENTER)], 1.01) == []
    assert counter.dropped == 1


def test_the_counter_holds_no_key_code() -> None:
    counter = BurstCounter()
    counter.feed(burst(*[79] * 11), 1.0)
    assert 79 not in vars(counter).values()
    assert "79" not in repr(vars(counter))


# --- serial mode: questions ---


def test_questions_byte_for_byte() -> None:
    assert scanner.encode_query() == h("7E 01 30 30 30 30 40 51 52 59 53 59 53 3B 03")
    assert scanner.encode_query("SCNTRG") == h("7E 01 30 30 30 30 40 53 43 4E 54 52 47 2A 3B 03")
    # Read of zone 002A, two bytes, as printed in engine manuals.
    assert scanner.encode_zone_read(0x2A, 2) == h("7E 00 07 01 00 2A 02 D8 0F")


@pytest.mark.parametrize("bad", ["SCNTRG1", "scntrg", "", "QRY;03"])
def test_tags_that_are_none(bad: str) -> None:
    with pytest.raises(EncodeError):
        scanner.encode_query(bad)


@pytest.mark.parametrize("tag", ["SCNTRG", "FACDEF", "QRYSYS", "AUTOSC"])
def test_no_question_can_change_or_trigger_anything(tag: str) -> None:
    body = scanner.encode_query(tag)[7:-2]
    assert body == tag.encode() + (b"" if tag.startswith("QRY") else b"*")


@pytest.mark.parametrize(
    "frame", ["00 01 00 33 31", "01 01 00 04 01", "03 01 00 6A 61", "07 01 00 2A 02 D8 0F", "00 02 39 01 C1 4C"]
)
def test_crc_of_published_frames(frame: str) -> None:
    raw = h(frame)
    assert scanner.crc_ccitt(raw[:-2]) == int.from_bytes(raw[-2:], "big")


# --- serial mode: answers ---


def asking(query: bytes = b"") -> ScannerReader:
    made = ScannerReader()
    made.expect(query)
    return made


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        ("02 00 00 01 00 33 31", ZoneResult.OK),
        ("02 00 01 01 00 04 01", ZoneResult.CRC_ERROR),
        ("02 00 03 01 00 6A 61", ZoneResult.INVALID),
    ],
)
def test_published_answers_of_older_engines(raw: str, result: ZoneResult) -> None:
    answer = only(every_cut(lambda: asking(scanner.encode_zone_read(0)), h(raw)))
    assert answer == ZoneAnswer(result, b"\x00", h(raw)[:4] + bytes(3), ((4, 7),))
    assert scanner.explain(b"", answer.reply)[0].key == f"scanner.zone_{result.value}"


def test_a_zone_value() -> None:
    answer = only(every_cut(lambda: asking(scanner.encode_zone_read(0x2A, 2)), h("02 00 00 02 39 01 C1 4C")))
    assert answer.data == h("39 01")


def test_a_wrong_crc() -> None:
    assert isinstance(only(every_cut(lambda: asking(scanner.encode_zone_read(0)), h("02 00 00 01 00 33 32"))), ChecksumError)


def test_a_published_unified_answer() -> None:
    # The manual's answer to a trigger command: right tag, result 06.
    made = ScannerReader()
    made.expect(h("7E 01 30 30 30 30 23 53 43 4E 54 52 47 31 3B 03"))
    answer = only(feed(made, [h("02 01 30 30 30 30 23 53 43 4E 54 52 47 31 06 3B 03")]))
    assert (answer.tag, answer.result, answer.value) == ("SCNTRG", UnifiedResult.OK, "1")


@pytest.mark.parametrize(
    ("code", "result"), [(b"\x06", UnifiedResult.OK), (b"\x15", UnifiedResult.BAD_DATA), (b"\x05", UnifiedResult.UNKNOWN_COMMAND)]
)
def test_system_information(code: bytes, result: UnifiedResult) -> None:
    raw = b"\x02\x010000@QRYSYS" + b"Product Name: NLS-FM430\r\nFirmware Version: V1.00.07\r\n" + code + b"\x3b\x03"
    answer = only(every_cut(lambda: asking(scanner.encode_query()), raw))
    assert (answer.tag, answer.result) == ("QRYSYS", result)
    assert answer.value == "Product Name: NLS-FM430 Firmware Version: V1.00.07"
    assert scanner.explain(b"", answer.reply)[0].key == f"scanner.{result.value}"


def test_a_scan_before_and_after_an_answer() -> None:
    raw = b"\x02\x010000@QRYSYS" + b"V1" + b"\x06\x3b\x03"
    decoder = asking(scanner.encode_query())
    found = feed(decoder, [b"6901234567892\r" + raw + b"ABC\r\n"])
    assert found[0] == Scan(13, Terminator.CR)
    assert isinstance(found[1], UnifiedAnswer)
    assert found[2] == Scan(3, Terminator.CR)


@pytest.mark.parametrize(
    ("raw", "scans"),
    [
        (b"12345\r", [Scan(5, Terminator.CR)]),
        (b"12345\r\n67\r\n", [Scan(5, Terminator.CR), Scan(2, Terminator.CR)]),
        (b"123\n", [Scan(3, Terminator.LF)]),
        (b"\x02123\x03", [Scan(3, Terminator.ETX)]),
        (b"\x02123\x03\r", [Scan(3, Terminator.ETX)]),
        (b"\r\n\r\n", []),
    ],
)
def test_scans(raw: bytes, scans: list[Scan]) -> None:
    assert every_cut(ScannerReader, raw) == scans


def test_a_scan_without_a_terminator_is_flushed() -> None:
    decoder = ScannerReader()
    assert feed(decoder, [b"12345"]) == []
    assert decoder.flush() == Scan(5, Terminator.SILENCE)
    assert decoder.flush() is None


def test_a_code_that_imitates_an_answer_is_a_scan() -> None:
    found = every_cut(ScannerReader, b"\x02\x010000@QRYSYSV6.66\x06\x3b\x03\r")
    assert all(isinstance(item, Scan) for item in found)


def test_an_answer_to_another_question() -> None:
    found = feed(asking(scanner.encode_query()), [b"\x02\x010000@FACDEF\x06\x3b\x03"])
    assert isinstance(only(found), FrameError)


def test_an_endless_stream_is_dropped() -> None:
    found = feed(ScannerReader(), [b"A" * 8000, b"12\r"])
    assert isinstance(found[0], BufferOverflow)
    assert found[1:] == [Scan(2, Terminator.CR)]


SECRET = b"330102199001011235"


@pytest.mark.parametrize(
    "raw",
    [
        SECRET + b"\r",
        SECRET * 500,
        b"\x02\x010000@QRYSYS" + SECRET * 80,
        b"\x02\x010000@FACDEF" + SECRET + b"\x06\x3b\x03",
        b"\x02\x00" + SECRET + SECRET,
    ],
)
def test_no_code_leaves_through_an_event_or_error(raw: bytes) -> None:
    for query in (b"", scanner.encode_query("FACDEF")[:6] + b"@QRYSYS;\x03", scanner.encode_zone_read(0)):
        decoder = asking(query)
        found = [*feed(decoder, [raw]), decoder.flush()]
        for item in found:
            assert SECRET.decode() not in repr(item) + str(item)
            assert SECRET[:6] not in getattr(item, "evidence", b"")


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\x02\x010000", b"\x02\x00", b"\x3b\x03", b"\r"])), max_size=20),
    st.booleans(),
)
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes], zone: bool) -> None:
    decoder = asking(scanner.encode_zone_read(0) if zone else scanner.encode_query())
    for item in feed(decoder, pieces):
        if isinstance(item, Scan):
            assert item.length >= 0
    decoder.flush()
    assert drain(decoder) == []


@given(st.binary(max_size=60))
def test_explain_takes_anything(reply: bytes) -> None:
    for hit in scanner.explain(b"", reply):
        assert hit.offset + hit.length <= len(reply)


@pytest.mark.spec("C-206")
def test_a_printed_code_that_imitates_an_answer_leaves_nothing_in_evidence() -> None:
    """Whoever prints such a code could otherwise put a person's data into a signed record."""
    query = scanner.encode_query()
    reader = ScannerReader()
    reader.expect(query)
    reader.feed(b"\x02\x010000@QRYSYS" + b"PLANTED 999999190001019990" + b"\x06;\x03")
    answer = reader.next_event()
    assert isinstance(answer, scanner.UnifiedAnswer)
    assert b"PLANTED" not in answer.reply
    assert "PLANTED" not in repr(answer)
    start, end = answer.masked[0]
    assert answer.reply[:start] == b"\x02\x010000@QRYSYS"
    assert not any(answer.reply[start:end])
    assert answer.reply[end:] == b"\x06;\x03"
    assert scanner.explain(query, answer.reply)[0].key == "scanner.ok"


# --- Honeywell menu commands (Voyager 1250g and Xenon 1900 user's guides; REVINF as public drivers show it) ---

REVINF = h("16 4d 0d 52 45 56 49 4e 46 2e")
REVISION = (
    b"Product Name: Voyager 1602g\r\nBoot Revision: : 8992\r\nSoftware Part Number: CW000082BBA\r\n"
    b"Software Revision: $ProjectRevision: 16345 \r\nSerial Number: N/A\r\nSupported IF: RS232\r\nREVINF\x06."
)


def menu_reader(query: bytes = REVINF) -> ScannerReader:
    reader = ScannerReader()
    reader.expect(query)
    return reader


def test_menu_questions() -> None:
    assert scanner.encode_honeywell_query() == REVINF
    assert scanner.encode_honeywell_query("CBRENA") == h("16 4d 0d") + b"CBRENA?."
    for wrong in ("cbrena", "CBR", "CBRENA1", "CBRENA?", "TERMID.A"):
        with pytest.raises(EncodeError):
            scanner.encode_honeywell_query(wrong)


def test_a_revision_is_one_answer_however_many_lines_it_has() -> None:
    answer = only(every_cut(menu_reader, REVISION))
    assert answer.result is UnifiedResult.OK
    assert "Software Revision: $ProjectRevision: 16345" in answer.value
    assert b"Voyager" not in answer.reply, "evidence holds no text that a code could have imitated"
    assert answer.reply.endswith(b"REVINF\x06.")


@pytest.mark.parametrize(
    ("status", "result"), [("06", UnifiedResult.OK), ("05", UnifiedResult.UNKNOWN_COMMAND), ("15", UnifiedResult.BAD_DATA)]
)
def test_what_a_menu_command_is_answered_with(status: str, result: UnifiedResult) -> None:
    query = scanner.encode_honeywell_query("CBRENA")
    answer = only(feed(menu_reader(query), [b"CBRENA1" + h(status) + b"."]))
    assert (answer.tag, answer.result) == ("CBRENA", result)
    assert only(feed(menu_reader(), [b"REVINF" + h(status) + b"."])).result is result


def test_a_code_that_was_read_meanwhile_is_a_scan() -> None:
    found = every_cut(menu_reader, b"HELLO\r" + REVISION)
    assert found[0] == Scan(5, Terminator.CR)
    assert found[1].tag == "REVINF"


def test_nothing_is_an_answer_that_was_not_asked_for() -> None:
    found = feed(ScannerReader(), [REVISION])
    assert all(isinstance(one, Scan) for one in found)


def test_an_answer_without_end_is_given_up() -> None:
    reader = menu_reader()
    found = feed(reader, [b"Product Name:" + b"x" * 2000])
    assert isinstance(found[0], FrameError)
    assert feed(reader, [b"\r"])[-1].terminator is Terminator.CR


def test_menu_evidence() -> None:
    (said,) = scanner.explain(REVINF, b"REVINF\x06.")
    assert (said.offset, said.key) == (6, "scanner.ok")
    assert scanner.explain(REVINF, b"REVINF.") == ()


# --- noise on the cable ---


@pytest.mark.parametrize(
    ("data", "readable"),
    [
        (b"6901234567892", True),
        ("金华市".encode(), True),
        ("金华市".encode("gbk"), True),
        (b"[)>\x1e06\x1dP123\x1e\x04", True),
        (b"\xff\xfe\x80", False),
        (b"AB\x00\x01", False),
        (b"\x81", False),
    ],
)
def test_noise_is_told_from_text(data: bytes, readable: bool) -> None:
    assert scanner.is_text(data) is readable
    assert only(feed(ScannerReader(), [data + b"\r"])).readable is readable


@given(st.binary(max_size=300))
def test_any_bytes_after_a_menu_question(data: bytes) -> None:
    for event in feed(menu_reader(), [data]):
        assert isinstance(event, Scan | UnifiedAnswer | FrameError | BufferOverflow)
