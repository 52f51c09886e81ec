"""The ingest's socket: everything that came is there, in whatever pieces it is asked for, and small packets leave together."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet_server.ingest.bulk_socket import READ_BYTES, RECORD_BYTES, BulkSocket
from tests.support.trust import make_authority
from tests.support.waiting import until


@contextmanager
def joined(folder: Path) -> Iterator[tuple[BulkSocket, ssl.SSLSocket]]:
    """(ours, the broker's end) of one TLS connection."""
    authority = make_authority(folder)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.server_files)
    asking = ssl.create_default_context(cafile=str(authority.ca_file))
    asking.sslsocket_class = BulkSocket
    left, right = socket.socketpair()
    ends: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: ends.append(serving.wrap_socket(right, server_side=True)))
    thread.start()
    ours = asking.wrap_socket(left, server_hostname="localhost")
    thread.join(10)
    assert isinstance(ours, BulkSocket)
    ours.setblocking(False)
    with ours, ends[0]:
        yield ours, ends[0]


async def take(ours: BulkSocket, count: int, size: int) -> bytes:
    taken = b""

    def look() -> bool:
        nonlocal taken
        try:
            while len(taken) < count and (part := ours.recv(size)):
                taken += part
        except ssl.SSLWantReadError:
            return False
        return True

    await until(look, f"{count} bytes")
    return taken


@pytest.mark.parametrize("size", [1, 7, 1024, READ_BYTES, 3 * READ_BYTES])
async def test_records_come_out_in_any_pieces(tmp_path: Path, size: int) -> None:
    sent = bytes(range(256)) * 300
    with joined(tmp_path) as (ours, theirs):
        writer = threading.Thread(target=send_all, args=(theirs, sent, 500))
        writer.start()
        assert await take(ours, len(sent), size) == sent
        writer.join(10)


async def test_what_was_read_ahead_is_pending_until_it_is_taken(tmp_path: Path) -> None:
    with joined(tmp_path) as (ours, theirs):
        for _ in range(20):
            theirs.sendall(b"0123456789")
        assert await take(ours, 1, 1) == b"0"
        assert ours.pending() == 199
        assert len(await take(ours, 199, 50)) == 199
        assert ours.pending() == 0
        with pytest.raises(ssl.SSLWantReadError):
            ours.recv(1)


async def test_the_end_is_told_after_everything_before_it(tmp_path: Path) -> None:
    with joined(tmp_path) as (ours, theirs):
        theirs.sendall(b"last words")
        theirs.close()
        assert await take(ours, 10, 4) == b"last words"
        assert ours.recv(1) == b""


async def test_small_sends_leave_in_one_record(tmp_path: Path) -> None:
    with joined(tmp_path) as (ours, theirs):
        assert [ours.send(b"puback") for _ in range(100)] == [6] * 100
        assert theirs_has_nothing(theirs)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert theirs.recv(RECORD_BYTES) == b"puback" * 100


async def test_a_full_wire_loses_nothing(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 8_000
    with joined(tmp_path) as (ours, theirs):
        read = bytearray()
        reader = threading.Thread(target=read_all, args=(theirs, read, len(sent)))
        at, refused = 0, False
        while at < len(sent):
            try:
                at += ours.send(sent[at : at + 5_000])
            except ssl.SSLWantWriteError:
                if not refused:
                    reader.start()
                refused = True
                await asyncio.sleep(0.001)
        assert refused, "nobody read, and everything was taken"
        await until(lambda: len(read) == len(sent), "everything to arrive")
        assert bytes(read) == sent


def theirs_has_nothing(theirs: ssl.SSLSocket) -> bool:
    theirs.setblocking(False)
    try:
        theirs.recv(1)
    except ssl.SSLWantReadError:
        return True
    finally:
        theirs.setblocking(True)
    return False


def send_all(theirs: ssl.SSLSocket, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        theirs.sendall(data[at : at + size])


def read_all(theirs: ssl.SSLSocket, into: bytearray, size: int) -> None:
    while len(into) < size:
        into += theirs.recv(RECORD_BYTES)
