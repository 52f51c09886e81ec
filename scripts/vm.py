"""`make vm`: the shipped agent on a Debian kernel, as its systemd unit, with devices that the kernel's own drivers see.

A virtual machine (QEMU without hardware virtualisation, so it runs everywhere) boots Debian's kernel with this machine's files below it, read-only;
what it writes is in its memory. Device models run here, at full speed, and are plugged in over USB/IP. Inside, `tests/vm/guest.py` installs a built
release with its own install.sh, starts the unit, and asks the agent what it sees. Results: build/vm/results.xml and a summary.

Exit codes: 0 all passed · 1 something failed · 3 it cannot run here (the sentence says why). Nothing is left behind but the cache in build/vm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from scripts import release, say
from scripts.release import ROOT

OUT = ROOT / "build" / "vm"
KERNEL = OUT / "kernel"
RUN = OUT / "run"
LIMIT_S = 600.0
MEMORY_MIB = 2048
PASSED, FAILED, CANNOT_RUN = 0, 1, 3
HOST_SEEN_BY_GUEST = "10.0.2.2"
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_net")
VERSION = "0.0.1"
PROGRAMS = ("qemu-system-x86_64", "busybox", "depmod", "modprobe", "dpkg-deb", "usbip")

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /lower /writable /guest
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module || echo "no $module"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 host /lower || /bin/busybox poweroff -f
/bin/busybox mount -t tmpfs -o size=85% tmpfs /writable
/bin/busybox mkdir /writable/upper /writable/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/writable/upper,workdir=/writable/work overlay /guest || /bin/busybox poweroff -f
/bin/busybox sh /prepare.sh
/bin/busybox umount /proc /sys
/bin/busybox mount --move /dev /guest/dev
exec /bin/busybox switch_root /guest /usr/lib/systemd/systemd
"""
PREPARE = """cd /guest
# None of this machine's own services, file systems and accounts: a plain system that only has its programs.
/bin/busybox rm -rf etc/systemd/system etc/systemd/user etc/systemd/system-generators run/systemd
/bin/busybox mkdir -p etc/systemd/system usr/lib/modules
/bin/busybox rm -rf opt/kiosk-fleet var/lib/kiosk-fleet var/lib/kiosk-updater var/lib/kiosk-handover etc/kiosk-fleet usr/local/lib/kiosk-fleet
/bin/busybox rm -rf var/log/journal etc/udev/rules.d usr/lib/modules/{kernel}
/bin/busybox mkdir -p etc/udev/rules.d
/bin/busybox ln -s {modules} usr/lib/modules/{kernel}
/bin/busybox rm -f .dockerenv run/.containerenv etc/fstab etc/machine-id etc/hostname etc/shadow etc/ld.so.preload
echo 5f1c0b6a3e9d4c7f8a2b1d0e9c8f7a6b > etc/machine-id
echo kiosk-vm > etc/hostname
: > etc/fstab
printf 'root:*:19000:0:99999:7:::\\n' > etc/shadow
/bin/busybox chmod 600 etc/shadow
/bin/busybox grep -v -e '^kiosk-' /lower/etc/passwd > etc/passwd
/bin/busybox grep -v -e '^kiosk-' /lower/etc/group > etc/group
/bin/busybox cp /units/* etc/systemd/system/
for unit in {masked}; do /bin/busybox ln -s /dev/null etc/systemd/system/$unit; done
"""
TARGET = """[Unit]
Description=The test's programs
Requires=basic.target
After=basic.target
Wants=kiosk-vm.service
"""
UNIT = """[Unit]
Description=The agent on real drivers
After=basic.target systemd-udev-trigger.service

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I -u {guest} {setting}
ExecStopPost=/usr/bin/systemctl --no-block poweroff -ff
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/console
TimeoutStartSec=infinity
"""
MASKED = (
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-update-done.service", "systemd-firstboot.service",
    "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-random-seed.service", "systemd-update-utmp.service",
    "systemd-machine-id-commit.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-repart.service",
    "systemd-sysusers.service", "systemd-tmpfiles-setup.service", "systemd-pstore.service",
    "dev-hugepages.mount", "sys-kernel-tracing.mount", "sys-kernel-debug.mount",
    "systemd-ask-password-console.path", "systemd-ask-password-wall.path", "swap.target", "cryptsetup.target", "veritysetup.target",
    "integritysetup.target", "systemd-tmpfiles-clean.timer", "systemd-boot-system-token.service", "timers.target",
)  # fmt: skip


