"""Resident-ID readers: frames of module vendors' documents; nothing of a card survives the codec."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs import sdt
from protocols.codecs.sdt import Answer, Command, SdtReader, Sw3Class
from protocols.errors import ChecksumError, FrameError, ProtocolError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

STATUS_OK = h("AA AA AA 96 69 00 04 00 00 90 94")
MODULE_NUMBER = h("AA AA AA 96 69 00 14 00 00 90 05 00 01 00 25 02 33 01 4E 61 BC 00 B1 7F 39 05 F4")
FOUND = h("AA AA AA 96 69 00 08 00 00 9F 00 00 00 00 97")
SELECTED = h("AA AA AA 96 69 00 0C 00 00 90 00 00 00 00 00 00 00 00 9C")


def framed(sw3: int, data: bytes = b"") -> bytes:
    """An answer built here, not by the codec."""
    body = (len(data) + 4).to_bytes(2, "big") + bytes((0, 0, sw3)) + data
    check = 0
    for byte in body:
        check ^= byte
    return h("AA AA AA 96 69") + body + bytes((check,))


def asking(command: Command | None = None) -> SdtReader:
    made = SdtReader()
    if command is not None:
        made.expect(command)
    return made


def test_questions_byte_for_byte() -> None:
    assert sdt.encode_reset() == h("AA AA AA 96 69 00 03 10 FF EC")
    assert sdt.encode_status() == h("AA AA AA 96 69 00 03 11 FF ED")
    assert sdt.encode_sam_number() == h("AA AA AA 96 69 00 03 12 FF EE")


def test_split_for_four_pipes() -> None:
    assert sdt.split_request(sdt.encode_status()) == (h("AA AA AA 96 69 00 03"), h("11 FF ED"))


def test_nothing_here_can_ask_for_a_card() -> None:
    encoders = [member for name, member in inspect.getmembers(sdt, inspect.isfunction) if name.startswith("encode")]
    built = [encoder() for encoder in encoders if not inspect.signature(encoder).parameters] + [sdt.encode(c) for c in Command]
    assert {frame[7] for frame in built} == {0x10, 0x11, 0x12}
    with pytest.raises(ValueError, match="read"):
        sdt.encode("read")  # type: ignore[arg-type]


def test_status() -> None:
    answer = only(every_cut(lambda: asking(Command.STATUS), STATUS_OK))
    assert (answer.sw3, answer.verdict, answer.data_length, answer.masked) == (0x90, Sw3Class.OK, 0, ())
    assert answer.evidence == STATUS_OK


def test_module_number() -> None:
    answer = only(every_cut(lambda: asking(Command.MODULE_NUMBER), MODULE_NUMBER))
    assert answer.module_number == "05.01-20120101-0012345678-0087654321"
    assert answer.evidence == MODULE_NUMBER


def test_the_published_card_answers_are_recognised_without_their_data() -> None:
    for frame, sw3, length in ((FOUND, 0x9F, 4), (SELECTED, 0x90, 8)):
        answer = only(every_cut(SdtReader, frame))
        assert (answer.sw3, answer.data_length, answer.module_number) == (sw3, length, None)
    for frame, sw3 in (
        (h("AA AA AA 96 69 00 04 00 00 80 84"), 0x80),
        (h("AA AA AA 96 69 00 04 00 00 81 85"), 0x81),
        (framed(0x41), 0x41),
    ):
        assert only(every_cut(SdtReader, frame)).sw3 == sw3


def test_a_published_failure_frame() -> None:
    assert framed(0x41) == h("AA AA AA 96 69 00 04 00 00 41 45")


@pytest.mark.parametrize(
    ("sw3", "verdict", "condition"),
    [
        (0x90, Sw3Class.OK, None),
        (0x9F, Sw3Class.OK, None),
        (0x91, Sw3Class.OK, None),
        (0x80, Sw3Class.NO_CARD, None),
        (0x81, Sw3Class.CARD, None),
        (0x31, Sw3Class.CARD, None),
        (0x40, Sw3Class.CARD, None),
        (0x47, Sw3Class.CARD, None),
        (0x10, Sw3Class.LINK, "LINK_NOISE"),
        (0x11, Sw3Class.LINK, "LINK_NOISE"),
        (0x21, Sw3Class.REQUEST, None),
        (0x60, Sw3Class.HARDWARE, "SELF_TEST"),
        (0x66, Sw3Class.LICENCE, "NOT_AUTHORISED"),
        (0x77, Sw3Class.UNKNOWN, None),
    ],
)
def test_classification(sw3: int, verdict: Sw3Class, condition: str | None) -> None:
    answer = only(every_cut(SdtReader, framed(sw3)))
    assert answer.verdict is verdict
    assert sdt.CONDITION_OF.get(answer.verdict) == condition


def test_four_pipe_reads_are_fed_one_after_the_other() -> None:
    found = feed(asking(Command.MODULE_NUMBER), [MODULE_NUMBER[:7], MODULE_NUMBER[7:]])
    assert only(found).module_number is not None


def test_64_byte_chunks_of_a_whole_frame_unit() -> None:
    long = framed(0x90, bytes(1284))
    assert only(feed(SdtReader(), [long[at : at + 64] for at in range(0, len(long), 64)])).data_length == 1284


def test_after_noise_with_a_lost_preamble_byte_and_merged() -> None:
    noise = h("00 FF AA 12 AA AA 13")
    decoder = SdtReader()
    found = feed(decoder, [noise + STATUS_OK[1:] + STATUS_OK])
    assert [item.sw3 for item in found] == [0x90, 0x90]
    assert decoder.noise_bytes == len(noise)
    every_cut(SdtReader, noise + STATUS_OK[1:] + STATUS_OK)


def test_trailing_bytes_survive() -> None:
    decoder = SdtReader()
    assert len(feed(decoder, [STATUS_OK + STATUS_OK[:6]])) == 1
    decoder.feed(STATUS_OK[6:])
    assert only(drain(decoder)).sw3 == 0x90


def test_a_truncated_frame_does_not_cost_the_next() -> None:
    found = every_cut(SdtReader, framed(0x90, bytes(4))[:-5] + STATUS_OK + STATUS_OK)
    assert isinstance(found[0], ChecksumError)
    assert [item.sw3 for item in found if isinstance(item, Answer)][-1:] == [0x90]


def test_a_wrong_check_byte() -> None:
    spoiled = STATUS_OK[:-1] + b"\x95"
    first, second = every_cut(SdtReader, spoiled + STATUS_OK)
    assert isinstance(first, ChecksumError)
    assert second.sw3 == 0x90


@pytest.mark.parametrize("length", ["00 00", "00 03", "FF FF", "09 61"])
def test_impossible_lengths(length: str) -> None:
    first, second = every_cut(SdtReader, h("AA AA AA 96 69" + length) + STATUS_OK)
    assert isinstance(first, FrameError)
    assert second.sw3 == 0x90


NAME, NUMBER, IIN, SERIAL = (
    "李四测试".encode("utf-16-le"),
    "33010219900101123X".encode("utf-16-le"),
    h("DE AD BE EF"),
    h("01 02 03 04 05 06 07 08"),
)
TEXT = (NAME + b"\x20\x00" * 60 + NUMBER).ljust(256, b"\x20")
PHOTO = bytes(range(1, 256)) * 4 + b"\x01\x02\x03\x04"
CARD_ANSWERS = [
    framed(0x9F, IIN),
    framed(0x90, SERIAL),
    framed(0x90, h("01 00 04 00") + TEXT + PHOTO),
    framed(0x90, h("01 00 04 00 04 00") + TEXT + PHOTO + PHOTO),
    framed(0x90, TEXT[:70]),
    framed(0x90, IIN + SERIAL + IIN),
]


def leaks(item: object) -> bool:
    seen = [getattr(item, "evidence", b""), repr(item).encode(), str(item).encode("utf-8", "replace")]
    planted = (
        NAME,
        NUMBER,
        IIN,
        SERIAL,
        TEXT[:8],
        PHOTO[:8],
        "李四测试".encode(),
        b"33010219900101123X",
        IIN.hex().encode(),
        repr(IIN)[2:-1].encode(),
    )
    return any(secret in part for part in seen for secret in planted)


@pytest.mark.parametrize("command", [None, *Command])
@pytest.mark.parametrize("frame", CARD_ANSWERS, ids=["iin", "serial", "text-photo", "fingerprint", "address", "chip-number"])
@pytest.mark.spec("C-206")
def test_card_data_never_leaves_the_codec(frame: bytes, command: Command | None) -> None:
    answer = only(every_cut(lambda: asking(command), frame))
    assert answer.module_number is None
    assert not leaks(answer)
    ((start, end),) = answer.masked
    assert answer.evidence[start:end] == bytes(end - start)
    assert end == len(answer.evidence)
    # Length and status stay readable.
    assert answer.data_length == len(frame) - 11
    assert sdt.explain(b"", answer.evidence)[0].offset == 9


@pytest.mark.parametrize("frame", CARD_ANSWERS)
@pytest.mark.parametrize("damage", ["check", "cut", "length", "flip"])
def test_spoiled_card_answers_do_not_leak_through_errors(frame: bytes, damage: str) -> None:
    spoiled = {
        "check": frame[:-1] + bytes((frame[-1] ^ 0xFF,)),
        "cut": frame[:-3],
        "length": frame[:5] + b"\x00\x05" + frame[7:],
        "flip": frame[:12] + bytes((frame[12] ^ 0x40,)) + frame[13:],
    }[damage]
    decoder = asking(Command.MODULE_NUMBER)
    for item in feed(decoder, [spoiled + STATUS_OK]):
        assert not leaks(item)
    assert not leaks(decoder)


def test_a_module_number_must_look_like_one() -> None:
    assert sdt.parse_module_number(IIN + SERIAL + IIN) is None
    assert sdt.parse_module_number(b"short") is None
    assert sdt.parse_module_number(bytes(16)) is None


@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([STATUS_OK, MODULE_NUMBER, FOUND, b"\xaa\xaa\x96\x69", b"\xaa"])),
        max_size=20,
    )
)
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    decoder = asking(Command.MODULE_NUMBER)
    for item in feed(decoder, pieces):
        assert isinstance(item, Answer | ProtocolError)
        for hit in sdt.explain(b"", getattr(item, "evidence", b"")):
            assert hit.offset < len(item.evidence)
    assert decoder.pending_bytes <= sdt.LEN_MAX + 7


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=255))
def test_every_frame_comes_back_without_its_data(data: bytes, sw3: int) -> None:
    answer = only(feed(asking(Command.STATUS), [framed(sw3, data)]))
    assert (answer.sw3, answer.data_length) == (sw3, len(data))
    assert answer.evidence[10:] == (bytes(min(len(data) + 1, 64)) if data else framed(sw3)[10:])


@pytest.mark.parametrize("command", [None, Command.STATUS, Command.RESET])
def test_sixteen_bytes_that_nobody_asked_for_are_blanked_even_if_they_look_like_a_number(command: Command | None) -> None:
    answer = only(every_cut(lambda: asking(command), MODULE_NUMBER))
    assert answer.module_number is None
    assert answer.evidence[10:] == bytes(17)


def test_an_expectation_holds_for_one_answer() -> None:
    first, second = feed(asking(Command.MODULE_NUMBER), [MODULE_NUMBER * 2])
    assert first.module_number is not None
    assert second.module_number is None
