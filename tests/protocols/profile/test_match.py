"""Finding the profile of a device: by specificity, never by guess."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_profiles import read_all
from protocols.profile.match import AmbiguousMatch, candidates, match_profile, probe_fits, probes, ties
from protocols.profile.places import Probe
from protocols.profile.schema import Kind, Profile, parse_all, parse_profile

SHIPPED = parse_all(read_all())


@dataclass(frozen=True)
class Seen:
    bus: str
    vid: int | None = None
    pid: int | None = None
    serial: str | None = None
    product: str | None = None
    role: str | None = None
    path: str = ""


def keypad(name: str, match: str) -> Profile:
    text = f'''
schema = 1
id = "{name}"
family = "keys"
kind = "keypad"
display_name = "{name}"
grade = "expected"
source = "made up for a test"
[[match]]
bus = "input"
{match}
[transport.input]
'''
    return parse_profile(text.encode(), name)


@pytest.mark.parametrize(
    ("seen", "profile"),
    [
        (Seen("usb", 0x04B8, 0x0202), "epson-tm-t88"),
        (Seen("usb", 0x04B8, 0x0E03), "epson-tm-t20"),
        (Seen("usb", 0x154F, 0x154F, product="BTP-R880"), "snbc-btp"),
        (Seen("usb", 0x0416, 0x5011), "pos-clone-0416"),
        (Seen("usb", 0x17EF, 0x5650, product="LJ2650DN"), "lenovo-lj2650dn"),
        (Seen("usb", 0x17EF, 0x1234, product="Lenovo LJ2206W"), "lenovo-lj2206w"),
        (Seen("usb", 0x17EF, 0x6009, product="ThinkPad Keyboard"), None),
        (Seen("usb", 0x17EF, 0x5650), None),
        (Seen("usb", 0x0400, 0xC35A), "sdt-usb"),
        (Seen("usb", 0x232B, 0x0810), "pantum-p2000"),
        (Seen("input", 0x1EAB, 0x1D03), "newland-fm430-keyboard"),
        (Seen("serial", 0x1EAB, 0x1D06), "newland-fm430-serial"),
        (Seen("usb", 0x1EAB, 0x1D06), None),
        (Seen("input", 0x1A2C, 0x0E24, product="USB Keypad"), "numeric-keypad"),
        (Seen("input", 0x05A4, 0x9837, product="Number Keypad"), "targus-keypad"),
        (Seen("input", 0x5131, 0x2007, product="Evaluator Pad"), "evaluator-keys"),
        (Seen("input", 1, 2, product="满意度评价器"), "evaluator-keys"),
        (Seen("input", 0x046D, 0xC31C, product="USB Keyboard"), None),
        (Seen("usb", 0xDEAD, 0xBEEF), None),
        (Seen("usb"), None),
        (Seen("video", 0x0BDA, 0x5830), None),
    ],
)
def test_shipped_profiles_find_their_devices_and_no_others(seen: Seen, profile: str | None) -> None:
    found = match_profile(seen, SHIPPED.values())
    assert (found.id if found else None) == profile


def test_a_serial_adapter_identifies_nobody() -> None:
    adapter = Seen("serial", 0x1A86, 0x7523)
    assert match_profile(adapter, SHIPPED.values()) is None
    assert {candidate.profile.id for candidate in probes(adapter, SHIPPED.values())} >= {
        "sdt-serial",
        "newland-uart",
        "epson-tm-t88",
    }


def test_the_inventory_says_what_is_at_a_serial_port() -> None:
    for seen in (Seen("serial", 0x1A86, 0x7523), Seen("serial"), Seen("pipe")):
        assert match_profile(seen, SHIPPED.values(), kind=Kind.CALL_PAD) is SHIPPED["call-pad-ft12"]
        assert match_profile(seen, SHIPPED.values(), kind=Kind.CLIMATE) is SHIPPED["xy-md02"]
        assert match_profile(seen, SHIPPED.values(), kind=Kind.CONTACTS) is SHIPPED["di-module-8"]
        assert match_profile(seen, SHIPPED.values(), kind=Kind.RECEIPT_PRINTER) is SHIPPED["receipt-printer-serial"]
        assert match_profile(seen, SHIPPED.values(), kind=Kind.ID_READER) is SHIPPED["sdt-serial"]
    assert [c.profile.id for c in probes(Seen("serial", 0x1A86, 0x7523), SHIPPED.values(), kind=Kind.ID_READER)] == ["sdt-serial"]


def test_a_profile_of_another_kind_is_not_offered() -> None:
    assert match_profile(Seen("usb", 0x04B8, 0x0202), SHIPPED.values(), kind=Kind.A4_PRINTER) is None


def test_the_more_specific_rule_wins_whatever_the_order() -> None:
    by_name = keypad("by-name", 'product = "^Pad"')
    by_ids = keypad("by-ids", "vid = 1\npid = 2")
    by_both = keypad("by-both", 'vid = 1\npid = 2\nproduct = "^Pad"')
    seen = Seen("input", 1, 2, product="Pad 7")
    for order in ([by_name, by_ids, by_both], [by_both, by_ids, by_name]):
        assert match_profile(seen, order) is by_both
        assert match_profile(seen, [p for p in order if p is not by_both]) is by_ids
    assert [c.profile.id for c in candidates(seen, [by_name, by_ids, by_both])] == ["by-both", "by-ids", "by-name"]


def test_a_tie_is_an_error_that_names_both() -> None:
    first, second = keypad("first", "vid = 1\npid = 2"), keypad("second", "vid = 1\npid = 2")
    with pytest.raises(AmbiguousMatch, match="first and second") as caught:
        match_profile(Seen("input", 1, 2), [second, first])
    assert caught.value.profiles == ("first", "second")
    assert ties([first, second]) == [("first", "second")]
    assert ties([first, keypad("third", "vid = 1\npid = 3")]) == []


@pytest.mark.parametrize(
    ("profile", "reply", "fits"),
    [
        ("sdt-serial", "aa aa aa 96 69 00 04 00 00 90 94", True),
        ("sdt-serial", "aa aa 96 69 00 04 00 00 66 62", True),
        ("sdt-serial", "02 00 00 01 00 33 31", False),
        ("sdt-serial", "", False),
        ("newland-em-uart", "02 00 00 02 39 01 c1 4c", True),
        ("newland-uart", "02 01 30 30 30 30 40 51 52 59 53 59 53 56 31 06 3b 03", True),
        ("newland-uart", "aa aa aa 96 69 00 04 00 00 90 94", False),
        ("epson-tm-t88", "5f 54 4d 2d 54 38 38 56 00", True),
        ("epson-tm-t88", "5f 54 4d 2d 54 32 30 00", False),
        ("epson-tm-t20", "5f 54 4d 2d 54 32 30 00", True),
    ],
)
def test_probes_know_their_answers(profile: str, reply: str, fits: bool) -> None:
    (probe,) = [rule.probe for rule in SHIPPED[profile].match if getattr(rule, "probe", None)]  # type: ignore[union-attr]
    assert isinstance(probe, Probe)
    assert probe_fits(probe, bytes.fromhex(reply)) is fits


@given(
    st.sampled_from(["usb", "serial", "input", "video", "pipe", "nonsense"]),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
    st.one_of(st.none(), st.integers(0, 0xFFFF)),
    st.one_of(st.none(), st.text(max_size=40)),
    st.one_of(st.none(), st.text(max_size=40)),
    st.one_of(st.none(), st.sampled_from(Kind)),
)
def test_anything_may_be_plugged_in(
    bus: str, vid: int | None, pid: int | None, serial: str | None, product: str | None, kind: Kind | None
) -> None:
    seen = Seen(bus, vid, pid, serial, product)
    profile = match_profile(seen, SHIPPED.values(), kind=kind)
    assert profile is None or kind in (None, profile.kind)
