"""`python -m tests.demo`, behind `make demo`: starts a server and 400 simulated terminals, says where to look, and ends all of it on Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from fleet_server.errors import FleetServerError
from scripts.say import note, step, stop
from tests.demo.processes import INTERRUPTS
from tests.demo.runner import Demo, DemoFailed, Wishes, only_one


def main() -> int:
    asked = _parser().parse_args()
    wishes = Wishes(
        root=asked.dir.absolute(),
        terminals=asked.terminals,
        own_processes=min(asked.own_processes, asked.terminals),
        days=asked.days,
        speed=asked.speed,
        seed=asked.seed,
        web_port=asked.port,
        embedded_broker=asked.embedded_broker,
        calm=asked.calm,
    )
    for number in INTERRUPTS:  # set also where a shell's `&` has made us deaf to Ctrl-C
        signal.signal(number, _as_interrupt)
    demo = Demo(wishes)
    try:
        with only_one(demo.places):
            if asked.fresh and wishes.root.exists():
                step(f"removing the earlier demo in {asked.dir}")
                demo.places.remove()
            try:
                demo.start()
                demo.watch()
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C must not leave anything behind
                demo.end()
    except KeyboardInterrupt:
        print()
    except (DemoFailed, FleetServerError) as err:
        stop(f"The demo cannot go on: {err}")
    note(f"Everything is kept in {asked.dir}; the next start continues there, --fresh begins anew (make demo ARGS=--fresh).")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo", description="A server and a simulated city of terminals on this machine.")
    parser.add_argument("--fresh", action="store_true", help="throw the earlier demo's data away")
    parser.add_argument("--dir", type=Path, default=Path("var/demo"), help="where everything is kept (default: %(default)s)")
    parser.add_argument("--terminals", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--own-processes", type=int, default=20, metavar="N", help="terminals that are processes of their own")
    parser.add_argument("--days", type=int, default=200, help="days of past to bring in (default: %(default)s; 0: none)")
    parser.add_argument("--speed", type=int, default=30, help="how many times faster than in the field cases come")
    parser.add_argument("--seed", type=int, default=1, help="another number, another city")
    parser.add_argument("--port", type=int, default=8080, help="the console's port, or the next free one; 0: any ports")
    parser.add_argument(
        "--embedded-broker",
        action="store_true",
        help="for a machine without mosquitto: a broker in Python, slower, said on every page",
    )
    parser.add_argument("--calm", action="store_true", help="no network that breaks, no terminal that is being worked on")
    return parser


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
