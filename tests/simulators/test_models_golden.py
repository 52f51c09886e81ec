"""Every model answers with the bytes that manuals and captures print, not with what our own codecs would like to hear."""

from __future__ import annotations

from typing import Literal

import pytest

from simulators.models.base import Model
from simulators.models.callpad import CallPadBus, PadDialect, frame
from simulators.models.ccid import BULK_IN, BULK_OUT, INTERRUPT_IN, USB_R502, CcidReader, SyntheticChip, class_descriptor
from simulators.models.checksums import crc16_ccitt, crc16_modbus
from simulators.models.escpos import USB_TM_T88V, EscposPrinter
from simulators.models.ipp import IppPrinter
from simulators.models.laser import LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.presenter import PresenterPrinter
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader, SyntheticCard
from simulators.models.star import StarPrinter

LONG_AFTER = 100.0
POLLED = PadDialect(polled=True)


def ask(model: Model, query: str, now: float = 10.0, *, cut: int | None = None) -> str:
    """Everything that comes back within a minute and a half, as hex."""
    raw = bytes.fromhex(query)
    for piece in [raw] if cut is None else [raw[at : at + cut] for at in range(0, len(raw), cut)]:
        model.feed(piece, now)
    endpoint = model.usb.endpoints_in[0] if model.usb else 0
    return model.take(now + LONG_AFTER, 65536, endpoint=endpoint).hex(" ")


@pytest.fixture(params=[None, 1, 3], ids=["whole", "bytewise", "by-three"])
def cut(request: pytest.FixtureRequest) -> int | None:
    value: int | None = request.param
    return value


