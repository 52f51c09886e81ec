"""Reads a verified file of the updater: opened once, without following a link; what is used are the very bytes that were hashed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import AgentError
from edge_agent.updater.handover import Artifact
from protocols.contract.records import UpdateReason

CHUNK_BYTES = 1 << 20


class ArtifactRefused(AgentError):
    """What lies there cannot be used. `reason` is the word for the updater; the sentence goes to the log."""

    def __init__(self, reason: UpdateReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: UpdateReason = reason


def read(folder: Path, artifact: Artifact, *, max_bytes: int) -> bytes:
    """The whole file. Raises ArtifactRefused."""
    parts = bytearray()
    with opened(folder, artifact, max_bytes=max_bytes) as chunks:
        for chunk in chunks:
            parts += chunk
    return bytes(parts)


@contextmanager
def opened(folder: Path, artifact: Artifact, *, max_bytes: int) -> Iterator[Iterator[bytes]]:
    """Its bytes in pieces, hashed on the way: only who has read to the end without ArtifactRefused has what was signed."""
    if artifact.length > max_bytes:
        raise ArtifactRefused("length", f"{artifact.component}: larger than {max_bytes} bytes")
    try:
        fd = os.open(folder / artifact.sha256, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as err:
        raise ArtifactRefused("notFound", f"{artifact.component}: cannot be read ({err.strerror})") from err
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ArtifactRefused("notFound", f"{artifact.component}: not a regular file")
        yield _chunks(fd, artifact)
    finally:
        os.close(fd)


def _chunks(fd: int, artifact: Artifact) -> Iterator[bytes]:
    digest, left = hashlib.sha256(), artifact.length
    while True:
        try:
            chunk = os.read(fd, min(left, CHUNK_BYTES) if left else 1)
        except OSError as err:
            raise ArtifactRefused("notFound", f"{artifact.component}: cannot be read ({err.strerror})") from err
        if not chunk:
            break
        left -= len(chunk)
        if left < 0:
            break
        digest.update(chunk)
        yield chunk
    if left != 0:
        raise ArtifactRefused("length", f"{artifact.component}: not the length that was signed")
    if digest.hexdigest() != artifact.sha256:
        raise ArtifactRefused("hash", f"{artifact.component}: not the bytes that were signed")
