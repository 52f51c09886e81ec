"""Each fault that a simulated device can have ends in its code, with evidence, and goes away by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from protocols.contract.records import Device, Fault
from simulators.conformance.watch import WALL_OFFSET_MS
from simulators.models.base import Model
from simulators.models.callpad import CallPadBus
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_stx import StxCardReader
from simulators.models.ccid import USB_ACR39U, USB_NO_NOTICES, USB_R502, CcidReader
from simulators.models.escpos import USB_POS58, USB_SNBC, EscposPrinter
from simulators.models.gps import USB_UBLOX8, GpsReceiver
from simulators.models.ipp import IppPrinter
from simulators.models.keys import EmergencyButton, EvaluatorPad, HelpButton, HidScanner, KeyDevice, Keypad
from simulators.models.laser import USB_LJ2650, USB_PANTUM, LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.pcsc import PcscService
from simulators.models.presence import (
    USB_FINGERPRINT,
    USB_MODEM,
    USB_SIGNATURE_PAD,
    Camera,
    Display,
    Microphone,
    SeenDevice,
    Speaker,
    TouchScreen,
)
from simulators.models.presenter import USB_VKP80, PresenterPrinter
from simulators.models.rating import FRAME_FORM, RatingPad
from simulators.models.scanner import HONEYWELL_IDENTITY, USB_NEWLAND_CDC, SerialScanner
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader
from simulators.models.star import USB_TSP650, StarPrinter
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.slots import CH340, Bus, Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time

TTY = "/dev/ttyUSB0"
IPP = "ipp://127.0.0.1:60000/ipp/print"


def serial(name: str, model: Model, *, profile: str | None = None) -> Slot:
    return Slot(name, model, "serial", TTY, "1-1.1", adapter=CH340, profile=profile)


def seen(name: str, model: Model, bus: Bus, path: str, *, profile: str | None = None) -> Slot:
    return Slot(name, model, bus, path, "1-1.7", profile=profile)


def usb(name: str, model: Model) -> Slot:
    return Slot(name, model, "usb", "1-1.2", "1-1.2")


def keys(name: str, model: Model) -> Slot:
    return Slot(name, model, "input", "/dev/input/event3", "1-1.3")


BUILD: dict[str, Callable[[], Slot]] = {
    "receipt-serial": lambda: serial("receipt-printer", EscposPrinter()),
    "receipt-usb": lambda: usb("receipt-printer", EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880")),
    "receipt-clone": lambda: usb("receipt-printer", EscposPrinter(usb=USB_POS58, has_text_ids=False, has_process_id=False)),
    "laser": lambda: usb("laser-printer", LaserPrinter(usb=USB_LJ2650)),
    "presenter-usb": lambda: usb("receipt-printer", PresenterPrinter(usb=USB_VKP80)),
    "star-usb": lambda: usb("receipt-printer", StarPrinter(usb=USB_TSP650)),
    "ipp": lambda: Slot("laser-printer", IppPrinter(), "ipp", IPP),
    "laser-limited": lambda: usb("laser-printer", LaserPrinter(usb=USB_PANTUM, maker="Pantum", model_name="P2000 series")),
    "reader-split": lambda: usb("id-reader", SdtReader(usb=USB_SPLIT)),
    "reader-whole": lambda: usb("id-reader", SdtReader(usb=USB_WHOLE)),
    "reader-serial": lambda: serial("id-reader", SdtReader()),
    "ccid-contactless": lambda: usb("card-reader", CcidReader(usb=USB_R502)),
    "ccid-contact": lambda: usb("card-reader", CcidReader(usb=USB_ACR39U, contactless=False)),
    "ccid-asked-only": lambda: usb("card-reader", CcidReader(usb=USB_NO_NOTICES, contactless=False)),
    "pcsc": lambda: Slot("card-reader", PcscService(), "pcsc", "/run/pcscd/pcscd.comm"),
    "card-f2": lambda: serial("card-dispenser", F2CardUnit()),
    "card-reader-f2": lambda: serial("card-reader", F2CardReader()),
    "card-stx": lambda: serial("card-reader", StxCardReader()),
    "card-d1801": lambda: serial("card-dispenser", D1801Dispenser()),
    "card-541": lambda: serial("card-dispenser", Crt541Dispenser()),
    "scanner-keys": lambda: keys("scanner", HidScanner()),
    "scanner-serial": lambda: serial("scanner", SerialScanner()),
    "scanner-cdc": lambda: Slot(
        "scanner", SerialScanner(rs232=False), "serial", "/dev/ttyACM0", "1-1.4", adapter=USB_NEWLAND_CDC
    ),
    "keypad": lambda: keys("keypad", Keypad()),
    "evaluator": lambda: keys("evaluator", EvaluatorPad()),
    "evaluator-bytes": lambda: serial("evaluator", RatingPad()),
    "evaluator-frames": lambda: serial("evaluator", RatingPad(form=FRAME_FORM), profile="evaluator-serial-frame"),
    "scanner-honeywell": lambda: serial(
        "scanner", SerialScanner(engine="honeywell", baud=115200, identity=HONEYWELL_IDENTITY), profile="honeywell-serial"
    ),
    "scanner-em": lambda: serial("scanner", SerialScanner(engine="em"), profile="newland-em-uart"),
    "help-button": lambda: keys("help-button", HelpButton()),
    "emergency-button": lambda: keys("emergency-button", EmergencyButton()),
    "hall": lambda: serial("call-pad", CallPadBus(addresses=(1, 2, 3), screens=3)),
    "face-camera": lambda: seen("face-camera", Camera(heads=2), "video", "/dev/video0", profile="camera-uvc-dual"),
    "document-camera": lambda: seen("document-camera", Camera("document-camera"), "video", "/dev/video2"),
    "display": lambda: Slot("display", Display(), "display", "card0-HDMI-A-1"),
    "touch-screen": lambda: seen("touch-screen", TouchScreen(), "input", "/dev/input/event1"),
    "microphone": lambda: seen("microphone", Microphone(), "sound", "/dev/snd/pcmC1D0c"),
    "speaker": lambda: Slot("speaker", Speaker(), "sound", "/dev/snd/pcmC0D0p"),
    "fingerprint": lambda: usb("fingerprint-reader", SeenDevice("fingerprint-reader", usb=USB_FINGERPRINT)),
    "signature-pad": lambda: usb("signature-pad", SeenDevice("signature-pad", usb=USB_SIGNATURE_PAD)),
    "modem": lambda: usb("modem", SeenDevice("modem", usb=USB_MODEM)),
    "pads": lambda: serial("call-pad", CallPadBus(addresses=(1, 2, 3, 4))),
    "sensors": lambda: serial("sensors", ModbusBus(ClimateModule(1), DoorModule(2))),
    "ups-serial": lambda: serial("ups", Ups(online=True)),
    "ups-usb": lambda: usb("ups", Ups(usb=USB_CYPRESS, per_cell=True)),
    "gps-serial": lambda: serial("gps", GpsReceiver(epoch_s=WALL_OFFSET_MS / 1000)),
    "gps-cdc": lambda: Slot(
        "gps",
        GpsReceiver(epoch_s=WALL_OFFSET_MS / 1000, baud=None, talker="BD"),
        "serial",
        "/dev/ttyACM1",
        "1-1.6",
        adapter=USB_UBLOX8,
    ),
}

CASES = [
    *((form, fault, f"PRN.{code}")
      for form in ("receipt-serial", "receipt-usb")
      for fault, code in (
          ("paper-out", "PAPER_OUT"), ("paper-low", "PAPER_NEAR_END"), ("cover-open", "COVER_OPEN"), ("cutter", "CUTTER"),
          ("jam", "JAM"), ("head-hot", "HEAD_HOT"), ("voltage", "HARDWARE"), ("usb-only", "OFFLINE"), ("silence", "OFFLINE"),
          ("unplug", "UNPLUGGED"), ("stall", "OFFLINE"),
      )),
    ("receipt-clone", "paper-out", "PRN.PAPER_OUT"),
    ("receipt-clone", "cover-open", "PRN.COVER_OPEN"),
    *(("laser", fault, f"LSR.{code}")
      for fault, code in (
          ("paper-out", "PAPER_OUT"), ("jam", "JAM"), ("toner-low", "TONER_LOW"), ("toner-empty", "TONER_EMPTY"),
          ("cover-open", "COVER_OPEN"), ("fuser", "HARDWARE"), ("silence", "OFFLINE"), ("unplug", "UNPLUGGED"),
      )),
    *(("presenter-usb", fault, f"PRN.{code}")
      for fault, code in (
          ("not-taken", "OUTPUT_NOT_TAKEN"), ("presenter-jam", "JAM"), ("head-up", "HEAD_UP"), ("paper-out", "PAPER_OUT"),
          ("paper-low", "PAPER_NEAR_END"), ("cover-open", "COVER_OPEN"), ("cutter", "CUTTER"), ("head-hot", "HEAD_HOT"),
          ("voltage", "HARDWARE"), ("jam", "JAM"), ("usb-only", "OFFLINE"), ("unplug", "UNPLUGGED"),
      )),
    *(("star-usb", fault, f"PRN.{code}")
      for fault, code in (
          ("paper-out", "PAPER_OUT"), ("paper-low", "PAPER_NEAR_END"), ("cover-open", "COVER_OPEN"), ("cutter", "CUTTER"),
          ("jam", "JAM"), ("head-hot", "HEAD_HOT"), ("head-up", "HEAD_UP"), ("black-mark", "BLACK_MARK"), ("voltage", "HARDWARE"),
          ("usb-only", "OFFLINE"), ("silence", "OFFLINE"), ("stall", "OFFLINE"), ("unplug", "UNPLUGGED"),
      )),
    *(("ipp", fault, f"LSR.{code}")
      for fault, code in (
          ("paper-out", "PAPER_OUT"), ("paper-low", "PAPER_NEAR_END"), ("jam", "JAM"), ("idle-while-jammed", "JAM"),
          ("door-open", "COVER_OPEN"), ("toner-low", "TONER_LOW"), ("toner-empty", "TONER_EMPTY"), ("output-full", "OUTPUT_NOT_TAKEN"),
          ("fuser", "HARDWARE"), ("shutdown", "OFFLINE"), ("stopped", "PRINT_ERROR"), ("no-ipp", "OFFLINE"), ("silence", "OFFLINE"),
          ("stall", "OFFLINE"), ("unplug", "UNPLUGGED"),
      )),
    ("laser-limited", "paper-out", "LSR.PAPER_OUT"),
    ("laser-limited", "unplug", "LSR.UNPLUGGED"),
    *((form, fault, f"IDR.{code}")
      for form in ("reader-split", "reader-whole", "reader-serial")
      for fault, code in (
          ("sam-failure", "SELF_TEST"), ("sam-unlicensed", "NOT_AUTHORISED"), ("sam-dead", "OPEN_FAIL"), ("silence", "OPEN_FAIL"),
          ("unplug", "UNPLUGGED"), ("line-noise", "LINK_NOISE"),
      )),
    *((form, fault, f"CRD.{code}")
      for form in ("ccid-contactless", "ccid-contact", "ccid-asked-only")
      for fault, code in (
          ("hardware-error", "SELF_TEST"), ("hang", "OPEN_FAIL"), ("dead-firmware", "OPEN_FAIL"), ("silence", "OPEN_FAIL"), ("stall", "OPEN_FAIL"),
          ("unplug", "UNPLUGGED"),
      )),
    *(("pcsc", fault, f"CRD.{code}")
      for fault, code in (
          ("service-stopped", "OPEN_FAIL"), ("silence", "OPEN_FAIL"), ("stall", "OPEN_FAIL"), ("reader-gone", "UNPLUGGED"),
      )),
    *((form, fault, f"CRD.{code}")
      for form in ("card-f2", "card-reader-f2", "card-stx", "card-d1801", "card-541")
      for fault, code in (
          ("silence", "OPEN_FAIL"), ("unplug", "UNPLUGGED"), ("stall", "OPEN_FAIL"), ("nak", "LINK_NOISE"), ("lost-answer", "OPEN_FAIL"),
      )),
    *(("card-f2", fault, f"CRD.{code}")
      for fault, code in (
          ("jam", "CARD_STUCK"), ("double-card", "CARD_STUCK"), ("motor", "MECHANISM"), ("sensor", "MECHANISM"), ("shutter", "MECHANISM"),
          ("stacker-empty", "STACKER_EMPTY"), ("stacker-low", "STACKER_LOW"), ("bin-full", "BIN_FULL"), ("card-left", "CARD_LEFT"),
          ("power-cycled", "NOT_READY"), ("lost-ack", "LINK_NOISE"),
      )),
    ("card-reader-f2", "jam", "CRD.CARD_STUCK"),
    *(("card-reader-f2", fault, "CRD.MECHANISM") for fault in ("motor", "sensor", "shutter")),
    ("card-reader-f2", "power-cycled", "CRD.NOT_READY"),
    ("card-reader-f2", "card-left", "CRD.CARD_LEFT"),
    *(("card-stx", fault, f"CRD.{code}")
      for fault, code in (
          ("short-card", "CARD_STUCK"), ("long-card", "CARD_STUCK"), ("abnormal-card", "CARD_STUCK"), ("voltage", "POWER"),
          ("backup-power", "POWER"), ("card-left", "CARD_LEFT"), ("lost-ack", "OPEN_FAIL"),
      )),
    *(("card-d1801", fault, f"CRD.{code}")
      for fault, code in (
          ("dispense-failed", "MECHANISM"), ("jam", "CARD_STUCK"), ("bin-full", "BIN_FULL"), ("stacker-empty", "STACKER_EMPTY"),
          ("stacker-low", "STACKER_LOW"), ("not-ready", "NOT_READY"), ("card-left", "CARD_LEFT"), ("lost-ack", "OPEN_FAIL"),
      )),
    *(("card-541", fault, f"CRD.{code}")
      for fault, code in (
          ("dispense-failed", "MECHANISM"), ("stacker-empty", "STACKER_EMPTY"), ("stacker-low", "STACKER_LOW"), ("lost-ack", "LINK_NOISE"),
      )),
    ("scanner-keys", "mode-switched", "SCN.MODE_CHANGED"),
    ("scanner-keys", "unplug", "SCN.UNPLUGGED"),
    ("scanner-keys", "stuck-trigger", "SCN.STUCK"),
    ("scanner-cdc", "mode-switched", "SCN.MODE_CHANGED"),
    ("scanner-serial", "mode-switched", "SCN.OPEN_FAIL"),
    ("scanner-serial", "stuck-trigger", "SCN.STUCK"),
    ("scanner-serial", "silence", "SCN.OPEN_FAIL"),
    ("keypad", "stuck-key", "KPD.STUCK_KEY"),
    ("keypad", "unplug", "KPD.UNPLUGGED"),
    ("evaluator", "stuck-key", "EVA.STUCK_KEY"),
    ("evaluator", "unplug", "EVA.UNPLUGGED"),
    ("evaluator-bytes", "stuck-key", "EVA.STUCK_KEY"),
    ("evaluator-bytes", "noise", "EVA.UNKNOWN_KEYS"),
    ("evaluator-bytes", "unplug", "EVA.UNPLUGGED"),
    ("evaluator-frames", "stuck-key", "EVA.STUCK_KEY"),
    ("evaluator-frames", "noise", "EVA.BUS_CRC"),
    ("scanner-keys", "hid-pos", "SCN.MODE_CHANGED"),
    ("scanner-keys", "stuck-key", "SCN.STUCK"),
    ("scanner-cdc", "hid-pos", "SCN.MODE_CHANGED"),
    ("scanner-serial", "hid-pos", "SCN.OPEN_FAIL"),
    *((form, fault, f"SCN.{code}")
      for form in ("scanner-honeywell", "scanner-em")
      for fault, code in (
          ("silence", "OPEN_FAIL"), ("stall", "OPEN_FAIL"), ("stuck-trigger", "STUCK"), ("unplug", "UNPLUGGED"), ("mode-switched", "OPEN_FAIL"),
      )),
    ("help-button", "stuck-key", "BTN.STUCK_KEY"),
    ("help-button", "unplug", "BTN.UNPLUGGED"),
    ("emergency-button", "pressed", "BTN.EMERGENCY"),
    ("emergency-button", "unplug", "BTN.UNPLUGGED"),
    ("face-camera", "head-missing", "CAM.HEAD_MISSING"),
    ("face-camera", "low-speed", "CAM.LOW_SPEED"),
    ("face-camera", "unplug", "CAM.UNPLUGGED"),
    ("document-camera", "low-speed", "DOC.LOW_SPEED"),
    ("document-camera", "unplug", "DOC.UNPLUGGED"),
    ("display", "unplug", "DSP.NO_SIGNAL"),
    ("touch-screen", "unplug", "TCH.UNPLUGGED"),
    ("microphone", "unplug", "AUD.NO_MIC"),
    ("speaker", "unplug", "AUD.NO_SPEAKER"),
    ("fingerprint", "unplug", "FPR.UNPLUGGED"),
    ("signature-pad", "unplug", "SIG.UNPLUGGED"),
    ("modem", "unplug", "NET.UNPLUGGED"),
    ("hall", "window-screen-2 silence", "LED.NO_REPLY"),
    ("hall", "window-screen-2 brown-out", "LED.TIMEOUT_RATE"),
    ("hall", "window-screen-2 address-conflict", "LED.ADDRESS_CONFLICT"),
    ("pads", "bus-cut", "CAL.BUS_DOWN"),
    ("pads", "wires-swapped", "CAL.BUS_GARBLED"),
    ("pads", "no-termination", "CAL.BUS_CRC"),
    ("pads", "echo", "CAL.BUS_ECHO"),
    ("pads", "3 brown-out", "CAL.TIMEOUT_RATE"),
    ("pads", "noise", "CAL.BUS_CRC"),
    ("pads", "unplug", "CAL.BUS_DOWN"),
    ("pads", "3 silence", "CAL.NO_REPLY"),
    ("pads", "3 stuck-key", "CAL.STUCK_KEY"),
    ("pads", "3 address-conflict", "CAL.ADDRESS_CONFLICT"),
    ("sensors", "door door-open", "ENV.DOOR_OPEN"),
    ("sensors", "door tamper", "ENV.TAMPER"),
    ("sensors", "door water", "ENV.WATER"),
    ("sensors", "door smoke", "ENV.SMOKE"),
    ("sensors", "door silence", "ENV.NO_REPLY"),
    ("sensors", "climate silence", "ENV.NO_REPLY"),
    ("sensors", "climate wrong-module", "ENV.WRONG_MODULE"),
    ("sensors", "climate too-hot", "ENV.TEMP"),
    ("sensors", "climate too-humid", "ENV.HUMIDITY"),
    ("sensors", "climate too-cold", "ENV.TEMP"),
    ("sensors", "climate sensor-dead", "ENV.FROZEN"),
    ("sensors", "climate sensor-zero", "ENV.FROZEN"),
    ("sensors", "streaming", "ENV.WRONG_MODULE"),
    ("sensors", "noise", "ENV.BUS_CRC"),
    ("sensors", "climate corrupt", "ENV.BUS_CRC"),
    ("sensors", "unplug", "ENV.NO_REPLY"),
    *((form, fault, f"PWR.{code}")
      for form in ("ups-serial", "ups-usb")
      for fault, code in (
          ("mains-lost", "ON_BATTERY"), ("battery-low", "BATTERY_LOW"), ("battery-worn", "BATTERY_REPLACE"), ("ups-failed", "UPS_FAILED"),
          ("overload", "OVERLOAD"), ("wrong-length", "LINK_NOISE"), ("other-dialect", "OPEN_FAIL"), ("silence", "OFFLINE"),
          ("unplug", "UNPLUGGED"),
      )),
    ("ups-serial", "bypass", "PWR.BYPASS"),
    *((form, fault, code)
      for form in ("gps-serial", "gps-cdc")
      for fault, code in (
          ("no-fix", "VAN.GPS_LOST"), ("last-known", "VAN.GPS_LOST"), ("poor-fix", "GPS.POOR_FIX"), ("rollover", "GPS.CLOCK_WRONG"),
          ("clock-1980", "GPS.CLOCK_WRONG"), ("half-lines", "GPS.LINK_NOISE"), ("endless-line", "GPS.NO_REPLY"),
          ("bad-checksum", "GPS.LINK_NOISE"), ("silence", "GPS.NO_REPLY"), ("unplug", "GPS.UNPLUGGED"),
      )),
]  # fmt: skip


BESIDE = {
    "BTN.STUCK_KEY": {"BTN.HELP"},  # who holds a button calls, until it is held for longer than anybody would
    "CAL.TIMEOUT_RATE": {"CAL.NO_REPLY"},  # the first silences are just that
    "LED.TIMEOUT_RATE": {"LED.NO_REPLY"},
}
"""What a fault may show as well."""
NO_LINE = {name for name, build in BUILD.items() if isinstance(build().model, KeyDevice | SeenDevice)}
"""Forms whose devices send no bytes."""


@pytest.mark.parametrize(("form", "fault", "code"), CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_a_fault_is_named_and_taken_back(form: str, fault: str, code: str) -> None:
    async def story() -> None:
        slot = BUILD[form]()
        async with Bench(slot) as bench:
            await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"})
            assert bench.records.of(Fault) == []
            device = f"{slot.name} {fault}" if fault[0].isdigit() else fault if " " in fault else f"{slot.name} {fault}"
            bench.terminal.do(["fault", *device.split()])
            opened = await bench.until_open(code, within_s=1200)
            # Text of one module drowns out its neighbour, which is then silent.
            beside = {"ENV.NO_REPLY"} if fault == "streaming" else set()
            beside |= BESIDE.get(code, set())
            if fault in ("endless-line", "bad-checksum"):
                beside = {"GPS.NO_REPLY", "GPS.LINK_NOISE"}  # nothing is understood, and why
            assert {code} <= bench.records.open_codes() <= {code} | beside
            assert opened in bench.records.urgent
            if opened.evidence is None:
                # Only what is seen without asking has no bytes behind it.
                assert code.rpartition(".")[2] in (
                    "UNPLUGGED", "MODE_CHANGED", "STUCK", "STUCK_KEY", "BUS_DOWN", "NO_REPLY", "OPEN_FAIL", "HEAD_MISSING", "LOW_SPEED", "NO_SIGNAL",
                    "NO_MIC", "NO_SPEAKER", "EMERGENCY",
                )  # fmt: skip
            bench.terminal.do(["clear", *device.split()])
            await bench.until(lambda: not bench.records.open_codes(), within_s=3600)
            await bench.until(lambda: set(bench.states().values()) == {"online"}, within_s=120)

    in_virtual_time(story())


@pytest.mark.parametrize("form", sorted(BUILD))
def test_a_healthy_device_stays_quiet_for_a_day(form: str) -> None:
    """No flapping state, no fault, no record but the first ones; and few polls' worth of work."""

    async def story() -> None:
        async with Bench(BUILD[form]()) as bench:
            await asyncio.sleep(3600 if form not in ("pads", "hall") else 300)
            assert bench.records.of(Fault) == []
            per_slot = {device.slot: 0 for device in bench.records.of(Device)}
            for device in bench.records.of(Device):
                per_slot[device.slot] += 1
            assert set(per_slot.values()) == {1}
            assert set(bench.states().values()) == {"online"}

    in_virtual_time(story())


