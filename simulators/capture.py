"""Captures: what passed between a host and a device, as text that a person can read, check and compare line by line.

    kiosk-sim capture 1
    profile: receipt-printer-serial
    bus: serial
    scrubbed: yes

       0 > 10 04 01           status
       3 < 12                 status
    1500 > ~112
       2 < ~4

A line is the time since the one before it in milliseconds, the direction (`>` to the device, `<` from it, `?` a control transfer that reads, `!` the
port was opened, closed or lost), the bytes, and what they are. `~112` stands for 112 bytes that are not told. On USB the endpoint stands behind the
direction (`>02`, `<82`); a control transfer is `? a1 01 0000 0000 0001 : 18`, one that carries a question to the device
`> 21 09 0200 0000 0008 : 51 31 0d 00 00 00 00 00`.

Scrubbing keeps what is proven to say nothing about a person: status questions and answers of the profile's family (`simulators.wire`), an answer only
where its question was asked. Everything else becomes a length. It is the default, and the only form that belongs into a repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from simulators.errors import SimulatorError
from simulators.wire import Piece, Question, Wire, asked, still_waiting, told

HEAD = "kiosk-sim capture 1"
MAX_BYTES = 16 * 1024 * 1024
ONE_QUESTION_S = 0.05
"""Parts of one question follow each other at once; what is written later is another, and the one before had no answer."""
Way = Literal[">", "<", "?", "!"]


class CaptureError(SimulatorError):
    """A capture cannot be read. The message names the line."""


@dataclass(frozen=True)
class Transfer:
    """One piece of traffic. `way` "?" has the request's five numbers in `request`; "!" has only a `note`. `data` None: not told, `size` bytes."""

    at_s: float
    way: Way
    data: bytes | None = field(default=b"", repr=False)
    size: int = 0
    endpoint: int | None = None
    request: tuple[int, int, int, int, int] | None = None
    note: str = ""

    @property
    def length(self) -> int:
        return self.size if self.data is None else len(self.data)


@dataclass(frozen=True)
class Capture:
    """A head (`profile`, `bus`, `scrubbed`, …) and traffic in order."""

    head: Mapping[str, str]
    transfers: tuple[Transfer, ...]

    @property
    def scrubbed(self) -> bool:
        return self.head.get("scrubbed") == "yes"


def unit_behind(path: str) -> str:
    """`real`, or `pseudo-terminal`: no unit hangs on one, so its capture verifies no profile."""
    return "pseudo-terminal" if str(Path(path).resolve()).startswith("/dev/pts/") else "real"


def scrub(wire: Wire, transfers: Iterable[Transfer]) -> list[Transfer]:
    """The same traffic with everything hidden that `wire` does not know to be harmless. Lengths, directions and times stay."""
    out: list[Transfer] = []
    waiting: list[Question] = []
    heard = b""
    for turn in turns(transfers):
        first = turn[0]
        if first.way == "!":
            out += turn
        elif first.way == "?":
            out += [_scrubbed_request(wire, transfer) for transfer in turn]
        else:
            whole = b"".join(transfer.data or b"" for transfer in turn)
            if first.way == ">":
                pieces = asked(wire, whole, heard=heard)
                waiting = still_waiting(waiting, pieces)
            else:
                pieces, heard = told(wire, whole, waiting), whole
            out += _cut_again(turn, pieces)
    return out


def write(capture: Capture) -> str:
    """The text form. Times are rounded to milliseconds."""
    lines = [HEAD, *(f"{key}: {value}" for key, value in capture.head.items()), ""]
    before_ms: int | None = None
    for transfer in capture.transfers:
        at_ms = round(transfer.at_s * 1000)
        since_ms = 0 if before_ms is None else at_ms - before_ms
        before_ms = at_ms
        lines.append(f"{since_ms:>6} {_line(transfer)}".rstrip())
    return "\n".join(lines) + "\n"


def parse(text: str) -> Capture:
    """Read the text form; CaptureError with the line that is wrong."""
    if len(text) > 4 * MAX_BYTES:
        raise CaptureError("The capture is larger than 64 MiB.")
    lines = text.splitlines()
    if not lines or lines[0].strip() != HEAD:
        raise CaptureError(f"Line 1: a capture starts with “{HEAD}”.")
    head: dict[str, str] = {}
    body_at = len(lines)
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            body_at = number
            break
        key, colon, value = line.partition(":")
        if not colon:
            raise CaptureError(f"Line {number}: the head has lines such as “profile: sdt-serial”.")
        head[key.strip()] = value.strip()
    transfers, at_ms = [], 0
    for place, line in enumerate(lines[body_at:], start=body_at + 1):
        if line.strip() and not line.startswith("#"):
            transfer = _parse_line(line, place)
            at_ms += round(transfer.at_s * 1000)
            transfers.append(replace(transfer, at_s=at_ms / 1000))
    return Capture(head, tuple(transfers))


