"""Rows: all terminals fetch a release from the server at the same time, beside a plain static file server, and what it costs the server's memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from litestar import Litestar
from litestar.static_files import create_static_files_router

from fleet_server.settings import to_environment
from tests.bench.machine import memory_of
from tests.bench.stage import Stage, listens, stage
from tests.bench.table import Budget, Row
from tests.support.processes import ROOT, Child, free_port
from tests.support.tuf_repo import TufRepo
from tests.support.waiting import wait_until

TARGET = "agent/kiosk-fleet-agent-1.0.0-x86_64.tar"
LOOK_EVERY_S = 0.25
FLAT_MIB = 64.0
"""Chosen: 400 connections with their buffers of TLS. What grows with the file would be gigabytes."""


@dataclass(frozen=True)
class Fetched:
    """All terminals together."""

    took_s: float
    median_s: float
    slowest_s: float
    before_mib: float
    peak_mib: float


def rows(*, terminals: int, mib: int) -> list[Row]:
    size = mib * 1024 * 1024
    with stage(terminals=1) as made:
        content = made.folder / "image.tar"
        content.write_bytes(os.urandom(size))
        repo = TufRepo.create(made.settings.layout.root)
        target = repo.release("agent", TARGET, content, version="1.0.0")
        folder, _, name = TARGET.rpartition("/")
        ours = _ours(made, f"{folder}/{target.hashes['sha256']}.{name}", terminals, size)
        plain = _plain(made, content, terminals, size)
    total_mb = terminals * size / 1e6
    note = f"median {ours.median_s:.1f} s, slowest {ours.slowest_s:.1f} s; the plain server {plain.median_s:.1f} and {plain.slowest_s:.1f} s"
    return [
        Row(
            what=f"Release of {mib} MiB to {terminals} terminals at once, TLS",
            ours=total_mb / ours.took_s,
            unit="MB/s",
            beside="Litestar's static files with the same certificate",
            peer=total_mb / plain.took_s,
            notes=(note, "two cores for the server and for the terminals together"),
        ),
        Row(
            what="Server's memory meanwhile, growth",
            ours=ours.peak_mib - ours.before_mib,
            unit="MiB",
            beside="the plain server",
            peer=plain.peak_mib - plain.before_mib,
            budgets=(Budget(rule="at_most", limit=FLAT_MIB, of="figure", unit="MiB"),),
            notes=(f"{ours.before_mib:.0f} MiB before, {ours.peak_mib:.0f} MiB at its highest",),
        ),
    ]


def _ours(made: Stage, path: str, terminals: int, size: int) -> Fetched:
    port = made.settings.enrolment.port
    server = made.processes.start_python("-m", "fleet_server.enrolment", env=to_environment(made.settings))
    wait_until(lambda: listens(port) or not server.running, "the server to listen")
    found = _fetch(made, server, f"https://127.0.0.1:{port}/updates/image/targets/{path}", terminals, size)
    server.stop()
    return found


def _plain(made: Stage, content: Path, terminals: int, size: int) -> Fetched:
    port, tls = free_port(), made.settings.layout.authority
    server = made.processes.start_python("-m", "tests.bench.fetching", str(content.parent), str(port), str(tls))
    wait_until(lambda: listens(port) or not server.running, "the plain server to listen")
    found = _fetch(made, server, f"https://127.0.0.1:{port}/static/{content.name}", terminals, size)
    server.stop()
    return found


def _fetch(made: Stage, server: Child, url: str, terminals: int, size: int) -> Fetched:
    before_mib = memory_of(server.pid).resident
    highest, over = [before_mib], threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            highest.append(memory_of(server.pid).resident)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.fetchers", url, str(made.authority.ca_file), str(terminals), str(size)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.CalledProcessError as err:
        raise RuntimeError(err.stderr.strip().rpartition("\n")[2]) from err
    finally:
        over.set()
        watcher.join()
    return Fetched(**json.loads(done.stdout), before_mib=before_mib, peak_mib=max(highest))


def serve_plainly(folder: Path, port: int, authority: Path) -> None:
    """What somebody would take who only has files to give away."""
    application = Litestar([create_static_files_router("/static", [folder])], openapi_config=None)
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        log_level="error",
        ssl_certfile=str(authority / "server.pem"),
        ssl_keyfile=str(authority / "server.key"),
        loop="uvloop",
    )


if __name__ == "__main__":
    serve_plainly(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