class TestSdt:
    """Frames of the SDT module documents (GA/T 467 family)."""

    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("aa aa aa 96 69 00 03 11 ff ed", "aa aa aa 96 69 00 04 00 00 90 94"),
            ("aa aa aa 96 69 00 03 10 ff ec", "aa aa aa 96 69 00 04 00 00 90 94"),
            ("aa aa aa 96 69 00 03 20 01 22", "aa aa aa 96 69 00 04 00 00 80 84"),
            ("aa aa aa 96 69 00 03 20 02 21", "aa aa aa 96 69 00 04 00 00 81 85"),
            ("aa aa aa 96 69 00 03 30 01 32", "aa aa aa 96 69 00 04 00 00 41 45"),
            ("aa aa aa 96 69 00 04 61 ff 50 ca", "aa aa aa 96 69 00 04 00 00 90 94"),
            (
                "aa aa aa 96 69 00 03 12 ff ee",
                "aa aa aa 96 69 00 14 00 00 90 05 00 01 00 25 02 33 01 4e 61 bc 00 b1 7f 39 05 f4",
            ),
            ("aa aa aa 96 69 00 03 20 01 21", "aa aa aa 96 69 00 04 00 00 10 14"),
        ],
    )
    def test_answers(self, query: str, answer: str, cut: int | None) -> None:
        assert ask(SdtReader(), query, cut=cut) == answer

    def test_a_card_is_found_selected_and_read_once(self) -> None:
        reader = SdtReader()
        reader.place_card(SyntheticCard())
        search, select, read = (f"aa aa aa 96 69 00 03 {tail}" for tail in ("20 01 22", "20 02 21", "30 01 32"))
        assert ask(reader, search, 10) == "aa aa aa 96 69 00 08 00 00 9f 00 00 00 00 97"
        assert ask(reader, select, 200) == "aa aa aa 96 69 00 0c 00 00 90 00 00 00 00 00 00 00 00 9c"
        content = bytes.fromhex(ask(reader, read, 400))
        assert len(content) == 1295
        assert content[:14].hex() == "aaaaaa966905080000900100" + "0400"
        assert "TESTMARK" in content[14:270].decode("utf-16-le")
        assert ask(reader, search, 600).endswith("80 84"), "a card that was read is not found again while it lies there"
        reader.remove_card()
        reader.place_card(SyntheticCard())
        assert " 9f " in ask(reader, search, 800)

    @pytest.mark.parametrize(("has_fingerprint", "size"), [(True, 2321), (False, 1297)])
    def test_content_with_fingerprint(self, has_fingerprint: bool, size: int) -> None:
        reader = SdtReader()
        reader.place_card(SyntheticCard(has_fingerprint=has_fingerprint))
        ask(reader, "aa aa aa 96 69 00 03 20 01 22", 10)
        ask(reader, "aa aa aa 96 69 00 03 20 02 21", 200)
        assert len(bytes.fromhex(ask(reader, "aa aa aa 96 69 00 03 30 10 23", 400))) == size

    def test_split_usb_form(self) -> None:
        reader = SdtReader(usb=USB_SPLIT)
        reader.feed(bytes.fromhex("aaaaaa96690003"), 1.0, endpoint=0x02)
        reader.feed(bytes.fromhex("11ffed"), 1.0, endpoint=0x06)
        assert reader.take(2.0, 64, endpoint=0x81).hex() == "aaaaaa96690004"
        assert reader.take(2.0, 64, endpoint=0x85).hex() == "00009094"

    def test_whole_usb_form(self) -> None:
        assert ask(SdtReader(usb=USB_WHOLE), "aa aa aa 96 69 00 03 11 ff ed") == "aa aa aa 96 69 00 04 00 00 90 94"

    @pytest.mark.parametrize(
        ("fault", "status"), [("sam-failure", "60 64"), ("sam-unlicensed", "66 62"), ("line-noise", "10 14")]
    )
    def test_module_faults(self, fault: str, status: str) -> None:
        reader = SdtReader()
        reader.set(fault, 0.0)
        assert ask(reader, "aa aa aa 96 69 00 03 11 ff ed") == f"aa aa aa 96 69 00 04 00 00 {status}"

    def test_speed_change_takes_effect_after_its_answer(self) -> None:
        reader = SdtReader()
        assert ask(reader, "aa aa aa 96 69 00 03 60 04 67").endswith("90 94")
        reader.feed(bytes.fromhex("aaaaaa9669000311ffed"), 200.0, line_baud=115200)
        assert b"\xaa\xaa\xaa\x96\x69" not in reader.take(300.0, 999, line_baud=115200)
        reader.feed(bytes.fromhex("aaaaaa9669000311ffed"), 400.0, line_baud=9600)
        assert reader.take(500.0, 999, line_baud=9600).hex() == "aaaaaa966900040000" + "9094"

    @pytest.mark.parametrize(("form", "mark"), [("citizen", " "), ("permit", "J"), ("foreigner", "I")])
    def test_the_three_kinds_of_text(self, form: Literal["citizen", "permit", "foreigner"], mark: str) -> None:
        block = SyntheticCard(form=form).text_block()
        assert (len(block), block[248:250].decode("utf-16-le")) == (256, mark)
        assert "TESTMARK" in block.decode("utf-16-le")

    def test_items_beside_text_and_photo(self) -> None:
        reader = SdtReader()
        reader.place_card(SyntheticCard())
        for at, query in ((10, "20 01 22"), (200, "20 02 21")):
            ask(reader, f"aa aa aa 96 69 00 03 {query}", at)
        assert ask(reader, "aa aa aa 96 69 00 03 30 03 30", 400).endswith("00 00 91 95")

    def test_repr_of_a_card_hides_its_numbers(self) -> None:
        card = SyntheticCard(item_number=b"\x11\x22\x33\x44", card_serial=b"\x55" * 8)
        assert "\\x11" not in repr(card)
        assert "U" * 4 not in repr(card)