# ------------------------------------------------------------------------------------------------------------------------- scrubbing


def turns(transfers: Iterable[Transfer]) -> Iterator[list[Transfer]]:
    """Stretches of one direction: a question may be written in two pieces, an answer may come in three."""
    turn: list[Transfer] = []
    for transfer in transfers:
        late = transfer.way == ">" and turn and transfer.at_s - turn[-1].at_s > ONE_QUESTION_S
        if turn and (transfer.way != turn[0].way or late):
            yield turn
            turn = []
        turn.append(transfer)
    if turn:
        yield turn


def _cut_again(turn: Sequence[Transfer], pieces: Sequence[Piece]) -> Iterator[Transfer]:
    """Pieces cut where the transfers were cut, each with its transfer's time and endpoint."""
    queue = list(pieces)
    for transfer in turn:
        left = transfer.length
        while left:
            piece = queue.pop(0)
            size = min(left, len(piece.raw))
            kept = None if piece.kept is None else piece.kept[:size]
            yield replace(transfer, data=kept, size=size, note=piece.name)
            if size < len(piece.raw):
                rest = None if piece.kept is None else piece.kept[size:]
                queue.insert(0, Piece(piece.name, piece.raw[size:], rest, piece.question))
            left -= size


def _scrubbed_request(wire: Wire, transfer: Transfer) -> Transfer:
    for request in wire.requests:
        if transfer.request is not None and transfer.request[:2] == (request.request_type, request.request):
            return replace(transfer, data=None if transfer.data is None else request.scrub(transfer.data), note=request.name)
    return replace(transfer, data=None, size=transfer.length, note="")


# ------------------------------------------------------------------------------------------------------------------------------ text


def _line(transfer: Transfer) -> str:
    if transfer.way == "!":
        return f"! {transfer.note}"
    data = f"~{transfer.size}" if transfer.data is None else transfer.data.hex(" ") or "-"
    if transfer.request is not None:
        kind, request, value, index, length = transfer.request
        data = f"{kind:02x} {request:02x} {value:04x} {index:04x} {length:04x} : {data}"
    endpoint = "" if transfer.endpoint is None else f"{transfer.endpoint:02x}"
    note = f"  {transfer.note}" if transfer.note else ""
    return f"{transfer.way}{endpoint} {data:<24}{note}"


_LINE = re.compile(
    r"\s*(?P<ms>\d{1,9}) (?:! (?P<event>[a-z ]+)"
    r"|(?P<way>[<>?])(?P<endpoint>[0-9a-f]{2})? "
    r"(?:(?P<request>[0-9a-f]{2} [0-9a-f]{2} [0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4}) : )?"
    r"(?:~(?P<size>\d{1,8})|(?P<data>-|[0-9a-f]{2}(?: [0-9a-f]{2})*))(?P<note>(?: .*)?))\Z"
)


def _parse_line(line: str, number: int) -> Transfer:
    """A transfer whose time is the one since the line before."""
    found = _LINE.match(line.rstrip())
    if found is None or (found["way"] == "?" and found["request"] is None):
        raise CaptureError(f"Line {number}: “{line.strip()[:60]}” is not a line such as “3 < 12  status”.")
    since_s = int(found["ms"]) / 1000
    if found["event"]:
        return Transfer(since_s, "!", note=found["event"].strip())
    size = int(found["size"] or 0)
    if size > MAX_BYTES:
        raise CaptureError(f"Line {number}: {size} bytes are more than a capture holds.")
    data = None if found["size"] else bytes.fromhex(found["data"].replace("-", ""))
    numbers = tuple(int(word, 16) for word in found["request"].split()) if found["request"] else None
    way: Way = {">": ">", "<": "<", "?": "?"}[found["way"]]  # type: ignore[assignment]
    return Transfer(
        since_s,
        way,
        data,
        size,
        None if found["endpoint"] is None else int(found["endpoint"], 16),
        numbers,  # type: ignore[arg-type]
        (found["note"] or "").strip(),
    )