def cannot(text: str) -> NoReturn:
    """This machine cannot run it; that is no failure of the agent."""
    print(f"\nmake vm cannot run here: {text}", file=sys.stderr, flush=True)
    raise SystemExit(CANNOT_RUN)


# --------------------------------------------------------------------------------------------------------------------------- kernel


def kernel() -> str:
    """Unpack Debian's kernel into the cache; its release. The package is fetched once for each version."""
    OUT.mkdir(parents=True, exist_ok=True)
    if kept := _kept_kernel():
        return kept
    package = _kernel_package()
    log = OUT / "kernel.log"
    debs = list(OUT.glob(f"{package}_*.deb"))
    if not debs:
        say.step(f"Fetching {package} (70 MB, once)")
        command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", package]
        if say.run(command, log=log, cwd=OUT) != 0:
            cannot(f"{package} cannot be fetched; see {log}. Without a network, put the .deb file into {OUT}.")
        debs = list(OUT.glob(f"{package}_*.deb"))
    say.step("Unpacking the kernel")
    shutil.rmtree(KERNEL, ignore_errors=True)
    if say.run(["dpkg-deb", "-x", debs[0], KERNEL], log=log) != 0:
        debs[0].unlink()
        cannot(f"{debs[0].name} is damaged and was removed; start again.")
    version = package.removeprefix("linux-image-")
    if say.run([_program("depmod"), "-b", KERNEL, version], log=log) != 0:
        cannot("depmod did not list the kernel's modules.")
    (KERNEL / "complete").write_text(version)
    return version


def _kept_kernel() -> str | None:
    try:
        return (KERNEL / "complete").read_text().strip()
    except OSError:
        return None


def _kernel_package() -> str:
    """What linux-image-amd64 stands for today."""
    if os.uname().machine != "x86_64":
        cannot("it knows the kernel of x86_64 only.")
    answer = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    names = [line.split()[-1] for line in answer.stdout.splitlines() if line.strip().startswith("Depends: linux-image-")]
    kept = sorted(OUT.glob("linux-image-*.deb"))
    if not names and kept:
        return kept[-1].name.partition("_")[0]
    if not names:
        cannot("apt knows no linux-image-amd64 (apt-get update, or another distribution).")
    return names[0]


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))
    if found is None:
        cannot(f"there is no {name} (make vm installs what it needs where it may).")
    return found