class TestCcid:
    """Messages of the CCID class specification 1.1."""

    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("65 00 00 00 00 00 01 00 00 00", "81 00 00 00 00 00 01 02 00 00"),
            ("62 00 00 00 00 00 02 00 00 00", "80 00 00 00 00 00 02 42 fe 00"),
            ("6f 05 00 00 00 00 03 00 00 00 ff ca 00 00 00", "80 00 00 00 00 00 03 42 fe 00"),
            ("63 00 00 00 00 00 04 00 00 00", "81 00 00 00 00 00 04 02 00 00"),
            ("65 00 00 00 00 01 05 00 00 00", "81 00 00 00 00 01 05 42 05 00"),
            ("6b 00 00 00 00 00 06 00 00 00", "81 00 00 00 00 00 06 42 00 00"),
        ],
    )
    def test_answers_without_a_card(self, query: str, answer: str) -> None:
        assert self.ask(CcidReader(), query) == answer

    def test_a_card_is_told_powered_and_asked_for_its_number(self) -> None:
        reader = CcidReader(usb=USB_R502)
        reader.insert(SyntheticChip("TEST"), 0.0)
        assert reader.take(1.0, 8, endpoint=INTERRUPT_IN).hex(" ") == "50 03"
        assert self.ask(reader, "65 00 00 00 00 00 01 00 00 00", 2.0) == "81 00 00 00 00 00 01 01 00 00"
        assert self.ask(reader, "62 00 00 00 00 00 02 00 00 00", 4.0) == "80 08 00 00 00 00 02 00 00 00 3b 64 00 00 54 45 53 54"
        uid = "6f 05 00 00 00 00 03 00 00 00 ff ca 00 00 00"
        assert self.ask(reader, uid, 6.0) == "80 06 00 00 00 00 03 00 00 00 54 45 53 54 90 00"
        reader.remove(8.0)
        assert reader.take(9.0, 8, endpoint=INTERRUPT_IN).hex(" ") == "50 02"

    @pytest.mark.parametrize(
        ("fault", "query", "answer"),
        [
            ("card-mute", "62 00 00 00 00 00 02 00 00 00", "80 00 00 00 00 00 02 41 fe 00"),
            ("hardware-error", "65 00 00 00 00 00 01 00 00 00", "81 00 00 00 00 00 01 41 fb 00"),
            ("antenna", "65 00 00 00 00 00 01 00 00 00", "81 00 00 00 00 00 01 02 00 00"),
        ],
    )
    def test_faults(self, fault: str, query: str, answer: str) -> None:
        reader = CcidReader()
        reader.insert(SyntheticChip(), 0.0)
        reader.set(fault, 0.0)
        assert self.ask(reader, query) == answer

    def test_the_class_descriptor(self) -> None:
        raw = class_descriptor(level="tpdu")
        assert (len(raw), raw[:6].hex(" "), raw[40:48].hex(" ")) == (54, "36 21 10 01 00 07", "ba 00 01 00 0f 01 00 00")

    @staticmethod
    def ask(reader: CcidReader, query: str, at: float = 1.0) -> str:
        reader.feed(bytes.fromhex(query.replace(" ", "")), at, endpoint=BULK_OUT)
        return reader.take(at + 1.5, 512, endpoint=BULK_IN).hex(" ")


class TestPresenter:
    """Custom's FULL status (KPM150H command reference, DLE EOT 20) and GS e."""

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (None, "10 0f 80 00 00 00"),
            ("paper-out", "10 0f 85 00 00 00"),
            ("paper-low", "10 0f 84 00 00 00"),
            ("not-taken", "10 0f a0 00 00 00"),
            ("head-up", "10 0f 80 01 00 00"),
            ("cover-open", "10 0f 80 02 00 00"),
            ("head-hot", "10 0f 80 00 01 00"),
            ("voltage", "10 0f 80 00 08 00"),
            ("presenter-jam", "10 0f 80 00 40 00"),
            ("cutter", "10 0f 80 00 00 01"),
        ],
    )
    def test_full_status(self, fault: str | None, status: str) -> None:
        printer = PresenterPrinter()
        if fault:
            printer.set(fault, 0.0)
        printer.feed(bytes.fromhex("10 04 14"), 5.0)
        assert printer.take(6.0, 10).hex(" ") == status

    def test_the_ejector_moves_the_slip_and_tells_where_it_is(self) -> None:
        printer = PresenterPrinter()
        printer.set("not-taken", 0.0)
        assert ask(printer, "1d 65 06", 10) == "08"
        printer.feed(bytes.fromhex("1d 65 02"), 200.0)
        assert (printer.retracted, printer.slip_out) == (1, False)
        assert ask(printer, "1d 65 06", 300) == "00"


