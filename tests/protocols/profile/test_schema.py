"""Profile files: strict, with the exact place of every mistake."""

from __future__ import annotations

import contextlib
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs.modbus import ReadRequest
from protocols.profile import schema
from protocols.profile.schema import Family, Kind, ProfileError, parse_all, parse_profile

PRINTER = """
schema = 1
id = "acme-tp80"
family = "escpos"
kind = "receipt-printer"
display_name = "Acme TP80"
grade = "expected"
source = "Acme TP80 programming manual rev. C, sections 4.2 and 7.1"

[[match]]
bus = "usb"
vid = 0x1234
pid = 0x0080
serial = "^TP80-"

[transport.usb]
read_timeout_ms = 500

[poll]
every_s = 15

[escpos]
auto_status = false

[[status]]
query = "10 04 05"
reply_bytes = 1
valid = [{ mask = 0x93, value = 0x12 }]
bits = [{ mask = 0x60, value = 0x60, condition = "OUTPUT_NOT_TAKEN" }]

[firmware]
known_good = ["1.4.2"]
known_bad = [{ version = "1.3.0", reason = "forgets the cover sensor after a cut" }]
"""

PAD = """
schema = 1
id = "acme-pad"
family = "callpad"
kind = "call-pad"
display_name = "Acme pad"
grade = "expected"
source = "Acme pad protocol, 2019"
[[match]]
bus = "serial"
by_slot = true
[transport.serial]
baud = 9600
[poll]
every_s = 1
[callpad]
separator = ""
keys = { 0c = "callNext", 06 = "6" }
"""

CLIMATE = """
schema = 1
id = "acme-air"
family = "modbus"
kind = "climate"
display_name = "Acme air"
grade = "expected"
source = "Acme air data sheet"
[[match]]
bus = "serial"
by_slot = true
[transport.serial]
baud = 9600
[poll]
every_s = 30
[[modbus.read]]
function = 4
start = 1
count = 2
[[modbus.value]]
quantity = "temperature"
register = 0
"""


def parse(text: str, name: str = "acme-tp80") -> schema.Profile:
    return parse_profile(text.encode(), name)


def test_a_sound_profile() -> None:
    profile = parse(PRINTER, "printers/acme-tp80")
    assert (profile.family, profile.kind, profile.fault_family) == (Family.ESCPOS, Kind.RECEIPT_PRINTER, "PRN")
    assert profile.fault_code("OUTPUT_NOT_TAKEN") == "PRN.OUTPUT_NOT_TAKEN"
    assert profile.escpos is not None
    assert profile.escpos.queries == (1, 2, 3, 4)
    assert profile.firmware.verdict("1.4.2") == "good"
    assert profile.firmware.verdict("1.3.0") == "bad"
    assert profile.firmware.verdict("9") == "unknown"
    with pytest.raises(AttributeError):
        profile.id = "other"  # type: ignore[misc]


def test_a_call_pad_becomes_frame_rules() -> None:
    profile = parse(PAD, "acme-pad")
    assert profile.callpad is not None
    rules = profile.callpad.rules()
    assert (rules.start, rules.separator, rules.end) == (b"\xff\x68", b"", b"\x16")
    assert dict(rules.keys) == {0x0C: "callNext", 0x06: "6"}
    assert rules.ratings[5] == 5


def test_a_module_becomes_questions() -> None:
    profile = parse(CLIMATE, "acme-air")
    assert profile.modbus is not None
    assert profile.modbus.read[0].request(7) == ReadRequest(7, 4, 1, 2)


