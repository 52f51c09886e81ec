"""System packages: finds out what is missing and installs it with apt-get (through sudo where not root), or says in one sentence what to do.

Nothing is touched that is there already, and a broker that Debian would start with its package is stopped again: the project starts its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scripts import say

# Debian keeps daemons in sbin, which is not on every user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Need:
    """Something the project uses from the system: when it is there, which package brings it, and what for."""

    present: Callable[[], bool]
    package: str
    purpose: str


def _on_path(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name, path=SEARCH_PATH) for name in names)


def _is_file(path: Path) -> Callable[[], bool]:
    return path.is_file


STARTED_BY_DEBIAN = {
    "mosquitto": ("mosquitto",),
    "pcscd": ("pcscd.socket", "pcscd.service"),
    "gpsd": ("gpsd.socket", "gpsd.service"),
    "nut-server": ("nut-server.service", "nut-driver.target"),
    "cups-daemon": ("cups.socket", "cups.path", "cups.service"),
}
"""Packages that come with a daemon, and the units that start it."""


def _is_there(path: str) -> Callable[[], bool]:
    return Path(path).exists


def _typelib(name: str) -> Callable[[], bool]:
    """A library that scripts may use by GObject introspection."""
    return lambda: any(Path("/usr/lib").glob(f"*/girepository-1.0/{name}.typelib"))


PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

NEEDS: dict[str, tuple[Need, ...]] = {
    "python": (
        Need(lambda: find_spec("ensurepip") is not None and find_spec("venv") is not None, f"{PYTHON}-venv", "to make .venv"),
        # evdev is published as source only: its module is compiled against the kernel's input headers.
        Need(_on_path("cc", "gcc"), "gcc", "to compile evdev"),
        Need(_is_file(Path("/usr/include/linux/input.h")), "linux-libc-dev", "to compile evdev"),
        Need(_is_file(Path("/usr/include/stdio.h")), "libc6-dev", "to compile evdev"),
        Need(_is_file(Path(sysconfig.get_path("include")) / "Python.h"), f"{PYTHON}-dev", "to compile evdev"),
        # pyscard is published as source only as well.
        Need(_on_path("swig"), "swig", "to compile pyscard"),
        Need(_is_file(Path("/usr/include/PCSC/winscard.h")), "libpcsclite-dev", "to compile pyscard"),
    ),
    "tuf-conformance": (Need(_on_path("faketime"), "faketime", "to move the clock under the conformance suite's client"),),
    "mosquitto": (Need(_on_path("mosquitto"), "mosquitto", "as the MQTT broker"),),
    "pcsc": (
        Need(_on_path("pcscd"), "pcscd", "to watch a real PC/SC service"),
        Need(_is_file(Path("/usr/lib/pcsc/drivers/serial/libifdvpcd.so")), "vsmartcard-vpcd", "as its virtual reader"),
        Need(_on_path("pcsc_scan"), "pcsc-tools", "as another program that sees the reader"),
    ),
    "printing": (
        Need(_on_path("cupsd"), "cups-daemon", "to print on our printer models"),
        Need(_on_path("lpadmin"), "cups-client", "to print on our printer models"),
        Need(_on_path("ipptool"), "cups-ipp-utils", "to read our printer models"),
    ),
    "power": (
        Need(_is_file(Path("/lib/nut/nutdrv_qx")), "nut-server", "to poll our UPS model with another program's driver"),
        Need(_on_path("upsc"), "nut-client", "to poll our UPS model with another program's driver"),
        Need(_on_path("gpsd"), "gpsd", "to read our model of a position receiver"),
        Need(_on_path("gpspipe"), "gpsd-clients", "to read our model of a position receiver"),
    ),
    "bench": (
        Need(_on_path("zstd"), "zstd", "to make differences between releases"),
        Need(_on_path("bsdiff"), "bsdiff", "to compare them with"),
        Need(_on_path("casync"), "casync", "to compare them with"),
    ),
    "updates": (
        Need(_on_path("strace"), "strace", "to cut the updater off at each system call"),
        Need(_on_path("zstd"), "zstd", "to make and apply differences between releases"),
        Need(_on_path("mkfs.ext4"), "e2fsprogs", "to cut the power of an ext4 disk"),
        Need(_on_path("mkfs.xfs"), "xfsprogs", "to cut the power of an xfs disk"),
        Need(_on_path("rx"), "lrzsz", "to check XMODEM and YMODEM against another implementation"),
        Need(_on_path("dfu-util"), "dfu-util", "to write firmware over USB DFU"),
    ),
    "stacks": (
        Need(_on_path("umockdev-run"), "umockdev", "to put device models behind libusb, evdev and udev"),
        Need(_typelib("UMockdev-1.0"), "gir1.2-umockdev-1.0", "to put device models behind libusb, evdev and udev"),
        Need(_is_there("/usr/lib/python3/dist-packages/gi"), "python3-gi", "to put device models behind libusb, evdev and udev"),
    ),
    "vm": (
        Need(_on_path("qemu-system-x86_64"), "qemu-system-x86", "to run a Debian kernel"),
        Need(_on_path("busybox"), "busybox-static", "to boot it"),
        Need(_on_path("depmod"), "kmod", "to load its modules"),
        Need(_on_path("usbip"), "usbip", "to plug simulated USB devices in"),
        Need(_on_path("systemd-sysusers"), "systemd", "to run the agent as its unit"),
        Need(_is_there("/usr/lib/systemd/systemd-udevd"), "udev", "to apply the agent's udev rules"),
    ),
    "browser": (Need(_on_path("chromium", "chromium-browser", "google-chrome"), "chromium", "to test the console's pages"),),
}


def missing(groups: Iterable[str]) -> list[Need]:
    """The needs of these groups that this machine does not meet."""
    return [need for group in groups for need in NEEDS[group] if not need.present()]


def ensure(groups: Iterable[str]) -> None:
    """Install what is missing. Exits with one sentence when that is impossible."""
    needs = missing(groups)
    if not needs:
        return
    packages = sorted({need.package for need in needs})
    by_hand = f"apt-get install {' '.join(packages)}"
    purposes = "; ".join(f"{need.package} {need.purpose}" for need in needs)
    apt_get = shutil.which("apt-get", path=SEARCH_PATH)
    if apt_get is None:
        say.stop(
            f"Not on this machine: {purposes}. There is no apt-get here: please install {', '.join(packages)} your system's way."
        )
    as_root = _as_root()
    if as_root is None:
        say.stop(f"Not on this machine: {purposes}. Please run, as root: {by_hand}")
    say.step(f"Installing from the system's packages: {purposes}")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "apt.log"
        if not _known_to_apt(packages):
            say.note("reading the package lists first (apt-get update)")
            # One unreachable source must not stop us: the installation below decides.
            say.run([*as_root, apt_get, "update"], log=log)
        install = [*as_root, apt_get, "install", "--yes", "--no-install-recommends", *packages]
        if say.run(install, log=log, progress=_apt_progress) != 0:
            say.note("once more with fresh package lists (apt-get update)")
            say.run([*as_root, apt_get, "update"], log=log)
            say.run(install, log=log, progress=_apt_progress)
    for package, units in STARTED_BY_DEBIAN.items():
        if package in packages:
            _keep_from_running(package, units, as_root)
    if left := missing(groups):
        say.stop(f"apt-get did not bring {', '.join(need.package for need in left)}. Please run, as root: {by_hand}")


def _as_root() -> list[str] | None:
    settings = ["env", "DEBIAN_FRONTEND=noninteractive"]
    if os.geteuid() == 0:
        return settings
    sudo = shutil.which("sudo", path=SEARCH_PATH)
    if sudo is None:
        return None
    if subprocess.run([sudo, "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
        return [sudo, "-n", *settings]
    if not sys.stdin.isatty() or os.environ.get("CI"):
        return None
    say.note("sudo will ask for your password")
    return [sudo, *settings] if subprocess.run([sudo, "-v"], check=False).returncode == 0 else None


def _known_to_apt(packages: list[str]) -> bool:
    cache = shutil.which("apt-cache", path=SEARCH_PATH)
    if cache is None:
        return False
    for package in packages:
        english = {**os.environ, "LC_ALL": "C"}
        answer = subprocess.run([cache, "policy", package], capture_output=True, text=True, check=False, env=english)
        if "Candidate:" not in answer.stdout or "Candidate: (none)" in answer.stdout:
            return False
    return True


def _apt_progress(line: str) -> str | None:
    return line if line.startswith(("Get:", "Unpacking", "Setting up")) else None


def _keep_from_running(service: str, units: tuple[str, ...], as_root: list[str]) -> None:
    """A package that we brought must not leave a daemon on the machine: Debian starts one, now and at each boot."""
    if Path("/run/systemd/system").is_dir():
        command = [*as_root, "systemctl", "disable", "--now", "--quiet", *units]
    elif Path("/etc/init.d", service).exists():
        command = [*as_root, f"/etc/init.d/{service}", "stop"]
    else:
        return
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    say.note(f"the system's own {service} service stays off: each server and test starts one for itself")


if __name__ == "__main__":
    ensure(sys.argv[1:])
