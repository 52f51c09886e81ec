"""Data: one TOML file per device model. What the files may say is `protocols.profile.schema`; nothing here interprets them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable


def root() -> Traversable:
    """The folder of the profile files, wherever the package is installed."""
    return files(__name__)


def read_all() -> dict[str, bytes]:
    """Text of every profile by its path below `root()` without `.toml` (`printers/epson-tm-t20`)."""
    return {name: file.read_bytes() for name, file in _walk(root(), "")}


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".toml"):
            yield prefix + entry.name.removesuffix(".toml"), entry
