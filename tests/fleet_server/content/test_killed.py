"""A server that is killed between agreeing and signing: at each call that changes the disk, and before and after each transaction.

Whatever is left goes on: the same act, by somebody else and with a new server, ends with one version in the repository and one row that says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet_server.channel import transact
from fleet_server.content import publish, store
from fleet_server.content.releasing import Releasing
from fleet_server.db import open_raw
from fleet_server.errors import Conflict, FleetServerError, Refused
from fleet_server.updates import intake
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from protocols.contract.artifacts import ImageCustom
from protocols.packages.catalogue import Item
from tests.support.killed import in_child
from tests.support.tuf_repo import TufRepo, now_ms

PACKAGE = 1
MAY = ("manage", "approve")
PICTURE = b"\x89PNG\r\n\x1a\n1"


@dataclass(frozen=True, slots=True)
class Server:
    """What lies on its disk."""

    folder: Path

    def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with closing(open_raw(self.folder / "fleet.sqlite")) as conn:
            return transact(conn, work)

    def releasing(self) -> Releasing:
        async def write(work: Callable[[sqlite3.Connection], Any]) -> Any:
            # A commit makes no call of `os`: these two stand for the moments before and after it.
            os.close(os.open(os.devnull, os.O_RDONLY))
            answer = self.write(work)
            os.close(os.open(os.devnull, os.O_RDONLY))
            return answer

        def add(role: str, path: str, data: bytes | Path, custom: ImageCustom) -> None:
            intake.add_online(self.updates, role, path, data, custom, now_ms=now_ms())

        return Releasing(write=write, files=publish.Store(self.folder / "content"), intake=add, now_ms=now_ms())

    def act(self, act: str, by: str = "maker") -> None:
        asyncio.run(self.releasing().package(PACKAGE, act, by=by, may=MAY))

    def release_catalogue(self, by: str = "maker") -> None:
        asyncio.run(self.releasing().catalogue("", by=by))

    @property
    def updates(self) -> Updates:
        return Updates(UpdatesLayout(self.folder / "updates"))

    def signed(self) -> dict[str, str]:
        return {path: target.hashes["sha256"] for path, (_, target) in self.updates.image.known_targets().items()}

    def row(self) -> dict[str, Any]:
        return dict(self.write(lambda conn: store.package(conn, PACKAGE)))

    def releases(self) -> list[str]:
        return [row[0] for row in self.write(lambda conn: conn.execute("SELECT path FROM release ORDER BY id").fetchall())]

    def copy(self, folder: Path) -> Server:
        shutil.copytree(self.folder, folder)
        return Server(folder)


@pytest.fixture
def server(tmp_path: Path, schema: Path) -> Server:
    """With one reviewed package."""
    made = Server(tmp_path / "server")
    TufRepo.create(made.folder)
    shutil.copy(schema, made.folder / "fleet.sqlite")
    digest = hashlib.sha256(PICTURE)
    files = publish.Store(made.folder / "content")
    coming = files.incoming()
    coming.write_bytes(PICTURE)
    files.take(coming, digest.hexdigest())

    def fill(conn: sqlite3.Connection) -> None:
        conn.execute("INSERT INTO staff (name, display, password_hash, role, created_ms) VALUES ('judge', '', '', 'approver', 0)")
        store.create(conn, "tax-guide", "办税指南", by="maker", now_ms=1)
        store.add_file(conn, PACKAGE, "one.png", len(PICTURE), digest.digest(), by="maker", now_ms=2)
        store.act(conn, PACKAGE, "submit", by="maker", may=MAY, now_ms=3)
        store.act(conn, PACKAGE, "approve", by="judge", may=MAY, now_ms=4)
        store.set_item(conn, Item(code="tax.invoice", zh="开发票", en="Invoice", type="handle"), by="maker", now_ms=5)

    made.write(fill)
    return made


@pytest.mark.parametrize(("act", "path"), [("publish", "content/tax-guide/1.0.tar"), ("disable", "content/tax-guide/2.0.tar")])
def test_a_release_that_is_killed_at_any_point_goes_on(server: Server, tmp_path: Path, act: str, path: str) -> None:
    if act == "disable":
        server.act("publish")
    before, (meanwhile, after) = (
        server.row()["state"],
        ("publishing", "published") if act == "publish" else ("disabling", "disabled"),
    )
    whole = server.copy(tmp_path / "whole")
    calls = in_child(lambda: whole.act(act), None)
    assert calls > 12, "the calls are not counted"
    wanted = whole.signed()
    assert (whole.row()["state"], path in wanted) == (after, True)
    seen = set()
    for die_at in range(1, calls + 1):
        cut = server.copy(tmp_path / f"cut-{die_at}")
        assert in_child(lambda cut=cut: cut.act(act), die_at) == -1, f"call {die_at} was not reached"  # type: ignore[misc]
        state, is_signed = cut.row()["state"], path in cut.signed()
        seen.add((state, is_signed))
        assert state != before or not is_signed, f"after {die_at} calls it was signed before it was claimed"
        if state == meanwhile:
            with pytest.raises(Conflict):
                cut.write(lambda conn: store.act(conn, PACKAGE, "return", by="judge", may=MAY, now_ms=now_ms()))
            with pytest.raises(Conflict):
                cut.write(lambda conn: store.act(conn, PACKAGE, "delete", by="maker", may=MAY, now_ms=now_ms()))
        if state != after:
            # A withdrawal names who claimed it.
            cut.act(act, by="maker" if state == before else "colleague")
        # The same bytes under the same path as without the kill, and one row for them.
        assert (cut.row()["state"], cut.signed()) == (after, wanted), f"{die_at}, done again"
        assert cut.releases().count(path) == 1
        with pytest.raises(Conflict):
            cut.act(act)
        shutil.rmtree(cut.folder)
    assert seen == {(before, False), (meanwhile, False), (meanwhile, True), (after, True)}


def test_a_catalogue_that_is_killed_at_any_point_loses_only_its_number(server: Server, tmp_path: Path) -> None:
    whole = server.copy(tmp_path / "whole")
    calls = in_child(whole.release_catalogue, None)
    assert calls > 12, "the calls are not counted"
    for die_at in range(1, calls + 1):
        cut = server.copy(tmp_path / f"cut-{die_at}")
        assert in_child(cut.release_catalogue, die_at) == -1, f"call {die_at} was not reached"
        held = set(cut.signed())
        # Meanwhile an item changes: what is signed next is another content, so it must not meet the number again.
        cut.write(lambda conn: store.switch(conn, "", "tax.invoice", on=False, by="maker", now_ms=now_ms()))
        cut.release_catalogue(by="colleague")
        fresh = set(cut.signed()) - held
        assert len(fresh) == 1, f"{die_at}, done again"
        assert cut.releases()[-1] in fresh
        shutil.rmtree(cut.folder)


def test_two_who_release_at_once_release_it_once(server: Server) -> None:
    first = server.write(lambda conn: store.claim(conn, PACKAGE, "publish", by="maker", may=MAY, now_ms=10))
    server.act("publish", by="colleague")
    signed = server.signed()
    with pytest.raises(Conflict):
        server.write(lambda conn: store.finish(conn, first, 1, by="maker", now_ms=11))
    server.write(lambda conn: store.give_back(conn, first, by="maker", why="late", now_ms=12))
    assert (server.row()["state"], server.signed(), server.releases()) == ("published", signed, ["content/tax-guide/1.0.tar"])


@pytest.mark.parametrize("failure", ["damaged", "busy"])
def test_what_could_not_be_signed_is_as_it_was_and_says_so(server: Server, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = publish.Store(server.folder / "content").path(hashlib.sha256(PICTURE).hexdigest())
    if failure == "damaged":
        kept.write_bytes(PICTURE[:-1] + b"2")
    else:
        monkeypatch.setattr(intake, "add_online", _busy)
    with pytest.raises((Refused, FleetServerError)):
        server.act("publish")
    monkeypatch.undo()
    assert (server.row()["state"], server.signed()) == ("approved", {})
    told = server.write(
        lambda conn: conn.execute("SELECT actor, result FROM audit WHERE action = 'content.publish' ORDER BY id").fetchall()
    )
    assert told == [("maker", "done"), ("maker", "failed")]
    kept.write_bytes(PICTURE)
    server.act("publish")
    assert server.row()["state"] == "published"


def _busy(*_: object, **__: object) -> None:
    raise UpdatesError("busy")
