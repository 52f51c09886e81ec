"""Evaluators: every kind of answer on the scale of five; noise is no rating."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_profiles import read_all
from protocols.codecs.rating import Answer, RatingReader, RatingRules, burst_answer, explain, level_of, scale
from protocols.errors import ChecksumError, EncodeError, FrameError
from protocols.profile.schema import Family, Kind, parse_all
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

PROFILES = parse_all(read_all())
FRAME = RatingRules(framing="frame")
COUNTED = RatingRules(framing="frame", length="single", checksum="xor8")


# --- the scale ---


@pytest.mark.parametrize(
    ("of", "levels"),
    [(5, [5, 4, 3, 2, 1]), (4, [5, 4, 2, 1]), (3, [5, 3, 1]), (2, [5, 1])],
)
def test_every_scale_reaches_from_best_to_worst(of: int, levels: list[int]) -> None:
    """GB/T 39735: five levels, 5 best."""
    assert [level_of(at, of, best_first=True) for at in range(1, of + 1)] == levels
    assert [level_of(at, of, best_first=False) for at in range(1, of + 1)] == levels[::-1]


@pytest.mark.parametrize(("at", "of"), [(0, 5), (6, 5), (1, 1), (1, 6)])
def test_answers_that_a_scale_does_not_have(at: int, of: int) -> None:
    with pytest.raises(EncodeError, match=f"no answer {at} on a scale of {of}"):
        level_of(at, of, best_first=True)


def test_the_usual_tables() -> None:
    assert scale("five-best-first") == {0: 0, 1: 5, 2: 4, 3: 3, 4: 2, 5: 1}
    assert scale("five-best-last") == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert scale("three-best-first") == {1: 5, 2: 3, 3: 1, 5: 0}, "5 means that eight seconds passed, not the best"
    assert scale("none") == {}


def test_every_evaluator_profile_tells_levels_and_nothing_else() -> None:
    told: dict[str, set[int]] = {}
    for profile in PROFILES.values():
        if profile.kind is Kind.EVALUATOR or profile.family is Family.CALLPAD:
            if profile.rating is not None:
                told[profile.id] = set(profile.rating.rules().levels.values())
            elif profile.keys is not None:
                told[profile.id] = set(profile.keys.ratings().values())
            elif profile.callpad is not None and profile.kind is not Kind.WINDOW_SCREEN:
                told[profile.id] = set(profile.callpad.rules().ratings.values())
    assert len(told) >= 5
    for name, levels in told.items():
        assert levels <= {0, 1, 2, 3, 4, 5}, name
        assert {1, 5} <= levels, name


# --- bytes ---


def test_one_byte_for_each_key() -> None:
    found = every_cut(lambda: RatingReader(RatingRules()), h("01 05 00 07"))
    assert [answer.level for answer in found] == [5, 1, 0, None]


def test_frames() -> None:
    found = every_cut(lambda: RatingReader(FRAME), h("00 aa 01 55 aa aa 55 aa 04 55"))
    kinds = [item.level if isinstance(item, Answer) else type(item) for item in found]
    assert kinds == [5, None, 2], "AA may be a key code as well"


def test_frames_with_length_and_checksum() -> None:
    assert only(every_cut(lambda: RatingReader(COUNTED), h("aa 01 02 02 55"))).level == 4
    found = every_cut(lambda: RatingReader(COUNTED), h("aa 01 02 03 55 aa 01 05 05 55"))
    assert isinstance(found[0], ChecksumError)
    assert found[-1].level == 1
    (cut,) = every_cut(lambda: RatingReader(COUNTED), h("aa 01 02 02 54"))
    assert isinstance(cut, FrameError)


@pytest.mark.parametrize("length", ["00", "ff", "1e"])
def test_a_length_that_cannot_be(length: str) -> None:
    assert isinstance(feed(RatingReader(COUNTED), [h(f"aa {length} 01 01 55")])[0], FrameError)


def test_the_same_key_bouncing_is_one_press_and_a_mixture_none() -> None:
    one, other = Answer(5, b"\x01"), Answer(1, b"\x05")
    assert burst_answer([]) is None
    assert burst_answer([one, one, one]) == one
    mixed = burst_answer([one, other])
    assert mixed is not None
    assert mixed.level is None


def test_an_answer_hides_its_bytes() -> None:
    assert "raw" not in repr(Answer(5, b"\x01"))


@pytest.mark.parametrize(
    "wrong",
    [{"levels": {}}, {"framing": "frame", "start": b""}, {"framing": "frame", "key_at": 3}],
)
def test_rules_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(EncodeError):
        RatingRules(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from([RatingRules(), FRAME, COUNTED]))
def test_any_bytes(pieces: list[bytes], rules: RatingRules) -> None:
    reader = RatingReader(rules)
    for answer in feed(reader, pieces):
        assert isinstance(answer, Answer | ChecksumError | FrameError)
    reader.feed(b"")
    assert drain(reader) == []


def test_evidence_of_a_question() -> None:
    (said,) = explain(h("aa 01 f0 f0 55"), h("aa 01 f1 f1 55"))
    assert (said.offset, said.length, said.key) == (0, 5, "rating.alive")
    assert explain(b"", b"") == ()
