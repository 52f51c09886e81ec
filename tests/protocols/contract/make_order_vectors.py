"""The committed vectors of orders: `python -m tests.protocols.contract.make_order_vectors` writes them, `test_orders.py` proves them."""

from __future__ import annotations

import json
from pathlib import Path

from protocols.contract import certs, messages, orders, wire
from protocols.contract.records import ClockQuality
from tests.support.contract import BOOT_ID, FLEET, NOW_MS, ORDERS, RECORD, ROOT, SERVER, SERVER_CERT, TERMINAL, order_key_cert

FILE = Path(__file__).parent / "vectors" / "orders-1.json"
ID = b"\x40" * 16
HOUR_MS = 3_600_000


def order(body: orders.OrderBody, *, counter: int = 7, approved_by: str | None = None) -> orders.Order:
    return orders.make(
        body, id=ID, counter=counter, issued_ms=NOW_MS, expires_ms=NOW_MS + HOUR_MS, by="lin", approved_by=approved_by
    )


def desired() -> orders.Desired:
    wanted = orders.Wanted(
        component="agent",
        target="agent/agent-0.2.0-x86_64.tar",
        version="0.2.0",
        release=2,
        length=60_000_000,
        sha256=b"\x50" * 32,
    )
    return orders.Desired(
        counter=8,
        issued_ms=NOW_MS,
        by="lin",
        approved_by="wu",
        configuration=orders.Configuration(
            version=3, devices=({"slot": "receipt-printer", "family": "escpos"},), items=({"code": "social-insurance.query"},)
        ),
        lock=orders.Lock(zh="设备维护中", en="Closed for maintenance", since_ms=NOW_MS),
        bundle=orders.Bundle(
            id=b"\x51" * 16, rollout=b"\x52" * 16, wanted=(wanted,), windows=((NOW_MS, NOW_MS + HOUR_MS),), rate_bytes_s=262_144
        ),
    )


def make() -> dict[str, object]:
    """All vectors as hex, from fixed keys and times."""
    challenge = messages.Challenge(
        connection=b"\x31" * 8,
        nonce=b"\x30" * 16,
        version=1,
        server_ms=NOW_MS,
        certificate=SERVER_CERT,
        order_keys=(order_key_cert(),),
    )
    birth = messages.Birth(
        nonce=b"\x30" * 16, agent="0.1.0", boot_no=2, boot_id=BOOT_ID, stream=b"\x10" * 16, wall_ms=NOW_MS, boot_ms=1_000,
        quality=ClockQuality.SYNCED, held=(), command_counter=8, desired_counter=8,
    )  # fmt: skip
    restart = orders.Restart(what="host")
    excerpt = orders.LogExcerpt(order=ID, from_ms=NOW_MS, to_ms=NOW_MS + 1, lines=1, text=b"\x1f\x8b")
    binary = {
        "order_key_certificate": order_key_cert(),
        "challenge": wire.seal(challenge, SERVER, messages.CHALLENGE_CONTEXT, FLEET, TERMINAL),
        "birth": wire.seal(birth, RECORD, messages.BIRTH_CONTEXT, FLEET, TERMINAL),
        "order_self_test": orders.seal_order(order(orders.SelfTest(slot="receipt-printer")), ORDERS, FLEET, TERMINAL),
        "order_restart": orders.seal_order(order(restart, approved_by="wu"), ORDERS, FLEET, TERMINAL),
        "order_pull_logs": orders.seal_order(order(orders.PullLogs(from_ms=NOW_MS, to_ms=NOW_MS + 1)), ORDERS, FLEET, TERMINAL),
        "order_cancel": orders.seal_order(order(orders.Cancel(order=b"\x41" * 16)), ORDERS, FLEET, TERMINAL),
        "desired": orders.seal_desired(desired(), ORDERS, FLEET, TERMINAL),
        "log_excerpt": wire.seal(excerpt, RECORD, orders.LOG_CONTEXT, FLEET, TERMINAL),
    }
    keys = {"root": ROOT, "server": SERVER, "record": RECORD, "orders": ORDERS}
    return {
        "fleet": FLEET,
        "terminal": TERMINAL,
        "contexts": {"order": orders.ORDER_CONTEXT, "desired": orders.DESIRED_CONTEXT, "order key": certs.ORDER_KEY_CONTEXT},
        "keys": {name: {"seed": key.private.private_bytes_raw().hex(), "public": key.public.hex()} for name, key in keys.items()},
        "hex": {name: value.hex() for name, value in binary.items()},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(), indent=1) + "\n", "utf-8")
