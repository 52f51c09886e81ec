"""Runs as root inside the virtual machine of `make vm`, on the system's Python: installs the shipped agent, plugs devices in, asks what it sees.

Only the standard library: the agent brings its own interpreter. Results and requests to the device models go to the host as JSON lines.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNIT = "edge-agent.service"
CONFIG = Path("/etc/kiosk-fleet/agent.toml")
SYS_USB = Path("/sys/bus/usb/devices")
SOCKET = "/run/kiosk-fleet/agent.sock"
PROGRAM = "/usr/local/bin/edge-agent"
WAIT_S = 90.0
ATTACH_TRIES = 5


class Host:
    """The host's end: device models and the list of results."""

    def __init__(self, address: str, port: int) -> None:
        self._connection = socket.create_connection((address, port), timeout=30)
        self._lines = self._connection.makefile("rb")

    def ask(self, **request: Any) -> dict[str, Any]:
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._lines.readline())
        if not answer["ok"]:
            raise RuntimeError(answer["error"])
        return answer

    def do(self, *words: str) -> None:
        self.ask(words=list(words))


def run(*words: str, check: bool = True, timeout_s: float = 120) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=timeout_s, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def until(true: Callable[[], Any], what: str, *, within_s: float = WAIT_S) -> Any:
    """Wait until `true()` is; an exception or a false value is asked again."""
    end_s = time.monotonic() + within_s
    while True:
        try:
            if value := true():
                return value
            said = ""
        except (OSError, ValueError, KeyError, AssertionError, StopIteration) as err:
            said = f" ({err!r})"
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {within_s:.0f} s: {what}{said}")
        time.sleep(0.3)