class TestStar:
    """Automatic status of "STAR Line Mode Command Specifications", version 3, nine bytes."""

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (None, "23 06 00 00 00 00 00 00 00"),
            ("paper-out", "23 06 08 00 00 0c 00 00 00"),
            ("paper-low", "23 06 00 00 00 04 00 00 00"),
            ("cover-open", "23 06 28 00 00 00 00 00 00"),
            ("cutter", "23 06 08 08 00 00 00 00 00"),
            ("jam", "23 06 08 04 00 00 00 00 00"),
            ("head-hot", "23 06 08 40 00 00 00 00 00"),
            ("voltage", "23 06 08 20 00 00 00 00 00"),
            ("head-up", "23 06 08 00 02 00 00 00 00"),
            ("black-mark", "23 06 08 00 08 00 00 00 00"),
        ],
    )
    def test_status(self, fault: str | None, status: str, cut: int | None) -> None:
        printer = StarPrinter()
        if fault:
            printer.set(fault, 0.0)
        for piece in [b"\x1b\x06\x01"] if cut is None else [b"\x1b", b"\x06\x01"]:
            printer.feed(piece, 5.0)
        assert printer.take(6.0, 20).hex(" ") == status

    def test_the_counter_moves_when_all_before_it_is_on_paper(self) -> None:
        printer = StarPrinter()
        assert ask(printer, "1b 1e 61 01 41 0a 17").endswith("23 06 00 00 00 00 00 02 00")
        assert StarPrinter(status_bytes=7).asb().hex(" ") == "0f 06 00 00 00 00 00"


class TestIpp:
    """Encoding of RFC 8010."""

    def test_an_answer(self) -> None:
        question = "01 01 00 0b 00 00 00 2a 01 44 00 14" + b"requested-attributes".hex() + "00 0d" + b"printer-state".hex() + "03"
        answer = bytes.fromhex(ask(IppPrinter(), question))
        assert answer[:8].hex(" ") == "01 01 00 00 00 00 00 2a"
        assert answer.endswith(b"\x04\x23\x00\x0dprinter-state\x00\x04\x00\x00\x00\x03\x03")

    def test_another_protocol_version_is_refused(self) -> None:
        assert ask(IppPrinter(), "07 00 00 0b 00 00 00 01 03").startswith("02 00 05 03")


