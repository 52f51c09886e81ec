"""Checks an audit log against its own hashes and the server's signatures. Pure: rows and envelopes in, what was found out.

The chain finds a row that was changed, taken out, put in or moved. Signed heads find a chain that was computed anew, and a tail that was cut off:
whoever does that would need the server's key. What is younger than the newest head is not protected by it yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.audit.chain import FIRST_PREV, Head, Row, hash_of, open_head
from protocols.errors import ProtocolError

Kind = Literal["changed", "missing", "unchained", "rewritten", "cutOff", "unsigned", "forgedHead", "forgedCut"]
UNSIGNED_MAX_MS: Final = 3_600_000
"""Heads are signed within seconds while the server runs; an hour allows for one that was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first row that does not hold, and why."""

    row: int
    kind: Kind

    def sentence(self) -> str:
        """In plain words."""
        return {
            "changed": f"row {self.row} is not what was written: its hash does not fit its content",
            "missing": f"row {self.row} is missing",
            "unchained": f"row {self.row} does not follow the row before it: something was put in, taken out or moved",
            "rewritten": f"from row {self.row} on the log was written anew: a signature of the server says otherwise",
            "cutOff": f"row {self.row} and what came after were cut off: a signature of the server is over a later row",
            "unsigned": f"row {self.row} and what came after should be covered by a signature of the server, and none is there",
            "forgedHead": "one of the signatures kept with the log is not the server's",
            "forgedCut": "rows are said to have been removed in time, and the server did not sign that",
        }[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`problem` None: everything holds. `signed_to`: the newest row that a head covers."""

    rows: int
    first: int
    last: int
    signed_to: int
    problem: Problem | None


def verify(
    rows: Iterable[Row], heads: Sequence[bytes], cuts: Sequence[bytes], keys: dict[bytes, Ed25519PublicKey], fleet: str
) -> Report:
    """`heads` from wherever copies were kept, in any order; `cuts` say which rows were removed because their time was over."""
    opened_cuts, problem = _open(cuts, keys, fleet, "forgedCut")
    opened_heads, head_problem = _open(heads, keys, fleet, "forgedHead")
    start = max(opened_cuts, key=lambda cut: cut.audit, default=None)
    last_id, last_hash = (start.audit, start.hash) if start is not None else (0, FIRST_PREV)
    first_id = last_id + 1
    wanted = {head.audit: head for head in opened_heads}
    disagreeing = {head.audit for head in opened_heads if wanted[head.audit].hash != head.hash}
    good_to, count, unsigned = last_id, 0, {}
    problem = problem or head_problem
    for row in rows:
        if row.id < first_id:
            continue  # about to be removed
        count += 1
        broken = problem if problem is not None else _broken(row, last_id, last_hash)
        if broken is not None:
            # Nothing behind it is worth a look; only how many there are.
            problem = broken
            last_id = row.id
            continue
        last_id, last_hash = row.id, row.hash
        unsigned[row.id] = row.at_ms
        head = wanted.get(row.id)
        if head is None:
            continue
        if head.hash != row.hash or row.id in disagreeing:
            problem = Problem(row=good_to + 1, kind="rewritten")
            continue
        good_to = row.id
        unsigned.clear()
    if problem is None:
        problem = _tail(last_id, wanted, unsigned)
    return Report(rows=count, first=first_id, last=last_id, signed_to=good_to, problem=problem)


def _broken(row: Row, last_id: int, last_hash: bytes) -> Problem | None:
    if row.id > last_id + 1:
        return Problem(row=last_id + 1, kind="missing")
    if hash_of(row) != row.hash:
        return Problem(row=row.id, kind="changed")
    if row.id != last_id + 1 or row.prev != last_hash:
        return Problem(row=row.id, kind="unchained")
    return None


def _tail(last_id: int, heads: dict[int, Head], unsigned: dict[int, int]) -> Problem | None:
    if heads and max(heads) > last_id:
        return Problem(row=last_id + 1, kind="cutOff")
    if unsigned:
        newest_ms = max(unsigned.values())
        first = min(unsigned)
        if newest_ms - unsigned[first] > UNSIGNED_MAX_MS:
            return Problem(row=first, kind="unsigned")
    return None


def _open(raw: Sequence[bytes], keys: dict[bytes, Ed25519PublicKey], fleet: str, kind: Kind) -> tuple[list[Head], Problem | None]:
    found, problem = [], None
    for envelope in raw:
        try:
            found.append(open_head(envelope, keys, fleet))
        except ProtocolError:
            problem = problem or Problem(row=0, kind=kind)
    return found, problem