class Guest:
    def __init__(self, setting: dict[str, Any], host: Host) -> None:
        self.setting = setting
        self.host = host
        self.devices: list[dict[str, Any]] = setting["devices"]
        self.places: dict[str, str] = {}
        """Slot → place in the USB tree."""

    # ------------------------------------------------------------------ the kernel's view

    def attach(self, slot: str) -> str:
        """Plug a device in; its place. vhci now and then is not ready for a moment."""
        busid = next(one["busid"] for one in self.devices if one["slot"] == slot)
        before, said = usb_places(), ""
        for _ in range(ATTACH_TRIES):
            done = subprocess.run(
                ["usbip", "--tcp-port", str(self.setting["usbip_port"]), "attach", "-r", self.setting["host"], "-b", busid],
                capture_output=True, text=True, check=False, timeout=30, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode == 0:
                break
            said = done.stderr
            time.sleep(1)
        else:
            raise AssertionError(f"usbip attach {busid}: {said}")
        (place,) = until(lambda: usb_places() - before, f"{slot} on the bus")
        run("udevadm", "settle", "--timeout=30")
        self.places[slot] = place
        return str(place)

    def driver(self, slot: str, interface: int = 0) -> str | None:
        link = SYS_USB / f"{self.places[slot]}:1.{interface}" / "driver"
        return link.resolve().name if link.exists() else None

    def node(self, slot: str) -> Path:
        """The usbfs node."""
        folder = SYS_USB / self.places[slot]
        number = int((folder / "devnum").read_text())
        return Path(f"/dev/bus/usb/{int((folder / 'busnum').read_text()):03d}/{number:03d}")

    def nodes_of(self, slot: str, subsystem: str) -> list[Path]:
        """tty or event nodes below the device."""
        return [
            Path("/dev/input" if subsystem == "input" else "/dev") / path.name
            for path in Path(f"/sys/class/{subsystem}").iterdir()
            if f"/{self.places[slot]}/" in str(path.resolve()) and (subsystem != "input" or path.name.startswith("event"))
        ]

    # ------------------------------------------------------------------ the agent's view

    def status(self) -> dict[str, Any]:
        """What `doctor --json` prints, asked without starting a program: that takes seconds here."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(30)
            connection.connect(SOCKET)
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            with connection.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head[:80])
        told: dict[str, Any] = json.loads(body)
        return told

    def slot(self, slot: str) -> dict[str, Any]:
        return next(one for one in self.status()["slots"] if one["slot"] == slot)

    def codes(self, slot: str) -> set[str]:
        return {fault["code"] for fault in self.slot(slot)["faults"]}


def usb_places() -> set[str]:
    return {path.name for path in SYS_USB.iterdir() if ":" not in path.name and not path.name.startswith("usb")}


# ------------------------------------------------------------------------------------------------------------------------- the tests


def boot(guest: Guest) -> str:
    """A Debian kernel, systemd as its first process, the kernel's modules there."""
    assert Path("/proc/1/comm").read_text().strip() == "systemd"
    run("modprobe", "-a", "vhci-hcd", "uinput")
    return f"Linux {os.uname().release}, up for {Path('/proc/uptime').read_text().split()[0]} s"


def install(guest: Guest) -> str:
    """install.sh lays the release out: users, rules, units, versions."""
    run("sh", f"{guest.setting['packaging']}/install.sh", guest.setting["image"], guest.setting["version"], timeout_s=300)
    assert pwd.getpwnam("kiosk-fleet").pw_uid != 0
    assert Path("/etc/udev/rules.d/90-kiosk-fleet.rules").exists()
    return str(Path("/opt/kiosk-fleet/current").resolve())


def plug_in(guest: Guest) -> str:
    """Every device comes up on the bus."""
    for one in guest.devices:
        guest.attach(one["slot"])
    return ", ".join(f"{slot} {place}" for slot, place in guest.places.items())


def kernel_drivers(guest: Guest) -> str:
    """The kernel's own drivers took what they take in the field."""
    found = {slot: guest.driver(slot) for slot in guest.places}
    wanted = {
        "receipt-printer": "usblp",
        "laser-printer": "usblp",
        "keypad": "usbhid",
        "evaluator": "usbhid",
        "scanner": "cdc_acm",
        "call-pad": "cdc_acm",
    }
    assert found.items() >= wanted.items(), found
    assert found["id-reader"] is None and found["card-reader"] is None, found
    return str(found)


def udev_rules(guest: Guest) -> str:
    """The project's rules give the nodes to the agent's group, and nothing else."""
    group = grp.getgrnam("kiosk-fleet").gr_gid
    opened = [guest.node(slot) for slot in ("id-reader", "receipt-printer", "laser-printer", "id-reader-2", "card-reader", "ups")]
    opened += [path for slot in ("scanner", "call-pad") for path in guest.nodes_of(slot, "tty")]
    opened += [path for slot in ("keypad", "evaluator") for path in guest.nodes_of(slot, "input")]
    assert len(opened) == 10, opened
    for path in opened:
        found = path.stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group, 0o660), f"{path}: {found.st_gid} {found.st_mode:o}"
    for path in (guest.node("keypad"), Path("/dev/ttyS0"), Path("/dev/uinput")):
        assert path.stat().st_gid != group, path
    return f"{len(opened)} nodes"


def start(guest: Guest) -> str:
    """The unit comes up under its own user, sandboxed, and says that it is ready."""
    devices = []
    for one in guest.devices:
        lines = [f'slot = "{one["slot"]}"', f'family = "{one["family"]}"', f'port = "{guest.places[one["slot"]]}"']
        if one["profile"]:
            lines.append(f'profile = "{one["profile"]}"')
        if one["address"]:
            lines.append(f"address = {one['address']}")
        devices.append("[[devices]]\n" + "\n".join(lines))
    head = 'schema = 1\nidentity_dir = "/var/lib/kiosk-fleet/identity"\nstate_dir = "/var/lib/kiosk-fleet/state"\n'
    CONFIG.write_text(head + '[server]\nurl = "https://127.0.0.1:1"\n' + "\n".join(devices) + "\n")
    who = pwd.getpwnam("kiosk-fleet")
    target = Path("/var/lib/kiosk-fleet/identity")
    for path in Path(guest.setting["identity"]).iterdir():
        copy = target / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        os.chown(copy, who.pw_uid, who.pw_gid)
    run("systemctl", "enable", UNIT)
    run("systemctl", "start", UNIT, timeout_s=150)
    pid = int(run("systemctl", "show", "--property=MainPID", "--value", UNIT))
    process = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert int(process["Uid"].split()[0]) == who.pw_uid
    assert int(process["CapEff"], 16) == 0 and process["NoNewPrivs"].strip() == "1", process
    return f"pid {pid}, {process['VmRSS'].strip()}"


