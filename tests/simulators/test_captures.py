"""Captures: the text form, what scrubbing leaves, a capture as a device, and the tap between an application and a line."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

import firmware_profiles
from protocols.profile.schema import Profile, parse_all
from simulators.capture import Capture, CaptureError, Transfer, parse, scrub, write
from simulators.cli import main
from simulators.conformance.hands import Nobody
from simulators.conformance.suite import Check
from simulators.conformance.targets import in_memory
from simulators.kit import Kit, wait_for
from simulators.record import SerialTap
from simulators.replay import ReplayDevice
from simulators.virtual_time import in_virtual_time
from simulators.wire import is_described, wire_of

PROFILES = parse_all(firmware_profiles.read_all())
HEAD = {"profile": "receipt-printer-serial", "bus": "serial", "scrubbed": "yes"}
PLANTED = b"PLANTED 420102199001011234 WANG"


def scrubbed(name: str, *traffic: tuple[str, bytes]) -> str:
    transfers = [Transfer(at / 100, way, data) for at, (way, data) in enumerate(traffic)]  # type: ignore[arg-type]
    return write(Capture({"profile": name, "scrubbed": "yes"}, tuple(scrub(wire_of(PROFILES[name]), transfers))))


def body(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.partition("\n\n")[2].splitlines()]


# --------------------------------------------------------------------------------------------------------------------------- the form


def test_the_text_of_a_capture() -> None:
    capture = Capture(
        HEAD,
        (
            Transfer(0.0, "!", note="open"),
            Transfer(0.25, ">", b"\x10\x04\x01", note="status"),
            Transfer(0.2534, "<", b"\x12", endpoint=0x82, note="status"),
            Transfer(1.0, ">", None, 112),
            Transfer(1.1, "?", b"\x18", request=(0xA1, 1, 0, 0, 1), note="port status"),
            Transfer(1.2, "?", None, 0, request=(0xA1, 0, 0, 0, 1024)),
            Transfer(1.3, ">", b"Q1\r\0", request=(0x21, 9, 0x200, 0, 4), note="status"),
        ),
    )
    text = write(capture)
    assert text.startswith("kiosk-sim capture 1\nprofile: receipt-printer-serial\nbus: serial\nscrubbed: yes\n\n")
    assert body(text) == [
        "0 ! open",
        "250 > 10 04 01 status",
        "3 <82 12 status",
        "747 > ~112",
        "100 ? a1 01 0000 0000 0001 : 18 port status",
        "100 ? a1 00 0000 0000 0400 : ~0",
        "100 > 21 09 0200 0000 0004 : 51 31 0d 00 status",
    ]
    assert write(parse(text)) == text


@given(
    st.lists(
        st.builds(
            Transfer,
            st.integers(0, 10_000).map(lambda ms: ms / 1000),
            st.sampled_from(["<", ">"]),
            st.one_of(st.none(), st.binary(min_size=1, max_size=40)),
            st.integers(0, 9999),
            st.one_of(st.none(), st.integers(0, 255)),
        ),
        max_size=20,
    )
)
def test_what_is_written_is_read_again(transfers: list[Transfer]) -> None:
    ordered = sorted(transfers, key=lambda one: one.at_s)
    read = parse(write(Capture(HEAD, tuple(ordered)))).transfers
    assert [(one.way, one.data, one.endpoint, one.length) for one in read] == [
        (one.way, one.data, one.endpoint, one.length) for one in ordered
    ]
    assert [one.at_s for one in read] == [pytest.approx(one.at_s - ordered[0].at_s) for one in ordered]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("something else", 1),
        ("kiosk-sim capture 1\nno colon", 2),
        ("kiosk-sim capture 1\nprofile: x\n\n 0 > 1", 4),
        ("kiosk-sim capture 1\n\n0 > 10\n0 ? 10", 4),
        ("kiosk-sim capture 1\n\n0 > ~99999999", 3),
        ("kiosk-sim capture 1\n\n-1 > 10", 3),
    ],
)
def test_a_capture_that_cannot_be_read_names_its_line(text: str, line: int) -> None:
    with pytest.raises(CaptureError, match=f"Line {line}:"):
        parse(text)


@given(st.text(max_size=300))
def test_no_text_makes_reading_fail_otherwise(text: str) -> None:
    for whole in (text, "kiosk-sim capture 1\n\n" + text):
        try:
            parse(whole)
        except CaptureError:
            continue


# ------------------------------------------------------------------------------------------------------------------------- scrubbing


def test_print_data_becomes_a_length_and_status_stays() -> None:
    text = scrubbed(
        "receipt-printer-serial", (">", b"Dear " + PLANTED + b"\x10\x04\x01\n"), ("<", b"\x12"), ("<", b"\x10\x00\x00\x0f")
    )
    assert body(text) == [
        f"0 > ~{5 + len(PLANTED)}",
        "0 > 10 04 01 status 1",
        "0 > ~1",
        "10 < 12 status",
        "10 < 10 00 00 0f automatic status",
    ]


def test_a_status_that_reads_like_letters_is_hidden() -> None:
    """Four letters can have the fixed bits of an automatic status."""
    assert body(scrubbed("receipt-printer-serial", ("<", b"PLAN"))) == ["0 < ~4 automatic status"]


def test_an_answer_that_nobody_asked_for_is_hidden() -> None:
    assert body(scrubbed("receipt-printer-serial", ("<", b"\x12"))) == ["0 < ~1"]
    assert body(scrubbed("receipt-printer-serial", (">", b"\x10\x04\x01"), ("<", b"\x12\x12"))) == [
        "0 > 10 04 01 status 1",
        "10 < 12 status",
        "0 < ~1",
    ]


def test_a_card_that_is_read_is_hidden_and_the_module_number_too() -> None:
    status, number = bytes.fromhex("aaaaaa9669000311ffed"), bytes.fromhex("aaaaaa9669000312ffee")
    search = bytes.fromhex("aaaaaa96690003200122")
    answer = bytes.fromhex("aaaaaa96690004000090") + b"\x94"
    payload = b"\x00\x14\x00\x00\x90" + b"\x05\x00\x01\x00" + b"NUMBERNUMBER"
    told = b"\xaa\xaa\xaa\x96\x69" + payload
    check = 0
    for byte in payload:
        check ^= byte
    text = scrubbed(
        "sdt-serial", (">", status), ("<", answer), (">", number), ("<", told + bytes((check,))), (">", search), ("<", PLANTED)
    )
    assert body(text)[:2] == ["0 > aa aa aa 96 69 00 03 11 ff ed status", "10 < aa aa aa 96 69 00 04 00 00 90 94 status"]
    assert b"NUMBER".hex(" ") not in text
    assert body(text)[-2:] == [f"10 > ~{len(search)}", f"10 < ~{len(PLANTED)}"]
    # The hidden number leaves a sound frame behind, which a replay can send.
    kept = bytes.fromhex(body(text)[3].removeprefix("10 < ").removesuffix(" module number"))
    assert kept[5:10] == b"\x00\x14\x00\x00\x90"
    assert kept[-1] == 0x14 ^ 0x90


def test_a_scanned_code_is_hidden_even_in_the_middle_of_an_answer() -> None:
    asked = b"\x7e\x010000@QRYSYS;\x03"
    info = b"\x02\x010000@QRYSYSFirmware Version: 1.00.028\r\nSerial Number: S123456\r\n\x06;\x03"
    text = scrubbed("newland-uart", ("<", PLANTED + b"\r\n"), (">", asked), ("<", PLANTED + b"\r\n" + info))
    assert b"1.00.028".hex(" ") in text
    assert b"S123456".hex(" ") not in text


def test_a_van_is_nowhere() -> None:
    rmc = b"$GNRMC,081836,A,3141.4000,N,11322.9620,E,000.0,360.0,130998,011.3,E*"
    check = 0
    for byte in rmc[1:-1]:
        check ^= byte
    text = scrubbed("nmea-serial", ("<", rmc + b"%02X\r\n" % check))
    kept = bytes.fromhex(body(text)[0].removeprefix("0 < ").removesuffix(" sentence"))
    assert b",A,0000.0000,N,00000.0000,E," in kept
    again = 0
    for byte in kept[1:-5]:
        again ^= byte
    assert kept.endswith(b"*%02X\r\n" % again)


def test_a_display_text_is_filled_and_the_rest_of_the_answer_stays() -> None:
    ask = b"\x1b%-12345X@PJL \r\n@PJL INFO STATUS\r\n\x1b%-12345X"
    say = b'@PJL INFO STATUS\r\nCODE=10001\r\nDISPLAY="JOB OF PLANTED"\r\nONLINE=TRUE\r\n\x0c'
    text = scrubbed("hp-laserjet-4250", (">", ask), ("<", say))
    assert b"CODE=10001".hex(" ") in text
    assert b"PLANTED".hex(" ") not in text


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_planted_data_is_in_no_capture_of_any_family(name: str) -> None:
    """Whatever a session carries in either direction, cut anywhere, alone or around real questions."""
    wire = wire_of(PROFILES[name])
    assert is_described(PROFILES[name].family)
    questions = [b"\x10\x04\x01", b"Q1\r", b"\x7e\x010000@QRYSYS;\x03", bytes.fromhex("aaaaaa9669000311ffed"), b""]
    transfers = []
    for number, question in enumerate(questions):
        way = ">" if number % 2 else "<"
        other = "<" if way == ">" else ">"
        transfers += [Transfer(number, way, (question + PLANTED)[at : at + 7]) for at in range(0, 49, 7)]  # type: ignore[arg-type]
        transfers += [Transfer(number, other, question + PLANTED + b"\r\n"), Transfer(number, way, PLANTED)]  # type: ignore[arg-type]
    text = write(Capture({}, tuple(scrub(wire, transfers))))
    kept = b"".join(transfer.data or b"" for transfer in parse(text).transfers)
    assert b"PLANTED" not in kept
    assert b"420102" not in kept


def test_unknown_control_transfers_are_hidden() -> None:
    seen = scrub(wire_of(PROFILES["snbc-btp"]), [Transfer(0, "?", PLANTED, request=(0xC0, 5, 0, 0, 64))])
    assert (seen[0].data, seen[0].size) == (None, len(PLANTED))


def test_a_device_id_keeps_the_model_and_hides_the_serial_number() -> None:
    raw = b"\x00\x30MFG:HP;MDL:LaserJet;SN:VNB3K12345;CMD:PJL;"
    (seen,) = scrub(wire_of(PROFILES["hp-laserjet-4250"]), [Transfer(0, "?", raw, request=(0xA1, 0, 0, 0, 1024))])
    assert seen.data is not None
    assert b"MDL:LaserJet" in seen.data
    assert b"VNB3K" not in seen.data


# --------------------------------------------------------------------------------------------------------------------------- replay

REPLAYED = [
    "receipt-printer-serial",
    "snbc-btp",
    "sdt-serial",
    "sdt-usb",
    "newland-uart",
    "xy-md02",
    "megatec-serial",
    "hp-laserjet-1020",
]


@pytest.mark.parametrize("name", REPLAYED)
def test_a_capture_of_a_check_passes_for_the_device(name: str) -> None:
    """What a vendor records with `check --capture` is a device that a test can watch for good: the golden test of a profile."""
    profile = PROFILES[name]
    text = in_virtual_time(_captured(profile))
    assert "scrubbed: yes" in text
    replayed = ReplayDevice(parse(text), baud=profile.transport.serial.baud if profile.transport.serial else None)

    async def story() -> tuple[str, set[str]]:
        target, _ = in_memory(profile, model=replayed)
        check = Check(profile, target, Nobody(), PROFILES)
        await check.run()
        state = check.report.result("state")
        failed = {result.id for result in check.report.failed} - {"found"}
        return state.text, failed

    assert in_virtual_time(story()) == ("device online", set())


async def _captured(profile: Profile) -> str:
    target, _ = in_memory(profile)
    check = Check(profile, target, Nobody(), PROFILES)
    await check.run()
    return check.capture_text()


def test_in_order_a_wrong_question_is_not_answered() -> None:
    capture = parse("kiosk-sim capture 1\n\n0 > 01\n5 < aa\n10 > 02\n5 < bb\n")
    device = ReplayDevice(capture, in_order=True)
    device.feed(b"\x02", 0.0)
    assert device.take(1.0, 99) == b""
    assert device.unknown_bytes == 1
    device.feed(b"\x01", 1.0)
    device.feed(b"\x02", 2.0)
    assert device.take(9.0, 99) == b"\xaa\xbb"


def test_by_match_answers_come_in_their_order_and_the_last_one_stays() -> None:
    device = ReplayDevice(parse("kiosk-sim capture 1\n\n0 > 01\n5 < aa\n10 > 01\n5 < bb\n"))
    for now, answer in enumerate([b"\xaa", b"\xbb", b"\xbb"]):
        device.feed(b"\x01", float(now))
        assert device.take(now + 0.5, 99) == answer


def test_a_capture_without_a_question_is_no_device() -> None:
    with pytest.raises(CaptureError, match="no question"):
        ReplayDevice(parse("kiosk-sim capture 1\n\n0 > ~9\n5 < ~3\n"))


# ------------------------------------------------------------------------------------------------------------------------------- tap


@contextmanager
def recording(port: Path, link: Path, profile: Profile) -> Iterator[list[Capture]]:
    """A SerialTap on a loop of its own; its capture is in the list when the block has ended."""
    captures: list[Capture] = []
    started, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        tap = SerialTap(str(port), link, profile)
        started.set()
        while not stop.is_set() and not tap.ended.is_set():
            await asyncio.sleep(0.005)
        tap.close()
        captures.append(tap.capture())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(10)
        yield captures
    finally:
        stop.set()
        thread.join()


def test_the_tap_hands_on_both_ways_and_keeps_nobodys_name(tmp_path: Path) -> None:
    profile = PROFILES["receipt-printer-serial"]
    with Kit(tmp_path) as kit:
        printer = kit.pty("receipt-printer-serial")
        with recording(printer.path, tmp_path / "app", profile) as captures:
            with serial.Serial(str(tmp_path / "app"), 38400, timeout=3) as line:
                line.write(b"\x10\x04\x01")
                assert line.read(1) == b"\x12"
                line.write(PLANTED * 40)
                line.write(b"\x10\x04\x04")
                assert line.read(1) == b"\x12"
            with serial.Serial(str(tmp_path / "app"), 38400, timeout=3) as line:  # closed and opened again
                line.write(b"\x10\x04\x01")
                assert line.read(1) == b"\x12"
        text = write(captures[0])
    assert captures[0].head["unit"] == "pseudo-terminal", "no unit hangs there, so it verifies nothing"
    assert PLANTED[:4].hex(" ") not in text
    read = parse(text)
    assert sum(transfer.size for transfer in read.transfers if transfer.data is None) == 40 * len(PLANTED)
    assert sum(transfer.data == b"\x12" for transfer in read.transfers) == 3
    assert not (tmp_path / "app").exists()


def test_a_device_that_leaves_ends_the_session(tmp_path: Path) -> None:
    with Kit(tmp_path) as kit:
        printer = kit.pty("receipt-printer-serial")
        with recording(printer.path, tmp_path / "app", PROFILES["receipt-printer-serial"]) as captures:
            printer.set("unplug")
            wait_for(lambda: bool(captures), "the end of the session")
    assert captures[0].transfers[-1].note == "lost"


def test_the_commands_refuse_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing, out = str(tmp_path / "nothing"), str(tmp_path / "out")
    assert main(["record", "--profile", "sdt-serial", "--port", nothing, "--pty", str(tmp_path / "p"), "--out", out]) == 2
    assert "Cannot open" in capsys.readouterr().err
    assert main(["record", "--profile", "sdt-usb", "--port", nothing, "--pty", str(tmp_path / "p"), "--out", out]) == 2
    assert "check --capture" in capsys.readouterr().err
    assert main(["replay", nothing, "--pty", str(tmp_path / "p")]) == 2
    (tmp_path / "broken").write_text("kiosk-sim capture 1\n\nnonsense\n", "utf-8")
    assert main(["replay", str(tmp_path / "broken"), "--pty", str(tmp_path / "p")]) == 2
    assert "Line 3" in capsys.readouterr().err
