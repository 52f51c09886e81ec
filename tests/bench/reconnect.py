"""Row: the whole fleet back after the broker was killed, beside what the same number of bare MQTT clients needs on the same broker."""

from __future__ import annotations

import json
import subprocess
import time

from tests.bench.fleet_process import hear, running, say
from tests.bench.stage import Stage, stage
from tests.bench.table import Budget, Row

TRIES = 3


def rows(*, terminals: int) -> list[Row]:
    with stage(terminals=terminals) as server:
        server.start_broker()
        server.start_ingest()
        with running(server, server.terminals, "agents") as fleet:
            back = [_kill_broker(server, fleet) for _ in range(TRIES)]
        with running(server, server.terminals, "bare") as fleet:
            alone_s = sorted(_connect_bare(fleet) for _ in range(TRIES))[TRIES // 2]
    connected_s, greeted_s = sorted(back, key=lambda pair: pair[1])[TRIES // 2]
    return [
        Row(
            what=f"Reconnect, {terminals} agents after the broker was killed",
            ours=greeted_s,
            unit="s",
            beside="as many bare clients with mutual TLS connect and subscribe",
            peer=alone_s,
            budgets=(Budget(rule="at_most", limit=2.0, of="ratio"),),
            notes=(
                "From the broker listening again until every agent was connected, had heard the server's challenge and its head.",
                f"Connected and subscribed were all after {connected_s:.2f} s. Median of {TRIES}.",
                "Agents and bare clients live in one process on one core; in the field each has a processor of its own.",
            ),
        )
    ]


def _kill_broker(server: Stage, fleet: subprocess.Popen[str]) -> tuple[float, float]:
    """(seconds until all were connected, until all were greeted) after the broker listens again."""
    assert server.broker is not None
    say(fleet)
    server.broker.kill()
    server.start_broker()
    listens_s = time.monotonic()
    told = json.loads(hear(fleet))
    return told["connected_s"][-1] - listens_s, told["greeted_s"] - listens_s


def _connect_bare(fleet: subprocess.Popen[str]) -> float:
    say(fleet)
    told = json.loads(hear(fleet))
    return float(told["connected_s"][-1] - told["started_s"])