class TestEscpos:
    """Bit tables of Epson, Citizen and SNBC; ASB examples with the drawer input high, as printed there."""

    @pytest.mark.parametrize(
        ("fault", "answers"),
        [
            (None, ("12", "12", "12", "12")),
            ("paper-out", ("1a", "32", "12", "7e")),
            ("paper-low", ("12", "12", "12", "1e")),
            ("cover-open", ("1a", "16", "12", "12")),
            ("cutter", ("3a", "52", "1a", "12")),
            ("head-hot", ("1a", "52", "52", "12")),
            ("voltage", ("1a", "52", "32", "12")),
        ],
    )
    def test_real_time_status(self, fault: str | None, answers: tuple[str, ...], cut: int | None) -> None:
        printer = EscposPrinter()
        if fault:
            printer.set(fault, 0.0)
        for n, answer in enumerate(answers, start=1):
            printer.feed(bytes((0x10, 0x04, n)), 5.0)
            assert printer.take(6.0, 10).hex() == answer, f"DLE EOT {n}"

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            (None, "14 00 00 0f"),
            ("paper-out", "1c 00 0f 0f"),
            ("cover-open", "3c 00 00 0f"),
            ("cutter", "1c 09 00 0f"),
            ("head-hot", "1c 40 00 0f"),
        ],
    )
    def test_automatic_status_back(self, fault: str | None, status: str) -> None:
        """Cutter: the printed example is `1c 08 00 0f` for a printer that does not wait for recovery; bit 01 says that this one does."""
        printer = EscposPrinter(drawer_pin_high=True)
        assert ask(printer, "1d 61 0e", 1.0) == "14 00 00 0f"
        if fault:
            printer.set(fault, 200.0)
            assert printer.take(201.0, 99).hex(" ") == status

    def test_asb_is_silent_about_groups_that_are_off(self) -> None:
        printer = EscposPrinter()
        ask(printer, "1d 61 04", 1.0)
        printer.set("paper-low", 200.0)
        assert printer.take(201.0, 99) == b""

    def test_idle_with_drawer_input_high(self) -> None:
        assert ask(EscposPrinter(drawer_pin_high=True), "10 04 01") == "16"

    def test_status_query_inside_image_data_is_answered(self) -> None:
        printer = EscposPrinter()
        assert ask(printer, "1d 76 30 00 03 00 01 00 10 04 04") == "12"
        assert printer.buffered_bytes == 0, "the same three bytes were the image's only row"

    def test_process_id_comes_when_the_job_is_printed(self) -> None:
        printer = EscposPrinter(baud=None)
        printer.feed(b"line\n" * 20 + bytes.fromhex("1d2848060030304142" + "4344"), 1.0)
        assert printer.take(1.1, 99) == b"", "20 lines are not printed in a tenth of a second"
        assert printer.take(5.0, 99) == b"\x37\x22ABCD\x00"

    def test_queued_queries_wait_while_offline(self) -> None:
        printer = EscposPrinter()
        printer.set("paper-out", 0.0)
        assert ask(printer, "1d 72 01", 1.0) == "", "an empty printer never says so by GS r"
        assert ask(printer, "10 04 04", 300.0) == "7e"
        printer.clear("paper-out", 600.0)
        assert printer.take(601.0, 9) == b"\x00"

    def test_identity(self) -> None:
        printer = EscposPrinter()
        assert bytes.fromhex(ask(printer, "1d 49 43")) == b"\x5fTM-T88V\x00"
        assert ask(EscposPrinter(has_text_ids=False), "1d 49 43") == ""

    def test_device_id_and_port_status(self) -> None:
        printer = EscposPrinter(usb=USB_TM_T88V)
        device_id = printer.control(0xA1, 0, 0, 0, 1024, b"", 1.0)
        assert device_id == b"\x00\x30MFG:EPSON;CMD:ESC/POS;MDL:TM-T88V;CLS:PRINTER;"
        assert printer.control(0xA1, 1, 0, 0, 1, b"", 1.0) == b"\x18"
        printer.set("paper-out", 2.0)
        assert printer.control(0xA1, 1, 0, 0, 1, b"", 3.0) == b"\x38"

    def test_printing_uses_up_the_roll(self) -> None:
        printer = EscposPrinter(roll_mm=8_100)
        assert not printer.paper_low
        printer.act("print", 1.0, "40")
        printer.take(60.0, 9)
        assert printer.cuts == 1
        assert printer.paper_low
        assert not printer.paper_out
        printer.act("print", 100.0, "9000")
        printer.take(10_000.0, 9)
        assert printer.paper_out

    def test_freed_cutter_needs_the_host(self) -> None:
        printer = EscposPrinter()
        printer.set("cutter", 0.0)
        printer.act("free", 1.0)
        assert printer.offline
        ask(printer, "10 05 02", 2.0)
        assert not printer.offline

    def test_head_cools_down_by_itself(self) -> None:
        printer = EscposPrinter()
        printer.set("head-hot", 0.0)
        due = printer.next_due()
        assert due is not None
        printer.advance(due)
        assert not printer.offline


