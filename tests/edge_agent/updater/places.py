"""A root with a factory version, and the steps of an installation on it, for tests that cut them off."""

from __future__ import annotations

from pathlib import Path

from edge_agent import launcher
from edge_agent.updater import archive, install
from edge_agent.updater.archive import Limits
from edge_agent.updater.layout import Layout
from tests.support.packages import Package, tiny

OLD, NEW = tiny("1.0.0"), tiny("1.1.0", release=2)
OLD_NAME, NEW_NAME = (f"{one.version}-{one.sha256[:12]}" for one in (OLD, NEW))


def factory(root: Path, package: Package = OLD) -> Layout:
    """`package` laid out under `root`, running."""
    root.mkdir(parents=True, exist_ok=True)
    path = package.write(root.parent)
    with archive.open_image(path) as image:
        install.lay_out(root, image, package.about)
    path.unlink()
    return Layout(root)


def stage(layout: Layout, package: Package = NEW) -> str:
    """The image kept, the tree beside the others."""
    path = layout.image(package.sha256)
    if not path.exists():
        package.write(layout.images)
    with archive.open_image(path) as image:
        archive.check(image, len(package.raw), package.sha256)
        return install.stage(layout, image, package.about, Limits())


def begin(layout: Layout, package: Package = NEW) -> str:
    name = stage(layout, package)
    install.begin_trial(layout, name, "ab" * 16)
    return name


def running(layout: Layout) -> str:
    """What a start now would start; complete, and where `current` points."""
    name = launcher.count(layout.root)
    assert name is not None, "no complete version"
    assert layout.complete(name)
    assert layout.pointed("agent") == name
    return name