@pytest.mark.parametrize("form", sorted(set(BUILD) - NO_LINE - {"hall"}))
@pytest.mark.parametrize("fault", ["garbage", "corrupt", "brown-out"])
def test_a_spoiled_line_never_invents_a_mechanical_fault(form: str, fault: str) -> None:
    """Noise may end in silence or link faults, never in an empty roll or a failed module; the agent stays up."""

    async def story() -> None:
        slot = BUILD[form]()
        async with Bench(slot) as bench:
            await bench.until(lambda: bool(bench.states()))
            bench.terminal.do(["fault", slot.name, fault])
            await asyncio.sleep(600 if form not in ("pads", "hall") else 60)
            allowed = {
                "OFFLINE",
                "OPEN_FAIL",
                "LINK_NOISE",
                "NO_REPLY",
                "BUS_CRC",
                "BUS_DOWN",
                "BUS_GARBLED",
                "TIMEOUT_RATE",
                "UNKNOWN_KEYS",
                "ADDRESS_CONFLICT",
                "NO_SUFFIX",
                "STUCK",
            }
            # A flipped bit that keeps a byte's fixed form cannot be told from a true reading where there is no check value.
            unchecked = fault == "corrupt" and form.startswith(("receipt", "presenter", "star", "laser"))
            tails = {opened.code.rpartition(".")[2] for opened in bench.records.of(Fault)}
            if "initialise" in slot.model.action_help:
                allowed.add("NOT_READY")  # it says so itself: with the power it lost what it was told
            assert tails <= allowed or unchecked, tails
            bench.terminal.do(["clear", slot.name, fault])
            if "initialise" in slot.model.action_help:
                bench.terminal.do(["press", slot.name, "initialise"])
            await bench.until(lambda: not bench.records.open_codes(), within_s=3600)

    in_virtual_time(story())
