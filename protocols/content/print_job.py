"""Bytes around what an application prints: cut, presenter, fences that say "it is on paper", clearing what is not. The text passes through.

Source: Epson ESC/POS (GS V, GS ( H function 48, GS r, DLE ENQ, DLE DC4 function 8), Custom KPM210/216 (GS e), STAR Line Mode (ESC d, ETB, CAN),
HP PJL Technical Reference (JOB, EOJ, USTATUS JOB).
"""

from __future__ import annotations

import base64
import binascii
import re

from protocols.errors import EncodeError

RECEIPT_MAX_BYTES = 1024 * 1024
"""A slip of a metre in full graphics has 0.6 MiB."""
DOCUMENT_MAX_BYTES = 6 * 1024 * 1024
"""What fits into one message of the owner API."""


def data_of(text: object, *, max_bytes: int) -> bytes:
    """The bytes of a command's base64 `data`. EncodeError, which never repeats them."""
    if not isinstance(text, str) or not text or len(text) > max_bytes * 4 // 3 + 4:
        raise EncodeError(f"data must be base64 of 1 to {max_bytes} bytes")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise EncodeError("data is not base64") from None
    if not 1 <= len(data) <= max_bytes:
        raise EncodeError(f"data must be base64 of 1 to {max_bytes} bytes")
    return data


# --- ESC/POS ---


def cut(*, partial: bool) -> bytes:
    """GS V: feed to the cutter, then cut."""
    return b"\x1d\x56\x42\x00" if partial else b"\x1d\x56\x41\x00"


_ONE_BYTE_QUESTIONS = re.compile(rb"\x1d\x72[\x01\x02\x31\x32]|\x1d\x49[\x01-\x03\x31-\x33]|\x1b\x76")


def questions_in(data: bytes) -> int:
    """Questions in a job that are answered by one byte (GS r, GS I, ESC v). Bytes of a picture may look like one: then one too many is counted."""
    return len(_ONE_BYTE_QUESTIONS.findall(data))


def eject() -> bytes:
    """GS e 5: the presenter lets the slip go to the front."""
    return b"\x1d\x65\x05"


def retract() -> bytes:
    """GS e 2: the presenter draws the slip back into the machine."""
    return b"\x1d\x65\x02"


def forget(*, epson: bool) -> bytes:
    """Clear what was received and is not printed, so that the next person does not get it: DLE ENQ 2, and DLE DC4 8 where it is known.

    Real-time: works while the printer is offline for paper.
    """
    return (b"\x10\x14\x08\x01\x03\x14\x01\x06\x02\x08" if epson else b"") + b"\x10\x05\x02"


# --- Star ---


def star_cut(*, partial: bool) -> bytes:
    """ESC d 2 or 3: feed to the cutter, then cut."""
    return b"\x1b\x64\x03" if partial else b"\x1b\x64\x02"


def star_forget() -> bytes:
    """CAN: the buffer is dropped."""
    return b"\x18"


# --- USB printer class ---


def soft_reset(interface: int) -> tuple[int, int, int, int]:
    """SOFT_RESET: drops what the printer holds. Request type, request, value, index; it carries no data."""
    return (0x21, 0x02, 0, interface)


# --- PJL ---

_UEL = b"\x1b%-12345X"


def job_name(number: int) -> str:
    """A name of ours; the document's could be a citizen's."""
    return f"kf-{number % 10_000:04d}"


def pjl_job(document: bytes, name: str) -> bytes:
    """The document in a named job whose end the printer tells (USTATUS JOB)."""
    if not re.fullmatch(r"kf-[0-9]{4}", name):
        raise EncodeError("not a job name of ours")
    raw = name.encode("ascii")
    head = _UEL + b'@PJL \r\n@PJL USTATUS JOB=ON\r\n@PJL JOB NAME="' + raw + b'"\r\n'
    return head + document + _UEL + b'@PJL EOJ NAME="' + raw + b'"\r\n' + _UEL


def pjl_after_job() -> bytes:
    return _UEL + b"@PJL \r\n@PJL USTATUS JOB=OFF\r\n" + _UEL


_JOB = re.compile(
    rb'@PJL[ \t]+USTATUS[ \t]+JOB[ \t]*\r?\n(END|CANCELED)[ \t]*\r?\n[^\x0c]*?NAME[ \t]*=[ \t]*"([^"\x0c]{0,80})"[^\x0c]*\x0c'
)


def pjl_end_of(told: bytes, name: str) -> str | None:
    """`printed` or `cancelled` once the back channel told of this job's end; None until then."""
    for match in _JOB.finditer(told):
        if match.group(2) == name.encode("ascii"):
            return "printed" if match.group(1) == b"END" else "cancelled"
    return None