WRONG = [
    (PRINTER, 'id = "acme-tp80"', 'id = "acme-tp81"', "id: 'acme-tp81' differs from the file's name 'acme-tp80'"),
    (PRINTER, "schema = 1", "schema = 2", "schema: invalid enum value 2"),
    (PRINTER, "mask = 0x60, value = 0x60", 'mask = "x", value = 0x60', "status[0].bits[0].mask: expected `int`, got `str`"),
    (
        PRINTER,
        "mask = 0x60, value = 0x60",
        "mask = 0x60, value = 0x61",
        "status[0].bits[0]: value 0x61 has bits outside mask 0x60",
    ),
    (
        PRINTER,
        "mask = 0x93, value = 0x12",
        "mask = 0x93, value = 0x13, at = 1",
        "status[0].valid[0].at: outside a reply of 1 bytes",
    ),
    (
        PRINTER,
        "mask = 0x60, value = 0x60",
        "mask = 0x62, value = 0x60",
        "status[0].bits[0].value: contradicts the reply's fixed bits",
    ),
    (PRINTER, "OUTPUT_NOT_TAKEN", "ON_FIRE", "status[0].bits[0].condition: PRN.ON_FIRE is not in the fault catalogue"),
    (PRINTER, "reply_bytes = 1", "replybytes = 1", "status[0]: object contains unknown field `replybytes`"),
    (
        PRINTER,
        "auto_status = false",
        "auto_status = true",
        "status: a reply of its own form cannot be told from an automatic status",
    ),
    (PRINTER, "auto_status = false", 'auto_status = false\ndialect = "star"', "status: a reply of its own form cannot be told"),
    (PRINTER, 'query = "10 04 05"', 'query = "1d 56 42"', "status[0].query: not a status question"),
    (PRINTER, 'query = "10 04 05"', 'query = "10 4 5"', "status[0].query: expected `str` matching regex"),
    (PRINTER, "every_s = 15", "every_s = 0", "poll.every_s: expected `float` >= 0.05"),
    (PRINTER, "vid = 0x1234", "vid = 0x12345", "match[0].vid: expected `int` <= 65535"),
    (PRINTER, 'bus = "usb"', 'bus = "usp"', "match[0].bus: invalid value 'usp'"),
    (PRINTER, 'serial = "^TP80-"', 'serial = "TP80"', "match[0].serial: expected `str` matching regex"),
    (PRINTER, 'serial = "^TP80-"', 'serial = "^(TP80"', "match[0]: serial: not a regular expression"),
    (PRINTER, "pid = 0x0080", "", "match[0]: needs pid or product"),
    (PRINTER, 'bus = "usb"', 'bus = "input"', "match[0]: object contains unknown field `serial`"),
    (PRINTER, "[transport.usb]\nread_timeout_ms = 500", "", "transport.usb: missing, although match[0] names that bus"),
    (PRINTER, "[poll]\nevery_s = 15", "", "poll: missing"),
    (PRINTER, 'kind = "receipt-printer"', 'kind = "scanner"', "kind: scanner is not a kind of family escpos"),
    (PRINTER, 'kind = "receipt-printer"', 'kind = "card-printer"', "kind: invalid enum value 'card-printer'"),
    (PRINTER, "[poll]", "[pjl]\n[poll]", "pjl: family escpos has no such table"),
    (PRINTER, "[poll]", "[transport.serial]\nbaud = 9600\n[poll]", "transport.serial: no match names that bus"),
    (PRINTER, "[poll]", "[quirks]\nrun_this = true\n[poll]", "quirks: object contains unknown field `run_this`"),
    (PRINTER, 'known_good = ["1.4.2"]', 'known_good = ["1.3.0"]', "firmware: version 1.3.0 is both good and bad"),
    (PRINTER, "[firmware]", '[firmware]\nmethod = "usb-dfu"', "firmware: usb-dfu needs bootloader, part_number, version"),
    (PRINTER, 'source = "Acme', 'source = "\\nAcme', "source: expected `str` matching regex"),
    (PRINTER, "sections 4.2 and 7.1", "330102199001011235", "source: expected `str` matching regex"),
    (PRINTER, "[poll]", "[poll", "not TOML: "),
    (PAD, 'id = "acme-pad"', 'id = "acme-tp80"', "id: 'acme-tp80' differs from the file's name 'acme-pad'"),
    (PAD, '"callNext"', '"openDoor"', "callpad: keys: 'openDoor' is neither a digit nor an action"),
    (PAD, "0c =", "0C =", "callpad: keys: '0C' is not two lower-case hex digits"),
    (PAD, "[callpad]", "[callpad]\nratings = { 01 = 6 }", "callpad: ratings: 6 is not a level 0-5"),
    (PAD, "[callpad]", '[callpad]\nlength = "fixed"', "callpad: a fixed frame has 2-64 bytes"),
    (PAD, "by_slot = true", "", "match[0]: needs one of probe, by_slot and by_name"),
    (PAD, "by_slot = true", "by_slot = true\nby_name = true", "match[0]: needs one of probe, by_slot and by_name"),
    (CLIMATE, "function = 4", "function = 6", "modbus.read[0].function: invalid enum value 6"),
    (CLIMATE, "count = 2", "count = 200", "modbus.read[0]: 200 values at 1 cannot be read"),
    (CLIMATE, "register = 0", "register = 2", "modbus.value[0].register: outside modbus.read[0]"),
    (CLIMATE, "register = 0", "register = 0\nread = 1", "modbus.value[0].read: there is no modbus.read[1]"),
    (CLIMATE, "function = 4", "function = 2", "modbus.value[0].read: reads bits, a quantity needs registers"),
    (CLIMATE, 'kind = "climate"', 'kind = "contacts"', "modbus.input: missing: a contact module has inputs"),
]


@pytest.mark.parametrize(("text", "old", "new", "message"), WRONG, ids=[f"{i}-{row[3][:24]}" for i, row in enumerate(WRONG)])
def test_every_mistake_is_told_with_its_place(text: str, old: str, new: str, message: str) -> None:
    assert old in text
    name = {PRINTER: "acme-tp80", PAD: "acme-pad", CLIMATE: "acme-air"}[text]
    with pytest.raises(ProfileError) as caught:
        parse(text.replace(old, new, 1), name)
    assert str(caught.value).startswith(f"profile {name}: {message}")