class TestLaser:
    QUERY = (
        "1b 25 2d 31 32 33 34 35 58 40 50 4a 4c 20 0d 0a 40 50 4a 4c 20 49 4e 46 4f 20 53 54 41 54 55 53 0d 0a "
        "1b 25 2d 31 32 33 34 35 58"
    )

    def test_status_block(self, cut: int | None) -> None:
        printer = LaserPrinter(chinese=False)
        answer = bytes.fromhex(ask(printer, self.QUERY, cut=cut))
        assert answer == b'@PJL INFO STATUS\r\nCODE=10001\r\nDISPLAY="READY"\r\nONLINE=TRUE\r\n\x0c'

    @pytest.mark.parametrize(
        ("fault", "code", "online"),
        [
            ("paper-out", b"41213", b"FALSE"),
            ("cover-open", b"40021", b"FALSE"),
            ("jam", b"40022", b"FALSE"),
            ("toner-empty", b"40010", b"FALSE"),
            ("toner-low", b"10006", b"TRUE"),
            ("fuser", b"50001", b"FALSE"),
        ],
    )
    def test_fault_codes(self, fault: str, code: bytes, online: bytes) -> None:
        printer = LaserPrinter()
        printer.set(fault, 0.0)
        answer = bytes.fromhex(ask(printer, self.QUERY))
        assert b"CODE=" + code + b"\r\n" in answer
        assert b"ONLINE=" + online in answer

    def test_echo_and_unknown_category(self) -> None:
        printer = LaserPrinter()
        line = b"\x1b%-12345X@PJL ECHO kf 7\r\n@PJL INFO NOPE\r\n\x1b%-12345X"
        assert bytes.fromhex(ask(printer, line.hex())) == b'@PJL ECHO kf 7\r\n\x0c@PJL INFO NOPE\r\n"?"\r\n\x0c'

    def test_pages_count_and_empty_the_tray(self) -> None:
        printer = LaserPrinter(page_count=100)
        printer.sheets = 2
        job = b"\x1b%-12345X@PJL ENTER LANGUAGE=PCL\r\n" + b"page\x0c" * 3 + b"\x1b%-12345X"
        printer.feed(job, 1.0, endpoint=1)
        assert printer.code == 10023
        printer.advance(60.0)
        assert printer.page_count == 102
        assert printer.code == 41213
        printer.act("refill", 70.0)
        printer.advance(120.0)
        assert printer.page_count == 103
        assert printer.code == 10001

    def test_sleep_delays_the_first_answer_only(self) -> None:
        printer = LaserPrinter()
        printer.set("sleep", 0.0)
        printer.feed(bytes.fromhex(self.QUERY), 1.0)
        assert printer.take(4.0, 999, endpoint=0x82) == b""
        assert b"CODE=10001" in printer.take(10.0, 999, endpoint=0x82)
        printer.feed(bytes.fromhex(self.QUERY), 11.0)
        assert b"CODE=10001" in printer.take(11.1, 999, endpoint=0x82)

    def test_port_status(self) -> None:
        printer = LaserPrinter()
        assert printer.control(0xA1, 1, 0, 0, 1, b"", 0.0) == b"\x18"
        printer.set("jam", 0.0)
        assert printer.control(0xA1, 1, 0, 0, 1, b"", 0.0) == b"\x10"

    def test_unsolicited_status(self) -> None:
        printer = LaserPrinter()
        ask(printer, b"\x1b%-12345X@PJL USTATUS DEVICE=VERBOSE\r\n\x1b%-12345X".hex())
        printer.set("cover-open", 300.0)
        assert b"@PJL USTATUS DEVICE\r\nCODE=40021" in printer.take(301.0, 999, endpoint=0x82)

    def test_host_based_printer_has_class_status_only(self) -> None:
        printer = LaserPrinter(pjl=False)
        assert ask(printer, self.QUERY) == ""
        assert b"CMD:GDI" in (printer.control(0xA1, 0, 0, 0, 1024, b"", 1.0) or b"")


