"""Rows: the citizens' pages under 500 readers, by themselves and beside a full ingest, and what the ingest loses to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvicorn
from litestar import Litestar
from litestar.static_files import create_static_files_router

from fleet_server.db import open_raw
from fleet_server.settings import Public, Settings, load, to_environment
from tests.bench.backlog import fill
from tests.bench.drain import Poured, pour
from tests.bench.machine import memory_of
from tests.bench.stage import Stage, stage
from tests.bench.table import Budget, Row
from tests.support.processes import Child, Processes, free_port
from tests.support.seed import seed
from tests.support.waiting import wait_until

READERS = 500
PAGE = "/cards?all=1"
"""The whole list: the largest page there is, and the one that open pages ask for again."""
PACE_S = 1.0
"""Thirty times as often as a real page asks."""
ALONE_S = 8.0
SITES = 54


@dataclass(frozen=True)
class Read:
    """One run of all readers."""

    took_s: float
    times_ms: list[float]
    not_modified: int
    failed: int
    mib: float

    @property
    def per_s(self) -> float:
        return len(self.times_ms) / self.took_s

    def percentile(self, share: float) -> float:
        return self.times_ms[min(len(self.times_ms) - 1, int(share * len(self.times_ms)))] if self.times_ms else float("nan")

    def __str__(self) -> str:
        return (
            f"{len(self.times_ms):,} answers in {self.took_s:.1f} s ({self.not_modified:,} of them 304), {self.mib:,.0f} MiB, "
            f"p50 {self.percentile(0.5):,.1f} ms, p99 {self.percentile(0.99):,.1f} ms, {self.failed} failed"
        )


class Readers:
    """The readers' process."""

    def __init__(self, url: str, *, revalidate: bool) -> None:
        command = [sys.executable, "-m", "tests.bench.readers", url, str(READERS), *(["--revalidate"] if revalidate else [])]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self._hear("ready")

    def go(self, *, pace_s: float, limit_s: float) -> None:
        self._say(f"go {pace_s} {limit_s}")
        self._hear("running")

    def result(self) -> Read:
        assert self._popen.stdout is not None
        return Read(**json.loads(self._popen.stdout.readline()))

    def stop(self) -> Read:
        self._say("stop")
        return self.result()

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def _say(self, line: str) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def _hear(self, wanted: str) -> None:
        assert self._popen.stdout is not None
        said = self._popen.stdout.readline().strip()
        if said != wanted:
            raise RuntimeError(f"the readers said {said!r} instead of {wanted!r}")


