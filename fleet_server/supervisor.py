"""Starts the parts of the server as processes of their own, starts them again when they end, and ends them together.

Parts share nothing but the database and the broker, and each may be killed at any moment. The supervisor holds no data; it dies last, and if it is
killed the kernel ends its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from fleet_server import db
from fleet_server.authority.authority import Authority
from fleet_server.broker import kinds
from fleet_server.broker.warden import Warden
from fleet_server.errors import SettingsError
from fleet_server.notifications import store
from fleet_server.processes import ask_for_death_signal
from fleet_server.settings import Settings, to_environment

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
"""A part that ran so long has recovered: its next end is a new story."""
STOP_WITHIN_S = 10.0
HEALTH_EVERY_S = 2.0
PROBE_EVERY_S = 5.0
HANGS_AFTER_S = 15.0
"""Without an answer for so long since it last gave one, or since it was started, the broker hangs: it is killed and started again."""
DUTY_PAUSE_S = 5.0
TLS_CHECK_EVERY_S = 12 * 3600.0


@dataclass
class Part:
    """One process. `command` is asked anew at each start, and writes the part's configuration if it has one."""

    name: str
    command: Callable[[], list[str]]
    process: asyncio.subprocess.Process | None = None
    since_ms: int = 0
    began_s: float = 0.0
    """Monotonic, of the last start."""
    starts: int = 0
    last_exit: int | None = None

    def signal(self, number: int) -> None:
        """To the whole process group, and only while its leader is known to live."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def state(self) -> dict[str, Any]:
        running = self.process is not None and self.process.returncode is None
        return {
            "state": "running" if running else "waiting",
            "pid": self.process.pid if running and self.process else None,
            "since_ms": self.since_ms,
            "starts": self.starts,
            "last_exit": self.last_exit,
        }


class Supervisor:
    """Runs until SIGTERM or SIGINT. SIGHUP makes the broker read its revocation list again."""

    def __init__(self, settings: Settings, authority: Authority, *, now_ms: Callable[[], int]) -> None:
        self._settings, self._authority, self._now_ms = settings, authority, now_ms
        self._broker = kinds.choose(settings, authority)
        self._warden = Warden(settings, authority, self._reload_broker, now_ms)
        self._environment = {**os.environ, **to_environment(settings), "PYTHONUNBUFFERED": "1"}
        self._stop = asyncio.Event()
        self._broker_answers = False
        # An external broker is somebody else's to start.
        self._brokers = [] if self._broker.kind == "external" else [Part("broker", lambda: self._broker.command() or [])]
        names = ("ingest", "dispatch", "enrolment", "web", *(["public"] if settings.public.enabled else []))
        self._others = [Part(name, _module(name)) for name in names]
        self._notifier = Part("notifications", _module("notifications"))

    @property
    def parts(self) -> list[Part]:
        return self._brokers + self._others

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_broker)
        with only_one(self._settings):
            self._warden.prepare()
            log.info("broker: %s at %s:%d", self._broker.kind, self._settings.broker.host, self._settings.broker.port)
            keepers = [self._keep(part) for part in self.parts]
            duties = (
                self._warden.run,
                self._write_health,
                self._probe_broker,
                self._renew_certificates,
                self._keep_notifications,
            )
            tasks = [asyncio.create_task(work) for work in (*keepers, *(_ever(duty) for duty in duties))]
            stopping = asyncio.create_task(self._stop.wait())
            try:
                done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in done - {stopping}:
                    task.result()
            finally:
                for task in (*tasks, stopping):
                    task.cancel()
                await asyncio.gather(*tasks, stopping, return_exceptions=True)
                await self._end_all()
                self._settings.layout.health.unlink(missing_ok=True)

    # Keeping parts alive -----------------------------------------------------------------------------------------------------------------

    async def _keep(self, part: Part) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            part.began_s = time.monotonic()
            try:
                await self._start_and_wait(part)
            except OSError as err:
                log.error("%s cannot be started: %s", part.name, err)
            part.since_ms = self._now_ms()
            if time.monotonic() - part.began_s >= STEADY_AFTER_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _keep_notifications(self) -> None:
        """A process that most servers do without: it begins with the first channel. Until then this duty ends, and begins again after its pause."""
        if not await asyncio.to_thread(_is_anybody_told, self._settings):
            return
        if self._notifier not in self._others:
            self._others.append(self._notifier)
        await self._keep(self._notifier)

    async def _start_and_wait(self, part: Part) -> None:
        part.process = await asyncio.create_subprocess_exec(
            *part.command(),
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=ask_for_death_signal,
        )
        part.starts += 1
        part.since_ms = self._now_ms()
        log.info("%s started, process %d", part.name, part.process.pid)
        part.last_exit = await part.process.wait()
        log.warning("%s ended with %s after %.1f s", part.name, _how(part.last_exit), time.monotonic() - part.began_s)
        # Whatever it started itself must not live on beside its successor.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(part.process.pid, signal.SIGKILL)

    async def _end_all(self) -> None:
        """First who writes, then the broker: so the last acknowledgements still go out."""
        for group in (self._others, self._brokers):
            running = [part for part in group if part.process is not None and part.process.returncode is None]
            for part in running:
                part.signal(signal.SIGTERM)
            waits = [asyncio.create_task(part.process.wait()) for part in running if part.process is not None]
            if waits:
                await asyncio.wait(waits, timeout=STOP_WITHIN_S)
            for part in running:
                part.signal(signal.SIGKILL)
            await asyncio.gather(*waits)

    # Watching ----------------------------------------------------------------------------------------------------------------------------

    async def _probe_broker(self) -> None:
        answered_s = 0.0
        while True:
            self._broker_answers = await self._warden.broker_answers()
            answered_s = time.monotonic() if self._broker_answers else answered_s
            for part in self._brokers:
                if time.monotonic() - max(answered_s, part.began_s) >= HANGS_AFTER_S:
                    log.error("the broker answers nobody: starting it again")
                    part.signal(signal.SIGKILL)
            await asyncio.sleep(PROBE_EVERY_S if self._broker_answers else PROBE_EVERY_S / 10)

    async def _renew_certificates(self) -> None:
        while True:
            await asyncio.sleep(TLS_CHECK_EVERY_S)
            if self._authority.ensure_tls(self._settings.names, now_ms=self._now_ms()):
                log.warning("the server's certificates were renewed: starting every part again")
                for part in self.parts:
                    part.signal(signal.SIGTERM)

    async def _write_health(self) -> None:
        while True:
            # Replaced whole for readers; no fsync, because after a power cut it would be worthless anyway.
            building = self._settings.layout.health.with_suffix(".new")
            building.write_text(json.dumps(self.health(), indent=1), "utf-8")
            building.replace(self._settings.layout.health)
            await asyncio.sleep(HEALTH_EVERY_S)

    def health(self) -> dict[str, Any]:
        """What `health.json` says; worthless once it is older than a few seconds."""
        return {
            "at_ms": self._now_ms(),
            "pid": os.getpid(),
            "broker": {"kind": self._broker.kind, "answers": self._broker_answers},
            "parts": {part.name: part.state() for part in self.parts},
        }

    def _reload_broker(self) -> None:
        for part in self._brokers:
            part.signal(signal.SIGHUP)


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    with (settings.layout.run / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"a server already runs on {settings.data_dir}") from None
        yield


async def _ever(duty: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A full disk or a locked database must not end the supervisor, and with it everything."""
    while True:
        try:
            await duty()
        except Exception:
            log.exception("%s failed; trying again", getattr(duty, "__qualname__", duty))
        await asyncio.sleep(DUTY_PAUSE_S)


def _is_anybody_told(settings: Settings) -> bool:
    with contextlib.closing(db.open_reader(settings.layout.database)) as connection:
        return store.any_enabled(connection)


def _module(name: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", f"fleet_server.{name}"]


def _how(exit_code: int) -> str:
    return f"signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"status {exit_code}"
