"""What the server does by itself every day: renew what it signs before it expires, and clear away metadata that nobody needs any more."""

from __future__ import annotations

import datetime as dt
import logging
import re
import sqlite3
import time
from collections.abc import Callable

from tuf.api.metadata import Metadata, Targets

from fleet_server.updates import plan, store, trust
from fleet_server.updates.founding import found_roles
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Repository, Updates, parse, signed_at

log = logging.getLogger(__name__)

KEEP_OLD_S = 3 * 86_400
"""A terminal that began to read metadata may take so long to finish, on the slowest of lines."""
_VERSIONED = re.compile(r"([1-9][0-9]{0,8})\.([a-z0-9-]{1,64})\.json")


def step(layout: UpdatesLayout) -> Callable[[sqlite3.Connection, int], bool]:
    """The step of a duty of the dispatch process. Looking costs two small files; it may be called as often as one likes."""

    def renew(_connection: sqlite3.Connection, now_ms: int) -> bool:
        done = keep_fresh(layout, now_ms)
        if done:
            log.info("renewed %d roles of the update repositories, the first of them %s", len(done), done[0])
        return False

    return renew


def keep_fresh(layout: UpdatesLayout, now_ms: int) -> list[str]:
    """Renew timestamps daily, snapshots and online roles before they expire, and end what a crash has left. Returns what was renewed.

    UpdatesError: an online key is missing, or the clock went back; people must act.
    """
    updates, now = Updates(layout), plan.moment(now_ms)
    if not layout.exists:
        return []
    if not layout.journal.exists() and not any(_due(repository, now) for repository in updates.both()):
        return []
    done: list[str] = []
    with store.writing(layout):
        for repository in updates.both():
            if repository.timestamp() is None:
                continue
            if repository.name == "image":
                found_roles(updates, now)
            if _due(repository, now):
                done += _renew(repository, now)
            clear_away(repository)
    return done


def renew_all(layout: UpdatesLayout, now_ms: int, *, skip: int = 0) -> list[str]:
    """Renew everything that the server signs, whether it is due or not; `skip` versions are left out. Returns what was renewed."""
    updates, now, done = Updates(layout), plan.moment(now_ms), []
    with store.writing(layout):
        for repository in updates.both():
            if repository.timestamp() is not None:
                done += _renew(repository, now, all_of_it=True, skip=skip)
    return done


def _due(repository: Repository, now: dt.datetime) -> bool:
    timestamp = repository.timestamp()
    if timestamp is None:
        return False
    signed = signed_at(timestamp.signed)
    return signed is None or now - signed >= plan.TIMESTAMP_EVERY or timestamp.signed.expires <= now


def _renew(repository: Repository, now: dt.datetime, *, all_of_it: bool = False, skip: int = 0) -> list[str]:
    top = repository.targets()
    versions = repository.versions()
    renewed: dict[str, Metadata[Targets]] = {}
    root = repository.trusted_root().signed
    if not plan.is_offline(repository.name, "targets") and (all_of_it or top.signed.expires - now < plan.ONLINE_RENEW_BELOW):
        renewed["targets"] = repository.next_targets("targets", now)
        renewed["targets"].signed.version += skip
        repository.sign_online(renewed["targets"], trust.role_of(root, "targets"))
    for role in trust.roles_in(top.signed):
        if role not in versions or plan.is_offline(repository.name, role):
            continue
        current = parse(repository.role_bytes(role, versions[role]) or b"", Targets)
        if all_of_it or current.signed.expires - now < plan.ONLINE_RENEW_BELOW:
            current.signed.version += 1 + skip
            current.signed.expires = now + plan.period(repository.name, role)
            repository.sign_online(current, trust.role_of(top.signed, role))
            renewed[role] = current
    snapshot = repository.snapshot()
    due = all_of_it or snapshot is None or snapshot.signed.expires - now < plan.ONLINE_RENEW_BELOW
    repository.publish(now, roles=renewed, renew_snapshot=due, skip=skip)
    names = [*renewed, *(["snapshot"] if due or renewed else []), "timestamp"]
    return [f"{repository.name} {name}" for name in names]


def clear_away(repository: Repository, older_than_s: float = KEEP_OLD_S) -> int:
    """Remove metadata that newer versions replaced days ago; roots stay, terminals walk them one by one. Needs the lock."""
    current = repository.versions()
    timestamp = repository.timestamp()
    if timestamp is None:
        return 0
    current["snapshot"] = timestamp.signed.snapshot_meta.version
    before_s, gone = time.time() - older_than_s, 0
    for path in repository.metadata_dir.iterdir():
        match = _VERSIONED.fullmatch(path.name)
        if match is None or match[2] == "root" or int(match[1]) >= current.get(match[2], 0):
            continue
        replaced = repository.metadata_dir / f"{current[match[2]]}.{match[2]}.json"
        # The version after it may be young though the file is old: what counts is since when it is replaced.
        if replaced.exists() and replaced.stat().st_mtime < before_s:
            path.unlink()
            gone += 1
    return gone