def rows(*, records: int, terminals: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        alone = _by_itself(Path(folder))
    ingest_alone = _ingest(records, terminals, readers=False, pace_s=0)
    paced = _ingest(records, terminals, readers=True, pace_s=PACE_S)
    flooded = _ingest(records, terminals, readers=True, pace_s=0)
    return [*_own_rows(alone), *_ingest_rows(records, ingest_alone, paced, flooded, alone)]


# By itself ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alone:
    kept: Read
    made_anew: Read
    static: Read
    paced: Read
    page_bytes: int
    packed_bytes: int
    resident_mib: float


def _by_itself(folder: Path) -> Alone:
    """Every reader asks again as soon as it was answered, for the whole body; one server after the other, on one seeded database."""
    seed(folder / "fleet.sqlite", count=400)
    processes = Processes(folder)
    settings = Settings(data_dir=folder, log_level="warning", public=Public(enabled=True, port=free_port()))
    try:
        public = _start_public(processes, settings)
        page = httpx.get(_url(settings), headers={"Accept-Encoding": "identity"}).content
        with httpx.stream("GET", _url(settings), headers={"Accept-Encoding": "gzip"}) as answer:
            packed = b"".join(answer.iter_raw())
        kept = _closed_loop(_url(settings))
        readers = Readers(_url(settings), revalidate=True)
        readers.go(pace_s=PACE_S, limit_s=ALONE_S)
        paced = readers.result()
        readers.end()
        resident_mib = memory_of(public.pid).resident
        public.stop()
        anew = _start_public(processes, settings, "anew")
        made_anew = _closed_loop(_url(settings))
        anew.stop()
        (folder / "static").mkdir()
        (folder / "static" / "cards.gz").write_bytes(packed)
        static = _start(processes, settings, "static", str(folder / "static"), str(settings.public.port))
        from_file = _closed_loop(f"http://127.0.0.1:{settings.public.port}/static/cards.gz")
        static.stop()
        return Alone(kept, made_anew, from_file, paced, len(page), len(packed), resident_mib)
    finally:
        processes.end_all()


def _closed_loop(url: str) -> Read:
    readers = Readers(url, revalidate=False)
    try:
        readers.go(pace_s=0, limit_s=ALONE_S)
        return readers.result()
    finally:
        readers.end()


def _own_rows(alone: Alone) -> list[Row]:
    about = (
        f"{READERS} connections, each asking again as soon as it was answered. Readers and server share the machine.",
        f"The list of {SITES} sites: {alone.page_bytes:,} bytes, {alone.packed_bytes:,} in gzip, which is what is sent.",
        f"Ours: {alone.kept}. Resident {alone.resident_mib:.0f} MiB.",
    )
    return [
        Row(
            what=f"Public list, {READERS} readers",
            ours=alone.kept.per_s,
            unit="requests/s",
            beside="the same bytes as a file of Litestar's static router",
            peer=alone.static.per_s,
            budgets=(Budget(rule="at_least", limit=1, of="ratio"),),
            notes=(*about, f"File: {alone.static}."),
        ),
        Row(
            what="Public list, what keeping answers is worth",
            ours=alone.kept.per_s,
            unit="requests/s",
            beside="the same, each answer made anew",
            peer=alone.made_anew.per_s,
            notes=(f"Made anew: {alone.made_anew}.",),
        ),
    ]


# Beside a full ingest -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Beside:
    poured: Poured
    read: Read | None

    def records_per_s(self, records: int) -> float:
        return records / self.poured.took_s


def _ingest(records: int, terminals: int, *, readers: bool, pace_s: float) -> Beside:
    """A backlog drained as fast as it goes, with or without readers of pages made from the same database."""
    with stage(terminals=terminals) as server:
        spread(server)
        spools = fill(server.terminals, server.folder / "spools", records=records, full=True, now_ms=server.now_ms)
        server.start_broker()
        server.start_ingest()
        if not readers:
            return Beside(pour(server, spools), None)
        settings = msgspec.structs.replace(server.settings, public=Public(enabled=True, port=free_port()))
        _start_public(server.processes, settings)
        crowd = Readers(_url(settings), revalidate=pace_s > 0)
        seen: list[Read] = []

        @contextmanager
        def reading() -> Iterator[None]:
            crowd.go(pace_s=pace_s, limit_s=600)
            try:
                yield
            finally:
                seen.append(crowd.stop())

        try:
            return Beside(pour(server, spools, meanwhile=reading), seen[0])
        finally:
            crowd.end()


def _ingest_rows(records: int, alone: Beside, paced: Beside, flooded: Beside, by_itself: Alone) -> list[Row]:
    assert paced.read is not None
    assert flooded.read is not None
    base = alone.records_per_s(records)

    def where(beside: Beside) -> str:
        spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in beside.poured.cpu_s.items())
        return f"drained in {beside.poured.took_s:.1f} s; processor time: {spent}"

    return [
        Row(
            what=f"Ingest beside {READERS} readers, each asking once a second",
            ours=paced.records_per_s(records),
            unit="records/s",
            beside="the ingest alone",
            peer=base,
            budgets=(Budget(rule="at_least", limit=0.8, of="ratio"),),
            notes=(f"With readers: {where(paced)}.", f"Alone: {where(alone)}.", f"Readers: {paced.read}."),
        ),
        Row(
            what=f"Public list beside full ingest, {READERS} readers once a second, p99",
            ours=paced.read.percentile(0.99),
            unit="ms",
            beside="without the ingest",
            peer=by_itself.paced.percentile(0.99),
            budgets=(Budget(rule="at_most", limit=1000, of="figure", unit="ms"),),
            notes=(f"Without the ingest: {by_itself.paced}.",),
        ),
        Row(
            what=f"Ingest beside {READERS} readers without a pause",
            ours=flooded.records_per_s(records),
            unit="records/s",
            beside="the ingest alone",
            peer=base,
            budgets=(Budget(rule="at_least", limit=0.5, of="ratio"),),
            notes=(f"With readers: {where(flooded)}.", f"Readers: {flooded.read}."),
        ),
    ]


def spread(server: Stage) -> None:
    """The stage's terminals over as many sites as the seeded fleet has, so that its list is as long."""
    with closing(open_raw(server.settings.layout.database)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        for number in range(SITES):
            conn.execute(
                "INSERT INTO site (code, area, name_zh, name_en, kind, address_zh, lat, lon, hours, timezone) VALUES"
                " (?, 'bench', ?, ?, 'hall', '基准路 1 号', ?, 119.5, '{\"always\": true}', 'Asia/Shanghai')",
                (f"bench-{number}", f"基准点位 {number} 号", f"Bench place {number}", 29.0 + number / 100),
            )
        for number, terminal in enumerate(server.terminals):
            conn.execute("UPDATE terminal SET site = ? WHERE id = ?", (f"bench-{number % SITES}", terminal.id))
        conn.execute("COMMIT")


# Servers --------------------------------------------------------------------------------------------------------------------------------


def _start_public(processes: Processes, settings: Settings, how: str = "") -> Child:
    if how:
        return _start(processes, settings, how)
    child = processes.start_python("-m", "fleet_server.public", env=to_environment(settings))
    _wait(child, settings.public.port)
    return child


def _start(processes: Processes, settings: Settings, *words: str) -> Child:
    child = processes.start_python("-m", "tests.bench.public", *words, env=to_environment(settings))
    _wait(child, settings.public.port)
    return child


def _wait(child: Child, port: int) -> None:
    def listens() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/").status_code < 500
        except httpx.TransportError:
            return False

    wait_until(lambda: listens() or not child.running, "the public face to listen")
    if not child.running:
        raise RuntimeError(f"the public face ended: {child.output()}")


def _url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.public.port}{PAGE}"


def main(words: list[str]) -> None:
    """The peers: `anew` as the public face runs but without its shelf, `static FOLDER PORT` a folder of files."""
    from fleet_server.public.__main__ import NICENESS, serve

    os.nice(NICENESS)
    if words[0] == "anew":
        import asyncio

        asyncio.run(serve(load(os.environ), keep=False))
    else:
        router: Any = create_static_files_router(path="/static", directories=[words[1]])
        config = uvicorn.Config(
            Litestar(route_handlers=[router], openapi_config=None), port=int(words[2]), log_level="warning", access_log=False
        )
        uvicorn.Server(config).run()


if __name__ == "__main__":
    main(sys.argv[1:])
