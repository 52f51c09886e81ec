"""libusb and pyusb, unmodified, on device models."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.stacks.conftest import UNPRIVILEGED, FarError, device

Start = Callable[..., Any]

GET_DEVICE_ID = [0xA1, 0, 0, 0, 1023]
GET_PORT_STATUS = [0xA1, 1, 0, 0, 1]
SDT_FIND = "aaaaaa96690003200122"
SDT_NO_CARD = "aaaaaa9669000400008084"
PJL_STATUS = b"\x1b%-12345X@PJL \r\n@PJL INFO STATUS\r\n\x1b%-12345X".hex()


def refused(kind: str) -> Any:
    return pytest.raises(FarError, match=f"^{kind}$")


def test_a_printer_answers_on_both_pipes_and_by_class_requests(plug: Start, far: Start) -> None:
    side = far(plug(device("a4", "pjl-usb", "1-1.2")))
    port, out, into = side("open_usb", place="1-1.2", detach_kernel_driver=True)
    assert (out, into) == ([0x01], [0x82])
    assert b"MDL:LJ2650DN" in bytes.fromhex(side("control", port=port, setup=GET_DEVICE_ID))
    assert side("control", port=port, setup=GET_PORT_STATUS) == "18"
    side("write", port=port, data=PJL_STATUS)
    assert b"CODE=10001" in bytes.fromhex(side("read", port=port, timeout_s=2.0)[0])


def test_an_id_reader_with_four_pipes_and_one_with_two(plug: Start, far: Start) -> None:
    side = far(plug(device("split", "sdt-split", "1-1.1"), device("whole", "sdt-whole", "1-1.2")))
    port, out, into = side("open_usb", place="1-1.1")
    assert (out, into) == ([0x02, 0x06], [0x81, 0x85])
    side("write", port=port, data=SDT_FIND[:14], endpoint=0x02)
    side("write", port=port, data=SDT_FIND[14:], endpoint=0x06)
    head = side("read", port=port, timeout_s=2.0, endpoint=0x81)[0]
    body = side("read", port=port, timeout_s=2.0, endpoint=0x85)[0]
    assert head + body == SDT_NO_CARD
    port, out, into = side("open_usb", place="1-1.2")
    assert (out, into) == ([0x02], [0x81])
    side("write", port=port, data=SDT_FIND)
    assert side("read", port=port, timeout_s=2.0)[0] == SDT_NO_CARD


def test_the_kernel_driver_goes_only_where_the_profile_says_so_and_comes_back(plug: Start, far: Start) -> None:
    side = far(plug(device("receipt", "escpos-usb", "1-1.2")))
    with refused("PortBusy"):
        side("open_usb", place="1-1.2")
    port, _, _ = side("open_usb", place="1-1.2", detach_kernel_driver=True)
    side("close", port=port)
    with refused("PortBusy"):  # usblp has it again
        side("open_usb", place="1-1.2")


def test_the_driver_that_a_killed_agent_took_comes_back_with_the_next(plug: Start, far: Start) -> None:
    bench = plug(device("receipt", "escpos-usb", "1-1.2"))
    first, second = far(bench), far(bench)
    first("open_usb", place="1-1.2", detach_kernel_driver=True)
    first.process.kill()
    first.process.wait()
    port, _, _ = second.until_free("open_usb", place="1-1.2", detach_kernel_driver=True)
    second("close", port=port)
    with refused("PortBusy"):  # usblp has it
        second("open_usb", place="1-1.2")


def test_another_program_holds_the_device_and_lets_go(plug: Start, far: Start) -> None:
    bench = plug(device("reader", "sdt-whole", "1-1.1"))
    first, second = far(bench), far(bench)
    port, _, _ = first("open_usb", place="1-1.1")
    with refused("PortBusy"):
        second("open_usb", place="1-1.1")
    first("close", port=port)
    second("open_usb", place="1-1.1")


def test_a_program_that_died_holds_nothing(plug: Start, far: Start) -> None:
    bench = plug(device("reader", "sdt-whole", "1-1.1"))
    first, second = far(bench), far(bench)
    first("open_usb", place="1-1.1")
    first.close()
    second.until_free("open_usb", place="1-1.1")


def test_nothing_to_read_ends_in_time(plug: Start, far: Start) -> None:
    side = far(plug(device("reader", "sdt-whole", "1-1.1")))
    port, _, _ = side("open_usb", place="1-1.1")
    data, took_s = side("read", port=port, timeout_s=0.3)
    assert data == ""
    assert 0.29 <= took_s < 3.0
    side("write", port=port, data=SDT_FIND)
    assert side("read", port=port, timeout_s=2.0)[0] == SDT_NO_CARD  # the transfer that was given up took nothing with it


def test_a_silent_control_pipe_ends_in_time(plug: Start, far: Start) -> None:
    bench = plug(device("a4", "pjl-usb", "1-1.2"))
    side = far(bench)
    port, _, _ = side("open_usb", place="1-1.2", detach_kernel_driver=True)
    bench.do("fault", "a4", "silence")
    with refused("PortStalled"):
        side("control", port=port, setup=GET_PORT_STATUS, timeout_s=0.2)
    bench.do("clear", "a4", "silence")
    assert side("control", port=port, setup=GET_PORT_STATUS) == "18"


def test_a_stalled_pipe_is_told_and_cleared(plug: Start, far: Start) -> None:
    bench = plug(device("reader", "sdt-whole", "1-1.1"))
    side = far(bench)
    port, _, _ = side("open_usb", place="1-1.1")
    bench.do("fault", "reader", "usb-halt")
    with refused("PortStalled"):
        side("write", port=port, data=SDT_FIND)
    side("write", port=port, data=SDT_FIND)  # the halt was cleared by the one before
    assert side("read", port=port, timeout_s=2.0)[0] == SDT_NO_CARD


def test_a_request_that_the_device_refuses(plug: Start, far: Start) -> None:
    side = far(plug(device("reader", "sdt-whole", "1-1.1")))
    port, _, _ = side("open_usb", place="1-1.1")
    with refused("PortStalled"):
        side("control", port=port, setup=GET_DEVICE_ID)


def test_unplugged_while_open_and_back_at_the_same_place(plug: Start, far: Start) -> None:
    bench = plug(device("reader", "sdt-whole", "1-1.1"), device("other", "sdt-split", "1-1.2"))
    side = far(bench)
    port, _, _ = side("open_usb", place="1-1.1")
    bench.do("fault", "reader", "unplug")
    side.until_places({"1-1.2"})
    with refused("PortGone"):
        side("write", port=port, data=SDT_FIND)
    with refused("PortGone"):
        side("open_usb", place="1-1.1")
    bench.do("clear", "reader", "unplug")  # a new address, the same port path
    side.until_places({"1-1.1", "1-1.2"})
    with refused("PortGone"):
        side("write", port=port, data=SDT_FIND)
    port, _, _ = side("open_usb", place="1-1.1")
    side("write", port=port, data=SDT_FIND)
    assert side("read", port=port, timeout_s=2.0)[0] == SDT_NO_CARD


def test_devices_behind_one_hub_vanish_together(plug: Start, far: Start) -> None:
    bench = plug(
        device("reader", "sdt-whole", "1-1.1"), device("a4", "pjl-usb", "1-1.2"), device("keys", "keypad", "1-1.3"),
        device("line", "scanner", "1-1.4"), device("elsewhere", "sdt-split", "1-2"),
    )  # fmt: skip
    side = far(bench)
    everywhere = {"1-1.1", "1-1.2", "1-1.3", "1-1.4", "1-2"}
    assert side.places() == everywhere
    bench.play("\n".join(f"at 0s fault {name} unplug" for name in ("reader", "a4", "keys", "line")))
    side.until_places({"1-2"})
    bench.play("\n".join(f"at 0s clear {name} unplug" for name in ("reader", "a4", "keys", "line")))
    side.until_places(everywhere)
    assert [one[1] for one in side.sightings("input")] == ["/dev/input/event4"]  # the kernel's next number


@pytest.mark.parametrize(
    "lie", ["short-configuration", "endless-configuration", "zero-length", "too-many-interfaces", "no-endpoints", "huge-endpoint"]
)
def test_descriptors_that_lie_stop_neither_the_list_nor_the_neighbour(plug: Start, far: Start, lie: str) -> None:
    side = far(plug(device("liar", "sdt-whole", "1-1.1", lie=lie), device("honest", "sdt-whole", "1-1.2")))
    assert "1-1.2" in side.places()
    try:
        port, out, _ = side("open_usb", place="1-1.1")
        if out:
            side("write", port=port, data=SDT_FIND)
            side("read", port=port, timeout_s=0.3)
        else:
            with refused("PortRefused"):
                side("write", port=port, data=SDT_FIND)
    except FarError as err:
        assert str(err) in {"PortGone", "PortRefused", "PortStalled"}  # noqa: PT017 - either it works or it is a clear state
    port, _, _ = side("open_usb", place="1-1.2")
    side("write", port=port, data=SDT_FIND)
    assert side("read", port=port, timeout_s=2.0)[0] == SDT_NO_CARD


def test_a_node_that_no_rule_gave_away(plug: Start, far: Start) -> None:
    bench = plug(device("reader", "sdt-whole", "1-1.1", forbidden=True), device("keys", "keypad", "1-1.2", forbidden=True))
    side = far(bench, prefix=UNPRIVILEGED if os.geteuid() == 0 else ())
    assert side.places() == {"1-1.1", "1-1.2"}  # seeing needs no right
    with refused("PortRefused"):
        side("open_usb", place="1-1.1")
    with refused("PortRefused"):
        side("open_input", path="/dev/input/event3", grab=False)
