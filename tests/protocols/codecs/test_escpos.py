"""ESC/POS: bytes from the Epson, Citizen, SNBC and HPRT manuals."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.canon.words import CoverState, DeviceState, PaperState
from protocols.codecs import escpos, slip
from protocols.codecs.escpos import (
    AutoStatus,
    Counter,
    EscPosReader,
    FlowControl,
    Identity,
    JobPrinted,
    MechanicalBit,
    QueuedStatus,
    RealTimeStatus,
)
from protocols.errors import EncodeError, FrameError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only


def reader(*queries: bytes) -> EscPosReader:
    made = EscPosReader()
    for query in queries:
        made.expect(query)
    return made


def test_questions() -> None:
    assert escpos.encode_status_query(4) == h("10 04 04")
    assert escpos.encode_auto_status() == h("1D 61 0E")
    assert escpos.encode_queued_status(1) == h("1D 72 01")
    assert escpos.encode_identity_query(65) == h("1D 49 41")
    assert escpos.encode_fence(b"0007") == h("1D 28 48 06 00 30 30 30 30 30 37")
    assert escpos.encode_recover(clear_buffers=True) == h("10 05 02")
    assert escpos.encode_recover(clear_buffers=False) == h("10 05 01")
    assert escpos.encode_paper_query() == h("1B 76")
    assert escpos.encode_initialise() == h("1B 40")


def test_impossible_questions() -> None:
    with pytest.raises(EncodeError):
        escpos.encode_status_query(5)
    for job in (b"abc", b"a\x00bc", b"abcde"):
        with pytest.raises(EncodeError):
            escpos.encode_fence(job)


@pytest.mark.parametrize(
    ("replies", "device", "paper", "cover", "conditions"),
    [
        # idle (n=1 idle is 12 or 16)
        ({1: 0x12, 2: 0x12, 3: 0x12, 4: 0x12}, DeviceState.ONLINE, PaperState.FULL, CoverState.CLOSED, ()),
        ({1: 0x16, 2: 0x12, 3: 0x12, 4: 0x12}, DeviceState.ONLINE, PaperState.FULL, CoverState.CLOSED, ()),
        # roll empty
        ({1: 0x1A, 2: 0x32, 3: 0x12, 4: 0x7E}, DeviceState.ONLINE, PaperState.OUT, CoverState.CLOSED, ("PAPER_OUT",)),
        # low
        ({1: 0x12, 2: 0x12, 3: 0x12, 4: 0x1E}, DeviceState.ONLINE, PaperState.LOW, CoverState.CLOSED, ("PAPER_NEAR_END",)),
        # cover open
        ({1: 0x1A, 2: 0x16, 3: 0x12, 4: 0x12}, DeviceState.USER_ERROR, PaperState.FULL, CoverState.OPEN, ("COVER_OPEN",)),
        # cutter
        ({1: 0x1A, 2: 0x52, 3: 0x1A, 4: 0x12}, DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED, ("CUTTER",)),
        # mechanical
        ({1: 0x1A, 2: 0x52, 3: 0x16, 4: 0x12}, DeviceState.HARDWARE_ERROR, PaperState.JAMMED, CoverState.CLOSED, ("JAM",)),
        # unrecoverable, head hot
        ({1: 0x1A, 2: 0x52, 3: 0x32, 4: 0x12}, DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED, ("HARDWARE",)),
        ({1: 0x1A, 2: 0x52, 3: 0x52, 4: 0x12}, DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED, ("HEAD_HOT",)),
        # an error bit that no cause explains, and offline without a cause
        ({1: 0x1A, 2: 0x52, 3: 0x12, 4: 0x12}, DeviceState.HARDWARE_ERROR, PaperState.FULL, CoverState.CLOSED, ("PRINT_ERROR",)),
        ({1: 0x1A, 2: 0x12, 3: 0x12, 4: 0x12}, DeviceState.OFFLINE, PaperState.FULL, CoverState.CLOSED, ("OFFLINE",)),
        # a model that answers n=1 only leaves the rest unknown
        ({1: 0x12}, DeviceState.ONLINE, PaperState.UNKNOWN, CoverState.UNKNOWN, ()),
    ],
)
def test_real_time_status(
    replies: dict[int, int], device: DeviceState, paper: PaperState, cover: CoverState, conditions: tuple[str, ...]
) -> None:
    reading = escpos.reading_of_real_time(replies)
    assert (reading.device, reading.paper, reading.cover, reading.conditions) == (device, paper, cover, conditions)


@pytest.mark.parametrize(
    ("status", "conditions", "paper", "cover"),
    [
        ("14 00 00 0F", (), PaperState.FULL, CoverState.CLOSED),
        ("1C 00 0F 0F", ("PAPER_OUT",), PaperState.OUT, CoverState.CLOSED),
        ("3C 00 00 0F", ("COVER_OPEN",), PaperState.FULL, CoverState.OPEN),
        ("1C 08 00 0F", ("CUTTER",), PaperState.FULL, CoverState.CLOSED),
        ("1C 40 00 0F", ("HEAD_HOT",), PaperState.FULL, CoverState.CLOSED),
        ("14 00 03 0F", ("PAPER_NEAR_END",), PaperState.LOW, CoverState.CLOSED),
        ("14 00 03 00", ("PAPER_NEAR_END",), PaperState.LOW, CoverState.CLOSED),
    ],
)
def test_automatic_status(status: str, conditions: tuple[str, ...], paper: PaperState, cover: CoverState) -> None:
    event = only(every_cut(EscPosReader, h(status)))
    assert event == AutoStatus(h(status))
    reading = escpos.reading_of_auto_status(event.status)
    assert (reading.conditions, reading.paper, reading.cover) == (conditions, paper, cover)


def test_the_mechanical_bit_means_what_the_profile_says() -> None:
    replies = {1: 0x1A, 2: 0x12, 3: 0x16, 4: 0x12}
    assert escpos.reading_of_real_time(replies, mechanical=MechanicalBit.ERROR).conditions == ("PRINT_ERROR",)
    assert escpos.reading_of_real_time(replies, mechanical=MechanicalBit.IGNORE).conditions == ("OFFLINE",)


def test_a_near_end_bit_without_a_sensor_is_ignored() -> None:
    assert escpos.reading_of_auto_status(h("14 00 03 0F"), near_end_fitted=False).paper is PaperState.FULL


def test_head_hot_beside_an_open_cover_is_the_cover() -> None:
    assert escpos.reading_of_auto_status(h("3C 40 00 0F")).conditions == ("COVER_OPEN",)


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x10, 0x13, 0x92])
def test_wrong_fixed_bits_are_noise_and_no_fault(byte: int) -> None:
    with pytest.raises(FrameError):
        escpos.reading_of_real_time({1: byte})


def test_answers_go_to_their_questions_in_order() -> None:
    query = h("10 04 01 10 04 02 10 04 03 10 04 04")
    found = every_cut(lambda: reader(query), h("1A 32 12 7E"))
    assert found == [RealTimeStatus(1, 0x1A), RealTimeStatus(2, 0x32), RealTimeStatus(3, 0x12), RealTimeStatus(4, 0x7E)]


def test_an_answer_that_nobody_asked_for() -> None:
    assert every_cut(EscPosReader, b"\x12") == [RealTimeStatus(0, 0x12)]


def test_an_automatic_status_arriving_with_an_answer_costs_neither() -> None:
    found = every_cut(lambda: reader(h("10 04 04")), h("1C 00 0F 0F 7E"))
    assert found == [AutoStatus(h("1C 00 0F 0F")), RealTimeStatus(4, 0x7E)]


def test_flow_control_inside_an_automatic_status() -> None:
    assert every_cut(EscPosReader, h("14 13 00 11 00 0F")) == [
        FlowControl(False),
        FlowControl(True),
        AutoStatus(h("14 00 00 0F")),
    ]


def test_queued_answers() -> None:
    found = every_cut(lambda: reader(h("1D 72 01 1D 49 01")), h("0C 20"))
    assert found == [QueuedStatus(h("1D 72 01"), 0x0C), QueuedStatus(h("1D 49 01"), 0x20)]
    assert escpos.paper_of_queued(0x0C) is PaperState.OUT
    assert escpos.paper_of_queued(0x03) is PaperState.LOW
    assert escpos.paper_of_queued(0x00) is PaperState.FULL
    assert escpos.paper_of_queued(0x0F, query=h("1B 76")) is PaperState.OUT


def test_identity_and_fence_blocks() -> None:
    found = every_cut(lambda: reader(h("1D 49 43")), b"_TM-T88V\x00" + h("37 22 30 30 30 37 00"))
    assert found == [Identity(67, "TM-T88V"), JobPrinted(b"0007")]


def test_flow_control_inside_a_block() -> None:
    assert every_cut(lambda: reader(h("1D 49 43")), b"_TM-\x13T88\x11V\x00") == [Identity(67, "TM-T88V")]


def test_after_noise_and_with_trailing_bytes() -> None:
    decoder = EscPosReader()
    found = feed(decoder, [h("FF 81 C0") + h("14 00 00 0F") + h("1C")])
    assert found == [AutoStatus(h("14 00 00 0F"))]
    assert decoder.noise_bytes == 3
    decoder.feed(h("00 0F 0F"))
    assert drain(decoder) == [AutoStatus(h("1C 00 0F 0F"))]


def test_a_status_cut_short_by_the_next_is_an_error_and_costs_only_itself() -> None:
    first, second = every_cut(EscPosReader, h("1C 00 14 00 00 0F"))
    assert isinstance(first, FrameError)
    assert first.evidence == h("1C 00")
    assert second == AutoStatus(h("14 00 00 0F"))


def test_counters() -> None:
    question = escpos.encode_counter_query(escpos.Count.CUTS)
    assert question == h("1D 67 32 00 B2 00")
    assert every_cut(lambda: reader(question), b"_1204\x00") == [Counter(escpos.Count.CUTS, 1204)]
    assert every_cut(lambda: reader(question, h("1D 49 43")), b"_7\x00_TM-T88V\x00") == [
        Counter(escpos.Count.CUTS, 7),
        Identity(67, "TM-T88V"),
    ]
    for spoiled in (b"_\x00", b"_12a\x00", b"_12345678901\x00"):
        assert isinstance(only(every_cut(lambda: reader(question), spoiled)), FrameError)


def test_the_test_slip_is_what_python_escpos_renders() -> None:
    from scripts.render_slip import module_text, render

    assert escpos.encode_test_slip() == render(gbk=False)
    assert escpos.encode_test_slip(gbk=True) == render(gbk=True)
    assert h("1C 26") + "一二三四五六七八九十".encode("gbk") in escpos.encode_test_slip(gbk=True)
    assert Path(slip.__file__).read_text(encoding="utf-8") == module_text(), (
        "render again: python -m scripts.render_slip > protocols/codecs/slip.py"
    )


real_time = st.builds(
    lambda n, bits: (h("10 04") + bytes((n,)), RealTimeStatus(n, bits & 0x6C | 0x12)), st.integers(1, 4), st.integers(0, 255)
)
queued = st.builds(
    lambda query, bits: (query, QueuedStatus(query, bits & 0x6F)),
    st.sampled_from([h("1D 72 01"), h("1D 49 01"), h("1B 76")]),
    st.integers(0, 255),
)
automatic = st.builds(
    lambda raw: (b"", AutoStatus(bytes((raw[0] & 0x6C | 0x10, *(byte & 0x6F for byte in raw[1:]))))),
    st.binary(min_size=4, max_size=4),
)
printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
identities = st.builds(lambda n, text: (h("1D 49") + bytes((n,)), Identity(n, text)), st.integers(65, 69), printable)
fences = st.builds(
    lambda job: (b"", JobPrinted(job)), st.binary(min_size=4, max_size=4).map(lambda raw: bytes(0x20 + byte % 95 for byte in raw))
)
counters = st.builds(
    lambda count, number: (escpos.encode_counter_query(count), Counter(count, number)),
    st.sampled_from(list(escpos.Count)),
    st.integers(0, 10**9),
)


def wire(event: escpos.EscPosEvent) -> bytes:
    match event:
        case RealTimeStatus() | QueuedStatus():
            return bytes((event.status,))
        case AutoStatus():
            return event.status
        case Identity():
            return b"_" + event.text.encode() + b"\x00"
        case Counter():
            return b"_" + str(event.value).encode() + b"\x00"
        case JobPrinted():
            return h("37 22") + event.job + b"\x00"
    raise AssertionError(event)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.one_of(real_time, queued, automatic, identities, counters, fences), max_size=16),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from([0x11, 0x13])), max_size=8),
    st.data(),
)
def test_every_honest_interleaving_comes_apart(
    answers: list[tuple[bytes, escpos.EscPosEvent]], flow: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Answers in any order, real-time ones inside an automatic status, flow control anywhere, cut anywhere."""
    decoder = reader(*(query for query, _ in answers))
    out = bytearray()
    expected: list[escpos.EscPosEvent] = []
    inside: list[escpos.EscPosEvent] = []
    for _, event in answers:
        if isinstance(event, RealTimeStatus) and out and data.draw(st.booleans()):
            inside.append(event)  # held back until there is an automatic status to fall into
            continue
        raw = wire(event)
        if isinstance(event, AutoStatus) and inside:
            for held in inside:
                at = data.draw(st.integers(1, 3))
                raw = raw[:at] + wire(held) + raw[at:]
            # They come out before the status that they interrupted, in the order of the wire.
            expected += [RealTimeStatus(0, byte) for byte in raw[1:] if byte & 0x93 == 0x12]
            inside.clear()
        out += raw
        expected.append(event)
    for held in inside:
        out += wire(held)
        expected.append(held)
    for at, byte in flow:
        out.insert(at % (len(out) + 1), byte)
    size = data.draw(st.integers(1, 7))
    found = feed(decoder, [bytes(out[at : at + size]) for at in range(0, len(out), size)])
    steps = [item for item in found if not isinstance(item, FlowControl)]
    assert [_bare(item) for item in steps] == [_bare(item) for item in expected]
    assert decoder.noise_bytes == 0
    # Of flow control, what stands inside a block is taken out silently; the rest is told.
    assert sum(isinstance(item, FlowControl) for item in found) <= len(flow)


