"""Backup and restore: one archive with the database, as it was at one moment, the authority's folder, update repositories, pulled logs and the
audit log's signatures.

The archive holds private keys (also the root's, unless that is kept offline): it is written for its owner only and belongs into a safe. The keys that
sign orders are not in it: where they are missing after a restore, the server makes another one and withdraws the old ones.

A server that was restored from it ends complete, because terminals keep what they have sent for a while and offer what the restored server does
not know.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from fleet_server import audit, db
from fleet_server.authority.authority import Authority
from fleet_server.authority.files import AuthorityError, sync_folder
from fleet_server.channel import transact
from fleet_server.errors import FleetServerError
from fleet_server.settings import Layout
from fleet_server.updates import keeping

FORMAT = 1
MANIFEST = "manifest.json"
_DATABASE = "fleet.sqlite"


class BackupError(FleetServerError):
    """An archive that cannot be written, or is not whole; nothing was changed."""


def back_up(layout: Layout, archive: Path, *, now_ms: int) -> None:
    """Write `archive` while the server runs. It appears under its name when it is complete."""
    if archive.exists():
        raise BackupError(f"{archive} is there already")
    authority = Authority(layout.authority)
    with tempfile.TemporaryDirectory(dir=archive.absolute().parent, prefix=".backup-") as folder:
        copy = Path(folder) / _DATABASE
        with closing(db.open_reader(layout.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        files = {_DATABASE: copy, **_authority_files(layout.authority), **_other_files(layout, Path(folder))}
        files |= keeping.copy_for_backup(layout.updates, Path(folder) / "updates")
        manifest = {
            "format": FORMAT,
            "fleet": authority.fleet,
            "made_ms": now_ms,
            "files": {name: _digest(file) for name, file in files.items()},
        }
        building = Path(folder) / "archive"
        building.touch(mode=0o600)
        with building.open("wb") as raw, tarfile.open(fileobj=raw, mode="w") as tar:
            _add_manifest(tar, manifest)
            for name, file in files.items():
                tar.add(file, name, recursive=False)
            raw.flush()
            os.fsync(raw.fileno())
        building.rename(archive)
    sync_folder(archive.absolute().parent)


def restore(archive: Path, layout: Layout, *, replace: bool = False, now_ms: int) -> dict[str, Any]:
    """Put database and authority back and bring the schema to this version; returns the manifest.

    BackupError if the archive is not whole, or if there is data already and `replace` is not set; what is replaced is kept beside, under the name
    `before-restore`. Nothing else may have the database open.
    """
    layout.make()
    existing = [path for path in (layout.database, layout.authority, layout.audit_heads, layout.updates.root) if path.exists()]
    if existing and not replace:
        raise BackupError(f"{existing[0]} is there already; say --replace to put it aside")
    with tempfile.TemporaryDirectory(dir=layout.root, prefix=".restore-") as folder:
        unpacked = Path(folder)
        manifest = _unpack(archive, unpacked)
        Authority(unpacked / "authority")
        with closing(sqlite3.connect(unpacked / _DATABASE)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise BackupError(f"{archive}: the database in it is damaged")
        _put_aside(layout, existing)
        (unpacked / "authority").rename(layout.authority)
        (unpacked / _DATABASE).rename(layout.database)
        if (unpacked / layout.audit_heads.name).exists():
            (unpacked / layout.audit_heads.name).rename(layout.audit_heads)
        if (unpacked / "updates").exists():
            (unpacked / "updates").rename(layout.updates.root)
        for file in (unpacked / layout.logs.name).glob("*"):
            file.replace(layout.logs / file.name)
    sync_folder(layout.root)
    db.migrate(layout.database)
    keeping.after_restore(layout.updates, now_ms)
    _say_so(layout, manifest, now_ms)
    return manifest


def _say_so(layout: Layout, manifest: dict[str, Any], now_ms: int) -> None:
    """The audit log goes on where the backup ends, and says that it does."""
    with closing(db.open_raw(layout.database)) as connection:
        transact(
            connection,
            lambda inside: audit.write(
                inside, audit.SERVER, None, "backup.restore", "server:data", {"made_ms": manifest["made_ms"]}, now_ms=now_ms
            ),
        )


def _put_aside(layout: Layout, existing: list[Path]) -> None:
    aside = layout.root / "before-restore"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    for path in existing:
        for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if file.exists():
                file.rename(aside / file.name)


def _unpack(archive: Path, folder: Path) -> dict[str, Any]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _extract(tar, member, folder)
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        listed: dict[str, str] = manifest["files"]
        wrong = [name for name, digest in listed.items() if _digest(folder / name) != digest]
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as err:
        raise BackupError(f"{archive} is no backup of this server, or it was cut off") from err
    if manifest.get("format") != FORMAT:
        raise BackupError(f"{archive} has format {manifest.get('format')}; this version reads {FORMAT}")
    if wrong or _DATABASE not in listed:
        raise BackupError(f"{archive}: {wrong[0] if wrong else _DATABASE} is not what was backed up")
    for file in folder.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    return manifest


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Plain files below `folder` and nothing else: an archive may have been exchanged."""
    parts = Path(member.name).parts
    content = tar.extractfile(member) if member.isreg() else None
    if content is None or not parts or member.name.startswith("/") or ".." in parts:
        raise tarfile.TarError(f"unexpected member {member.name!r}")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _other_files(layout: Layout, folder: Path) -> dict[str, Path]:
    """Copies: what is removed or grows meanwhile must not leave the archive torn."""
    sources = [*sorted(layout.logs.glob("*.cose")), *([layout.audit_heads] if layout.audit_heads.exists() else [])]
    found = {}
    for source in sources:
        name = str(source.relative_to(layout.root))
        copy = folder / "other" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, copy)
        except FileNotFoundError:
            continue
        found[name] = copy
    return found


def _authority_files(folder: Path) -> dict[str, Path]:
    found = {f"authority/{file.relative_to(folder)}": file for file in sorted(folder.rglob("*")) if file.is_file()}
    if "authority/fleet.json" not in found:
        raise AuthorityError(f"{folder}: no authority here")
    return found


def _add_manifest(tar: tarfile.TarFile, manifest: dict[str, Any]) -> None:
    data = json.dumps(manifest, indent=1).encode()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
