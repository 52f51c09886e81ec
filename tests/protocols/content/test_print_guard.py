"""What a raw job may not do, and that pictures, codes and text are never taken for it."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.content.print_guard import escpos_sets_up, pjl_sets_up, star_sets_up

SLIP = b"\x1b@\x1ba\x01\x1d!\x11" + "办理凭条\n".encode("gbk") + b"\x1b!\x00line\n\x1dV\x42\x00"
STAR_SLIP = b"\x1b@\x1b\x1da\x01line\n\x1b\x64\x03"
PAGES = b"\x1bE page one \x0c"

ESCPOS = {
    "hex dump mode": b"\x1d(A\x02\x00\x00\x01",
    "what automatic status reports": b"\x1d(B\x02\x00\x61\x00",
    "user memory": b"\x1d(C\x05\x00\x00\x00\x00AB",
    "real-time commands off": b"\x1d(D\x03\x00\x14\x01\x00",
    "user set-up mode": b"\x1d(E\x03\x00\x01IN",
    "line speed": b"\x1d(E\x06\x00\x0b\x0119200"[:11],
    "settings kept": b"\x1d(M\x02\x00\x01\x01",
    "a function nobody knows": b"\x1d(z\x02\x00\x00\x00",
    "erase stored pictures": b"\x1d(L\x05\x00\x30\x41CLR",
    "store a picture": b"\x1d(L\x0c\x00\x30\x43\x30AB\x01\x08\x00\x01\x00\x31\xff",
    "store a long picture": b"\x1d8L\x0c\x00\x00\x00\x30\x43\x30AB\x01\x08\x00\x01\x00\x31\xff",
    "store a bitmap": b"\x1dD\x30\x43\x30AB\x30\x31BM",
    "automatic status off": b"\x1da\x00",
    "ink status": b"\x1dj\x00",
    "counter to zero": b"\x1dg0\x00\x0a\x00",
    "stored bit images": b"\x1cq\x01\x01\x00\x01\x00\x01\x02\x03\x04\x05\x06\x07\x08",
    "user memory, older": b"\x1cg1\x00\x00\x00\x00\x00\x01\x00A",
    "logo set-up": b"\x1c(E\x06\x00\x40\x02AB\x30\x31",
    "more automatic status": b"\x1c(e\x02\x00\x33\x00",
    "another emulation": b"\x1c<SVEL>",
    "printer deselected": b"\x1b=\x02",
    "power off": b"\x10\x14\x02\x01\x08",
    "set-up of an unbranded printer": b"\x1f\x1b\x1f\x11\x00",
}
STAR = {
    "memory switches": b"\x1b\x1d#W00000\n\x00",
    "stored logos": b"\x1b\x1cq\x01\x01\x00\x01\x00\xff",
    "automatic status off": b"\x1b\x1ea\x00",
    "print counter to zero": b"\x1b\x1eE\x00",
    "restart": b"\x1b?\n\x00",
    "deselected": b"\x13",
}
UEL = b"\x1b%-12345X"
PJL = {
    "kept settings": b"@PJL DEFAULT TIMEOUT=900\r\n",
    "factory settings": UEL + b"@PJL INITIALIZE\r\n",
    "in lower case": UEL + b"@pjl default copies=9\r\n",
    "files": UEL + b"@PJL\r\n@PJL FSDOWNLOAD FORMAT:BINARY SIZE=1 NAME=\"0:\\x\"\r\nx",
    "its report of the job's end": UEL + b"@PJL USTATUSOFF\r\n",
    "one report": UEL + b"@PJL USTATUS JOB=OFF\r\n",
    "waits for a person": UEL + b'@PJL OPMSG DISPLAY="wait"\r\n',
    "service mode": UEL + b"@PJL SET SERVICEMODE=HPBOISEID\r\n",
    "firmware": UEL + b"@PJL ENTER LANGUAGE=ACL\r\n",
    "at the very end": UEL + b"@PJL DEFAULT COPIES=9",
    "behind the pages": PAGES + UEL + b"@PJL SET COPIES=1\r\n@PJL DEFAULT COPIES=9\r\n",
}  # fmt: skip
CASES = [
    *((escpos_sets_up, SLIP, name, command) for name, command in ESCPOS.items()),
    *((star_sets_up, STAR_SLIP, name, command) for name, command in STAR.items()),
]


@pytest.mark.spec("D-510")
@pytest.mark.parametrize(("refuses", "slip", "name", "command"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_slip_that_sets_up_the_printer(refuses: Callable[[bytes], bool], slip: bytes, name: str, command: bytes) -> None:
    assert not refuses(slip * 3)
    for job in (command, slip + command, command + slip, slip + command + slip):
        assert refuses(job), name


@pytest.mark.spec("D-510")
@pytest.mark.parametrize("name", PJL)
def test_a_document_that_sets_up_the_printer(name: str) -> None:
    assert pjl_sets_up(PJL[name])


ALL_ESCPOS = b"".join(command for name, command in ESCPOS.items() if name != "power off")
ALL_STAR = b"".join(STAR.values())


def padded(data: bytes, size: int) -> bytes:
    return data + bytes(size - len(data))


PICTURES = {
    "raster": b"\x1dv0\x00" + struct.pack("<HH", 32, 16) + padded(ALL_ESCPOS, 512),
    "columns of 8": b"\x1b*\x00" + struct.pack("<H", 512) + padded(ALL_ESCPOS, 512),
    "columns of 24": b"\x1b*\x21" + struct.pack("<H", 200) + padded(ALL_ESCPOS, 600),
    "graphics": b"\x1d(L" + struct.pack("<H", 512) + b"\x30\x70" + padded(ALL_ESCPOS, 510),
    "long graphics": b"\x1d8L" + struct.pack("<I", 512) + b"\x30\x70" + padded(ALL_ESCPOS, 510),
    "a downloaded picture": b"\x1d*\x08\x08" + padded(ALL_ESCPOS, 512),
    "two-dimensional code": b"\x1d(k" + struct.pack("<H", 512) + b"1P0" + padded(ALL_ESCPOS, 509),
    "bar code with a length": b"\x1dk\x49" + bytes([len(ALL_ESCPOS) % 256]) + ALL_ESCPOS[: len(ALL_ESCPOS) % 256],
    "bar code with an end": b"\x1dk\x04\x1f\x1da\x00",
    "own characters": b"\x1b&\x03\x41\x41\x0c" + padded(b"\x1da\x00\x1d(A\x1f", 36),
    "tab stops": b"\x1bD\x10\x1c\x1f\x00",
    "a feed that looks like a lead": b"\x1bJ\x1d(A",
    "a distance that looks like one": b"\x1d$\x1f\x1f",
}
STAR_PICTURES = {
    "columns": b"\x1bK" + struct.pack("<H", 255) + padded(ALL_STAR, 255),
    "dense columns": b"\x1bX" + struct.pack("<H", 100) + padded(ALL_STAR, 300),
    "raster of the line mode": b"\x1b\x1dS\x01" + struct.pack("<HH", 8, 32) + b"\x00" + padded(ALL_STAR, 256),
    "raster mode": b"\x1b*rA\x1b*rP0\x00" + (b"b" + struct.pack("<H", 80) + padded(ALL_STAR, 80)) * 3 + b"\x1b*rB",
    "two-dimensional code": b"\x1b\x1dyD1\x00" + struct.pack("<H", 64) + padded(ALL_STAR, 64),
    "a feed that looks like a lead": b"\x1bJ\x13",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_no_command(name: str) -> None:
    assert not escpos_sets_up(SLIP + PICTURES[name] + SLIP)
    assert escpos_sets_up(SLIP + PICTURES[name] + b"\x1da\x00"), "the walk goes on behind it"


@pytest.mark.parametrize("name", STAR_PICTURES)
def test_a_picture_is_no_command_of_star(name: str) -> None:
    assert not star_sets_up(STAR_SLIP + STAR_PICTURES[name] + STAR_SLIP)
    assert star_sets_up(STAR_SLIP + STAR_PICTURES[name] + b"\x13"), "the walk goes on behind it"


def test_documents_pass() -> None:
    head = UEL + b'@PJL\r\n@PJL JOB NAME="x"\r\n@PJL SET COPIES=2\r\n@PJL SET DUPLEX=ON\r\n@PJL ENTER LANGUAGE=PCL\r\n'
    assert not pjl_sets_up(head + PAGES + b"text\r\n@PJL DEFAULT is a word of this letter\r\n" + UEL + b"@PJL EOJ\r\n" + UEL)
    assert not pjl_sets_up(b"%PDF-1.7\n@PJL DEFAULT COPIES=9\n")


def test_what_the_power_switch_is_told_counts_inside_a_picture_too() -> None:
    assert escpos_sets_up(b"\x1dv0\x00" + struct.pack("<HH", 1, 8) + padded(b"\x10\x14\x02\x01\x08", 8))


def test_slips_of_a_public_library_pass() -> None:
    escpos = pytest.importorskip("escpos.printer")
    printer = escpos.Dummy()
    printer.hw("INIT")
    printer.set(align="center", bold=True, double_height=True, double_width=True)
    printer.textln("Receipt 7")
    printer.qr("https://example.org/case/7", native=True)
    printer.qr("https://example.org/case/7")
    printer.barcode("{B7330702", "CODE128", function_type="B")
    printer.barcode("4006381333931", "EAN13", function_type="A")
    printer.cashdraw(2)
    printer.cut()
    assert not escpos_sets_up(printer.output)


@given(st.binary(max_size=300))
def test_any_bytes_are_walked(data: bytes) -> None:
    for refuses in (escpos_sets_up, star_sets_up, pjl_sets_up):
        assert refuses(data) in (True, False)


@given(st.lists(st.sampled_from([*PICTURES.values(), SLIP, b"text\n"]), max_size=6), st.sampled_from(sorted(ESCPOS.values())))
def test_it_is_found_behind_whatever_stands_before(before: list[bytes], command: bytes) -> None:
    assert not escpos_sets_up(b"".join(before))
    assert escpos_sets_up(b"".join([*before, command]))


@pytest.mark.parametrize(
    "unit", [b"\x1b@", b"\x1b", b"\x1dV\x42\x00", b"\x1d(k\x00\x00", b"\x1bD", UEL + b"@PJL\n", b"\n", b"@PJL "]
)
def test_the_largest_job_is_walked_in_time(unit: bytes) -> None:
    data = unit * (1024 * 1024 // len(unit))
    for refuses in (escpos_sets_up, star_sets_up, pjl_sets_up):
        began_s = time.process_time()
        many = refuses is not pjl_sets_up and unit.startswith(b"\x1b@")
        assert refuses(data) or not many, "more commands than a slip has"
        assert time.process_time() - began_s < 2