def test_files_that_are_no_text_or_too_large() -> None:
    with pytest.raises(ProfileError, match="not UTF-8 at byte 0"):
        parse_profile(b"\xff", "x")
    with pytest.raises(ProfileError, match="larger than 64 KiB"):
        parse_profile(b"#" * (64 * 1024 + 1), "x")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_values_beyond_pythons_limits(value: str) -> None:
    with pytest.raises(ProfileError, match="too deep or too long"):
        parse_profile(f"schema = {value}".encode(), "x")


def test_a_name_may_exist_once() -> None:
    with pytest.raises(ProfileError, match="another file with this name"):
        parse_all({"a/acme-tp80": PRINTER.encode(), "b/acme-tp80": PRINTER.encode()})


def test_a_family_gets_its_options_even_if_the_file_leaves_them_out() -> None:
    for family, (_, _, table) in schema._FAMILY_RULES.items():
        if table not in (None, "modbus"):
            assert table in schema._DEFAULTS, family


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(raw: bytes) -> None:
    with pytest.raises(ProfileError):
        parse_profile(raw, "x")


@given(
    st.recursive(
        st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.floats(allow_nan=False)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=5,
    ),
    st.sampled_from(
        ["match", "transport", "poll", "escpos", "status", "firmware", "quirks", "consumable", "id", "kind", "callpad"]
    ),
)
@settings(deadline=None)
def test_no_value_anywhere_makes_it_fail_otherwise(value: object, key: str) -> None:
    with contextlib.suppress(ProfileError):
        schema.check_tree({**tomllib.loads(PRINTER), key: value}, "acme-tp80")


# ------------------------------------------------------------------------------------------------------------------- firmware methods

FLASH = """schema = 1
id = "acme-scan"
family = "scanner-serial"
kind = "scanner"
display_name = "Acme Scan"
grade = "expected"
source = "Acme Scan programming guide, section 9"
[[match]]
bus = "serial"
by_slot = true
[transport.serial]
baud = 9600
[firmware]
method = "xmodem"
part_number = "AB-12"
install_duration_s = 60
replug_timeout_s = 10
[firmware.enter]
send = "1b 42"
[firmware.identify]
reply = "^43"
[firmware.part]
send = "1b 50"
reply = "^(?P<part>([0-9a-f]{2})+?)0d"
[firmware.version]
send = "1b 56"
reply = "^56(?P<version>([0-9a-f]{2})+?)0d0a"
"""


def test_a_profile_says_how_firmware_is_written() -> None:
    rules = parse(FLASH, "acme-scan").firmware
    assert rules.flashable
    assert rules.version is not None
    assert rules.version.text(b"V2.1.0\r\nrest", "version") == "2.1.0"
    assert rules.version.text(b"V2.1", "version") is None
    assert rules.version.text(b"V\xff\xfe\r\n", "version") is None
    assert rules.identify is not None
    assert rules.identify.fits(b"CCC")
    assert not rules.identify.fits(b"\x15")
    assert not parse(PRINTER, "acme-tp80").firmware.flashable


WRONG_FLASH = [
    ('method = "xmodem"', 'method = "vendor-tool"', "firmware: part_number has no effect with method vendor-tool"),
    ('part_number = "AB-12"\n', "", "firmware: xmodem needs part_number"),
    ("replug_timeout_s = 10\n", "", "firmware: xmodem needs replug_timeout_s"),
    ('[firmware.identify]\nreply = "^43"\n', "", "firmware: xmodem needs identify"),
    ('send = "1b 42"', "within_ms = 5", "firmware.enter: needs send, reply or both"),
    ('send = "1b 42"', 'reply = "^06"', "firmware: enter: needs send"),
    ("(?P<version>([0-9a-f]{2})+?)", "", "firmware: version: the reply needs a group named version"),
    ("?P<part>", "?P<serial>", "firmware.part: reply: group 'serial' is neither part nor version"),
    (
        '[firmware.part]\nsend = "1b 50"\nreply = "^(?P<part>([0-9a-f]{2})+?)0d"\n',
        "",
        "firmware: the part number is asked nowhere",
    ),
    ('reply = "^43"', 'reply = "43"', "firmware.identify.reply: expected `str` matching regex"),
    ('reply = "^43"', 'reply = "^(43"', "firmware.identify: reply: not a regular expression"),
    ("replug_timeout_s = 10", "replug_timeout_s = 10\npad = 256", "firmware.pad: expected `int` <= 255"),
    ("replug_timeout_s = 10", "replug_timeout_s = 10\ndfu = { alt = 1 }", "firmware: dfu does not belong to method xmodem"),
    ('method = "xmodem"', 'method = "zmodem"', "firmware.method: invalid enum value 'zmodem'"),
    (
        'method = "xmodem"',
        'method = "usb-dfu"\nbootloader = { vid = 1, pid = 2 }',
        "firmware: identify does not belong to method usb-dfu",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_FLASH, ids=[f"{i}" for i in range(len(WRONG_FLASH))])
def test_every_mistake_about_firmware_is_told_with_its_place(old: str, new: str, message: str) -> None:
    assert old in FLASH
    with pytest.raises(ProfileError) as caught:
        parse(FLASH.replace(old, new, 1), "acme-scan")
    assert str(caught.value).startswith(f"profile acme-scan: {message}")
