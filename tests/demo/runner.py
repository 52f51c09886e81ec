"""The demo from start to end: which steps in which order, what is shown meanwhile, and that nothing is left running."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_agent.version import AGENT_VERSION
from fleet_server import db
from fleet_server.accounts.bootstrap import FIRST_OPERATOR, add_account, ensure_first_operator
from fleet_server.accounts.passwords import Passwords, new_password
from fleet_server.broker import mosquitto
from fleet_server.channel import transact
from fleet_server.settings import CONFIG_NAME, Settings, to_environment
from scripts import release as release_builder
from scripts.say import note, step
from tests.demo import ahead, devices, enrolling, installed, months, progress, releases, setup
from tests.demo.city import City, Member
from tests.demo.processes import ROOT, Child, Children
from tests.demo.setup import Places, Setup

SERVER_WITHIN_S: Final = 60.0
STEADY_AFTER_MS: Final = 1500
"""A part that cannot start ends sooner than this, again and again."""
FLEET_WITHIN_S: Final = 300.0
PROCESSES_WITHIN_S: Final = 240.0
LOOK_EVERY_S: Final = 0.5
LOG_LINE_EVERY_S: Final = 20.0
MAINTENANCE_MS: Final = 3 * 3_600_000
FIRST_MQTT_PORT: Final = 8883
FIRST_ENROLMENT_PORT: Final = 8443
FIRST_PUBLIC_PORT: Final = 8090
AHEAD_WORKERS: Final = 2
UPDATED_TAG: Final = "own-process"
SECOND_PERSON: Final = "approver"
"""The account that approves what the first one asks for; the same password, so that one person can play both."""


class DemoFailed(Exception):
    """A step could not be done; the sentence says which and where to read more."""


@contextmanager
def only_one(places: Places) -> Iterator[None]:
    """Hold the demo's folder while it runs. DemoFailed if another demo does."""
    lock = places.root.with_name(f"{places.root.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(f"another demo runs in {_short(places.root)}; end it, or choose another folder with --dir") from None
        yield


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """The command line."""

    root: Path
    terminals: int = 400
    own_processes: int = 20
    days: int = 200
    speed: int = 30
    seed: int = 1
    web_port: int = 8080
    embedded_broker: bool = False
    calm: bool = False


class Demo:
    """`start` returns when every terminal lives; `watch` until interrupted; `end` may be called at any moment and more than once."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self.places = Places(wishes.root)
        self._children = Children(self.places.logs)
        self._setup: Setup | None = None
        self._city: City | None = None
        self._past_records = 0
        self._ready_agents = 0
        self._unready: list[str] = []
        self._ahead: list[tuple[Child, int]] = []
        self.timings: dict[str, float] = {}

    @property
    def setup(self) -> Setup:
        assert self._setup is not None
        return self._setup

    @property
    def city(self) -> City:
        assert self._city is not None
        return self._city

    @property
    def settings(self) -> Settings:
        return setup.server_settings(self.places, self.setup)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.setup.web_port}/"

    # ------------------------------------------------------------------ start

    def start(self) -> None:
        self._need_broker()
        self._settle()
        self._timed("database", self._prepare_database)
        self._timed("releases", self._prepare_releases)
        self._timed("server", self._start_server)
        self._timed("enrolment", self._enrol)
        self._timed("fleet", self._start_fleet)
        self.say_where()
        self._timed("own processes", self._start_processes)
        # Its threads come and go with transfers, and by default each would leave a heap behind.
        self._children.start("updaters", ["-m", "tests.demo.updaters", self.places.root], env={"MALLOC_ARENA_MAX": "2"})
        self._maintain_one()
        self._set_back()

    def _timed(self, name: str, work: Callable[[], None]) -> None:
        began_s = time.monotonic()
        work()
        self.timings[name] = time.monotonic() - began_s

    def _need_broker(self) -> None:
        """Said first and clearly, before anything is made."""
        if not self._wishes.embedded_broker and shutil.which("mosquitto", path=mosquitto.SEARCH_PATH) is None:
            raise DemoFailed(
                "mosquitto, the MQTT broker, is not installed. Install it (Debian, Ubuntu: sudo apt-get install mosquitto) and run "
                "`make demo` again, or use the slower broker that comes along: make demo ARGS=--embedded-broker"
            )

    def _settle(self) -> None:
        wishes = self._wishes
        try:
            known = setup.load(self.places)
        except msgspec.DecodeError:
            raise DemoFailed(f"{_short(self.places.file)} is of another version; begin anew with --fresh") from None
        if known is not None:
            step(f"continuing the demo in {_short(wishes.root)}: {known.terminals} terminals, {known.days} days of past")
            if (known.terminals, known.days, known.speed, known.seed) != (
                wishes.terminals,
                wishes.days,
                wishes.speed,
                wishes.seed,
            ):
                note("its size and speed stay as they were; to change them, begin anew with --fresh")
            self._setup = self._with_free_ports(known)
        else:
            step(f"a new demo in {_short(wishes.root)}: {wishes.terminals} terminals, {wishes.days} days of past")
            self._setup = self._with_free_ports(
                Setup(
                    terminals=wishes.terminals,
                    own_processes=wishes.own_processes,
                    days=wishes.days,
                    speed=wishes.speed,
                    seed=wishes.seed,
                    until_ms=enrolling.now_ms(),
                    web_port=wishes.web_port,
                    enrolment_port=FIRST_ENROLMENT_PORT if wishes.web_port else 0,
                    mqtt_port=FIRST_MQTT_PORT if wishes.web_port else 0,
                    public_port=FIRST_PUBLIC_PORT if wishes.web_port else 0,
                    password=new_password(),
                    embedded_broker=wishes.embedded_broker,
                    calm=wishes.calm,
                )
            )
        setup.save(self.places, self.setup)
        self._city = self.setup.city()
        self.places.status.unlink(missing_ok=True)

    def _with_free_ports(self, wanted: Setup) -> Setup:
        web = setup.free_port(wanted.web_port)
        enrolment = setup.free_port(wanted.enrolment_port, taken=(web,))
        mqtt = setup.free_port(wanted.mqtt_port, taken=(web, enrolment))
        public = setup.free_port(wanted.public_port, taken=(web, enrolment, mqtt))
        return setup.replace_ports(wanted, web, enrolment, mqtt, public)

    def _prepare_database(self) -> None:
        layout = self.settings.layout
        layout.make()
        (layout.root / CONFIG_NAME).write_text(setup.settings_file(self.setup), encoding="utf-8")
        if not db.is_current(layout.database):
            step("making the database")
            db.migrate(layout.database)
        db.use(layout.database)
        try:
            asyncio.run(self._first_account())
        finally:
            db.close()

    async def _first_account(self) -> None:
        from fleet_server.piccolo_conf import DB

        passwords, now_ms = Passwords(), enrolling.now_ms()
        first = await ensure_first_operator(DB, passwords, now_ms=now_ms, password=self.setup.password, must_change=False)
        if first is not None:
            await add_account(
                DB, passwords, name=SECOND_PERSON, role="approver", password=self.setup.password, now_ms=now_ms, must_change=False
            )

    def _prepare_releases(self) -> None:
        """Before anybody enrols, since trust in updates comes with enrolment."""
        try:
            if releases.hold_ceremony(self.places):
                step(
                    "the ceremony: three keys of root, two of which must sign, and a release engineer's; all in "
                    + _short(self.places.offline_keys)
                )
        except releases.ReleaseDeskError as err:
            raise DemoFailed(str(err)) from err
        if not self._factory_image.exists():
            release_builder.build(self.places.images, AGENT_VERSION, with_interpreter=False)

    @property
    def _factory_image(self) -> Path:
        return self.places.images / release_builder.file_name(AGENT_VERSION)

    def _start_server(self) -> None:
        step("starting the server: broker, ingest, enrolment, console, public face")
        self.settings.layout.health.unlink(missing_ok=True)
        server = self._children.start("server", ["-m", "fleet_server.cli", "run"], env=to_environment(self.settings))
        self._wait(self._server_is_up, SERVER_WITHIN_S, "the server", server)
        (self.settings.layout.run / "history.json").unlink(missing_ok=True)

    def _server_is_up(self) -> bool:
        try:
            health = json.loads(self.settings.layout.health.read_bytes())
        except (OSError, ValueError):
            return False
        steady_ms = enrolling.now_ms() - STEADY_AFTER_MS
        running = all(part["state"] == "running" and part["since_ms"] < steady_ms for part in health["parts"].values())
        ports = (self.setup.web_port, self.setup.enrolment_port, self.setup.public_port)
        return running and bool(health["broker"]["answers"]) and all(setup.listens(port) for port in ports)

    def _enrol(self) -> None:
        codes = enrolling.register(self.places, self.setup, self.city)
        enrolling.write_configs(self.places, self.setup, self.city)
        if codes:
            step(f"enrolling {len(codes)} terminals with their one-time codes")
            enrolling.enrol_all(self.places, self.setup, codes, lambda done: _redraw(f"{done} of {len(codes)}"))
            _redraw("")
        for member in self.city.processes:
            installed.lay_out(self.places, member.id, self._factory_image, AGENT_VERSION)
        installed.lay_out_factory(self.places, self._factory_image, AGENT_VERSION)
        for member in self.city.pipes:
            installed.join(self.places, member.id)

    def _start_fleet(self) -> None:
        own, others = len(self.city.processes), len(self.city.pipes)
        step(f"starting {others} terminals in one process" + (f", and devices on pseudo terminals for {own} more" if own else ""))
        fleet = self._children.start("fleet", ["-m", "tests.demo.fleet", self.places.root])
        if own:
            hardware = self._children.start("devices", ["-m", "tests.demo.devices", self.places.root])
            self._wait(lambda: devices.READY in hardware.last_words(), FLEET_WITHIN_S, "the simulated devices", hardware)
            self._begin_ahead()
        self._wait(self._fleet_is_up, FLEET_WITHIN_S, "the terminals", fleet)
        _redraw("")

    def _fleet_is_up(self) -> bool:
        status = progress.read(self.places.status)
        if status is not None:
            _redraw(f"{status.connected} of {len(self.city.pipes)} connected")
        return status is not None and status.connected >= 0.95 * len(self.city.pipes)

    def _begin_ahead(self) -> None:
        """The past of terminals with processes of their own goes into their spools before the agents start."""
        names = [member.id for member in self.city.processes]
        for worker in range(min(AHEAD_WORKERS, len(names))):
            share = names[worker::AHEAD_WORKERS]
            log = self.places.logs / f"ahead-{worker}.log"
            log.unlink(missing_ok=True)
            child = self._children.start(f"ahead-{worker}", ["-m", "tests.demo.ahead", self.places.root, *share])
            self._ahead.append((child, len(share)))

    def _start_processes(self) -> None:
        """Each agent starts as soon as its past is prepared."""
        if self.city.processes:
            step(f"starting {len(self.city.processes)} terminals as processes of their own")
            self._wait(self._more_processes, PROCESSES_WITHIN_S, "the terminals' own processes", None)
            _redraw("")

    def _more_processes(self) -> bool:
        ready: dict[str, int] = {}
        for child, share in self._ahead:
            found = [line.split() for line in child.last_words(share + 5).splitlines() if line.startswith(f"{ahead.READY} ")]
            ready |= {words[1]: int(words[3]) for words in found if len(words) == 4}
            if not child.running and len(found) < share:
                raise DemoFailed(f"preparing the past ended early; see {_short(child.log)}")
        started = {child.name for child in self._children.children}
        for terminal in ready.keys() - started:
            installed.start(self._children, self.places, terminal)
        self._past_records = sum(ready.values())
        _redraw(f"{len(ready)} of {len(self.city.processes)}")
        if len(ready) < len(self.city.processes):
            return False
        self._children.forget(lambda child: child.name.startswith("ahead-"))
        return True

    def _set_back(self) -> None:
        until_ms, days = self.setup.until_ms, self.setup.days
        with closing(db.open_raw(self.settings.layout.database)) as connection:
            transact(connection, lambda inside: months.backdate(inside, until_ms, days))

    def _maintain_one(self) -> None:
        """One terminal is being worked on, as on any day."""
        member = next((member for member in reversed(self.city.pipes) if member.plan.kind == "kiosk"), None)
        if member is not None and not self.setup.calm:
            with closing(db.open_raw(self.settings.layout.database)) as connection:
                transact(connection, lambda inside: _to_maintenance(inside, member))

    # ------------------------------------------------------------------ while it runs

    def say_where(self) -> None:
        example = self.city.processes[0] if self.city.processes else None
        python, simulator = _tool("python"), _tool("kiosk-sim")
        root = _short(self.places.root)
        print(f"\n  Console    {self.address}\n  Name       {FIRST_OPERATOR}\n  Password   {self.setup.password}")
        print(f"  Citizens   http://127.0.0.1:{self.setup.public_port}/ (no account)\n")
        print("  Four things to try:\n")
        if example is not None:
            ports = _short(self.places.terminal_ports(example.id))
            page = f"{self.address}terminals/{example.id}"
            print(f"  1. The receipt printer of {example.plan.code} runs out of paper. Open {page} beside it:\n")
            print(f"       {simulator} fault {ports} receipt-printer paper-out")
            print(f"       {simulator} clear {ports} receipt-printer paper-out\n")
            print("     The fault shows within a second; “证据” (evidence) beside it shows the bytes and the signed record.\n")
        else:
            print(f"  1. Watch the faults come and go: {self.address}faults\n")
        print("  2. Stop the message broker for a minute. No terminal goes offline, nothing is lost:\n")
        print(f"       {python} -m tests.demo.outage 60{_dir_option(self.places.root)}\n")
        chosen = example or self.city.members[0]
        print("  3. Export a terminal's evidence and verify it without the server:\n")
        for line in self._evidence_commands(chosen, root):
            print(f"       {line}")
        print("\n     Change any byte of the file, and it names the first one that does not hold.\n")
        if example is not None:
            self._say_updates(python)
        print("\n  Ctrl-C ends the demo.\n", flush=True)

    def _say_updates(self, python: str) -> None:
        """An update needs a release, and two people."""
        where = _dir_option(self.places.root)
        print("  4. Update every terminal, from canary to the last wave:\n")
        print(f"       {python} -m tests.demo.release good 0.2.0{where}\n")
        print(f"     Upload the pack at {self.address}updates/releases, ask for a rollout at {self.address}updates/new")
        print("     (soak time 0 and “at any time”, or it takes days as in a city), and approve it in another browser as")
        print(
            f"     {SECOND_PERSON}, with the same password. The tag “{UPDATED_TAG}” chooses the {len(self.city.processes)} terminals"
        )
        print(
            "     that are processes of their own; with a limit of 64 kB/s there is time to kill one's updater in the middle:\n"
        )
        print(f"       {python} -m tests.demo.cut_off{where}\n")
        print("     A release that crashes is stopped at the gate, and the canaries go back by themselves:\n")
        print(f"       {python} -m tests.demo.release bad 0.3.0{where}\n")

    def _evidence_commands(self, member: Member, root: str) -> list[str]:
        server, evidence, key = (
            f"{_tool('fleet-server')} --data {root}/server",
            f"{root}/{member.id}.evidence",
            f"{root}/root.key",
        )
        return [
            f"{server} root-key > {key}",
            f"{server} export-evidence {member.id} --out {evidence}",
            f"{_tool('fleet-server')} verify-evidence {evidence} --root {key}",
        ]

    def watch(self) -> None:
        """Show the past coming in, then how things are, until interrupted or until something ended that should run."""
        told_end, line_s = self.setup.days == 0, 0.0
        past = months.Closing(self.settings.layout.database, self.setup.until_ms, self.setup.days)
        while True:
            self._check_children()
            status = progress.read(self.places.status)
            if status is not None:
                if status.past_done and not told_end:
                    told_end = True
                    _redraw("")
                    if status.records:
                        self._say_end(status)
                _redraw(_line(status, self._past_records), log=time.monotonic() - line_s >= LOG_LINE_EVERY_S)
                if time.monotonic() - line_s >= LOG_LINE_EVERY_S:
                    line_s = time.monotonic()
                if status.past_done and not past.finished and (closed := past.look(enrolling.now_ms(), self._set_back)):
                    _redraw("")
                    step(f"months closed, their figures published: {', '.join(closed)}; see {self.address}figures/published")
            time.sleep(LOOK_EVERY_S)

    def _say_end(self, status: progress.Status) -> None:
        step(
            f"the past is in: {status.records + self._past_records:,} records of {self.setup.days} days, "
            f"{status.records / max(1.0, status.past_s):,.0f} a second, each signed by its terminal and verified by the server"
        )

    def _check_children(self) -> None:
        gone = self._children.ended()
        if gone is not None:
            raise DemoFailed(f"{gone.name} ended by itself; the end of {_short(gone.log)}:\n{gone.last_words()}")

    def _wait(self, ready: Callable[[], bool], within_s: float, what: str, child: Child | None) -> None:
        until_s = time.monotonic() + within_s
        while not ready():
            if child is not None and not child.running:
                raise DemoFailed(f"{what} did not start; the end of {_short(child.log)}:\n{child.last_words()}")
            if time.monotonic() > until_s:
                raise DemoFailed(f"{what} did not come up within {within_s:.0f} s; see {_short(self.places.logs)}")
            time.sleep(0.1)

    # ------------------------------------------------------------------ end

    def end(self) -> None:
        """Agents first, so that they can say goodbye, then devices, then the server."""
        if not self._children.children:
            return
        step("ending everything")
        self._children.end(lambda child: child.name not in ("server", "devices"))
        self._children.end(lambda child: child.name == "devices")
        self._children.end(lambda child: True)


def _to_maintenance(connection: sqlite3.Connection, member: Member) -> None:
    now_ms = enrolling.now_ms()
    connection.execute(
        "UPDATE terminal SET maintenance_until_ms = ?, maintenance_reason = ?, maintenance_by = ? WHERE id = ?",
        (now_ms + MAINTENANCE_MS, "更换打印机部件", FIRST_OPERATOR, member.id),
    )
    connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'enrolment', NULL)", (now_ms, member.id))


# ---------------------------------------------------------------------------------------------------------------------------- words


def _line(status: progress.Status, ahead_records: int) -> str:
    alive = f"{status.connected} of {status.terminals} connected"
    now = f"{status.cases} cases, {status.keys} keys, {status.faults} faults since the start"
    if status.past_done or not status.days_total:
        return f"{alive}; {now}"
    share = status.days / status.days_total
    bar = "█" * round(share * 24)
    rate = status.records / max(1.0, status.past_s)
    return f"past ▕{bar:<24}▏ {share:4.0%}  {status.records + ahead_records:,} records, {rate:,.0f}/s; {alive}"


def _redraw(text: str, *, log: bool = False) -> None:
    """One line that changes, on a terminal; in a log only now and then."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K    {text}" if text else "\r\x1b[K", end="", flush=True)
    elif log and text:
        note(text)


def _tool(name: str) -> str:
    """A command of this environment; where the project is not installed in it, the module behind the command."""
    if (Path(sys.executable).parent / name).exists():
        return f".venv/bin/{name}"
    return f".venv/bin/python -m {_MODULES[name]}"


_MODULES: Final = {"kiosk-sim": "simulators.cli", "fleet-server": "fleet_server.cli", "edge-agent": "edge_agent.cli"}


def _short(path: Path) -> str:
    """As a person in the project's folder would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _dir_option(root: Path) -> str:
    return "" if root == (ROOT / "var" / "demo") else f" --dir {_short(root)}"
