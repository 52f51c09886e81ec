"""Builds a release of the agent: one plain tar that carries its interpreter, the standard library, the libraries of the edge extra, and the agent.

    make release ARGS="--version 1.2.0"     →  build/release/kiosk-fleet-agent-1.2.0-x86_64.tar

The same input gives the same bytes: entries are sorted, times and owners are zero, byte code carries no time and no path of this machine. Nothing
is fetched: what is packed is what the environment of the lock holds. `--without-interpreter` leaves interpreter and libraries out and starts with
the Python of this environment: a package of a few MB for a demo or a test on this machine, not for a terminal.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from scripts import say

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "release"
PACKAGES = ("edge_agent", "protocols", "firmware_profiles")
LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages", "__pycache__", "pydoc_data"}
)
"""Of the standard library: what only people at a desk use."""
SYSTEM_LIBRARIES = re.compile(r"^(ld-linux|libc|libm|libpthread|libdl|librt|libutil|libresolv|libnsl|linux-vdso)[.\-]")
"""glibc itself: it belongs to the kernel and the loader of the machine."""

WRAPPER = """#!/bin/sh
# Starts this version with what it carries. The path in the arguments tells the updater which version a process is.
tree=$(readlink -f -- "$0") || exit 126
tree=${{tree%/bin/edge-agent}}
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONINSPECT
{environment}exec {python} -I -B {flags}"$tree/lib/start.py" "$@"
"""
START = '''"""First file of a release: finds the code beside it, then hands over."""

import os
import sys

os.environ.pop("LD_LIBRARY_PATH", None)  # for this interpreter only; programs that it starts have the system's libraries
here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(here, "app"), os.path.join(here, "site-packages")]

from edge_agent.cli import main

sys.exit(main())
'''


def build(out: Path, version: str, *, with_interpreter: bool = True, bytecode: bool = True) -> Path:
    """Write the tar into `out`; its path."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".tree-") as folder:
        tree = Path(folder) / "tree"
        make_tree(tree, version, with_interpreter=with_interpreter, bytecode=bytecode)
        name = file_name(version)
        unfinished = out / f".{name}.new"
        pack(tree, unfinished)
        unfinished.replace(out / name)
    return out / name


def file_name(version: str) -> str:
    return f"kiosk-fleet-agent-{version}-{platform.machine()}.tar"


def make_tree(
    tree: Path, version: str, *, with_interpreter: bool, bytecode: bool, alter: Callable[[Path], None] = lambda tree: None
) -> None:
    """The files of a release below `tree`. `alter`: changes the sources before they are compiled (tests make bad releases so)."""
    _application(tree, ROOT, version)
    libraries: dict[str, str] = {}
    if with_interpreter:
        libraries = _libraries(tree / "lib" / "site-packages")
        _interpreter(tree)
        _strip(tree)
    _wrapper(tree, with_interpreter=with_interpreter)
    alter(tree)
    if bytecode:
        _compile(tree)
    _manifest(tree, version, platform.machine(), libraries)


