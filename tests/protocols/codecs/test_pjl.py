"""PJL: queries and answers of the HP manual; nothing of a job's text survives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.canon.words import CoverState, DeviceState, PaperState, TonerState
from protocols.codecs import pjl
from protocols.codecs.pjl import Echo, Ignored, Info, Model, PageCount, PjlReader, Status
from protocols.errors import EncodeError, FrameError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

READY = b'@PJL INFO STATUS\r\nCODE=10001\r\nDISPLAY="00 READY"\r\nONLINE=TRUE\r\n\x0c'


def answer(code: int, online: str = "TRUE", display: str = "X") -> bytes:
    return f'@PJL INFO STATUS\r\nCODE={code}\r\nDISPLAY="{display}"\r\nONLINE={online}\r\n\x0c'.encode()


def test_the_status_question_byte_for_byte() -> None:
    assert pjl.encode_info(Info.STATUS) == h(
        "1B 25 2D 31 32 33 34 35 58 40 50 4A 4C 20 0D 0A 40 50 4A 4C 20 49 4E 46 4F 20 53 54 41 54 55 53 0D 0A 1B 25 2D 31 32 33 34 35 58"
    )


def test_other_questions() -> None:
    uel = b"\x1b%-12345X"
    assert pjl.encode_info(Info.PAGECOUNT) == uel + b"@PJL \r\n@PJL INFO PAGECOUNT\r\n" + uel
    assert pjl.encode_echo("kf-17") == uel + b"@PJL \r\n@PJL ECHO kf-17\r\n" + uel
    assert pjl.encode_unsolicited(on=True, timed_s=30) == (
        uel + b"@PJL \r\n@PJL USTATUS DEVICE=VERBOSE\r\n@PJL USTATUS TIMED=30\r\n" + uel
    )
    assert pjl.encode_unsolicited(on=False) == uel + b"@PJL \r\n@PJL USTATUSOFF\r\n" + uel
    with pytest.raises(EncodeError):
        pjl.encode_echo("a b")
    with pytest.raises(EncodeError):
        pjl.encode_unsolicited(on=True, timed_s=4)


def test_ready() -> None:
    status = only(every_cut(PjlReader, READY))
    assert isinstance(status, Status)
    assert (status.code, status.online, status.pushed) == (10001, True, False)
    reading = pjl.reading_of(status)
    assert (reading.device, reading.paper, reading.toner, reading.cover, reading.conditions) == (
        DeviceState.ONLINE,
        PaperState.FULL,
        TonerState.FULL,
        CoverState.CLOSED,
        (),
    )


@pytest.mark.parametrize(
    ("code", "device", "conditions"),
    [
        (10001, DeviceState.ONLINE, ()),
        (10003, DeviceState.STARTING, ()),
        (10006, DeviceState.ONLINE, ("TONER_LOW",)),
        (10023, DeviceState.BUSY, ()),
        (11304, DeviceState.ONLINE, ("PAPER_NEAR_END",)),
        (20001, DeviceState.ONLINE, ()),
        (30016, DeviceState.ONLINE, ()),
        (35001, DeviceState.ONLINE, ()),
        (35078, DeviceState.ONLINE, ()),
        (40000, DeviceState.ONLINE, ()),
        (40010, DeviceState.HARDWARE_ERROR, ("TONER_EMPTY",)),
        (40021, DeviceState.USER_ERROR, ("COVER_OPEN",)),
        (40022, DeviceState.HARDWARE_ERROR, ("JAM",)),
        (40050, DeviceState.HARDWARE_ERROR, ("HARDWARE",)),
        (40600, DeviceState.HARDWARE_ERROR, ("PRINT_ERROR",)),
        (41203, DeviceState.ONLINE, ("PAPER_OUT",)),
        (42202, DeviceState.HARDWARE_ERROR, ("JAM",)),
        (43010, DeviceState.HARDWARE_ERROR, ("PRINT_ERROR",)),
        (44003, DeviceState.HARDWARE_ERROR, ("JAM",)),
        (50001, DeviceState.HARDWARE_ERROR, ("HARDWARE",)),
        (99999, DeviceState.UNKNOWN, ()),
    ],
)
def test_codes(code: int, device: DeviceState, conditions: tuple[str, ...]) -> None:
    reading = pjl.reading_of_code(code, online=True)
    assert (reading.device, reading.conditions) == (device, conditions)


def test_words_of_paper_toner_and_cover() -> None:
    assert pjl.reading_of_code(41203).paper is PaperState.OUT
    assert pjl.reading_of_code(42202).paper is PaperState.JAMMED
    assert pjl.reading_of_code(10006).toner is TonerState.LOW
    assert pjl.reading_of_code(40010).toner is TonerState.OUT
    assert pjl.reading_of_code(40021).cover is CoverState.OPEN
    # one code shows one thing: with the cover open nothing is known of paper and toner
    assert pjl.reading_of_code(40021).paper is PaperState.UNKNOWN
    assert pjl.reading_of_code(40021).toner is TonerState.UNKNOWN


def test_offline_without_a_cause_is_a_condition_but_not_in_power_save() -> None:
    assert pjl.reading_of_code(10001, online=False).conditions == ("OFFLINE",)
    assert pjl.reading_of_code(40000, online=False).conditions == ()


def test_push_and_other_topics() -> None:
    pushed = b'@PJL USTATUS DEVICE\r\nCODE=41203\r\nDISPLAY="LOAD A4"\r\nONLINE=FALSE\r\n\x0c'
    job = b'@PJL USTATUS JOB\r\nSTART\r\nNAME="ZHANG SAN 330102199001011235"\r\n\x0c'
    found = every_cut(PjlReader, pushed + job + b"@PJL ECHO kf-17\r\n\x0c")
    assert (found[0].code, found[0].online, found[0].pushed) == (41203, False, True)
    assert found[1:] == [Ignored("JOB"), Echo("kf-17")]


@pytest.mark.parametrize("text", [b"@PJL INFO PAGECOUNT\r\n183933\r\n\x0c", b"@PJL INFO PAGECOUNT\r\nPAGECOUNT=183933\r\n\x0c"])
def test_page_count(text: bytes) -> None:
    assert every_cut(PjlReader, text) == [PageCount(183933)]


def test_model() -> None:
    assert every_cut(PjlReader, b'@PJL INFO ID\r\n"LASERJET 4250"\r\n\x0c') == [Model("LASERJET 4250")]
    assert every_cut(PjlReader, b"@PJL INFO ID\r\nBrother HL-2270DW series:8C5-K12:Ver.1.02\r\n\x0c") == [
        Model("Brother HL-2270DW series:8C5-K12:Ver.1.02")
    ]


def test_stale_bytes_noise_and_trailing_bytes() -> None:
    decoder = PjlReader()
    found = feed(decoder, [b"garbage\x00\xff" + b"\x0c" + b"CODE=1" + READY + READY[:20]])
    assert [item.code for item in found] == [10001]
    assert decoder.noise_bytes == len(b"garbage\x00\xff\x0cCODE=1")
    decoder.feed(READY[20:])
    assert [item.code for item in drain(decoder)] == [10001]


def test_a_cut_answer_before_a_whole_one() -> None:
    assert [item.code for item in every_cut(PjlReader, READY[:30] + answer(40021))] == [40021]


def test_unknown_lines_are_skipped_and_lf_alone_ends_a_line() -> None:
    text = b'@PJL INFO STATUS\nCODE=10001\nTRAY2="A4"\nDISPLAY="\xbe\xcd\xd0\xf7"\nONLINE=TRUE\n\x0c'
    assert only(every_cut(PjlReader, text)).code == 10001


@pytest.mark.parametrize(
    "text", [b"@PJL INFO STATUS\r\nONLINE=TRUE\r\n\x0c", b"@PJL INFO PAGECOUNT\r\n\x0c", b"@PJL NONSENSE\r\n\x0c"]
)
def test_answers_without_their_content(text: bytes) -> None:
    assert isinstance(only(every_cut(PjlReader, text)), FrameError)


def test_an_endless_answer_is_dropped_once() -> None:
    found = feed(PjlReader(), [b"@PJL INFO STATUS\r\n" + b"X" * 5000, READY])
    assert isinstance(found[0], FrameError)
    assert found[1].code == 10001


def test_decisive_bytes() -> None:
    status = only(every_cut(PjlReader, answer(41203, "FALSE")))
    code, tray, size, online = pjl.explain(b"", status.reply)
    assert [status.reply[hit.offset : hit.offset + hit.length] for hit in (tray, size)] == [b"2", b"03"]
    assert status.reply[code.offset : code.offset + code.length] == b"41203"
    assert code.key == "pjl.load_paper"
    assert status.reply[online.offset : online.offset + online.length] == b"FALSE"


PLANTED = "张三 330102199001011235"


@pytest.mark.parametrize(
    "text",
    [
        answer(10023, display=f"PRINTING {PLANTED}"),
        f'@PJL USTATUS DEVICE\r\nCODE=10023\r\nDISPLAY="{PLANTED}\r\nONLINE=TRUE\r\n\x0c'.encode(),
        f"@PJL INFO STATUS\r\nCODE=10023\r\nUSER={PLANTED}\r\n{PLANTED}\r\nONLINE=TRUE\r\n\x0c".encode(),
        f"@PJL INFO STATUS\r\nCODE={PLANTED[-18:]}\r\n\x0c".encode(),
        f'@PJL INFO STATUS\r\nDISPLAY="{PLANTED}"\r\n\x0c'.encode(),
        f'@PJL USTATUS JOB\r\nNAME="{PLANTED}"\r\n\x0c'.encode(),
        f"@PJL INFO {PLANTED}\r\nX\r\n\x0c".encode(),
        f"@PJL ECHO {PLANTED}\r\n\x0c".encode(),
    ],
)
def test_no_text_of_a_job_survives(text: bytes) -> None:
    for item in every_cut(PjlReader, text):
        seen = repr(item) + str(item) + repr(getattr(item, "evidence", b""))
        for word in ("张三", "330102199001011235", "1990"):
            assert word not in seen
            assert word.encode() not in getattr(item, "reply", b"") + getattr(item, "evidence", b"")


def test_masked_spans_are_blank_and_told() -> None:
    status = only(every_cut(PjlReader, answer(10001, display="SECRET")))
    ((start, end),) = status.masked
    assert status.reply[start:end] == bytes(end - start)
    assert answer(10001, display="SECRET")[start:end] == b'"SECRET"'


def test_many_lines_become_one_span() -> None:
    text = b"@PJL INFO STATUS\r\nCODE=10001\r\n" + b"".join(b"K%d=V\r\n" % i for i in range(40)) + b"\x0c"
    status = only(every_cut(PjlReader, text))
    assert len(status.masked) == 1
    assert b"V" not in status.reply


@given(
    st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([READY, b"@PJL INFO ", b"\x0c", b"CODE=10001\r\n"])), max_size=20)
)
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    for item in feed(PjlReader(), pieces):
        if isinstance(item, Status):
            pjl.reading_of(item)
            assert len(item.masked) <= 16