class TestScanner:
    def test_unified_commands(self, cut: int | None) -> None:
        scanner = SerialScanner(continuous=False)
        trigger = "7e 01 30 30 30 30 23 53 43 4e 54 52 47 31 3b 03"
        assert ask(scanner, trigger, cut=cut) == "02 01 30 30 30 30 23 53 43 4e 54 52 47 31 06 3b 03"
        info = bytes.fromhex(ask(scanner, "7e 01 30 30 30 30 40 51 52 59 53 59 53 3b 03", 300.0, cut=cut))
        assert info.startswith(b"\x02\x010000@QRYSYS")
        assert info.endswith(b"\x06\x3b\x03")

    def test_register_frames(self) -> None:
        assert crc16_ccitt(bytes.fromhex("000100")) == bytes.fromhex("3331")
        scanner = SerialScanner(engine="em")
        write = bytes.fromhex("0801000200")
        assert ask(scanner, (b"\x7e\x00" + write + crc16_ccitt(write)).hex()) == "02 00 00 01 00 33 31"
        assert ask(scanner, "7e 00 08 01 00 02 00 00 00", 300.0) == "02 00 01 01 00 04 01"
        unknown = bytes.fromhex("0501000200")
        assert ask(scanner, (b"\x7e\x00" + unknown + crc16_ccitt(unknown)).hex(), 600.0) == "02 00 03 01 00 6a 61"

    def test_scan_needs_the_trigger_unless_continuous(self) -> None:
        scanner = SerialScanner(continuous=False)
        scanner.act("scan", 1.0, "HELLO-001")
        assert scanner.take(2.0, 99) == b""
        ask(scanner, "7e 01 30 30 30 30 23 53 43 4e 54 52 47 31 3b 03", 3.0)
        scanner.act("scan", 4.0, "HELLO-001")
        assert scanner.take(5.0, 99) == b"HELLO-001\r"
        scanner = SerialScanner()
        scanner.set("missing-suffix", 0.0)
        scanner.act("scan", 1.0, "A", "B")
        assert scanner.take(2.0, 99) == b"A B"


class TestCallPads:
    def test_the_published_frame(self) -> None:
        assert frame(0x01, 0x01, b"\x12").hex(" ") == "ff 68 03 03 68 01 01 12 14 16"

    def test_poll_is_echoed_and_brings_keys(self, cut: int | None) -> None:
        bus = CallPadBus(addresses=(1, 3), dialect=POLLED)
        poll = frame(3, 1, b"").hex()
        assert ask(bus, poll, 1.0, cut=cut).replace(" ", "") == poll
        bus.press(3, "drop", 200.0)
        keys = [ask(bus, poll, at, cut=cut) for at in (300.0, 500.0)]
        assert keys == [frame(3, 1, bytes((key,))).hex(" ") for key in (0x06, 0x0F)]
        assert ask(bus, frame(9, 1, b"").hex(), 900.0) == "", "nobody lives at address 9"

    def test_the_echo_of_a_key_is_its_acknowledgement(self) -> None:
        bus = CallPadBus(addresses=(1,), dialect=POLLED)
        bus.press(1, "call-next", 1.0)
        key = ask(bus, frame(1, 1, b"").hex(), 2.0)
        assert ask(bus, key, 200.0) == "", "the pad must not answer the acknowledgement of its own frame"

    def test_event_driven_pads_repeat_until_acknowledged(self) -> None:
        bus = CallPadBus(addresses=(1,), baud=9600)
        key = frame(1, 1, b"\x0c")
        bus.press(1, "call-next", 1.0)
        assert bus.take(1.2, 99) == key
        assert bus.take(1.45, 99) == b""
        assert bus.take(1.9, 99) == key
        bus.feed(key, 1.95)
        bus.advance(5.0)
        assert bus.take(9.0, 99) == b""

    def test_display_shows_three_digits_and_rating_has_a_deadline(self) -> None:
        bus = CallPadBus(addresses=(2,), dialect=POLLED)
        ask(bus, frame(2, 2, b"1042").hex(), 1.0)
        assert bus.pads[2].display == "042"
        ask(bus, frame(2, 0x11, b"\x01").hex(), 200.0)
        bus.advance(209.0)
        assert ask(bus, frame(2, 1, b"").hex(), 400.0) == frame(2, 0x11, b"\x00").hex(" ")
        bus.press(2, "rate", 600.0, "5")
        assert ask(bus, frame(2, 1, b"").hex(), 700.0) == frame(2, 0x11, b"\x05").hex(" ")

    def test_faults_of_one_pad_leave_the_others_alone(self) -> None:
        bus = CallPadBus(addresses=(1, 2))
        polls = [frame(address, 1, b"").hex() for address in (1, 2)]
        bus.pads[2].set("silence", 0.0)
        assert ask(bus, polls[0], 1.0) != ""
        assert ask(bus, polls[1], 200.0) == ""
        bus.pads[2].clear("silence", 300.0)
        bus.pads[2].set("address-conflict", 300.0)
        assert ask(bus, polls[1], 400.0).replace(" ", "") != polls[1]
        assert ask(bus, polls[0], 600.0).replace(" ", "") == polls[0]