def pack(tree: Path, target: Path) -> None:
    """Every file of `tree`, sorted, without times and owners."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(tree.rglob("*")):
            info = tarfile.TarInfo(path.relative_to(tree).as_posix())
            found = path.lstat()
            info.mode = 0o755 if path.is_dir() or found.st_mode & stat.S_IXUSR else 0o644
            if path.is_symlink():
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
                archive.addfile(info)
            elif path.is_dir():
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                content = path.read_bytes()
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _application(tree: Path, source: Path, version: str) -> None:
    app = tree / "lib" / "app"
    for package in PACKAGES:
        shutil.copytree(source / package, app / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    info = app / f"kiosk_fleet-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kiosk-fleet\nVersion: {version}\n", "utf-8")
    (tree / "lib" / "start.py").write_text(START, "utf-8")


def _wrapper(tree: Path, *, with_interpreter: bool) -> None:
    path = tree / "bin" / "edge-agent"
    path.parent.mkdir()
    text = (
        WRAPPER.format(
            environment='export LD_LIBRARY_PATH="$tree/python/solib"\n', python='"$tree/python/bin/python3"', flags="-S "
        )
        if with_interpreter
        else WRAPPER.format(environment="", python=f'"{sys.executable}"', flags="")
    )
    path.write_text(text, "ascii")
    path.chmod(0o755)


# ----------------------------------------------------------------------------------------------------------------------- libraries


def _libraries(target: Path) -> dict[str, str]:
    """Copy the distributions of the edge extra and all they need; name and version of each."""
    target.mkdir(parents=True)
    locked = _locked()
    found: dict[str, str] = {}
    for distribution in _closure():
        name = _plain(distribution.metadata["Name"])
        if name in locked and locked[name] != distribution.version:
            say.stop(
                f"{name} {distribution.version} is installed, locks/edge.txt says {locked[name]}: run `make environment` first."
            )
        found[name] = distribution.version
        for file in distribution.files or ():
            parts = file.parts
            if ".." in parts or "__pycache__" in parts or parts[-1] in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
                continue
            origin, copy = Path(str(distribution.locate_file(file))), target / file
            if any(part in ("tests", "test", "test_data") for part in parts[:-1]) or not origin.is_file():
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, copy)
    return dict(sorted(found.items()))


def _closure() -> list[metadata.Distribution]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    waiting = [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["edge"])]
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        name = _plain(wanted.name)
        if name in found or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            say.stop(f"{wanted.name} is not installed here: run `make environment` first.")
        for text in found[name].requires or ():
            need = Requirement(text)
            extras = wanted.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(Requirement(str(need).split(";")[0]))
    return [found[name] for name in sorted(found)]


def _locked() -> dict[str, str]:
    text = (ROOT / "locks" / "edge.txt").read_text("utf-8")
    return {_plain(name): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE)}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --------------------------------------------------------------------------------------------------------------------- interpreter


def _interpreter(tree: Path) -> None:
    """The base interpreter of this environment, its standard library, and the shared libraries that both need besides glibc."""
    short = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = tree / "python"
    (python / "bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin" / short
    shutil.copyfile(os.path.realpath(base), python / "bin" / short)
    (python / "bin" / short).chmod(0o755)
    (python / "bin" / "python3").symlink_to(short)
    stdlib = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))

    def leave_out(folder: str, names: list[str]) -> set[str]:
        gone = {name for name in names if name in LEFT_OUT or name.endswith(".pyc")}
        return gone | {name for name in names if re.match(r"config-\d|_test|_tkinter|_ctypes_test|xxlimited", name)}

    shutil.copytree(stdlib, python / "lib" / short, ignore=leave_out)
    dynload = python / "lib" / short / "lib-dynload"
    dynload.mkdir(exist_ok=True)  # the interpreter takes it for its landmark
    solib = python / "solib"
    solib.mkdir()
    for library in sorted(set(_shared([python / "bin" / short, *sorted(tree.rglob("*.so"))], Path(sys.base_prefix) / "lib"))):
        if not (solib / library.name).exists():
            shutil.copyfile(os.path.realpath(library), solib / library.name)


def _shared(binaries: Iterable[Path], *more: Path) -> Iterator[Path]:
    """What ldd finds for them, without glibc and without what a library carries itself."""
    search = {**os.environ, "LC_ALL": "C", "LD_LIBRARY_PATH": ":".join(str(one) for one in more)}
    for binary in binaries:
        answer = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False, env=search).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+)", answer, re.MULTILINE):
            if (
                not SYSTEM_LIBRARIES.match(name)
                and not Path(path).is_relative_to(binary.parents[len(binary.parents) - 2])
                and "site-packages" not in path
            ):
                yield Path(path).with_name(name)


# ------------------------------------------------------------------------------------------------------------------ finishing


def _strip(tree: Path) -> None:
    """Without the symbols that only a debugger reads: a third of the size."""
    strip = shutil.which("strip")
    if strip is None:
        say.note("strip (binutils) is not on this machine: the release is larger than it must be")
        return
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            subprocess.run([strip, "--strip-unneeded", str(path)], check=True, capture_output=True)


def _compile(tree: Path) -> None:
    """Byte code beside the sources, in a fresh process, so that what was done before does not show in it."""
    script = (
        "import compileall, py_compile, sys\n"
        "ok = compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[1], workers=1, maxlevels=20,\n"
        "    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n"
    )
    clean = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    subprocess.run([sys.executable, "-I", "-c", script, str(tree)], check=True, env=clean)


def _manifest(tree: Path, version: str, arch: str, libraries: dict[str, str]) -> None:
    files = {
        path.relative_to(tree).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    body = {"version": version, "arch": arch, "python": platform.python_version(), "libraries": libraries, "files": files}
    (tree / "manifest.json").write_text(json.dumps(body, indent=1, sort_keys=True) + "\n", "utf-8")


def summary(path: Path) -> dict[str, int | str]:
    """What the metadata of a release say about it: `unpacked_bytes`, `unpacked_files`, hash and length."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    return {
        "sha256": digest.hexdigest(),
        "length": path.stat().st_size,
        "unpacked_bytes": sum(one.size for one in members if one.isreg()),
        "unpacked_files": len(members),
    }


def main(words: list[str] | None = None) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    parser = argparse.ArgumentParser(prog="make release", description="Builds a release of the agent.")
    parser.add_argument("--version", default=project["version"], help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--without-interpreter", action="store_true", help="for a demo or a test on this machine only")
    parser.add_argument("--no-bytecode", action="store_true")
    asked = parser.parse_args(words)
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,40}", asked.version):
        say.stop("A version has letters, digits, dots, + and - only.")
    say.step(f"Building release {asked.version}")
    path = build(asked.out, asked.version, with_interpreter=not asked.without_interpreter, bytecode=not asked.no_bytecode)
    about = summary(path)
    say.note(f"{path}: {int(about['length']) / 1e6:.1f} MB, {about['unpacked_files']} entries")
    say.note(f"SHA-256 {about['sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
