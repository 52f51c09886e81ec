"""The conformance suite over every profile and its device model, and over units that are wrong in one way each."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import firmware_profiles
from protocols.profile.schema import Family, Profile, parse_all
from simulators.capture import Transfer, parse
from simulators.cli import main
from simulators.conformance.analysis import analyse
from simulators.conformance.hands import Deed, ModelHands, Nobody, Person
from simulators.conformance.report import Report, Result, Verdict, as_junit, as_text
from simulators.conformance.suite import Check, Settings
from simulators.conformance.targets import in_memory, on_a_pty
from simulators.models.base import Model
from simulators.models.escpos import EscposPrinter
from simulators.standins import has_model
from simulators.virtual_time import in_virtual_time
from simulators.wire import is_described, wire_of

PROFILES = parse_all(firmware_profiles.read_all())
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=list(PROFILES))
FIRST_OF_EACH_SERIAL_FAMILY = {
    profile.family: profile for profile in reversed(PROFILES.values()) if profile.transport.serial is not None
}


def checked(profile: Profile, *, model: Model | None = None, spoil: Callable[[Model], None] = lambda _: None) -> Report:
    async def story() -> Report:
        target, unit = in_memory(profile, model=model)
        spoil(unit)
        return await Check(profile, target, ModelHands(unit), PROFILES).run()

    return in_virtual_time(story())


@every_profile
def test_the_model_of_every_profile_conforms(profile: Profile) -> None:
    report = checked(profile)
    assert report.failed == [], as_text(report)
    assert report.result("harmless").verdict is not Verdict.FAILED
    assert report.result("unplug").verdict is Verdict.PASSED


def test_every_profile_has_a_model() -> None:
    assert [name for name, profile in PROFILES.items() if not has_model(profile)] == []


def test_every_family_is_described() -> None:
    assert [family for family in Family if not is_described(family)] == []


@pytest.mark.serial
@pytest.mark.parametrize("profile", FIRST_OF_EACH_SERIAL_FAMILY.values(), ids=list(FIRST_OF_EACH_SERIAL_FAMILY))
async def test_over_a_real_line(profile: Profile, tmp_path: Path) -> None:
    """Real time, a pseudo-terminal, the agent's own serial transport."""
    target, model, pty = on_a_pty(profile, tmp_path / "unit")
    try:
        report = await Check(profile, target, Nobody(), PROFILES, Settings(rounds=2, every_s=0.4)).run()
    finally:
        pty.close()
    # How long answers take is the machine's business here, which may have others to serve.
    assert [result.id for result in report.failed if result.id != "pace"] == [], as_text(report)
    assert report.result("unplug").verdict is Verdict.SKIPPED
    assert model.frames_in > 0 or not wire_of(profile).questions


SPOILED = [
    ("receipt-printer-serial", "silence", {"state", "answers"}),
    ("receipt-printer-serial", "garbage", {"framing"}),
    ("receipt-printer-serial", "paper-out", {"steady"}),
    ("snbc-btp", "unplug", {"found"}),
    ("snbc-btp", "in-use", {"opens"}),
    ("sdt-serial", "sam-failure", {"state"}),
    ("sdt-serial", "corrupt", {"answers", "framing"}),
    ("xy-md02", "noise", {"framing"}),
    ("newland-uart", "silence", {"answers", "identity"}),
]


@pytest.mark.parametrize(("name", "fault", "failing"), SPOILED, ids=lambda value: str(value) if isinstance(value, str) else "")
def test_a_unit_with_a_flaw_fails_where_the_flaw_shows(name: str, fault: str, failing: set[str]) -> None:
    def spoil(model: Model) -> None:
        model.set(fault, asyncio.get_running_loop().time())

    report = checked(PROFILES[name], spoil=spoil)
    assert failing <= {result.id for result in report.failed}, as_text(report)
    assert all(result.remedy for result in report.failed)
    if report.results[-1].id == "harmless":
        assert report.results[-1].verdict is Verdict.PASSED


def test_a_slow_unit_is_told_to_raise_the_time_out() -> None:
    report = checked(PROFILES["receipt-printer-serial"], model=EscposPrinter(latency_s=0.3, has_text_ids=False))
    assert [result.id for result in report.failed] == ["pace"]


def test_a_profile_that_does_not_name_the_unit_is_found_out() -> None:
    report = checked(PROFILES["snbc-btp"], spoil=lambda model: setattr(model, "usb", EscposPrinter().usb or model.usb))
    assert report.failed == []

    async def story() -> Report:
        target, unit = in_memory(PROFILES["epson-tm-t20"])
        return await Check(PROFILES["snbc-btp"], target, ModelHands(unit), PROFILES).run()

    assert in_virtual_time(story()).result("found").verdict is Verdict.FAILED


def test_a_state_that_is_never_told_fails() -> None:
    class Blind(EscposPrinter):
        """A printer whose cover switch is not connected: it looks closed for ever."""

        def on_fault(self, name: str, active: bool, now: float) -> None:
            if name != "cover-open":
                super().on_fault(name, active, now)

        def has(self, fault: str) -> bool:
            return fault != "cover-open" and super().has(fault)

    report = checked(PROFILES["receipt-printer-serial"], model=Blind(has_text_ids=False))
    assert [result.id for result in report.failed] == ["PRN.COVER_OPEN"]


