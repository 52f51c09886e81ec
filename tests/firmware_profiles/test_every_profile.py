"""One suite over every shipped profile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from firmware_profiles import read_all, root
from protocols.canon.faults import FAULTS
from protocols.codecs import card_d1801, card_f2, card_stx, card_unit, escpos, ipp, pjl, scanner, sdt
from protocols.profile.export import schema_text
from protocols.profile.match import candidates, match_profile, ties
from protocols.profile.places import (
    CdcMatch,
    DisplayMatch,
    InputMatch,
    IppMatch,
    PcscMatch,
    SerialMatch,
    SoundMatch,
    UsbMatch,
    VideoMatch,
)
from protocols.profile.schema import Family, Kind, Profile, parse_all, parse_profile
from protocols.profile.tables import hex_bytes

FILES = read_all()
PROFILES = parse_all(FILES)
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))

HARMLESS_PROBES = {
    sdt.encode_status(),
    escpos.encode_identity_query(67),
    scanner.encode_query(),
    scanner.encode_zone_read(0x2A, 2),
    card_f2.encode(card_f2.Query.STATUS),
    card_stx.encode(card_stx.Query.STATUS),
    card_d1801.encode(card_d1801.Query.STATE),
    scanner.encode_honeywell_query(),
}
"""What may be sent to a port before it is known what is there: questions that none of the other families obeys."""

SAMPLE_TEXT = {
    "^(Lenovo )?LJ2650DN": "LJ2650DN",
    "^(Star )?TSP[678][0-9]{2}": "TSP650II (STR_T-001)",
    "^(Lenovo )?LJ2206W": "LJ2206W",
    "^(.*[ _-])?(?i:keypad|number ?pad|pinpad)( .*)?$": "USB Keypad",
    "^(.*[ _-])?(?i:evaluat(or|ion))( .*)?$": "Evaluator Pad",
    "^.*评价": "评价器",
    "^(.*[ _-])?(?i:(help|call)[ _-]?button)( .*)?$": "Help Button",
    "^(.*[ _-])?(?i:emergency|alarm|panic)([ _-]?(stop|button))?( .*)?$": "USB Emergency Button",
}
"""A text for each pattern; a new pattern needs its sample here."""


@dataclass(frozen=True)
class Seen:
    bus: str
    vid: int | None = None
    pid: int | None = None
    serial: str | None = None
    product: str | None = None
    role: str | None = None
    path: str = ""


def test_there_are_profiles_of_every_kind_a_terminal_has() -> None:
    assert len(PROFILES) >= 20
    assert {profile.kind for profile in PROFILES.values()} >= set(Kind) - {Kind.CAMERA, Kind.DOCUMENT_CAMERA}


def test_no_two_profiles_claim_one_device() -> None:
    assert ties(PROFILES.values()) == []


def test_the_committed_schema_is_the_one_of_the_code() -> None:
    committed = (root() / "schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "regenerate with: python -m protocols.profile.export > firmware_profiles/schema.json"


@every_profile
def test_its_file_has_its_name_and_a_readable_size(profile: Profile) -> None:
    (name,) = [name for name in FILES if name.endswith("/" + profile.id)]
    assert parse_profile(FILES[name], name) == profile
    assert 15 <= FILES[name].count(b"\n") <= 110
    assert b"\t" not in FILES[name]


@every_profile
def test_it_is_found_by_the_device_it_describes(profile: Profile) -> None:
    for rule in profile.match:
        found = [c.profile.id for c in candidates(_device_of(rule), PROFILES.values(), kind=profile.kind)]
        if isinstance(rule, SerialMatch | VideoMatch | IppMatch) and rule.by_name:
            assert profile.id not in found
        else:
            assert profile.id in found
        if isinstance(rule, VideoMatch) and rule.vid is None:
            assert match_profile(_device_of(rule), PROFILES.values()) is None
        elif isinstance(rule, UsbMatch | InputMatch | CdcMatch | VideoMatch | SoundMatch | DisplayMatch):
            assert match_profile(_device_of(rule), PROFILES.values()) is profile


@every_profile
def test_its_probes_are_harmless(profile: Profile) -> None:
    for rule in profile.match:
        if isinstance(rule, SerialMatch) and rule.probe:
            assert hex_bytes(rule.probe.send) in HARMLESS_PROBES
            assert rule.probe.after_ack in (None, "05"), "what is sent after the question asks for its answer and nothing else"
            assert not re.match(rule.probe.reply, hex_bytes(rule.probe.send).hex()), (
                "the echo of the question would pass as an answer"
            )


@every_profile
def test_its_firmware_question_only_asks(profile: Profile) -> None:
    if profile.firmware.version_query is not None:
        assert hex_bytes(profile.firmware.version_query) in {
            escpos.encode_identity_query(65),
            scanner.encode_query(),
            scanner.encode_honeywell_query(),
        }


@every_profile
def test_a_verified_one_has_a_capture(profile: Profile) -> None:
    captures = Path(__file__).parent.parent / "captures" / profile.id
    assert (profile.grade == "verified") == captures.is_dir()


@every_profile
def test_it_names_its_source(profile: Profile) -> None:
    assert len(profile.source) >= 20


@every_profile
def test_every_condition_of_its_family_is_a_fault_of_its_kind(profile: Profile) -> None:
    conditions = {
        Family.ESCPOS: {
            "PAPER_OUT",
            "PAPER_NEAR_END",
            "COVER_OPEN",
            "CUTTER",
            "JAM",
            "PRINT_ERROR",
            "HARDWARE",
            "HEAD_HOT",
            "OFFLINE",
        },
        Family.IPP: {ipp.condition_of(f"{word}{suffix}") for word in ipp.REASON_WORDS for suffix in ("", "-warning")} - {""},
        Family.PJL: {pjl.meaning_of(code)[1] for code in range(10000, 60000)} - {""} | {"OFFLINE"},
        Family.USB_PRINTER: {"PAPER_OUT", "PRINT_ERROR", "OFFLINE"},
        Family.SDT: set(sdt.CONDITION_OF.values()) | {"OPEN_FAIL", "READ_FAIL_RATE"},
        Family.CARD_F2: {*card_unit.TAILS, "OPEN_FAIL", "LINK_NOISE"},
        Family.CARD_STX: {*card_unit.TAILS, "OPEN_FAIL", "LINK_NOISE"},
        Family.CARD_D1801: {*card_unit.TAILS, "OPEN_FAIL", "LINK_NOISE"},
        Family.CCID: {"OPEN_FAIL", "UNPLUGGED", "SELF_TEST", "CARD_STUCK", "PSAM_MISSING", "READ_FAIL_RATE", "AUTH_FAIL_RATE"},
        Family.PCSC: {"OPEN_FAIL", "UNPLUGGED", "CARD_STUCK", "READ_FAIL_RATE"},
        Family.SCANNER_KEYBOARD: {"MODE_CHANGED", "NO_SUFFIX", "STUCK"},
        Family.SCANNER_SERIAL: {"MODE_CHANGED", "NO_SUFFIX", "OPEN_FAIL", "STUCK", "LINK_NOISE"},
        Family.KEYS: {"STUCK_KEY"} | ({"EMERGENCY", "HELP"} if profile.fault_family == "BTN" else {"REPEAT_STORM"}),
        Family.CALLPAD: {"NO_REPLY", "BUS_CRC", "BUS_DOWN", "BUS_GARBLED", "BUS_ECHO", "TIMEOUT_RATE", "ADDRESS_CONFLICT"},
        Family.RATING_SERIAL: {"NO_REPLY", "STUCK_KEY", "BUS_CRC", "UNKNOWN_KEYS"},
        Family.MODBUS: {
            "NO_REPLY",
            "BUS_CRC",
            "WRONG_MODULE",
            "FROZEN",
            "TEMP",
            "HUMIDITY",
            "DOOR_OPEN",
            "TAMPER",
            "WATER",
            "SMOKE",
        },
        Family.MEGATEC: {
            "ON_BATTERY",
            "BATTERY_LOW",
            "BATTERY_REPLACE",
            "UPS_FAILED",
            "OVERLOAD",
            "BYPASS",
            "LINK_NOISE",
            "OFFLINE",
            "OPEN_FAIL",
        },
        Family.NMEA: {"NO_REPLY", "LINK_NOISE", "POOR_FIX", "CLOCK_WRONG"},
    }.get(profile.family, set())
    for condition in conditions:
        assert profile.fault_code(condition) in FAULTS


@every_profile
def test_a_limited_one_says_so(profile: Profile) -> None:
    assert profile.limited == (profile.family is Family.USB_PRINTER)


@every_profile
def test_a_citizens_keys_are_never_named(profile: Profile) -> None:
    if profile.kind is Kind.KEYPAD:
        assert profile.keys is not None
        assert profile.keys.names() == {}


def test_an_evaluators_keys_are_five_levels() -> None:
    keys = PROFILES["evaluator-keys"].keys
    assert keys is not None
    assert sorted(set(keys.ratings().values())) == [1, 2, 3, 4, 5]


def test_a_scanner_knows_its_other_modes() -> None:
    for profile in PROFILES.values():
        if profile.id.startswith("newland-") and profile.id.endswith("-keyboard"):
            assert profile.scanner is not None
            assert {mode.mode for mode in profile.scanner.other_mode} == {"serial", "hid-pos"}


def test_the_readme_lists_every_family() -> None:
    text = (root() / "README.md").read_text(encoding="utf-8")
    for family in Family:
        assert f"| `{family}` |" in text


def test_profiles_are_found_wherever_the_package_is() -> None:
    assert set(FILES) == {
        f"{folder.name}/{entry.name.removesuffix('.toml')}"
        for folder in files("firmware_profiles").iterdir()
        if folder.is_dir()
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


def _device_of(rule: object) -> Seen:
    if isinstance(rule, UsbMatch):
        return Seen("usb", rule.vid, rule.pid, _text(rule.serial), _text(rule.product))
    if isinstance(rule, InputMatch):
        return Seen("input", rule.vid, rule.pid, None, _text(rule.product), "touch" if rule.touch else None)
    if isinstance(rule, CdcMatch):
        return Seen("serial", rule.vid, rule.pid)
    if isinstance(rule, VideoMatch):
        return Seen("video", rule.vid, rule.pid)
    if isinstance(rule, SoundMatch):
        return Seen("sound", rule.vid, rule.pid, None, _text(rule.product), rule.role)
    if isinstance(rule, DisplayMatch):
        return Seen("display", path="card0-HDMI-A-1")
    if isinstance(rule, IppMatch):
        return Seen("ipp", path="ipp://127.0.0.1:60000/ipp/print")
    if isinstance(rule, PcscMatch):
        return Seen("pcsc")
    assert isinstance(rule, SerialMatch)
    return Seen("serial", rule.adapters[0].vid, rule.adapters[0].pid) if rule.adapters else Seen("serial")


def _text(pattern: str | None) -> str | None:
    return None if pattern is None else SAMPLE_TEXT[pattern]