class TestModbus:
    def climate(self) -> ModbusBus:
        return ModbusBus(ClimateModule(1, temperature_tenths=0x131, humidity_tenths=0x222))

    def test_climate(self, cut: int | None) -> None:
        assert ask(self.climate(), "01 04 00 01 00 02 20 0b", cut=cut) == "01 04 04 01 31 02 22 2a ce"

    def test_negative_temperature(self) -> None:
        bus = ModbusBus(ClimateModule(1, temperature_tenths=-205))
        assert ask(bus, "01 04 00 01 00 01" + crc16_modbus(bytes.fromhex("010400010001")).hex()) == "01 04 02 ff 33 b8 d5"

    def test_inputs(self) -> None:
        assert ask(ModbusBus(DoorModule(1, mains=False)), "01 02 00 00 00 08 79 cc") == "01 02 01 05 61 8b"

    def test_inputs_that_start_at_sixteen(self) -> None:
        bus = ModbusBus(DoorModule(1, first_input=0x10, mains=False))
        assert ask(bus, "01 02 00 00 00 08 79 cc") == "01 82 02 c1 61"
        query = bytes.fromhex("010200100008")
        assert ask(bus, (query + crc16_modbus(query)).hex(), 300.0) == "01 02 01 05 61 8b"

    def test_exception(self) -> None:
        query = bytes.fromhex("010400100002")
        assert ask(self.climate(), (query + crc16_modbus(query)).hex()) == "01 84 02 c2 c1"

    def test_a_cut_wire_looks_like_an_open_door(self) -> None:
        bus = ModbusBus(DoorModule(1, mains=False))
        bus.set("door-open", 0.0)
        assert ask(bus, "01 02 00 00 00 08 79 cc").split()[3] == "04"
        bus.set("tamper", 200.0)
        assert ask(bus, "01 02 00 00 00 08 79 cc", 300.0).split()[3] == "00"

    def test_noise_on_the_bus_does_not_lose_the_next_frame(self) -> None:
        assert ask(self.climate(), "ff 00 37 01 04 00 01 00 02 20 0b") == "01 04 04 01 31 02 22 2a ce"

    def test_echo_streaming_and_silence(self) -> None:
        bus = self.climate()
        bus.set("echo", 0.0)
        assert ask(bus, "01 04 00 01 00 02 20 0b", 1.0) == "01 04 00 01 00 02 20 0b 01 04 04 01 31 02 22 2a ce"
        bus.set("streaming", 200.0)
        assert b"%RH" in bus.take(203.0, 999)
        quiet = self.climate()
        quiet.modules[1].set("silence", 0.0)
        assert ask(quiet, "01 04 00 01 00 02 20 0b") == ""