def test_an_agent_that_prints_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tap judges what was sent, not what the driver meant: here its harmless switch is a line of print."""
    monkeypatch.setattr("protocols.codecs.escpos.encode_auto_status", lambda mask=0: b"Dear citizen\n")
    harmless = checked(PROFILES["receipt-printer-serial"]).result("harmless")
    assert harmless.verdict is Verdict.FAILED
    assert b"Dear citizen\n".hex(" ") in harmless.text


def test_a_driver_that_falls_over_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ValueError("PLANTED")

    monkeypatch.setattr("protocols.codecs.escpos.reading_of_real_time", broken)
    drivers = checked(PROFILES["receipt-printer-serial"]).result("drivers")
    assert drivers.verdict is Verdict.FAILED
    assert "ValueError" in drivers.text
    assert "PLANTED" not in drivers.text


def test_a_unit_that_never_stops_talking_is_judged_in_little_memory() -> None:
    class Endless(Model):
        """Says something whenever it is looked at."""

        def take(self, now: float, max_bytes: int, *, endpoint: int = 0, line_baud: int | None = None) -> bytes:
            return b"\xff" * max_bytes

    report = checked(PROFILES["receipt-printer-serial"], model=Endless(baud=38400))
    assert {"state", "answers", "framing"} <= {result.id for result in report.failed}, as_text(report)
    assert report.result("harmless").verdict is Verdict.PASSED


@pytest.mark.parametrize(("typed", "done"), [("\n", True), ("done\n", True), ("s\n", False), ("", False)])
async def test_a_person_answers_or_skips(
    typed: str, done: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert await Person().do(Deed("cover-open", "Open the cover.")) is done
    assert "Open the cover." in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------- the tap's verdict


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("receipt-printer-serial", b"Name: PLANTED\n\x1dV\x00"),
        ("receipt-printer-serial", b"\x10\x05\x02"),
        ("sdt-serial", bytes.fromhex("aaaaaa96690003200122")),
        ("newland-uart", b"\x7e\x010000#SCNTRG1;\x03"),
        ("xy-md02", bytes.fromhex("01060000000189ca")),
        ("hp-laserjet-4250", b'\x1b%-12345X@PJL RDYMSG DISPLAY="x"\r\n\x1b%-12345X'),
        ("numeric-keypad", b"\x00"),
    ],
)
def test_what_moves_prints_or_reads_is_forbidden(name: str, sent: bytes) -> None:
    found = analyse(wire_of(PROFILES[name]), [Transfer(0.0, ">", sent)])
    assert found.forbidden


def test_a_control_transfer_that_is_no_question_is_forbidden() -> None:
    reset = Transfer(0.0, "?", b"", request=(0xA1, 0x02, 0, 0, 0))
    assert analyse(wire_of(PROFILES["snbc-btp"]), [reset]).forbidden == ["control transfer a1 02"]


def test_a_late_answer_is_no_answer() -> None:
    wire = wire_of(PROFILES["receipt-printer-serial"])
    ask, say = b"\x10\x04\x01", b"\x12"
    traffic = [
        Transfer(0.0, ">", ask),
        Transfer(0.1, "<", say),
        Transfer(1.0, ">", ask),
        Transfer(2.0, ">", ask),
        Transfer(2.1, "<", say),
    ]
    found = analyse(wire, traffic)
    assert [exchange.took_s for exchange in found.exchanges] == [pytest.approx(0.1), None, pytest.approx(0.1)]
    assert (found.stray_bytes, found.forbidden) == (0, [])
    assert analyse(wire, [Transfer(0.0, "<", say)]).stray_bytes == 1


# -------------------------------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_junit_and_a_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit, capture = tmp_path / "out.xml", tmp_path / "out.capture"
    arguments = ["check", "--profile", "sdt-usb", "--simulated", "--junit", str(junit), "--capture", str(capture)]
    assert main(arguments) == 0
    assert "passed, 0 failed" in capsys.readouterr().out
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    assert suite is not None
    assert int(suite.get("tests", "0")) == len(suite.findall("testcase")) > 8
    read = parse(capture.read_text("utf-8"))
    assert (read.head["profile"], read.scrubbed) == ("sdt-usb", True)
    assert any(transfer.data for transfer in read.transfers)


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--profile", "no-such-profile", "--simulated"]) == 2
    assert main(["check", "--profile", str(tmp_path / "none.toml"), "--simulated"]) == 2
    (tmp_path / "wrong.toml").write_text('schema = 1\nid = "wrong"\n', "utf-8")
    assert main(["check", "--profile", str(tmp_path / "wrong.toml"), "--simulated"]) == 2
    assert "wrong" in capsys.readouterr().err
    assert main(["check", "--profile", "receipt-printer-serial", "--port", str(tmp_path / "nothing"), "--unattended"]) == 1
    assert "there is nothing at" in capsys.readouterr().out
    assert main(["check", "--profile", "snbc-btp", "--usb", "99-1.1", "--unattended"]) == 2
    assert "no USB device at 99-1.1" in capsys.readouterr().err
    assert main(["check", "--profile", "snbc-btp", "--simulated", "--model", "json:loads"]) == 2
    assert main(["check", "--profile", "snbc-btp", "--simulated", "--rounds", "0"]) == 2


def test_junit_survives_what_a_device_may_say() -> None:
    report = Report("some", "/dev/tty\x00", [Result("a", "b", Verdict.FAILED, "said \x1b\x07 \ud800", "<&>")])
    root = ElementTree.fromstring(as_junit([report]))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "said ?? ?"
