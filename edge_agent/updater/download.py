"""Owns the files that are on their way: `<sha256>.part` with its ledger until the last byte fits, `<sha256>` afterwards.

What lasts: every `SYNC_EVERY_BYTES`, and every `SYNC_EVERY_S` on a slow line, the part is synced (fdatasync), and only then its ledger says so
(written whole, synced, renamed, directory synced). After a power cut the part may be longer than its ledger says, with anything in it: it is cut back
to what was synced, hashed again from the disk, and the transfer goes on from there with an HTTP range. A finished file is synced, renamed, and its
directory synced, before anybody hears of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tuf.api import exceptions as tuf_errors

from edge_agent import files
from edge_agent.updater import fetch, verified
from edge_agent.updater.errors import NotTrusted, Stopped, Unavailable, UpdaterError
from protocols.contract.records import UpdateReason

SYNC_EVERY_BYTES = 4 * 1024 * 1024
"""What a power cut can cost on a fast line; on a slow eMMC a sync takes tens of milliseconds, so 60 MB lose about a second to it."""
SYNC_EVERY_S = 5.0
"""What it can cost on a slow one."""
RESERVE_BYTES = 32 * 1024 * 1024
"""Stays free on the disk: the agent's outbox lives there too."""
LEDGER_MAX_BYTES = 4096
TRIES_WITHOUT_PROGRESS = 3
PACE = fetch.Pace(deadline_s=None)
"""A target may take as long as it likes, as long as it comes fast enough."""
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")


@dataclass(frozen=True, slots=True)
class Item:
    """One file to get, as signed metadata describe it."""

    url: str
    length: int
    sha256: bytes

    @property
    def name(self) -> str:
        return self.sha256.hex()


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    resumed: int
    """How often the transfer went on from a kept part instead of from the beginning."""


class _Ledger(msgspec.Struct, frozen=True, kw_only=True):
    length: int
    synced: int
    etag: str | None = None
    resumed: int = 0


def _ignore(progress: Progress) -> None:
    """Nobody wants to know."""


def _always() -> bool:
    return True


