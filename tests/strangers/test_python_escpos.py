"""python-escpos, unmodified, prints to the receipt printer models and reads their status, through pyserial on a pseudo terminal and through pyusb."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from simulators.models.escpos import USB_TM_T88V, EscposPrinter
from simulators.models.presenter import PresenterPrinter
from simulators.ports.pty import ThreadPty
from simulators.ports.usb_backend import SimulatedUsbBackend

READ_S = 0.2


@contextmanager
def over_serial(model: EscposPrinter, tmp_path: Path) -> Iterator[Any]:
    from escpos.printer import Serial

    with ThreadPty(model, tmp_path / "printer"):
        printer = Serial(str(tmp_path / "printer"), baudrate=38400, timeout=READ_S, dsrdtr=False)
        try:
            yield printer
        finally:
            printer.close()


@contextmanager
def over_usb(model: EscposPrinter) -> Iterator[Any]:
    from escpos.printer import Usb

    assert model.usb is not None
    # The library detaches a kernel driver only from libusb's own backend, so none holds this one.
    model.usb = dataclasses.replace(model.usb, kernel_driver=None)
    backend = SimulatedUsbBackend()
    backend.attach(model)
    printer = Usb(0x04B8, 0x0202, usb_args={"backend": backend}, timeout=2000, in_ep=0x82, out_ep=0x01)
    try:
        yield printer
    finally:
        printer.close()


@pytest.fixture(params=["serial", "usb"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, EscposPrinter]]:
    if request.param == "serial":
        model = EscposPrinter()
        with over_serial(model, tmp_path) as printer:
            yield printer, model
    else:
        model = EscposPrinter(usb=USB_TM_T88V)
        with over_usb(model) as printer:
            yield printer, model


def until(model: EscposPrinter, true: Callable[[], bool]) -> None:
    """Let the printer's time pass until something is true."""
    pause, deadline_s = threading.Event(), time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s
        with model.lock:
            model.advance(time.monotonic())
        pause.wait(0.01)


def test_it_prints_a_receipt(pair: tuple[Any, EscposPrinter]) -> None:
    printer, model = pair
    printer.hw("INIT")
    printer.set(align="center", bold=True, double_height=True, double_width=True)
    printer.textln("RECEIPT")
    printer.set(align="left", normal_textsize=True)
    for line in range(5):
        printer.textln(f"line {line}")
    printer.barcode("4006381333931", "EAN13", 64, 2, "", "")
    printer.qr("https://example.org/r/1", size=4)
    printer.cut()
    until(model, lambda: model.cuts == 1 and model.buffered_bytes == 0)
    assert model.lines_printed >= 6
    assert model.printed_mm > 40
    assert model.dropped_bytes == 0


def test_a_picture_larger_than_the_printers_buffer() -> None:
    from PIL import Image

    model = EscposPrinter(usb=USB_TM_T88V)
    with over_usb(model) as printer:
        printer.image(Image.new("1", (384, 960)), impl="bitImageRaster")
        printer.cut()
        until(model, lambda: model.cuts == 1)
        assert model.dropped_bytes == 0
        assert model.printed_mm > 115


def test_it_reads_the_status(pair: tuple[Any, EscposPrinter]) -> None:
    printer, model = pair
    assert printer.is_online()
    assert printer.paper_status() == 2
    model.set("paper-low", time.monotonic())
    assert printer.paper_status() == 1
    assert printer.is_online()
    model.set("paper-out", time.monotonic())
    assert printer.paper_status() == 0
    assert not printer.is_online()
    model.clear("paper-out", time.monotonic())
    model.clear("paper-low", time.monotonic())
    assert printer.paper_status() == 2
    model.set("cover-open", time.monotonic())
    assert not printer.is_online()


def test_a_receipt_stops_where_the_paper_ends(pair: tuple[Any, EscposPrinter]) -> None:
    printer, model = pair
    model.roll_mm = 20.0
    for line in range(40):
        printer.textln(f"line {line}")
    printer.cut()
    until(model, lambda: model.paper_out)
    assert printer.paper_status() == 0
    assert model.cuts == 0
    assert model.buffered_bytes > 0, "what was accepted is not what was printed"


def test_a_presenter_holds_its_receipt(tmp_path: Path) -> None:
    model = PresenterPrinter(baud=38400)
    with over_serial(model, tmp_path) as printer:
        model.set("not-taken", time.monotonic())
        model.act("take", time.monotonic())
        printer.textln("slip")
        printer.cut()
        until(model, lambda: model.cuts == 1)
        assert printer.query_status(b"\x10\x04\x14")[2] & 0x20
