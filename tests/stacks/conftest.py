"""Device models behind unmodified libusb, evdev, udev: a bench process with umockdev, and the agent's shipped code in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from simulators.ports.umockdev import RunningBench, start_bench
from tests.support.processes import ROOT

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root without the right to open what the mode bits refuse."""


class FarError(Exception):
    """A PortError on the other side, by its class's name."""


class Far:
    """A process that uses the agent's transports, see far_side.py."""

    def __init__(self, bench: RunningBench, folder: Path, *, prefix: tuple[str, ...] = ()) -> None:
        self.bench = bench
        self._errors = (folder / "far.log").open("ab")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.stacks.far_side"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**_clean_environment(), **bench.environment},
            cwd=ROOT,
        )
        assert self._answer() == {"ready": True}

    def __call__(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise FarError(answer["error"])
        return answer["told"]

    def sightings(self, bus: str | None = None) -> list[list[Any]]:
        return [one for one in self("sightings") if bus in (None, one[0])]

    def places(self) -> set[str]:
        return {one[4] for one in self.sightings()}

    def until_places(self, wanted: set[str]) -> None:
        """Wait for udev events until exactly these places are taken; no looking in between."""
        for _ in range(20):
            if self.places() == wanted:
                return
            assert self("changes", within_s=10.0), f"no event; {self.places()}, not {wanted}; {self.bench.log}"
        raise AssertionError(f"there are {self.places()}, wanted {wanted}")

    def until_nodes(self, bus: str, wanted: list[tuple[str, str]]) -> None:
        """Wait for udev events until these nodes, with their places, are there."""
        for _ in range(20):
            if (found := [(one[1], one[4]) for one in self.sightings(bus)]) == wanted:
                return
            assert self("changes", within_s=10.0), f"no event; {found}, not {wanted}; {self.bench.log}"
        raise AssertionError(f"not {wanted}")

    def until_free(self, do: str, **arguments: Any) -> Any:
        """The answer, once whoever held the device is noticed to be gone."""
        for _ in range(100):
            try:
                return self(do, **arguments)
            except FarError as err:
                if str(err) != "PortBusy":
                    raise
        raise AssertionError(f"busy for ever; {self.bench.log}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the other side ended: see far.log"
        return json.loads(line)


def _clean_environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "UMOCKDEV_DIR")}


def device(slot: str, kind: str, place: str, **more: Any) -> dict[str, Any]:
    return {"slot": slot, "type": kind, "at": place, **more}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as parts:
        yield parts


@pytest.fixture
def plug(stack: ExitStack, tmp_path: Path) -> Callable[..., RunningBench]:
    """Start a bench with the given devices, or `terminal=` a whole one."""

    def start(*devices: dict[str, Any], **more: Any) -> RunningBench:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kf")))  # a socket's path is short
        wanted = {"devices": list(devices), **more} if devices else more
        return stack.enter_context(start_bench(wanted, folder))

    return start


@pytest.fixture
def far(stack: ExitStack, tmp_path: Path) -> Callable[..., Far]:
    def start(bench: RunningBench, **more: Any) -> Far:
        one = Far(bench, tmp_path, **more)
        stack.callback(one.close)
        return one

    return start
