"""Rows: what a difference between two releases of the agent weighs, beside the whole image packed and beside two other makers of differences.

Three steps as they happen: a corrected line, a new version of our own code, and a library that came out anew.
"""

from __future__ import annotations

import compileall
import hashlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.updater import delta
from edge_agent.updater.delta import Base
from edge_agent.updater.trust import Form
from scripts import release as builder
from tests.bench.table import Budget, Row

LEVEL = 19
WINDOW_LOG = 27
OUR_CODE = re.compile(r"^(\s*)(log\.(?:info|warning)\()", re.MULTILINE)


@dataclass(frozen=True)
class Made:
    """One form of one step."""

    kb: float
    make_s: float
    apply_s: float


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as name:
        folder = Path(name)
        old = _image(folder / "old.tar", "1.0.0", lambda tree: None)
        return [
            row
            for what, alter in (
                ("a corrected line", _one_line),
                ("a version of our own code", _many_lines),
                ("another build of a library", _library),
            )
            for row in _step(folder, what, old, _image(folder / f"{what.split()[-1]}.tar", "1.0.1", alter))
        ]


def _step(folder: Path, what: str, old: Path, new: Path) -> list[Row]:
    whole = _run(folder, new, ["zstd", "-q", "-f", f"-{LEVEL}", str(new), "-o"], ["zstd", "-q", "-d", "-f"])
    patch = folder / "patch.zst"
    began_s = time.perf_counter()
    _call("zstd", "-q", "-f", f"-{LEVEL}", f"--long={WINDOW_LOG}", f"--patch-from={old}", str(new), "-o", str(patch))
    make_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    _apply(patch, old, new, folder / "again.tar")
    ours = Made(patch.stat().st_size / 1e3, make_s, time.perf_counter() - began_s)
    notes = [
        f"image {new.stat().st_size / 1e6:.1f} MB; whole, zstd -{LEVEL}: made in {whole.make_s:.1f} s, unpacked in {whole.apply_s:.2f} s",
        f"difference: {ours.kb:.1f} kB, made in {ours.make_s:.1f} s, applied by the terminal's own code in {ours.apply_s:.2f} s",
        *_others(folder, old, new),
    ]
    return [
        Row(
            what=f"Difference, {what}",
            ours=ours.kb,
            unit="kB",
            beside=f"the whole image, zstd -{LEVEL}",
            peer=whole.kb,
            budgets=(Budget(rule="at_most", limit=1, of="ratio"),),
            notes=tuple(notes),
        )
    ]


def _apply(patch: Path, old: Path, new: Path, out: Path) -> None:
    base = Base(path=old, length=old.stat().st_size, sha256=_sha256(old))
    form = Form(via="delta", url="", length=patch.stat().st_size, sha256=_sha256(patch), base=base.sha256)
    delta.unpack(patch, form, out, length=new.stat().st_size, sha256=_sha256(new), base=base)


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _others(folder: Path, old: Path, new: Path) -> list[str]:
    said = []
    if shutil.which("bsdiff"):
        target, began_s = folder / "bsdiff", time.perf_counter()
        _call("bsdiff", str(old), str(new), str(target))
        make_s, began_s = time.perf_counter() - began_s, time.perf_counter()
        _call("bspatch", str(old), str(folder / "again.tar"), str(target))
        said.append(
            f"bsdiff: {target.stat().st_size / 1e3:.1f} kB, made in {make_s:.1f} s, applied in {time.perf_counter() - began_s:.2f} s"
        )
    else:
        said.append("bsdiff is not on this machine")
    if shutil.which("casync"):
        store = folder / "store.castr"
        shutil.rmtree(store, ignore_errors=True)
        _call("casync", "make", f"--store={store}", str(folder / "old.caibx"), str(old))
        before = _size(store)
        began_s = time.perf_counter()
        _call("casync", "make", f"--store={store}", str(folder / "new.caibx"), str(new))
        make_s, again = time.perf_counter() - began_s, folder / "again.tar"
        again.unlink(missing_ok=True)
        began_s = time.perf_counter()
        _call("casync", "extract", f"--store={store}", f"--seed={old}", str(folder / "new.caibx"), str(again))
        said.append(
            f"casync: {(_size(store) - before) / 1e3:.1f} kB of new chunks, made in {make_s:.1f} s, "
            f"put together in {time.perf_counter() - began_s:.1f} s"
        )
    else:
        said.append("casync is not on this machine")
    return said


def _run(folder: Path, image: Path, make: list[str], unpack: list[str]) -> Made:
    packed, again = folder / "whole.zst", folder / "again.tar"
    began_s = time.perf_counter()
    _call(*make, str(packed))
    make_s, began_s = time.perf_counter() - began_s, time.perf_counter()
    _call(*unpack, str(packed), "-o", str(again))
    return Made(packed.stat().st_size / 1e3, make_s, time.perf_counter() - began_s)


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# Releases ---------------------------------------------------------------------------------------------------------------------------------


def _image(path: Path, version: str, alter: Callable[[Path], None]) -> Path:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tree = Path(folder) / "tree"
        builder.make_tree(tree, version, with_interpreter=True, bytecode=True, alter=alter)
        builder.pack(tree, path)
    return path


def _one_line(tree: Path) -> None:
    path = tree / "lib" / "app" / "edge_agent" / "supervisor.py"
    path.write_text(path.read_text("utf-8").replace("TICK_S = 5.0", "TICK_S = 4.0"), "utf-8")


def _many_lines(tree: Path) -> None:
    """A line more before each line of log, in every file of ours: byte code moves everywhere."""
    for path in (tree / "lib" / "app").rglob("*.py"):
        path.write_text(OUR_CODE.sub(r"\1pass\n\1\2", path.read_text("utf-8")) + "\nRELEASE = 2\n", "utf-8")


def _library(tree: Path) -> None:
    """Every module of one library is compiled from other lines: each of its files is another one."""
    for path in (tree / "lib" / "site-packages" / "tuf").rglob("*.py"):
        path.write_text("# another build\n" * 7 + path.read_text("utf-8"), "utf-8")
    compileall.compile_dir(tree / "lib" / "site-packages" / "tuf", quiet=2)
