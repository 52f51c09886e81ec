"""`python -m tests.fleet_server.notifications.hurried_courier DATABASE REAL_MS FLEET_MS SPEED`: the notification process on a clock that runs faster.

Its clock showed FLEET_MS when the wall clock showed REAL_MS.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from fleet_server.notifications.courier import Courier
from fleet_server.notifications.secrets import SecretBox


def hurried_ms(real_ms: int, fleet_ms: int, speed: int) -> int:
    return fleet_ms + (time.time_ns() // 1_000_000 - real_ms) * speed


def main(database: str, real_ms: str, fleet_ms: str, speed: str) -> None:
    courier = Courier(
        Path(database),
        SecretBox(Path(database).parent),
        fleet="jinhua",
        zone="Asia/Shanghai",
        now_ms=lambda: hurried_ms(int(real_ms), int(fleet_ms), int(speed)),
        tick_s=0.02,
    )
    print("looking", flush=True)
    asyncio.run(courier.run())


if __name__ == "__main__":
    main(*sys.argv[1:])
