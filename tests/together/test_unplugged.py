"""Devices that are pulled out in the middle of a frame, storm, talk without end or fall silent: the right fault, and nobody else notices.

A real agent process over ptys whose other side this process holds, a real server behind it.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulators.models.base import Model
from simulators.models.escpos import EscposPrinter
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import SdtReader
from simulators.ports.pty import ThreadPty
from tests.support.server import RunningServer
from tests.support.waiting import wait_until
from tests.together.road import Cases, LeanTerminal, check_chain, wait_cases, whole_server

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(150)]

CHATTER_BYTES, EVERY_S = 2048, 0.01
"""200 kB a second: three times what the agent takes of one device, fifteen times what a scanner's line can carry."""
PROFILES = {"id-reader": "sdt-serial", "receipt-printer": "receipt-printer-serial", "scanner": "newland-uart"}


class PulledOut(SerialScanner):
    """Delivers half of an answer when it is told to, and is gone with the other half."""

    armed = False
    cut_frames = 0

    def take(self, now: float, max_bytes: int, *, endpoint: int = 0, line_baud: int | None = None) -> bytes:
        data = super().take(now, max_bytes, endpoint=endpoint, line_baud=line_baud)
        if self.armed and len(data) > 1:
            self.armed = False
            self.cut_frames += 1
            self.unplug(now)
            return data[: len(data) // 2]
        return data


class Chatterbox(SerialScanner):
    """Sends as fast as anybody reads, without end, what `make` gives."""

    make: Callable[[], bytes] | None = None
    sent = 0
    next_word = 0.0

    def run_mechanism(self, now: float) -> None:
        super().run_mechanism(now)
        if self.make is not None and now >= self.next_word:
            data = self.make()
            self.sent += len(data)
            self.next_word = now + EVERY_S
            self._queue(0, data, now)

    def mechanism_due(self) -> float | None:
        return super().mechanism_due() if self.make is None else self.next_word

    def start(self, make: Callable[[], bytes]) -> None:
        with self.lock:
            self.next_word, self.make = time.monotonic(), make
        self.notify()

    def stop(self) -> None:
        with self.lock:
            self.make = None
            self.drop_output()


class Bench(LeanTerminal):
    """A reader, a printer and a scanner, held by this process."""

    scanner: SerialScanner

    def plug_in(self) -> None:
        (self.ports / "sim").mkdir()
        self.models: dict[str, Model] = {"id-reader": SdtReader(), "receipt-printer": EscposPrinter(), "scanner": self.scanner}
        self.lines = [ThreadPty(model, self.ports / slot) for slot, model in self.models.items()]
        entries = [
            {"slot": slot, "family": slot, "profile": PROFILES[slot], "port": str(self.ports / slot), "mandatory": True}
            for slot in self.models
        ]
        (self.ports / "sim" / "ports.json").write_text(json.dumps({"ports": entries}), "utf-8")

    def close(self) -> None:
        for line in self.lines:
            line.close()
        super().close()

    # What the server knows ---------------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        return dict(self.server.rows("SELECT slot, device FROM device WHERE terminal = ?", (self.terminal,)))

    def open_faults(self, slot: str) -> set[str]:
        rows = self.server.rows(
            "SELECT code FROM fault WHERE terminal = ? AND slot = ? AND cleared_ms IS NULL AND source = 'terminal'",
            (self.terminal, slot),
        )
        return {row[0] for row in rows}

    def all_faults(self, slot: str) -> set[str]:
        return {
            row[0] for row in self.server.rows("SELECT code FROM fault WHERE terminal = ? AND slot = ?", (self.terminal, slot))
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with whole_server(tmp_path_factory.mktemp("unplugged")) as running:
        yield running


def bench(folder: Path, server: RunningServer, name: str, scanner: SerialScanner) -> Bench:
    made = Bench(folder, server.processes, server, name)
    made.scanner = scanner
    made.plug_in()
    made.write_config()
    made.enrol()
    made.start()
    wait_until(
        lambda: set(made.states().values()) == {"online"} and len(made.states()) == 3, "all three are online", timeout_s=40
    )
    return made


def check_others(here: Bench, *, but: str) -> None:
    """The other devices never had a fault and are served now, and so are applications; the agent is the one that was started."""
    for slot in here.models:
        if slot != but:
            assert here.all_faults(slot) == set(), slot
            assert here.states()[slot] == "online", slot
    assert here.agent is not None
    assert here.agent.running
    assert here.api.request("GET", "/v1/status")[0] == 200
    assert "a part failed" not in here.agent.output()
    assert "a driver failed" not in here.agent.output()


def printer_is_heard(here: Bench) -> None:
    """A fault of a neighbour gets through while `scanner` misbehaves, and goes again."""
    printer = here.models["receipt-printer"]
    printer.set("cover-open", time.monotonic())
    wait_until(lambda: here.open_faults("receipt-printer") == {"PRN.COVER_OPEN"}, "the neighbour's fault arrives", timeout_s=15)
    printer.clear("cover-open", time.monotonic())
    wait_until(lambda: here.open_faults("receipt-printer") == set(), "and goes", timeout_s=40)


def test_pulled_out_in_the_middle_of_a_frame_and_plugged_in_again(server: RunningServer, tmp_path: Path) -> None:
    scanner = PulledOut()
    here = bench(tmp_path, server, "pulled-out", scanner)
    for round_ in range(2):
        scanner.armed = True
        # A new port is asked who it is, which is when there is a frame to be cut.
        scanner.unplug(time.monotonic())
        wait_until(lambda: not here.lines[2].line.link.is_symlink(), "it is gone")
        scanner.replug(time.monotonic())
        wait_until(lambda done=round_: scanner.cut_frames > done, "it was pulled out in the middle of a frame", timeout_s=30)  # type: ignore[misc]
        wait_until(lambda: here.open_faults("scanner") == {"SCN.UNPLUGGED"}, "the fault is at the server", timeout_s=30)
        assert here.states()["scanner"] == "noDevice"
        scanner.replug(time.monotonic())
        wait_until(lambda: here.open_faults("scanner") == set(), "the fault is taken back", timeout_s=40)
        wait_until(lambda: here.states()["scanner"] == "online", "it is online again")
    assert here.all_faults("scanner") == {"SCN.UNPLUGGED"}
    check_others(here, but="scanner")
    check_chain(server, here.terminal)
    here.close()


@pytest.mark.parametrize("kind", ["noise", "one byte for ever", "frames that never end"])
def test_a_stream_without_end_harms_nobody_else(kind: str, server: RunningServer, tmp_path: Path) -> None:
    rng = random.Random(9)
    makers: dict[str, Callable[[], bytes]] = {
        "noise": lambda: rng.randbytes(CHATTER_BYTES),
        "one byte for ever": lambda: b"\x55" * CHATTER_BYTES,
        "frames that never end": lambda: b"\x02\x010000@QRYSYS" * (CHATTER_BYTES // 13),
    }
    scanner = Chatterbox()
    here = bench(tmp_path, server, f"chatter-{sorted(makers).index(kind)}", scanner)
    scanner.start(makers[kind])
    wait_until(lambda: scanner.sent > 50 * CHATTER_BYTES, "it talks")
    printer_is_heard(here)
    cases = Cases(here)
    cases.enter(3)
    wait_cases(server, here.terminal, 3)
    scanner.stop()
    wait_until(lambda: here.states()["scanner"] == "online", "it is heard again once it has calmed down", timeout_s=60)
    allowed = {"SCN.OPEN_FAIL", "SCN.STUCK", "SCN.NO_SUFFIX", "SCN.LINK_NOISE"}
    assert here.all_faults("scanner") <= allowed, here.all_faults("scanner")
    assert here.all_faults("receipt-printer") == {"PRN.COVER_OPEN"}
    assert here.all_faults("id-reader") == set()
    assert here.agent is not None
    assert here.agent.running
    check_chain(server, here.terminal)
    here.close()


@pytest.mark.parametrize("fault", ["silence", "stall"])
def test_a_device_that_does_not_answer_any_more(fault: str, server: RunningServer, tmp_path: Path) -> None:
    """The printer stays plugged in and says nothing, or everything half a minute late."""
    here = bench(tmp_path, server, f"mute-{fault}", SerialScanner())
    printer = here.models["receipt-printer"]
    printer.set(fault, time.monotonic())
    wait_until(lambda: here.open_faults("receipt-printer") == {"PRN.OFFLINE"}, "silence is a fault", timeout_s=40)
    check_others(here, but="receipt-printer")
    printer.clear(fault, time.monotonic())
    printer.drop_output()
    wait_until(lambda: here.open_faults("receipt-printer") == set(), "it answers again", timeout_s=40)
    assert here.all_faults("receipt-printer") == {"PRN.OFFLINE"}
    check_others(here, but="receipt-printer")
    check_chain(server, here.terminal)
    here.close()
