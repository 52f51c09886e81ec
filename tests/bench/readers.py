"""`python -m tests.bench.readers`: many who read one page, each on a connection that stays open; told what to do in lines on stdin.

`go PACE LIMIT`: every reader asks again PACE seconds after it asked (0: as soon as it was answered), for LIMIT seconds or until `stop`. Prints
`ready`, and after each run one line of JSON. It runs at the lowest priority: its readers stand for browsers elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

CONNECT_AT_ONCE = 50
ANSWER_WITHIN_S = 30.0


@dataclass
class Run:
    times_ms: list[float] = field(default_factory=list)
    not_modified: int = 0
    failed: int = 0
    bytes: int = 0


@dataclass
class Reader:
    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    revalidates: bool
    tag: bytes = b""

    async def ask(self, run: Run) -> None:
        started = time.perf_counter()
        known = b"If-None-Match: " + self.tag + b"\r\n" if self.revalidates and self.tag else b""
        self.writer.write(self.request + known + b"\r\n")
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        length = int(fields.get(b"content-length", b"0"))
        status = head.split(b" ", 2)[1]
        if length:
            await self.reader.readexactly(length)
        run.times_ms.append((time.perf_counter() - started) * 1000)
        run.bytes += len(head) + length
        run.not_modified += status == b"304"
        run.failed += status not in (b"200", b"304")
        self.tag = fields.get(b"etag", b"")


async def read(readers: list[Reader], pace_s: float, limit_s: float, stop: asyncio.Event) -> tuple[Run, float]:
    run, choice = Run(), random.Random(1)
    started = time.perf_counter()

    async def one(reader: Reader) -> None:
        due = started + choice.random() * pace_s
        while not stop.is_set() and time.perf_counter() - started < limit_s:
            if pace_s:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += pace_s
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await reader.ask(run)

    results = await asyncio.gather(*(one(reader) for reader in readers), return_exceptions=True)
    run.failed += sum(isinstance(result, BaseException) for result in results)
    return run, time.perf_counter() - started


async def main(url: str, count: int, *, revalidates: bool) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept-Encoding: gzip\r\n".encode()
    lines: asyncio.Queue[list[str]] = asyncio.Queue()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard() -> None:
        words = sys.stdin.readline().split()
        if words == ["stop"]:
            stop.set()
        else:
            lines.put_nowait(words)

    loop.add_reader(sys.stdin, heard)
    print("ready", flush=True)
    while (words := await lines.get()) and words[0] == "go":
        stop.clear()
        readers: list[Reader] = []
        for start in range(0, count, CONNECT_AT_ONCE):
            opened = await asyncio.gather(
                *(
                    asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
                    for _ in range(min(CONNECT_AT_ONCE, count - start))
                )
            )
            readers += [Reader(request, *pair, revalidates) for pair in opened]
        print("running", flush=True)
        run, took_s = await read(readers, float(words[1]), float(words[2]), stop)
        for reader in readers:
            reader.writer.transport.abort()
        print(
            json.dumps(
                {
                    "took_s": took_s,
                    "times_ms": sorted(round(one, 3) for one in run.times_ms),
                    "not_modified": run.not_modified,
                    "failed": run.failed,
                    "mib": run.bytes / 2**20,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("readers", type=int)
    parser.add_argument("--revalidate", action="store_true", help="send the tag of the last answer along")
    asked = parser.parse_args()
    os.nice(19)
    uvloop.run(main(asked.url, asked.readers, revalidates=asked.revalidate))