def all_online(guest: Guest) -> str:
    """`edge-agent doctor --json`: every device with its profile, working."""

    def there() -> bool:
        bad = [
            f"{one['slot']} {one['device']} {[f['code'] for f in one['faults']]}"
            for one in guest.status()["slots"]
            if not fine(one)
        ]
        assert not bad, "; ".join(bad)
        return True

    until(there, "every device works", within_s=120)
    told = json.loads(run(PROGRAM, "doctor", "--json", check=False, timeout_s=60))["slots"]
    assert len(told) == len(guest.devices) and all(fine(one) for one in told), told
    return "; ".join(f"{one['slot']} {one['profile']} at {one['port']}" for one in told)


def fine(slot: dict[str, Any]) -> bool:
    return bool(slot["works"] and slot["profile"] and slot["device"] == "online")


def usblp_detached(guest: Guest) -> str:
    """The agent took the printers from usblp, and nothing but them."""
    found = {slot: guest.driver(slot) for slot in guest.places}
    assert found["receipt-printer"] == "usbfs" and found["laser-printer"] == "usbfs", found
    assert found["keypad"] == "usbhid" and found["scanner"] == "cdc_acm", found
    return str(found)


def parity(guest: Guest) -> str:
    """The line's parity reaches the device: a pty cannot show that."""
    (line,) = guest.nodes_of("call-pad", "tty")
    told = run("stty", "-F", str(line))
    coding = guest.host.ask(line="call-pad")["coding"]
    assert bytes.fromhex(coding)[5] == 2, f"line coding {coding}, {told}"
    return f"{line}: line coding {coding}"


def fault_arrives(slot: str, fault: str, code: str) -> Callable[[Guest], str]:
    def test(guest: Guest) -> str:
        guest.host.do("fault", slot, fault)
        began_s = time.monotonic()
        until(lambda: code in guest.codes(slot), f"{code} of {slot}")
        took_s = time.monotonic() - began_s
        guest.host.do("clear", slot, fault)
        until(lambda: code not in guest.codes(slot), f"{code} of {slot} is over")
        return f"{code} after {took_s:.1f} s"

    test.__doc__ = f"{slot}: {fault} arrives as {code} and goes."
    test.__name__ = f"fault {slot} {fault}"
    return test


def unplugged(slot: str) -> Callable[[Guest], str]:
    def test(guest: Guest) -> str:
        place, number = guest.places[slot], (SYS_USB / guest.places[slot] / "devnum").read_text()
        guest.host.do("fault", slot, "unplug")
        until(lambda: place not in usb_places(), f"{slot} left the bus")
        until(lambda: not fine(guest.slot(slot)), f"{slot} is missed")
        told = guest.slot(slot)
        others = [one["slot"] for one in guest.status()["slots"] if one["slot"] != slot and not fine(one)]
        assert not others, f"with {slot} went {others}"
        guest.host.do("clear", slot, "unplug")
        assert guest.attach(slot) == place, "it came back elsewhere"
        assert (SYS_USB / place / "devnum").read_text() != number
        until(lambda: fine(guest.slot(slot)), f"{slot} is back")
        return f"{told['device']}, {[fault['code'] for fault in told['faults']]}; back at {place} with a new address"

    test.__doc__ = f"{slot}: unplugged and back at the same place with another address."
    test.__name__ = f"unplug {slot}"
    return test


