"""Owns the answer to `pullLogs`: lines of the agent's own book in a span of wall time, compressed, signed by the record key, posted over HTTPS."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.limits import LOG_MAX_BYTES, LOG_TEXT_MAX_BYTES
from protocols.contract.orders import LOG_CONTEXT, LogExcerpt

_TIME = re.compile(rb'\{"t":([0-9]{1,15}),')


def make(
    files: Sequence[Path],
    order: bytes,
    from_ms: int,
    to_ms: int,
    *,
    max_bytes: int = LOG_MAX_BYTES,
    max_text_bytes: int = LOG_TEXT_MAX_BYTES,
) -> LogExcerpt:
    """Lines with `from_ms` ≤ time < `to_ms`. Where there is too much the newest stay. `files`: oldest first; one that vanishes is left out."""
    lines: deque[bytes] = deque()
    size, cut = 0, False
    for path in files:
        with contextlib.suppress(OSError), path.open("rb") as file:
            for line in file:
                found = _TIME.match(line)
                if found is None or not line.endswith(b"\n") or not from_ms <= int(found[1]) < to_ms:
                    continue
                lines.append(line)
                size += len(line)
                while size > max_text_bytes:
                    size -= len(lines.popleft())
                    cut = True
    while True:
        text = gzip.compress(b"".join(lines), compresslevel=6, mtime=0)
        if len(text) <= max_bytes:
            break
        cut = True
        for _ in range(max(1, len(lines) // 8)):
            lines.popleft()
    return LogExcerpt(order=order, from_ms=from_ms, to_ms=to_ms, lines=len(lines), cut=cut, text=text)


def seal(excerpt: LogExcerpt, key: cose.Signer, fleet: str, terminal: str) -> bytes:
    return wire.seal(excerpt, key, LOG_CONTEXT, fleet, terminal)
