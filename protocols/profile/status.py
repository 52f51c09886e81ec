"""Applies a profile's own status tables to replies: bytes to conditions, by data alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocols.codecs.common import Explanation
from protocols.errors import FrameError
from protocols.profile.options.escpos import Status
from protocols.profile.tables import hex_bytes


def conditions_of(status: Status, reply: bytes) -> tuple[str, ...]:
    """Conditions that the reply's bits name, in the table's order. FrameError if its length or fixed bits are wrong: noise is no fault."""
    if len(reply) != status.reply_bytes:
        raise FrameError(f"a reply of {len(reply)} bytes, {status.reply_bytes} expected", evidence=reply[:64])
    for fixed in status.valid:
        if reply[fixed.at] & fixed.mask != fixed.value:
            raise FrameError(f"reply byte {fixed.at} has wrong fixed bits", evidence=reply[:64])
    held = [bit.condition for bit in status.bits if reply[bit.at] & bit.mask == bit.value]
    return tuple(dict.fromkeys(held))


def explain_status(tables: Sequence[Status], query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits of a reply to one of the tables' questions; the meaning key is `condition.<NAME>`, worded by the fault catalogue."""
    for status in tables:
        if hex_bytes(status.query) == query and len(reply) == status.reply_bytes:
            return tuple(
                Explanation(bit.at, bit.mask, f"condition.{bit.condition}")
                for bit in status.bits
                if reply[bit.at] & bit.mask == bit.value
            )
    return ()


def queries_of(tables: Sequence[Status]) -> Mapping[bytes, Status]:
    """Question bytes to table, in the file's order."""
    return {hex_bytes(status.query): status for status in tables}