def kernel_input(guest: Guest) -> str:
    """uinput: a real SYN_DROPPED, a grab that waits for a held key, another program's grab; by the release's own interpreter."""
    release = Path("/opt/kiosk-fleet/current").resolve()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{release}/lib/app:{release}/lib/site-packages",
        "LD_LIBRARY_PATH": f"{release}/python/solib",
    }
    command = [f"{release}/python/bin/python3", "-B", guest.setting["kernel_input"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout.strip()


def restarted(guest: Guest) -> str:
    """kill -9: systemd starts it again and every device is taken again."""
    pid = run("systemctl", "show", "--property=MainPID", "--value", UNIT).strip()
    run("systemctl", "kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
    until(lambda: run("systemctl", "show", "--property=MainPID", "--value", UNIT).strip() not in (pid, "0"), "another process")
    until(lambda: all(fine(one) for one in guest.status()["slots"]), "every device works again")
    return "all devices back"


def stopped(guest: Guest) -> str:
    """The unit stops, and usblp has its printers again."""
    run("systemctl", "stop", UNIT)
    assert run("systemctl", "show", "--property=Result", "--value", UNIT).strip() == "success"
    until(lambda: guest.driver("receipt-printer") == guest.driver("laser-printer") == "usblp", "usblp is back", within_s=20)
    return "usblp is back"


def conforms(slot: str, profile: str) -> Callable[[Guest], str]:
    def test(guest: Guest) -> str:
        for folder in (Path(guest.setting["base_python"]), Path(guest.setting["python"])):
            for parent in folder.parents:
                parent.chmod(
                    parent.stat().st_mode | 0o055
                )  # of this guest's view only: the interpreter may lie in somebody's home
        command = [
            guest.setting["python"],
            "-B",
            "-m",
            "simulators.cli",
            "check",
            "--profile",
            profile,
            "--usb",
            guest.places[slot],
        ]
        command += ["--unattended", "--rounds", "1"]
        done = subprocess.run(
            ["runuser", "-u", "kiosk-fleet", "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            cwd=guest.setting["checkout"],
        )
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  FAIL ")]
        # How fast a unit answers cannot be judged on an emulated processor; everything else can.
        is_fine = done.returncode == 0 or (done.returncode == 1 and failed == ["pace"])
        assert is_fine, done.stdout[-1500:] + done.stderr[-1500:]
        passed = next(line for line in done.stdout.splitlines() if " passed, " in line)
        return f"{passed}{' (pace is not judged here)' if failed else ''}"

    test.__doc__ = f"{slot}: the conformance suite, as the agent's user, on the kernel's own usbfs."
    test.__name__ = f"check {slot}"
    return test


TESTS: list[Callable[[Guest], str]] = [
    boot, install, plug_in, kernel_drivers, udev_rules, start, all_online, usblp_detached, parity,
    fault_arrives("receipt-printer", "paper-out", "PRN.PAPER_OUT"),
    fault_arrives("laser-printer", "jam", "LSR.JAM"),
    fault_arrives("keypad", "stuck-key", "KPD.STUCK_KEY"),
    *(unplugged(slot) for slot in ("id-reader", "laser-printer", "scanner", "keypad")),
    kernel_input, restarted, stopped,
    conforms("receipt-printer", "snbc-btp"), conforms("card-reader", "feitian-r502"),
]  # fmt: skip
NEEDED = frozenset({"boot", "install", "plug_in", "start"})


def main() -> None:
    setting = json.loads(Path(sys.argv[1]).read_text())
    (card,) = [path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo"]
    for words in (("link", "set", "lo", "up"), ("link", "set", card, "up"), ("addr", "add", "10.0.2.15/24", "dev", card)):
        run("/bin/busybox", "ip", *words)
    host = until(lambda: Host(setting["host"], setting["steering_port"]), "the host answers", within_s=30)
    guest = Guest(setting, host)
    for test in TESTS:
        began_s, ok = time.monotonic(), True
        try:
            text = test(guest)
        except BaseException as err:  # noqa: BLE001 - whatever it was is this test's result
            ok, text = False, f"{err}\n{traceback.format_exc()[-1500:]}"
        host.ask(result={"name": test.__name__, "ok": ok, "text": text, "took_s": time.monotonic() - began_s})
        sys.stdout.write(f"{'ok' if ok else 'FAIL'} {test.__name__}: {text}\n")
        if not ok and test.__name__ in NEEDED:
            break
    sys.stdout.write(run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, check=False)[-6000:] + "\n")
    host.ask(end=True)


if __name__ == "__main__":
    main()