class Downloader:
    """Gets files into `folder`, which it has to itself (`cache.alone_in`)."""

    def __init__(
        self,
        folder: Path,
        fetcher: fetch.Fetcher,
        *,
        pace: fetch.Pace = PACE,
        reserve_bytes: int = RESERVE_BYTES,
        sync_every_bytes: int = SYNC_EVERY_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._fetcher = fetcher
        self._pace = pace
        self._reserve = reserve_bytes
        self._sync_every = sync_every_bytes
        self._sleep = sleep

    def path(self, sha256: bytes) -> Path:
        return self._folder / sha256.hex()

    def get(self, item: Item, *, progress: Callable[[Progress], None] = _ignore, keep_on: Callable[[], bool] = _always) -> Path:
        """The complete file, with exactly the signed length and hash. Goes on where an earlier call, process or boot was cut off.

        `progress` is called at least after each synced stretch; `keep_on` is asked at each piece. Raises NotTrusted (`length`, `hash`), Unavailable
        (`unreachable`, `slow`, `certificate`, `notFound`, `noSpace`, `readOnly`), Stopped.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._complete(item):
                return self.path(item.sha256)
            return self._get(item, progress, keep_on)
        except OSError as err:
            raise of_disk(err) from err

    def discard(self, keep: Collection[bytes] = ()) -> None:
        """Remove everything but the files and parts of these hashes."""
        names = {digest.hex() for digest in keep}
        try:
            for path in self._folder.iterdir() if self._folder.is_dir() else ():
                if not path.name.startswith(".lock") and path.name.split(".")[0] not in names:
                    path.unlink(missing_ok=True)
        except OSError as err:
            raise of_disk(err) from err

    def _complete(self, item: Item) -> bool:
        path = self.path(item.sha256)
        try:
            verified.open_verified(path, item.length, item.sha256).close()
        except FileNotFoundError:
            return False
        except NotTrusted:
            path.unlink()
            return False
        return True

    def _get(self, item: Item, progress: Callable[[Progress], None], keep_on: Callable[[], bool]) -> Path:
        fruitless, began_anew = 0, False
        while True:
            part = _Part(self._folder, item, self._sync_every)
            at, kept = part.done, part.done > 0
            try:
                self._make_room(item.length - part.done)
                self._transfer(item, part, progress, keep_on)
                part.finish(self.path(item.sha256))
                progress(Progress(item.length, item.length, part.resumed))
                return self.path(item.sha256)
            except NotTrusted as err:
                part.throw_away()
                # Bytes that lay on this disk may be what is wrong. Once, and only then, everything is fetched anew.
                if began_anew or not kept or err.reason != "hash":
                    raise
                began_anew = True
            except tuf_errors.DownloadError as err:
                part.keep()
                fruitless = 0 if part.done > at else fruitless + 1
                if isinstance(err, fetch.Unreachable) and fruitless < TRIES_WITHOUT_PROGRESS:
                    self._sleep(float(fruitless))
                    continue
                raise explained(err) from err
            except BaseException:
                part.keep()
                raise
            finally:
                part.close()

    def _transfer(self, item: Item, part: _Part, progress: Callable[[Progress], None], keep_on: Callable[[], bool]) -> None:
        if part.done == item.length:
            return
        headers = {}
        if part.done:
            headers["Range"] = f"bytes={part.done}-"
            if part.etag and not part.etag.startswith("W/"):
                headers["If-Range"] = part.etag
        with self._fetcher.get(item.url, headers, pace=self._pace) as answer:
            if answer.status == 206 and _continues(answer.content_range, part.done, item.length):
                part.goes_on(answer.etag)
            elif answer.status == 200:
                part.begins_anew(answer.etag)
                if answer.length is not None and answer.length != item.length:
                    raise NotTrusted("length", f"the server offers {answer.length} bytes, {item.length} were signed")
            else:
                part.begins_anew(None)
                raise fetch.Unreachable(f"the server answered {answer.status} with another range than asked for")
            for piece in answer.pieces():
                if part.done + len(piece) > item.length:
                    raise NotTrusted("length", f"more than the signed {item.length} bytes came")
                if part.add(piece):
                    progress(Progress(part.done, item.length, part.resumed))
                if not keep_on():
                    raise Stopped
        if part.done < item.length:
            raise fetch.Unreachable(f"the answer ended at {part.done} of {item.length} bytes")

    def _make_room(self, needed: int) -> None:
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < needed + self._reserve:
            raise Unavailable("noSpace", f"{needed + self._reserve} bytes must be free on the disk of {self._folder}")


class _Part:
    """One `.part` and its ledger."""

    def __init__(self, folder: Path, item: Item, sync_every: int) -> None:
        self._item = item
        self._path = folder / f"{item.name}.part"
        self._ledger_path = folder / f"{item.name}.ledger"
        self._sync_every = sync_every
        self._digest = hashlib.sha256()
        self._synced, self._synced_s = 0, time.monotonic()
        ledger = self._read_ledger()
        self.etag = ledger.etag
        self.resumed = ledger.resumed
        self.done = 0
        if self._path.is_symlink():
            self._path.unlink()  # nothing of ours; what it points at is not touched
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._take_up(ledger.synced)
        except BaseException:
            os.close(self._handle)
            raise

    def add(self, piece: bytes) -> bool:
        """Keep a piece; True if a stretch was synced with it."""
        view = memoryview(piece)
        while view:
            view = view[os.write(self._handle, view) :]
        self._digest.update(piece)
        self.done += len(piece)
        if self.done - self._synced < self._sync_every and time.monotonic() - self._synced_s < SYNC_EVERY_S:
            return False
        self.keep()
        self._synced_s = time.monotonic()
        return True

    def keep(self) -> None:
        """What is here now is here after a power cut."""
        if self.done > self._synced:
            os.fdatasync(self._handle)
            self._synced = self.done
            self._write_ledger()

    def goes_on(self, etag: str | None) -> None:
        self.etag = etag or self.etag
        self.resumed += 1
        self._write_ledger()

    def begins_anew(self, etag: str | None) -> None:
        self._cut(0)
        self.etag = etag
        self._digest = hashlib.sha256()
        self._write_ledger()

    def finish(self, destination: Path) -> None:
        """NotTrusted (`hash`) if it is not what was signed."""
        if self._digest.digest() != self._item.sha256:
            raise NotTrusted("hash", f"{self._item.name[:12]}…: has not the content that was signed")
        os.fsync(self._handle)
        self._path.rename(destination)
        files.sync_directory(destination.parent)
        self._ledger_path.unlink(missing_ok=True)

    def throw_away(self) -> None:
        self._ledger_path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        self._synced = self.done

    def close(self) -> None:
        os.close(self._handle)

    def _take_up(self, synced: int) -> None:
        """Hash what was surely kept, through the descriptor that will be written; a part shorter than its ledger says counts for nothing."""
        size = os.fstat(self._handle).st_size
        self._cut(synced if synced <= min(size, self._item.length) else 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        while self.done < self._synced:
            block = os.read(self._handle, min(1024 * 1024, self._synced - self.done))
            if not block:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._digest.update(block)
            self.done += len(block)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._handle, size)
        os.lseek(self._handle, size, os.SEEK_SET)
        self._synced = size
        self.done = 0

    def _read_ledger(self) -> _Ledger:
        try:
            with verified.open_plain(self._ledger_path) as file:
                ledger = msgspec.json.decode(file.read(LEDGER_MAX_BYTES), type=_Ledger)
        except (FileNotFoundError, NotTrusted, msgspec.MsgspecError, UnicodeDecodeError):
            return _Ledger(length=self._item.length, synced=0)
        usable = ledger.length == self._item.length and 0 <= ledger.synced <= ledger.length
        return ledger if usable else _Ledger(length=self._item.length, synced=0)

    def _write_ledger(self) -> None:
        ledger = _Ledger(length=self._item.length, synced=self._synced, etag=self.etag, resumed=self.resumed)
        files.write_atomically(self._ledger_path, msgspec.json.encode(ledger))


def _continues(content_range: str | None, at: int, length: int) -> bool:
    """Whether an answer of status 206 holds exactly what is missing."""
    found = _RANGE.fullmatch(content_range or "")
    return found is not None and int(found[1]) == at and int(found[2]) == length - 1 and found[3] in ("*", str(length))


def explained(err: tuf_errors.DownloadError) -> UpdaterError:
    """A failed transfer in the words of a report."""
    if isinstance(err, tuf_errors.DownloadLengthMismatchError):
        return NotTrusted("length", str(err))
    reason: UpdateReason = "unreachable"
    if isinstance(err, tuf_errors.SlowRetrievalError):
        reason = "slow"
    elif isinstance(err, fetch.CertificateRefused):
        reason = "certificate"
    elif isinstance(err, tuf_errors.DownloadHTTPError) and err.status_code in (403, 404, 410):
        reason = "notFound"
    return Unavailable(reason, str(err) or "the server could not be reached")


def of_disk(err: OSError) -> Unavailable:
    """What a failing disk means for the update."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable("noSpace", "the disk is full")
    if err.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return Unavailable("readOnly", "the disk cannot be written")
    return Unavailable("interrupted", f"the disk failed: {os.strerror(err.errno or errno.EIO)}")
