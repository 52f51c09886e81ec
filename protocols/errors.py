"""The one error base of `protocols`, with children by who must act. No text of a peer is ever copied into a message."""

from __future__ import annotations


class ProtocolError(Exception):
    """Bytes or values that do not mean anything here.

    `evidence` holds the offending bytes, already masked by whoever raised it: it may be logged and sent as it stands.
    `retryable` says whether asking the same peer again can help.
    """

    def __init__(self, message: str, *, evidence: bytes = b"", retryable: bool = False) -> None:
        super().__init__(message)
        self.evidence = evidence
        self.retryable = retryable


class LineError(ProtocolError):
    """The wire spoiled the bytes (noise, cut frame, bad checksum): look at cable, speed, termination."""

    def __init__(self, message: str, *, evidence: bytes = b"", retryable: bool = True) -> None:
        super().__init__(message, evidence=evidence, retryable=retryable)


class ChecksumError(LineError):
    """A complete frame whose check value does not fit its bytes."""


class FrameError(LineError):
    """Bytes that cannot be a frame: wrong length, wrong end, impossible fixed bits."""


class BufferOverflow(LineError):
    """More unanswered bytes than one frame may have; the buffer was dropped."""


class UnexpectedReply(ProtocolError):
    """A sound frame that answers another question or comes from another address."""


class DeviceRefused(ProtocolError):
    """The device understood the request and says no; `code` is its own word for why."""

    def __init__(self, message: str, *, code: int, evidence: bytes = b"", retryable: bool = False) -> None:
        super().__init__(message, evidence=evidence, retryable=retryable)
        self.code = code


class EncodeError(ProtocolError):
    """The caller asked for a request that cannot be put on the wire: our own fault."""
