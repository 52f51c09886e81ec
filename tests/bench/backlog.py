"""An outage's worth of records in real outboxes: captured, sealed and chained by the agent's own code, before anything is measured."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.clock import SystemClock
from edge_agent.outbox import Outbox
from fleet_server.authority.authority import Ed25519Signer
from protocols.contract.records import Body, Boot
from tests.bench.stage import FLEET, Terminal
from tests.bench.traffic import day_of_a_kiosk

DAY_MS = 86_400_000
BOOT_ID = bytes(range(16))
CAPTURE_AT_ONCE = 20
SEAL_AT_ONCE = 4_000
"""Records between two seals, so that nearly every batch is full."""


@dataclass(frozen=True)
class Spool:
    """A terminal's filled outbox; everything in it is unacknowledged."""

    path: Path
    batches: int
    records: int


@dataclass(frozen=True)
class _Order:
    terminal: str
    key: bytes
    path: Path
    records: int
    full: bool
    seed: int
    until_ms: int


def fill(terminals: Sequence[Terminal], folder: Path, *, records: int, full: bool, now_ms: int) -> list[Spool]:
    """`records` in all, spread evenly: in full batches, or in batches of one to three as they come about by themselves."""
    folder.mkdir()
    each = -(-records // len(terminals))
    orders = [
        _Order(item.id, item.record_key.private_bytes_raw(), folder / f"{item.id}.db", each, full, seed, now_ms)
        for seed, item in enumerate(terminals)
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(_fill_one, orders, chunksize=max(1, len(orders) // 16)))


def _fill_one(order: _Order) -> Spool:
    signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(order.key))
    outbox = Outbox(order.path, signer, FLEET, order.terminal, SystemClock(), durable=False)
    outbox.start_stream(BOOT_ID)
    outbox.capture(Boot(agent="0.1.0", os="Debian 12", arch="x86_64", python="3.11.2", previous="clean"), urgent=True)
    outbox.seal()
    (_fill_full if order.full else _fill_natural)(outbox, order)
    batches = outbox.depth()
    outbox.close(clean=False)
    return Spool(order.path, batches, order.records)


def _fill_full(outbox: Outbox, order: _Order) -> None:
    waiting = 0
    for at_ms, group in _groups(order, lambda: CAPTURE_AT_ONCE):
        outbox.capture_many(group, wall_ms=at_ms)
        waiting += len(group)
        if waiting >= SEAL_AT_ONCE:
            outbox.seal()
            waiting = 0
    outbox.seal()


def _fill_natural(outbox: Outbox, order: _Order) -> None:
    rng = random.Random(order.seed)
    for at_ms, group in _groups(order, lambda: rng.randint(1, 3)):
        outbox.capture_many(group, wall_ms=at_ms)
        outbox.seal()


def _groups(order: _Order, size: Callable[[], int]) -> Iterator[tuple[int, list[Body]]]:
    """Groups of records with the time of their capture, spread over the days before now."""
    step_ms = max(1, 7 * DAY_MS // order.records)
    done = 1  # the boot record
    while done < order.records:
        count = min(size(), order.records - done)
        at_ms = order.until_ms - (order.records - done) * step_ms
        first = order.seed * 1_000_000 + done
        yield at_ms, [day_of_a_kiosk(first + place, at_ms) for place in range(count)]
        done += count
