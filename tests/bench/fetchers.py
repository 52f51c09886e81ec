"""`python -m tests.bench.fetchers URL CA COUNT BYTES`: so many terminals fetch one file at once, over TLS; a line of JSON tells how long it took.

What comes is counted and thrown away: hashing and writing is the work of 400 machines, not of this one.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from urllib.parse import urlsplit

READ_BYTES = 256 * 1024


async def fetch(url: str, context: ssl.SSLContext, size: int) -> float:
    """Seconds until the last byte. RuntimeError if it is not what was asked for."""
    parts, began_s = urlsplit(url), time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=READ_BYTES)
    try:
        writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode("ascii"))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise RuntimeError(f"answered {head.splitlines()[0]!r}")
        got = 0
        while piece := await reader.read(READ_BYTES):
            got += len(piece)
        if got != size:
            raise RuntimeError(f"{got} of {size} bytes came")
    finally:
        writer.close()
    return time.perf_counter() - began_s


async def main(url: str, ca_file: str, count: int, size: int) -> None:
    context = ssl.create_default_context(cafile=ca_file)
    began_s = time.perf_counter()
    took = sorted(await asyncio.gather(*(fetch(url, context, size) for _ in range(count))))
    print(json.dumps({"took_s": time.perf_counter() - began_s, "median_s": took[len(took) // 2], "slowest_s": took[-1]}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
