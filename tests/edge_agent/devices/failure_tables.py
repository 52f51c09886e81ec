"""What goes wrong with devices in the field, after the makers' own documents: for each, the fault of a device model that stands for it and the code
that arrives. Data for `test_failure_tables.py`; `python -m tests.edge_agent.devices.failure_tables` writes docs/devices/failures.md from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocols.canon.faults import FAULTS
from tests.edge_agent.devices.test_every_fault import BUILD

DOC = Path(__file__).parents[3] / "docs/devices/failures.md"
EVERY = ""
"""Shown by `test_every_fault.py`, which scripts the fault and takes it back."""
HERE = "test_failure_tables.py"
OWNER = "../owner"


@dataclass(frozen=True)
class Row:
    """One failure. `form`: a device of `test_every_fault.BUILD`. `code`: None where it must not be a fault; then `instead` says what happens.

    `seen`: the test that shows it, `file::function` beside this file, where it is not `test_every_fault.py`.
    """

    failure: str
    form: str
    fault: str
    code: str | None
    seen: str = EVERY
    instead: str = ""

    @property
    def name(self) -> str:
        """The fault without the unit that it was set on."""
        return self.fault.split()[-1]


@dataclass(frozen=True)
class Table:
    title: str
    source: str
    rows: tuple[Row, ...]


def _all(failure: str, forms: tuple[str, ...], fault: str, code: str) -> Iterator[Row]:
    return (Row(failure, form, fault, code) for form in forms)


TABLES: tuple[Table, ...] = (
    Table(
        "Resident-ID readers",
        "GA/T 467-2019; module vendors' command tables (status bytes SW3)",
        (
            *_all(
                "security module dead or without power: no answer",
                ("reader-split", "reader-whole", "reader-serial"), "sam-dead", "IDR.OPEN_FAIL",
            ),
            Row("self-test of the module fails: status 60 on every command", "reader-split", "sam-failure", "IDR.SELF_TEST"),
            Row("module without licence: status 66 on every command", "reader-split", "sam-unlicensed", "IDR.NOT_AUTHORISED"),
            Row(
                "antenna broken, reader under metal: healthy, and no card for a working day", "reader-split", "antenna", "IDR.READ_FAIL_RATE",
                f"{OWNER}/test_id_reader.py::test_a_broken_antenna_shows_after_a_working_day_of_people",
            ),
            Row(
                "weak field: cards are found and not selected (81)", "reader-split", "select-failed", "IDR.READ_FAIL_RATE",
                f"{HERE}::test_cards_that_are_found_and_not_selected",
            ),
            Row(
                "weak field: cards are selected and not read (41)", "reader-serial", "read-failed", "IDR.READ_FAIL_RATE",
                f"{OWNER}/test_id_reader.py::test_failed_reads_become_a_rate_and_the_rate_outlives_a_restart",
            ),
            Row(
                "module too old for newer documents: 40, 31, 33 for some people", "reader-split", "old-sam", "IDR.AUTH_FAIL_RATE",
                f"{OWNER}/test_id_reader.py::test_documents_that_the_module_does_not_know_become_a_rate_of_their_own",
            ),
            Row(
                "somebody set another line speed", "reader-serial", "wrong-baud", "IDR.OPEN_FAIL",
                f"{HERE}::test_another_speed_is_a_fault_until_it_is_found",
            ),
            Row("frames are spoiled on their way to the module: status 10, 11", "reader-serial", "line-noise", "IDR.LINK_NOISE"),
            Row(
                "frames are spoiled on their way back: check byte", "reader-serial", "corrupt", "IDR.LINK_NOISE",
                f"{HERE}::test_a_fault_that_is_not_alone",
            ),
            Row("bytes before a frame", "reader-serial", "garbage", None, f"{HERE}::test_no_fault", "the frame behind them is found"),
            Row("unplugged", "reader-split", "unplug", "IDR.UNPLUGGED"),
            Row(
                "drops off USB and comes back within three seconds", "reader-split", "unplug", None,
                "../test_monitor.py::test_a_re_enumeration_of_two_seconds_is_no_fault", "opened again at its new address",
            ),
        ),
    ),
    Table(
        "Smart-card readers",
        "USB-IF CCID rev. 1.1 (slot status, bError); the CCID project's list of readers; libnfc #402 and #426",
        (
            Row(
                "card mute, contacts dirty (FE)", "ccid-contact", "card-mute", "CRD.READ_FAIL_RATE",
                f"{OWNER}/test_smart_card.py::test_mute_cards_become_a_rate",
            ),
            Row(
                "the same behind a PC/SC service", "pcsc", "card-mute", "CRD.READ_FAIL_RATE",
                "test_pcsc_readers.py::test_a_card_for_hours_and_cards_that_do_not_answer",
            ),
            Row(
                "a card jammed in: present for hours", "ccid-contact", "card-stuck", "CRD.CARD_STUCK",
                "test_ccid_reader.py::test_a_card_that_lies_there_for_hours_is_stuck",
            ),
            Row("firmware hangs, descriptors stay readable; a reset helps", "ccid-contactless", "hang", "CRD.OPEN_FAIL"),
            Row("firmware hangs, a reset does not help", "ccid-contactless", "dead-firmware", "CRD.OPEN_FAIL"),
            Row("over-current, hardware error (FB, notice 51)", "ccid-contact", "hardware-error", "CRD.SELF_TEST"),
            Row(
                "antenna broken: absent for ever", "ccid-contactless", "antenna", "CRD.READ_FAIL_RATE",
                f"{HERE}::test_a_contactless_reader_that_finds_nothing",
            ),
            Row(
                "security module not in its slot", "ccid-contact", "module-missing", "CRD.PSAM_MISSING",
                "test_ccid_reader.py::test_a_missing_security_module",
            ),
            Row(
                "a contact that flutters", "ccid-contactless", "contact-flutter", None,
                "test_ccid_reader.py::test_a_contact_that_flutters_is_no_stream_of_records",
                "media unknown until it is calm",
            ),
            Row(
                "a card that asks for more time", "ccid-contactless", "slow-card", None,
                f"{OWNER}/test_smart_card.py::test_a_card_that_asks_for_time_gets_it", "it gets it",
            ),
            Row("endpoint halted", "ccid-contactless", "usb-halt", None, f"{HERE}::test_no_fault", "cleared, asked again"),
            Row(
                "the kernel or pcscd holds the interface", "ccid-contact", "in-use", None,
                "test_ccid_reader.py::test_a_reader_that_another_program_holds_is_in_use_and_no_fault", "state `inUse`",
            ),
            Row("another program uses the service's reader", "pcsc", "reader-busy", None, f"{HERE}::test_no_fault", "state `inUse`"),
            Row("the PC/SC service does not run", "pcsc", "service-stopped", "CRD.OPEN_FAIL"),
            Row("the service has lost its reader", "pcsc", "reader-gone", "CRD.UNPLUGGED"),
        ),
    ),
    Table(
        "Motorised card units",
        "CREATOR communication protocols (CRT-591, CRT-310, CRT-541); QUIO QU-CD-720M manual (D1801 boards)",
        (
            Row("card stuck: F2 error 10", "card-f2", "jam", "CRD.CARD_STUCK"),
            Row("card too long or two stuck together: F2 error 13", "card-f2", "double-card", "CRD.CARD_STUCK"),
            Row("card too short, status 47", "card-stx", "short-card", "CRD.CARD_STUCK"),
            Row("card too long, status 46", "card-stx", "long-card", "CRD.CARD_STUCK"),
            Row("abnormal card, error 06", "card-stx", "abnormal-card", "CRD.CARD_STUCK"),
            Row("card stuck: state 020", "card-d1801", "jam", "CRD.CARD_STUCK"),
            *_all("stacker empty: A0, ST1 0; state 008", ("card-f2", "card-d1801", "card-541"), "stacker-empty", "CRD.STACKER_EMPTY"),
            *_all("few cards left: ST1 1; state 010", ("card-f2", "card-d1801", "card-541"), "stacker-low", "CRD.STACKER_LOW"),
            *_all("bin full: A1, ST2 1; state 100", ("card-f2", "card-d1801"), "bin-full", "CRD.BIN_FULL"),
            *_all("motor: 51", ("card-f2", "card-reader-f2"), "motor", "CRD.MECHANISM"),
            *_all("sensor: 12", ("card-f2", "card-reader-f2"), "sensor", "CRD.MECHANISM"),
            *_all("shutter's magnet: 41", ("card-f2", "card-reader-f2"), "shutter", "CRD.MECHANISM"),
            *_all("dispensing failed: state 200; work state 4", ("card-d1801", "card-541"), "dispense-failed", "CRD.MECHANISM"),
            *_all("a card left in the mouth", ("card-f2", "card-stx", "card-d1801"), "card-left", "CRD.CARD_LEFT"),
            Row("supply out of range: error 05", "card-stx", "voltage", "CRD.POWER"),
            Row("main power lost, runs on its backup: error 07", "card-stx", "backup-power", "CRD.POWER"),
            *_all("was power-cycled: B0 until the application resets it", ("card-f2", "card-reader-f2"), "power-cycled", "CRD.NOT_READY"),
            Row("board not ready: state 001", "card-d1801", "not-ready", "CRD.NOT_READY"),
            *_all("cable pulled, unit off: no ACK at any speed", ("card-f2", "card-stx", "card-d1801", "card-541"), "silence", "CRD.OPEN_FAIL"),
            *_all("adapter pulled", ("card-f2", "card-stx", "card-d1801", "card-541"), "unplug", "CRD.UNPLUGGED"),
            *_all("noise towards the unit: NAK", ("card-f2", "card-stx", "card-d1801", "card-541"), "nak", "CRD.LINK_NOISE"),
            Row("the ACK is lost, the answer comes", "card-f2", "lost-ack", "CRD.LINK_NOISE"),
            *_all("the answer is lost after the ACK", ("card-f2", "card-stx", "card-d1801", "card-541"), "lost-answer", "CRD.OPEN_FAIL"),
        ),
    ),
    Table(
        "Receipt printers",
        "Epson ESC/POS (DLE EOT, GS a), Citizen CT-S310, SNBC BTP-M300, Custom VKP80, Star line mode specifications",
        (
            *_all(
                "paper out: DLE EOT 2 bit 20, 4 bits 60",
                ("receipt-serial", "receipt-usb", "receipt-clone", "presenter-usb", "star-usb"), "paper-out", "PRN.PAPER_OUT",
            ),
            *_all(
                "paper near its end, where the sensor is fitted",
                ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "paper-low", "PRN.PAPER_NEAR_END",
            ),
            *_all("cover open", ("receipt-serial", "receipt-usb", "receipt-clone", "presenter-usb", "star-usb"), "cover-open", "PRN.COVER_OPEN"),
            *_all("cutter blocked: DLE EOT 3 bit 08", ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "cutter", "PRN.CUTTER"),
            *_all("paper jam: mechanical error", ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "jam", "PRN.JAM"),
            Row("jam in the presenter: the vendor's bit", "presenter-usb", "presenter-jam", "PRN.JAM"),
            Row("slip not taken from the presenter", "presenter-usb", "not-taken", "PRN.OUTPUT_NOT_TAKEN"),
            *_all("head too hot, cools by itself", ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "head-hot", "PRN.HEAD_HOT"),
            *_all(
                "supply voltage, unrecoverable error: DLE EOT 3 bit 20",
                ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "voltage", "PRN.HARDWARE",
            ),
            *_all("head lifted", ("presenter-usb", "star-usb"), "head-up", "PRN.HEAD_UP"),
            Row("black mark not found", "star-usb", "black-mark", "PRN.BLACK_MARK"),
            *_all(
                "switched off behind a USB chip that has power: enumerates, stays silent",
                ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "usb-only", "PRN.OFFLINE",
            ),
            *_all(
                "vanishes until it is power-cycled",
                ("receipt-serial", "receipt-usb", "presenter-usb", "star-usb"), "unplug", "PRN.UNPLUGGED",
            ),
            Row(
                "another program holds the interface", "receipt-usb", "in-use", None,
                "../test_monitor.py::test_a_port_in_use_is_neutral_and_taken_over_when_it_is_free", "state `inUse`",
            ),
        ),
    ),
    Table(
        "A4 printers",
        "HP PJL Technical Reference (status codes); USB Printer Class 1.1; RFC 8011 (printer-state-reasons); OpenPrinting cups #1104, ipp-usb #17",
        (
            *_all("paper out: 41xxx, port status bit 5, media-empty", ("laser", "laser-limited", "ipp"), "paper-out", "LSR.PAPER_OUT"),
            Row("paper nearly out: media-low", "ipp", "paper-low", "LSR.PAPER_NEAR_END"),
            *_all("jam: 42xxx, 40022, media-jam", ("laser", "ipp"), "jam", "LSR.JAM"),
            Row("jammed while printer-state says idle", "ipp", "idle-while-jammed", "LSR.JAM"),
            Row("door open: 40021", "laser", "cover-open", "LSR.COVER_OPEN"),
            Row("door open: door-open", "ipp", "door-open", "LSR.COVER_OPEN"),
            *_all("toner low: 10006, toner-low", ("laser", "ipp"), "toner-low", "LSR.TONER_LOW"),
            *_all("no cartridge, toner empty", ("laser", "ipp"), "toner-empty", "LSR.TONER_EMPTY"),
            *_all("fuser: 50xxx, fuser-over-temp", ("laser", "ipp"), "fuser", "LSR.HARDWARE"),
            Row("output tray full: output-area-full", "ipp", "output-full", "LSR.OUTPUT_NOT_TAKEN"),
            Row("stopped without a reason", "ipp", "stopped", "LSR.PRINT_ERROR"),
            Row("shutting down", "ipp", "shutdown", "LSR.OFFLINE"),
            Row("advertises IPP and refuses every question", "ipp", "no-ipp", "LSR.OFFLINE"),
            Row(
                "deep sleep: the first answer takes long", "laser", "sleep", None,
                "test_printers.py::test_a_printer_that_sleeps_is_not_dead", "waited for",
            ),
            Row(
                "deep sleep: the first answer takes long", "ipp", "sleep", None,
                "test_printers.py::test_a_printer_that_sleeps_is_not_dead", "waited for",
            ),
            Row(
                "drops off USB while warming up", "laser", "unplug", None,
                "test_printers.py::test_a_drop_off_the_bus_while_warming_up_is_no_fault", "opened again",
            ),
            Row(
                "answers of an earlier question", "laser", "stall", None,
                "test_printers.py::test_an_answer_that_comes_late_is_not_the_next_ones", "read and dropped",
            ),
            Row("endpoint halted", "laser", "usb-halt", None, f"{HERE}::test_no_fault", "cleared, asked again"),
            *_all("unplugged, gone from the network", ("laser", "laser-limited", "ipp"), "unplug", "LSR.UNPLUGGED"),
        ),
    ),
    Table(
        "Code scanners",
        "Newland NLS-HR52 and EM2000 manuals; Honeywell menu commands; usb.ids (product ids by mode)",
        (
            *_all(
                "trigger or light stuck: partial reads without end",
                ("scanner-keys", "scanner-serial", "scanner-honeywell", "scanner-em"), "stuck-trigger", "SCN.STUCK",
            ),
            Row(
                "no suffix after a factory-reset code", "scanner-honeywell", "missing-suffix", "SCN.NO_SUFFIX",
                "test_pads_buttons_and_presence.py::test_a_missing_suffix_has_its_code_and_noise_does_not_hide_it",
            ),
            *_all("mode switched by a set-up code: another product id", ("scanner-keys", "scanner-cdc"), "mode-switched", "SCN.MODE_CHANGED"),
            *_all("switched to HID-POS: another product id", ("scanner-keys", "scanner-cdc"), "hid-pos", "SCN.MODE_CHANGED"),
            *_all("mode switched on RS-232: silence", ("scanner-serial", "scanner-honeywell", "scanner-em"), "mode-switched", "SCN.OPEN_FAIL"),
            Row("key-repeat storm: value 2 without a release", "scanner-keys", "stuck-key", "SCN.STUCK"),
            Row(
                "noise on RS-232: codes that are no text", "scanner-serial", "cable-noise", "SCN.LINK_NOISE",
                "test_pads_buttons_and_presence.py::test_noise_on_the_cable_is_its_own_fault",
            ),
            Row(
                "reads nothing although the trigger is taken", "scanner-serial", "lamp-dead", None,
                "test_self_tests.py::test_a_reading_that_does_not_end_well_is_none", "the read test says `device`",
            ),
            *_all("silence", ("scanner-serial", "scanner-honeywell", "scanner-em"), "silence", "SCN.OPEN_FAIL"),
        ),
    ),
    Table(
        "Keypads, buttons, evaluators, call pads, window screens",
        "Linux input event codes; IEC 60870-5-1 (FT1.2 frames); TIA-485 (polarity, termination)",
        (
            Row("stuck key: down at open, or repeats without a release", "keypad", "stuck-key", "KPD.STUCK_KEY"),
            *_all("stuck key of an evaluator", ("evaluator", "evaluator-bytes", "evaluator-frames"), "stuck-key", "EVA.STUCK_KEY"),
            Row("stuck key of a call pad", "pads", "3 stuck-key", "CAL.STUCK_KEY"),
            Row("a help button that is held down", "help-button", "stuck-key", "BTN.STUCK_KEY"),
            Row("the emergency button is pressed", "emergency-button", "pressed", "BTN.EMERGENCY"),
            *(
                Row("queue of the kernel overflows (SYN_DROPPED)", form, "dropped", None,
                f"{HERE}::test_no_fault", "key state is read again")
                for form in ("keypad", "evaluator", "scanner-keys", "help-button", "emergency-button")
            ),
            Row("grabbed by another program (EBUSY)", "keypad", "in-use", None, f"{HERE}::test_held_by_another_program", "state `inUse`"),
            Row("A and B swapped: framing errors without end", "pads", "wires-swapped", "CAL.BUS_GARBLED"),
            Row("no termination: errors rise with length", "pads", "no-termination", "CAL.BUS_CRC"),
            Row("noise: one frame in three", "pads", "noise", "CAL.BUS_CRC"),
            Row("two pads with one address: garbage only there", "pads", "3 address-conflict", "CAL.ADDRESS_CONFLICT"),
            Row("the same of two window screens", "hall", "window-screen-2 address-conflict", "LED.ADDRESS_CONFLICT"),
            Row("weak supply: answers, then silence in bursts", "pads", "3 brown-out", "CAL.TIMEOUT_RATE"),
            Row("the same of a window screen", "hall", "window-screen-2 brown-out", "LED.TIMEOUT_RATE"),
            Row("a two-wire adapter that returns our own frames", "pads", "echo", "CAL.BUS_ECHO"),
            Row("one pad dead", "pads", "3 silence", "CAL.NO_REPLY"),
            Row("one window screen dead", "hall", "window-screen-2 silence", "LED.NO_REPLY"),
            Row("the pair is cut: all are silent", "pads", "bus-cut", "CAL.BUS_DOWN"),
            Row(
                "evaluator with a wrong checksum", "evaluator-frames", "bad-checksum", "EVA.BUS_CRC",
                "test_pads_buttons_and_presence.py::test_a_pad_that_can_be_asked",
            ),
            Row("noise on an evaluator without checksums", "evaluator-bytes", "noise", "EVA.UNKNOWN_KEYS"),
            Row(
                "another model of evaluator was put in", "evaluator-bytes", "unknown-keys", "EVA.UNKNOWN_KEYS",
                "test_pads_buttons_and_presence.py::test_another_model_of_pad_is_noticed_by_its_codes",
            ),
        ),
    ),
    Table(
        "Environment, door, tamper",
        "MODBUS over Serial Line V1.02; MODBUS Application Protocol V1.1b3 (exceptions); XY-MD02, Ebyte E831 manuals",
        (
            *_all("silence: dead, unpowered, wrong address", ("sensors",), "climate silence", "ENV.NO_REPLY"),
            Row("the same of the door's module", "sensors", "door silence", "ENV.NO_REPLY"),
            Row("the pair is cut", "sensors", "bus-cut", "ENV.NO_REPLY", f"{HERE}::test_a_fault_that_is_not_alone"),
            Row("bad CRC: wiring, speed", "sensors", "noise", "ENV.BUS_CRC"),
            Row("bad CRC of one module", "sensors", "climate corrupt", "ENV.BUS_CRC"),
            Row("exception: another module than its profile", "sensors", "climate wrong-module", "ENV.WRONG_MODULE"),
            Row("text on the bus: switched to its talking mode", "sensors", "streaming", "ENV.WRONG_MODULE"),
            Row("element dead: 7FFF", "sensors", "climate sensor-dead", "ENV.FROZEN"),
            Row("element dead: 0000 in every register", "sensors", "climate sensor-zero", "ENV.FROZEN"),
            Row(
                "value frozen for hours", "sensors", "climate frozen", "ENV.FROZEN",
                "test_sensor_bus.py::test_a_value_that_never_changes_is_a_dead_element",
            ),
            Row("too hot", "sensors", "climate too-hot", "ENV.TEMP"),
            Row("too cold", "sensors", "climate too-cold", "ENV.TEMP"),
            Row("too humid", "sensors", "climate too-humid", "ENV.HUMIDITY"),
            Row("an adapter that returns our own frames", "sensors", "echo", None, f"{HERE}::test_no_fault", "its own bytes are skipped"),
            Row("door contact bounces", "sensors", "door chatter", None, f"{HERE}::test_no_fault", "three equal samples count"),
            Row("door open", "sensors", "door door-open", "ENV.DOOR_OPEN"),
            Row("tamper loop cut", "sensors", "door tamper", "ENV.TAMPER"),
            Row("water", "sensors", "door water", "ENV.WATER"),
            Row("smoke", "sensors", "door smoke", "ENV.SMOKE"),
            Row("mains relay lets go", "sensors", "door mains-lost", "PWR.MAINS_LOST",
            "test_sensor_bus.py::test_each_input_of_each_module"),
        ),
    ),
    Table(
        "UPS",
        "Megatec protocol (Q1, F, I) as NUT's nutdrv_qx documents it",
        (
            *_all("silence while the port is open: cable, UPS off", ("ups-serial", "ups-usb"), "silence", "PWR.OFFLINE"),
            *_all("mains lost: bit 7", ("ups-serial", "ups-usb"), "mains-lost", "PWR.ON_BATTERY"),
            *_all("minutes left: bit 6", ("ups-serial", "ups-usb"), "battery-low", "PWR.BATTERY_LOW"),
            *_all("UPS failed: bit 4", ("ups-serial", "ups-usb"), "ups-failed", "PWR.UPS_FAILED"),
            *_all("battery voltage falls at float: worn", ("ups-serial", "ups-usb"), "battery-worn", "PWR.BATTERY_REPLACE"),
            *_all("line of a wrong length", ("ups-serial", "ups-usb"), "wrong-length", "PWR.LINK_NOISE"),
            *_all("speaks another protocol: echoes the question", ("ups-serial", "ups-usb"), "other-dialect", "PWR.OPEN_FAIL"),
            *_all("overloaded", ("ups-serial", "ups-usb"), "overload", "PWR.OVERLOAD"),
            Row("on bypass: bit 5 of an online UPS", "ups-serial", "bypass", "PWR.BYPASS"),
        ),
    ),
    Table(
        "Position receivers",
        "NMEA 0183; u-blox 8 receiver description (UBX frames); GPS week rollover (IS-GPS-200)",
        (
            *_all("no sentences: power", ("gps-serial", "gps-cdc"), "silence", "GPS.NO_REPLY"),
            Row(
                "no sentences: another speed", "gps-serial", "wrong-speed", "GPS.NO_REPLY",
                "test_van.py::test_a_receiver_whose_speed_was_changed_is_found_again",
            ),
            *_all("antenna cut: only V for 15 minutes", ("gps-serial", "gps-cdc"), "no-fix", "VAN.GPS_LOST"),
            *_all("the last place repeated as void", ("gps-serial", "gps-cdc"), "last-known", "VAN.GPS_LOST"),
            *_all("fix with HDOP above 5", ("gps-serial", "gps-cdc"), "poor-fix", "GPS.POOR_FIX"),
            *_all("week rollover", ("gps-serial", "gps-cdc"), "rollover", "GPS.CLOCK_WRONG"),
            *_all("January 1980", ("gps-serial", "gps-cdc"), "clock-1980", "GPS.CLOCK_WRONG"),
            Row("binary UBX frames mixed in", "gps-serial", "ubx-noise", None, f"{HERE}::test_no_fault", "skipped"),
            *_all("half lines", ("gps-serial", "gps-cdc"), "half-lines", "GPS.LINK_NOISE"),
            *_all("wrong check values", ("gps-serial", "gps-cdc"), "bad-checksum", "GPS.LINK_NOISE"),
            *_all("a sentence that never ends", ("gps-serial", "gps-cdc"), "endless-line", "GPS.NO_REPLY"),
        ),
    ),
    Table(
        "Cameras and other devices that are only seen",
        "USB Video Class 1.5; Linux V4L2, ALSA and DRM nodes as udev lists them",
        (
            Row("node missing", "face-camera", "unplug", "CAM.UNPLUGGED"),
            Row("node missing", "document-camera", "unplug", "DOC.UNPLUGGED"),
            Row("came up at 12 Mbit/s", "face-camera", "low-speed", "CAM.LOW_SPEED"),
            Row("came up at 12 Mbit/s", "document-camera", "low-speed", "DOC.LOW_SPEED"),
            Row("one of two heads missing", "face-camera", "head-missing", "CAM.HEAD_MISSING"),
            Row("video cable pulled, screen without power", "display", "unplug", "DSP.NO_SIGNAL"),
            Row("missing", "touch-screen", "unplug", "TCH.UNPLUGGED"),
            Row("missing", "microphone", "unplug", "AUD.NO_MIC"),
            Row("missing", "speaker", "unplug", "AUD.NO_SPEAKER"),
            Row("missing", "fingerprint", "unplug", "FPR.UNPLUGGED"),
            Row("missing", "signature-pad", "unplug", "SIG.UNPLUGGED"),
            Row("missing", "modem", "unplug", "NET.UNPLUGGED"),
        ),
    ),
    Table(
        "Whatever the device",
        "libusb error codes; pyserial and python-evdev as they raise; USB 2.0, 11.12 (over-current of a hub)",
        (
            Row("unplugged (errno 19 on USB and input, 5 on a tty)", "evaluator", "unplug", "EVA.UNPLUGGED"),
            Row("busy (errno 16, 11)", "receipt-serial", "in-use", None, f"{HERE}::test_held_by_another_program", "state `inUse`"),
            Row(
                "unplugged in the middle of a read (plain errno 5 from the tty)", "reader-serial", "unplug", "IDR.UNPLUGGED",
                "test_real_ports.py::test_a_terminal_on_pseudo_terminals",
            ),
            Row(
                "a line setting that the driver cannot do (errno 22 from termios)", "pads", "refused", "CAL.NO_REPLY",
                f"{HERE}::test_a_port_that_is_refused",
            ),
            Row("no rights at the node (errno 13), no libusb on the machine", "receipt-usb", "refused", "PRN.OPEN_FAIL",
            f"{HERE}::test_a_port_that_is_refused"),
            Row("stalled pipe (errno 32)", "reader-whole", "usb-halt", None, f"{HERE}::test_no_fault", "halt cleared, asked again"),
            Row("timeout: every answer comes too late", "receipt-usb", "stall", "PRN.OFFLINE"),
            Row(
                "drops out more than three times an hour: cable, hub, supply", "scanner-serial", "unplug", "HOST.USB_UNSTABLE",
                "test_plugs.py::test_under_the_monitor",
            ),
            Row(
                "everything on a hub gone at once: over-current", "receipt-usb", "unplug", "HOST.USB_HUB_LOST",
                "test_plugs.py::test_under_the_monitor",
            ),
        ),
    ),
)  # fmt: skip

UNNAMED = {
    ("call-pad", "corrupt"): "as `noise`, on one pad",
    ("flash-unit", "*"): "a unit for firmware updates: `tests/edge_agent/firmware`",
}
"""Own faults of models that no row names, and where they are at home."""


def rows() -> Iterator[Row]:
    for table in TABLES:
        yield from table.rows


def _merged(table: Table) -> Iterator[tuple[str, list[str], str, str | None, str]]:
    """Rows that differ in the form only are one line of the page."""
    lines: dict[tuple[str, str, str | None, str], list[str]] = {}
    for row in table.rows:
        kind = BUILD[row.form]().model.kind
        found = lines.setdefault((row.failure, row.name, row.code, row.instead), [])
        if kind not in found:
            found.append(kind)
    for (failure, fault, code, instead), kinds in lines.items():
        yield failure, kinds, fault, code, instead


def page() -> str:
    """docs/devices/failures.md."""
    out = [
        "# What goes wrong, and what the console says",
        "",
        "Failures that makers' documents and the field know, the fault of a device model that plays each (`kiosk-sim fault DIR SLOT FAULT`),",
        "and what arrives. A line without a code is something that must not raise an alarm. `tests/edge_agent/devices/failure_tables.py` names",
        "for each line the test that runs it; this page is written from the same table: `python -m tests.edge_agent.devices.failure_tables`.",
        "",
    ]
    for table in TABLES:
        out += [f"## {table.title}", "", f"After {table.source}.", ""]
        out += ["| failure | device · fault | code | 中文 | English |", "|---|---|---|---|---|"]
        for failure, kinds, fault, code, instead in _merged(table):
            played = f"{', '.join(kinds)} · `{fault}`"
            if code is None:
                out.append(f"| {failure} | {played} | – | – | {instead} |")
            else:
                out.append(f"| {failure} | {played} | `{code}` | {FAULTS[code].zh} | {FAULTS[code].en} |")
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    DOC.write_text(page(), "utf-8")
