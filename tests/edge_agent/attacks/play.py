"""Words in which the attacks are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from protocols.contract.orders import Wanted
from tests.edge_agent.attacks.world import INSTALLED, Repo, World


@contextmanager
def tampered(repo: Repo, name: str, data: Any) -> Iterator[None]:
    """The mirror gives something else for a file of the metadata, for a while. None: nothing at all."""
    with swapped(repo, repo.key(name), data):
        yield


@contextmanager
def swapped(repo: Repo, path: str, data: Any) -> Iterator[None]:
    kept = repo.mirror.files.get(path)
    repo.mirror.files[path] = data
    if data is None:
        del repo.mirror.files[path]
    try:
        yield
    finally:
        if kept is None:
            repo.mirror.files.pop(path, None)
        else:
            repo.mirror.files[path] = kept


def refused(world: World, *reasons: str) -> None:
    """The terminal says no for one of these reasons, and what it runs stays."""
    before = world.running
    assert world.update() in reasons, world.last
    assert world.running == before


def accepted(world: World, want: Wanted | None = None) -> None:
    """The rightful party's order is carried out."""
    import hashlib

    assert world.update() == INSTALLED, world.last
    if want is not None:
        assert hashlib.sha256(world.running).digest() == want.sha256


def path_of(world: World, want: Wanted) -> str:
    """Where the mirror keeps a target of the image repository."""
    folder, _, name = want.target.rpartition("/")
    return f"/updates/image/targets/{folder}/{want.sha256.hex()}.{name}"