def _bare(event: escpos.EscPosEvent) -> object:
    """Real-time answers carry no question, so which of two n belongs to which is a matter of their order alone."""
    return ("real-time", event.status) if isinstance(event, RealTimeStatus) else event


def test_a_block_without_an_end_does_not_swallow_what_follows_for_ever() -> None:
    found = feed(EscPosReader(), [b"\x5f" + b"A" * 200 + b"\x12"])
    assert isinstance(found[0], FrameError)
    assert found[-1] == RealTimeStatus(0, 0x12)


def test_reset_forgets_questions() -> None:
    decoder = reader(h("10 04 04"))
    decoder.reset()
    assert feed(decoder, [b"\x12"]) == [RealTimeStatus(0, 0x12)]


def test_decisive_bits() -> None:
    hits = escpos.explain(h("10 04 01 10 04 02 10 04 03 10 04 04"), h("1A 32 12 7E"))
    assert [(hit.offset, hit.mask, hit.key) for hit in hits] == [
        (0, 0x08, "escpos.offline"),
        (1, 0x20, "escpos.paper_stop"),
        (3, 0x60, "escpos.paper_end"),
        (3, 0x0C, "escpos.paper_near_end"),
    ]
    assert [(hit.offset, hit.mask) for hit in escpos.explain(h("10 04 04"), h("7E"))] == [(0, 0x60), (0, 0x0C)]
    assert [(hit.offset, hit.key) for hit in escpos.explain(b"", h("3C 00 00 0F"))] == [
        (0, "escpos.offline"),
        (0, "escpos.cover"),
    ]
    assert escpos.explain(h("10 04 04"), b"") == ()


@given(
    st.lists(st.binary(max_size=40), max_size=30),
    st.lists(st.sampled_from([h("10 04 04"), h("1D 72 01"), h("1D 49 43")]), max_size=6),
)
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes], queries: list[bytes]) -> None:
    decoder = reader(*queries)
    for item in feed(decoder, pieces):
        if isinstance(item, AutoStatus):
            escpos.reading_of_auto_status(item.status)
        if isinstance(item, RealTimeStatus):
            escpos.reading_of_real_time({item.n or 1: item.status})
    assert decoder.pending_bytes <= escpos.BLOCK_MAX_BYTES + 1


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_explain_takes_anything(query: bytes, reply: bytes) -> None:
    for hit in escpos.explain(query, reply):
        assert reply[hit.offset] & hit.mask
