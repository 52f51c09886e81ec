"""`python -m tests.demo.outage [SECONDS]`: stops the demo's broker for a while. The supervisor, which would restart it, sleeps meanwhile."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.demo.setup import Places


def stop_broker(places: Places, seconds: float) -> None:
    """Returns when the broker may start again. SystemExit if no demo runs there."""
    try:
        health = json.loads((places.server / "run" / "health.json").read_bytes())
        supervisor, broker = int(health["pid"]), int(health["parts"]["broker"]["pid"])
        os.kill(supervisor, 0)
    except (OSError, ValueError, KeyError, TypeError):
        raise SystemExit(f"No demo runs in {places.root}, or its broker is down already.") from None
    os.kill(supervisor, signal.SIGSTOP)
    try:
        with suppress(ProcessLookupError):
            os.kill(broker, signal.SIGTERM)
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if sys.stdout.isatty():
                print(f"\rThe broker is stopped, {left_s:3.0f} s to go. ", end="", flush=True)
            time.sleep(min(1.0, left_s))
    finally:
        os.kill(supervisor, signal.SIGCONT)
    print("\nThe broker starts again.")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo.outage", description="Stop the running demo's broker for a while."
    )
    parser.add_argument("seconds", type=float, nargs="?", default=60)
    parser.add_argument("--dir", type=Path, default=Path("var/demo"))
    asked = parser.parse_args()
    stop_broker(Places(asked.dir.absolute()), asked.seconds)


if __name__ == "__main__":
    main()
