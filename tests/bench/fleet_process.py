"""Starts `tests.bench.fleet` and talks with it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.bench.stage import Stage, Terminal


@contextmanager
def running(server: Stage, terminals: Sequence[Terminal], mode: str) -> Iterator[subprocess.Popen[str]]:
    """`tests.bench.fleet` with these terminals: `agents`, or `bare` clients. Yields when everybody is in."""
    spools = server.folder / f"spools-{mode}"
    spools.mkdir()
    order = server.folder / f"{mode}.json"
    order.write_text(
        json.dumps({
            "mode": mode,
            "port": server.settings.broker.port,
            "ca": str(server.authority.ca_file),
            "root": server.authority.root_public_key.public_bytes_raw().hex(),
            "terminals": [
                {
                    "id": terminal.id,
                    "key": terminal.record_key.private_bytes_raw().hex(),
                    "tls": str(terminal.tls_file),
                    "spool": str(spools / f"{terminal.id}.db"),
                }
                for terminal in terminals
            ],
        }),
        "utf-8",
    )  # fmt: skip
    process = server.start_python("tests.bench.fleet", str(order))
    try:
        if hear(process) != "ready":
            raise RuntimeError(f"the {mode} did not come up")
        yield process
    finally:
        process.kill()
        process.wait()


def say(process: subprocess.Popen[str]) -> None:
    """Tell it to do its next piece."""
    assert process.stdin is not None
    process.stdin.write("again\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
