"""Owns the command line of the public TUF conformance suite: `edge-agent tuf-client … init | refresh | download`.

The suite (theupdateframework/tuf-conformance, CLIENT-CLI.md) starts this as a child, plays repositories to it, honest and hostile, and looks at
what it asks for, keeps and says. Below it are the same fetcher, the same python-tuf client and the same way to the disk as in the updater; what
differs is that the address may be plain HTTP, and that time is the system's, which the suite moves.
"""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import TargetFile

from edge_agent import files
from edge_agent.updater import download, fetch, verified
from edge_agent.updater.cache import alone_in
from edge_agent.updater.errors import NotTrusted, UpdaterError
from edge_agent.updater.trust import TimedUpdater

DONE, FAILED = 0, 1
ROOT_MAX_BYTES = 512_000


def run(asked: argparse.Namespace) -> int:
    """Exit code 0: done wholly; 1: not, and one sentence on stderr says why."""
    try:
        with alone_in(asked.metadata_dir):
            if asked.action == "init":
                _init(asked)
            else:
                with _fetcher(asked) as fetcher:
                    updater = _updater(asked, fetcher)
                    if asked.action == "refresh":
                        updater.refresh()
                    else:
                        _download(asked, updater, fetcher)
    except (UpdaterError, RepositoryError, DownloadError, OSError, ValueError) as err:
        print(f"edge-agent tuf-client: {asked.action}: {type(err).__name__}: {err}", file=sys.stderr)  # noqa: T201 -- a command line
        return FAILED
    return DONE


def _init(asked: argparse.Namespace) -> None:
    if asked.trusted_root is None:
        raise ValueError("init needs the file of the trusted root")
    with verified.open_plain(asked.trusted_root) as file:
        files.write_atomically(asked.metadata_dir / "root.json", file.read(ROOT_MAX_BYTES))


def _updater(asked: argparse.Namespace, fetcher: fetch.Fetcher) -> TimedUpdater:
    if asked.metadata_url is None:
        raise ValueError("--metadata-url is missing")
    return TimedUpdater(asked.metadata_dir, asked.metadata_url, fetcher=fetcher, bootstrap=None)


def _fetcher(asked: argparse.Namespace) -> fetch.Fetcher:
    origins = {fetch.Origin.of(url) for url in (asked.metadata_url, asked.target_base_url) if url}
    tls = None
    if any(origin.scheme == "https" for origin in origins):
        from edge_agent.tls import client_context

        if asked.ca_file is None:
            raise ValueError("https needs --ca-file")
        tls = client_context(asked.ca_file.read_text("ascii"), check_dates=True)
    return fetch.Fetcher(*origins, tls=tls)


def _download(asked: argparse.Namespace, updater: TimedUpdater, fetcher: fetch.Fetcher) -> None:
    if not (asked.target_name and asked.target_base_url and asked.target_dir):
        raise ValueError("download needs --target-name, --target-base-url and --target-dir")
    updater.refresh()
    parts = download.Downloader(asked.target_dir / ".parts", fetcher, reserve_bytes=0)
    for name in asked.target_name:
        target = updater.get_targetinfo(name)
        if target is None:
            raise NotTrusted("notInImages", f"no role describes {name}")
        if "sha256" not in target.hashes:
            _with_other_hashes(updater, asked, target)
            continue
        digest = bytes.fromhex(target.hashes["sha256"])
        destination = asked.target_dir / quote(name, "")
        try:
            verified.open_verified(destination, target.length, digest).close()
            continue  # here already
        except (FileNotFoundError, NotTrusted):
            pass
        base_url = asked.target_base_url if asked.target_base_url.endswith("/") else f"{asked.target_base_url}/"
        item = download.Item(updater.target_url(target, base_url), target.length, digest)
        with verified.open_plain(parts.get(item)) as file:
            target.verify_length_and_hashes(file)  # the other hash algorithms that the metadata may name
        parts.path(digest).replace(destination)
        files.sync_directory(asked.target_dir)


def _with_other_hashes(updater: TimedUpdater, asked: argparse.Namespace, target: TargetFile) -> None:
    """Our own repositories always name SHA-256, by which downloads are kept and resumed; a foreign one may not."""
    destination = str(asked.target_dir / quote(target.path, ""))
    if updater.find_cached_target(target, destination) is None:
        updater.download_target(target, destination, asked.target_base_url)
