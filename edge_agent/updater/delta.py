"""Owns how an image comes out of what was sent: the image itself, packed with zstd, or a difference against an image at hand.

Both packed forms are one zstd frame (RFC 8878). A difference is what `zstd --patch-from` makes: the old image is the dictionary, as raw content
without an id, and the window reaches over all of it. Whatever goes wrong with a shorter form ends in fetching the image itself; whatever comes out
of any of them must have the length and the hash that the image repository signs, and no more is ever written.

Memory: the old image is mapped and copied once by the library, and the window holds the new one, so a difference needs about both sizes; a packed
image needs its window, at most `PACKED_WINDOW_BYTES`. A frame that asks for more is refused before a byte is decoded.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from edge_agent import files
from edge_agent.updater import verified
from edge_agent.updater.download import Downloader, Item, Progress, of_disk
from edge_agent.updater.errors import NotTrusted, UpdaterError
from edge_agent.updater.trust import Component, Form

PACKED_WINDOW_BYTES = 128 * 1024 * 1024
"""zstd's `--long=27`, the most that its own program decodes without being asked to."""
MEMORY_BYTES = 512 * 1024 * 1024
"""Old and new image together, above which a difference is not tried; the updater is alone in its unit and ends after its work."""
_BLOCK = 256 * 1024
_HEADER_MAX_BYTES = 18
"""Of a zstd frame, magic number included (RFC 8878, 3.1.1)."""


@dataclass(frozen=True, slots=True)
class Base:
    """An image at hand, as it was installed."""

    path: Path
    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Got:
    """A complete image on the disk. `failed`: forms that were tried before and did not lead to it, with their reasons."""

    path: Path
    via: str
    bytes_fetched: int
    failed: tuple[tuple[str, str], ...] = ()


def choose(component: Component, base: Base | None, *, memory_bytes: int = MEMORY_BYTES) -> list[Form]:
    """The forms worth trying, best first; the image itself is the last. Pure."""
    wanted = component.wanted
    chosen = []
    for form in component.forms:
        if form.via == "delta" and (
            base is None or form.base != base.sha256 or base.length + wanted.length > memory_bytes or wanted.length == 0
        ):
            continue
        chosen.append(form)
    return chosen


def obtain(
    component: Component,
    downloader: Downloader,
    *,
    base: Base | None = None,
    progress: Callable[[Form, Progress], None] = lambda form, progress: None,
    keep_on: Callable[[], bool] = lambda: True,
    memory_bytes: int = MEMORY_BYTES,
) -> Got:
    """The image of `component` in the downloader's folder, under the name of its hash.

    A shorter form that is missing, wrong or does not decode costs one more try with the next; what could not be had because of the network, the disk
    or the caller's wish ends at once, and goes on there the next time. Raises as `Downloader.get`.
    """
    wanted = component.wanted
    destination = downloader.path(wanted.sha256)
    failed: list[tuple[str, str]] = []
    forms = choose(component, base, memory_bytes=memory_bytes)
    for form in forms:
        item = Item(form.url, form.length, form.sha256)

        def tell(arrived: Progress, form: Form = form) -> None:
            progress(form, arrived)

        if form.via == "full":
            return Got(downloader.get(item, progress=tell, keep_on=keep_on), "full", form.length, tuple(failed))
        try:
            packed = downloader.get(item, progress=tell, keep_on=keep_on)
            try:
                unpack(packed, form, destination, length=wanted.length, sha256=wanted.sha256, base=base if form.base else None)
            finally:
                packed.unlink(missing_ok=True)
        except UpdaterError as err:
            if err.retryable and err.reason != "notFound":
                raise
            failed.append((form.via, err.reason))
            continue
        return Got(destination, form.via, form.length, tuple(failed))
    raise NotTrusted(
        "notInImages", f"{wanted.component}: there is no way to get it"
    )  # the image itself is always among the forms


def unpack(packed: Path, form: Form, destination: Path, *, length: int, sha256: bytes, base: Base | None) -> None:
    """Decode one frame into `destination`, which appears whole, synced and with the signed hash, or not at all.

    NotTrusted: `delta` if it does not decode or its base is not the right one, `length` if more or less comes out than signed, `hash` if something
    else does. Unavailable if the disk fails.
    """
    partial = destination.with_name(f"{destination.name}.unpacking")
    try:
        with verified.open_verified(packed, form.length, form.sha256) as source:
            _check_header(source, length, None if base is None else base.length)
            with partial.open("wb") as out:
                os.fchmod(out.fileno(), 0o600)
                if base is None:
                    _decode(source, out, zstandard.ZstdDecompressor(max_window_size=PACKED_WINDOW_BYTES), length, sha256)
                else:
                    _decode_difference(source, out, base, length, sha256)
                out.flush()
                os.fsync(out.fileno())
        partial.replace(destination)
        files.sync_directory(destination.parent)
    except zstandard.ZstdError as err:
        raise NotTrusted("delta", "the packed form does not decode") from err
    except OSError as err:
        raise of_disk(err) from err
    finally:
        partial.unlink(missing_ok=True)


def _check_header(source: BinaryIO, length: int, base_length: int | None) -> None:
    """Refuse by the frame's own header, before a decoder makes room for it."""
    header = source.read(_HEADER_MAX_BYTES)
    source.seek(0)
    frame = zstandard.get_frame_parameters(header)
    if frame.content_size not in (length, zstandard.CONTENTSIZE_UNKNOWN):
        raise NotTrusted("length", f"the frame says {frame.content_size} bytes, {length} were signed")
    # zstd rounds a window up to its next step, at most an eighth (RFC 8878, 3.1.1.1.2); --patch-from takes the larger of both files.
    most = PACKED_WINDOW_BYTES if base_length is None else max(2 * max(length, base_length), 1 << 20)
    if frame.window_size > most:
        raise NotTrusted("delta", f"the frame wants a window of {frame.window_size} bytes")


def _decode_difference(source: BinaryIO, out: BinaryIO, base: Base, length: int, sha256: bytes) -> None:
    try:
        old = verified.open_verified(base.path, base.length, base.sha256)
    except (NotTrusted, FileNotFoundError) as err:
        raise NotTrusted("delta", "the image that the difference starts from is not here as it was") from err
    with old, mmap.mmap(old.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        dictionary = zstandard.ZstdCompressionDict(cast("bytes", mapped), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    most = max(2 * max(length, base.length), 1 << 20)
    _decode(source, out, zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=most), length, sha256)


def _decode(source: BinaryIO, out: BinaryIO, decoder: zstandard.ZstdDecompressor, length: int, sha256: bytes) -> None:
    digest, written = hashlib.sha256(), 0
    with decoder.stream_reader(source, read_size=_BLOCK, closefd=False) as stream:
        while block := stream.read(_BLOCK):
            written += len(block)
            if written > length:
                raise NotTrusted("length", f"more than the signed {length} bytes come out")
            digest.update(block)
            out.write(block)
    if written != length:
        raise NotTrusted("length", f"{written} bytes come out instead of {length}")
    if digest.digest() != sha256:
        raise NotTrusted("hash", "what comes out is not the image that was signed")


def bases(installed: Mapping[str, Base]) -> dict[str, bytes]:
    """For `Trust.look`: hash of the image at hand, by component."""
    return {component: base.sha256 for component, base in installed.items()}
