"""`python -m tests.bench`: measure, print one table. Nothing is written into the tree but the environments below `build/`."""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from scripts import say
from tests.bench import machine
from tests.bench.table import Row, render


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    terminals: int
    drain_terminals: int
    full_records: int
    natural_records: int
    settle_s: float
    watch_s: float
    page_requests: int
    page_terminals: tuple[int, ...] = (400, 4_000)
    wall_step_s: int = 20
    release_mib: int = 60
    updated: int = 400
    device_terminals: int = 400
    fleet_s: float = 60


SHORT = Scale(
    terminals=60,
    drain_terminals=40,
    full_records=60_000,
    natural_records=10_000,
    settle_s=15,
    watch_s=20,
    page_requests=30,
    page_terminals=(60,),
    wall_step_s=120,
    release_mib=10,
    updated=40,
    device_terminals=100,
    fleet_s=30,
)
USUAL = Scale(
    terminals=400, drain_terminals=100, full_records=300_000, natural_records=60_000, settle_s=30, watch_s=60, page_requests=100
)
FULL = Scale(
    terminals=400,
    drain_terminals=400,
    full_records=1_000_000,
    natural_records=1_000_000,
    settle_s=60,
    watch_s=60,
    page_requests=300,
)


def _at_rest(scale: Scale) -> list[Row]:
    from tests.bench import at_rest

    return at_rest.rows(settle_s=scale.settle_s, watch_s=scale.watch_s)


def _drain(scale: Scale) -> list[Row]:
    from tests.bench import drain

    return drain.rows(full_records=scale.full_records, natural_records=scale.natural_records, terminals=scale.drain_terminals)


def _reconnect(scale: Scale) -> list[Row]:
    from tests.bench import reconnect

    return reconnect.rows(terminals=scale.terminals)


def _fault(scale: Scale) -> list[Row]:
    from tests.bench import fault

    return fault.rows(terminals=scale.terminals)


def _pages(scale: Scale) -> list[Row]:
    from tests.bench import pages

    return [row for terminals in scale.page_terminals for row in pages.rows(terminals=terminals, requests=scale.page_requests)]


def _streams(scale: Scale) -> list[Row]:
    from tests.bench import streams

    return streams.rows(changes=scale.page_requests // 3)


def _public(scale: Scale) -> list[Row]:
    from tests.bench import public

    return public.rows(records=scale.full_records, terminals=scale.drain_terminals)


def _releases(scale: Scale) -> list[Row]:
    from tests.bench import fetching

    return fetching.rows(terminals=scale.terminals, mib=scale.release_mib)


def _deltas(_: Scale) -> list[Row]:
    from tests.bench import deltas

    return deltas.rows()


def _rollout(scale: Scale) -> list[Row]:
    from tests.bench import rollout

    return rollout.rows(terminals=scale.updated)


def _codecs(_: Scale) -> list[Row]:
    from tests.bench import codecs

    return codecs.rows()


def _devices(scale: Scale) -> list[Row]:
    from tests.bench import devices

    return devices.rows(terminals=scale.device_terminals, fleet_s=scale.fleet_s)


def _capture(_: Scale) -> list[Row]:
    from tests.bench import capture

    return capture.rows()


def _wallboard(scale: Scale) -> list[Row]:
    from tests.bench import wallboard

    return wallboard.rows(step_s=scale.wall_step_s)


GROUPS: dict[str, Callable[[Scale], list[Row]]] = {
    "codecs": _codecs,
    "devices": _devices,
    "capture": _capture,
    "drain": _drain,
    "reconnect": _reconnect,
    "fault": _fault,
    "pages": _pages,
    "streams": _streams,
    "public": _public,
    "releases": _releases,
    "deltas": _deltas,
    "rollout": _rollout,
    "wallboard": _wallboard,
    "rest": _at_rest,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=…", description="Measure; every figure stands beside something real of the same run."
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="fewer terminals and records, about three minutes")
    size.add_argument("--full", action="store_true", help="a million records in either batch size, about half an hour")
    parser.add_argument(
        "--only", metavar="GROUP", action="append", choices=GROUPS, help=f"one of {', '.join(GROUPS)}; may be repeated"
    )
    asked = parser.parse_args()
    scale = SHORT if asked.short else FULL if asked.full else USUAL
    ruler, rows, broken, started_s = machine.Ruler(), list[Row](), dict[str, str](), time.monotonic()
    for name in asked.only or GROUPS:
        ruler.look()
        say.step(f"Measuring: {name}")
        began_s = time.monotonic()
        try:
            rows += GROUPS[name](scale)
        except Exception as err:  # noqa: BLE001 - a group that cannot be measured must not take the others' figures along
            traceback.print_exc()
            broken[name] = f"{type(err).__name__}: {err}"
        say.note(f"{time.monotonic() - began_s:.0f} s")
    ruler.look()
    print(f"\n{render(rows)}\n")
    print(f"{time.strftime('%Y-%m-%d')}, {machine.describe()}; {time.monotonic() - started_s:.0f} s. {ruler.sentence()}")
    for name, reason in broken.items():
        print(f"Not measured: {name} ({reason})")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