def make_initramfs(version: str, target: Path) -> None:
    """busybox, the modules that reach this machine's files, and what prepares the guest."""
    tree = RUN / "initramfs"
    (tree / "modules").mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / "units").mkdir()
    shutil.copy(_program("busybox"), tree / "bin" / "busybox")
    order: list[str] = []
    for module in BOOT_MODULES:
        listed = subprocess.run(
            [_program("modprobe"), "-d", KERNEL, "-S", version, "--show-depends", module],
            capture_output=True,
            text=True,
            check=False,
        )
        if listed.returncode != 0:
            cannot(f"the kernel has no module {module}.")
        for path in (Path(line.split()[1]) for line in listed.stdout.splitlines() if line.startswith("insmod ")):
            if path.name not in order:
                order.append(path.name)
                shutil.copy(path, tree / "modules" / path.name)
    (tree / "modules" / "order").write_text("\n".join(order) + "\n")
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    (tree / "prepare.sh").write_text(
        PREPARE.format(kernel=version, modules=KERNEL / "lib" / "modules" / version, masked=" ".join(MASKED))
    )
    (tree / "units" / "kiosk-vm.target").write_text(TARGET)
    (tree / "units" / "kiosk-vm.service").write_text(
        UNIT.format(guest=ROOT / "tests" / "vm" / "guest.py", setting=RUN / "setting.json")
    )
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with target.open("wb") as out:
        subprocess.run(
            [tree / "bin" / "busybox", "cpio", "-o", "-H", "newc"],
            input=names.encode(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=tree,
            check=True,
        )


# -------------------------------------------------------------------------------------------------------------------------- devices


@dataclass
class Bus:
    """The device models of this run and how the guest steers them."""

    terminal: Any
    raws: Mapping[str, Any]
    """By slot."""
    results: list[dict[str, Any]] = field(default_factory=list)
    is_whole: bool = False
    """The guest came to its end."""
    started_s: float = field(default_factory=time.monotonic)

    def obey(self, request: dict[str, Any]) -> dict[str, Any]:
        """`{"words": ["fault", "keypad", "stuck-key"]}`, `{"line": "call-pad"}` or `{"result": {…}}`."""
        if "words" in request:
            self.terminal.do(request["words"])
        elif "line" in request:
            return {"coding": self.raws[request["line"]].line_coding.hex()}
        elif "end" in request:
            self.is_whole = True
        elif "result" in request:
            result = {**request["result"], "at_s": time.monotonic() - self.started_s}
            self.results.append(result)
            mark = "ok  " if result["ok"] else "FAIL"
            say.note(f"{mark} {result['at_s']:5.0f} s  {result['name']}" + ("" if result["ok"] else f": {result['text']}"))
        return {}


class _Steering(socketserver.StreamRequestHandler):
    """JSON lines from the guest."""

    def handle(self) -> None:
        bus: Bus = self.server.bus  # type: ignore[attr-defined]
        while line := self.rfile.readline(1_000_000):
            try:
                answer = {"ok": True, **bus.obey(json.loads(line))}
            except Exception as err:  # noqa: BLE001 - the guest's test says what it was told
                answer = {"ok": False, "error": f"{type(err).__name__}: {err}"}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class _SteeringServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    bus: Bus


def plug_in() -> tuple[Bus, dict[str, Any], list[dict[str, Any]]]:
    """The models, what goes on the wire under which bus id, and what the agent's inventory says."""
    from simulators.ports.usb_raw import RawDevice
    from simulators.terminal import VirtualTerminal
    from tests.vm.inventory import slots

    placed = slots()
    terminal = VirtualTerminal("bench", [one.slot for one in placed])
    raws = {
        one.slot.name: RawDevice(one.slot.model, one.identity, terminal.clock, on_line=one.slot.bus == "serial") for one in placed
    }
    exports = {f"1-{number}": raws[one.slot.name] for number, one in enumerate(placed, 1)}
    inventory = [
        {"slot": one.slot.name, "busid": f"1-{number}", "family": one.family, "profile": one.profile, "address": one.address}
        for number, one in enumerate(placed, 1)
    ]
    return Bus(terminal, raws), exports, inventory


def make_identity(folder: Path) -> None:
    """A terminal that was enrolled with a fleet that is out of reach: the agent works and records without it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from edge_agent import identity
    from edge_agent.signing import FileKeyStore

    FileKeyStore(folder).record_key()
    root = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    out_of_reach = identity.MqttAddress(host="127.0.0.1", port=1)
    who = identity.Identity(
        terminal="kiosk-vm", fleet="testfleet", server_url="https://127.0.0.1:1", root_key=root, mqtt=out_of_reach
    )
    identity.save(folder, who)


# ------------------------------------------------------------------------------------------------------------------------------ run


def run(*, limit_s: float, keep_console: bool) -> int:
    for name in PROGRAMS:
        _program(name)
    version = kernel()
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    say.step("Building the agent's release")
    image = release.build(RUN, VERSION)
    make_identity(RUN / "identity")
    make_initramfs(version, RUN / "initramfs.img")
    with ExitStack() as parts:
        from simulators.ports.usbip import UsbIpServer

        bus, exports, inventory = plug_in()
        server = UsbIpServer(exports)
        wire_port = server.start()
        parts.callback(server.close)
        steering = _SteeringServer(("127.0.0.1", 0), _Steering)
        steering.bus = bus
        threading.Thread(target=steering.serve_forever, daemon=True).start()
        parts.callback(steering.server_close)
        parts.callback(steering.shutdown)
        setting = {
            "host": HOST_SEEN_BY_GUEST,
            "usbip_port": wire_port,
            "steering_port": steering.server_address[1],
            "image": str(image),
            "version": VERSION,
            "packaging": str(ROOT / "edge_agent" / "packaging"),
            "identity": str(RUN / "identity"),
            "kernel_input": str(ROOT / "tests" / "vm" / "kernel_input.py"),
            "devices": inventory,
            "checkout": str(ROOT),
            "python": sys.executable,
            "base_python": os.path.realpath(sys.executable),
        }
        (RUN / "setting.json").write_text(json.dumps(setting))
        say.step(f"Booting Linux {version} with {len(inventory)} devices (no hardware virtualisation: about four minutes)")
        bus.started_s = time.monotonic()
        console = OUT / "console.log"
        ended = _boot(version, console, limit_s)
        took_s = time.monotonic() - bus.started_s
    _write_junit(OUT / "results.xml", bus.results, took_s)
    failed = [result["name"] for result in bus.results if not result["ok"]]
    if not keep_console and bus.is_whole and not failed:
        shutil.rmtree(RUN, ignore_errors=True)
    if not bus.is_whole:
        print(f"\nThe guest did not come to the end ({ended}); its console is in {console}.", flush=True)
        return FAILED
    first_s = bus.results[0]["at_s"]
    say.step(
        f"{len(bus.results) - len(failed)} of {len(bus.results)} passed in {took_s:.0f} s (userspace after {first_s:.0f} s); {OUT / 'results.xml'}"
    )
    if failed:
        print(f"Failed: {', '.join(failed)}. The guest's console is in {console}.", flush=True)
    return FAILED if failed else PASSED


def _boot(version: str, console: Path, limit_s: float) -> str:
    """Run the machine to its end, at most `limit_s`; how it ended."""
    line = "console=ttyS0 loglevel=4 panic=-1 systemd.unit=kiosk-vm.target systemd.show_status=0"
    command: list[str | Path] = [
        _program("qemu-system-x86_64"), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg,thread=multi",
        "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MIB), "-kernel", KERNEL / "boot" / f"vmlinuz-{version}", "-initrd", RUN / "initramfs.img",
        "-append", line, "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        "-netdev", "user,id=wire", "-device", "virtio-net-pci,netdev=wire", "-serial", "stdio",
    ]  # fmt: skip
    with console.open("wb") as out:
        machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        return f"exit code {machine.wait(limit_s)}"
    except subprocess.TimeoutExpired:
        return f"stopped after {limit_s:.0f} s"
    finally:
        machine.kill()
        machine.wait()


def _write_junit(path: Path, results: list[dict[str, Any]], took_s: float) -> None:
    failures = sum(not result["ok"] for result in results)
    suite = ET.Element("testsuite", name="vm", tests=str(len(results)), failures=str(failures), time=f"{took_s:.1f}")
    for result in results:
        case = ET.SubElement(suite, "testcase", classname="vm", name=result["name"], time=f"{result['took_s']:.1f}")
        if not result["ok"]:
            ET.SubElement(case, "failure", message=result["text"][:200]).text = result["text"]
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make vm", description="The shipped agent on a Debian kernel with simulated devices.")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="S", help="end the machine after so many seconds (600)")
    parser.add_argument("--keep", action="store_true", help="keep the release and the initramfs of this run")
    asked = parser.parse_args()
    if sys.platform != "linux":
        cannot("it needs Linux.")
    return run(limit_s=asked.limit, keep_console=asked.keep)


if __name__ == "__main__":
    raise SystemExit(main())
