"""The updater's loop: looks at the facts, asks the workflow what to do, has it done in one worker thread, and keeps and tells what came of it.

What is kept is kept before it is told. Nothing here decides: the rules are in `workflow`, the trust in `trust`, the way back in the launcher.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.clock import Clock
from edge_agent.errors import AgentError
from edge_agent.identity import Identity
from edge_agent.updater import install, workflow
from edge_agent.updater import trust as trusting
from edge_agent.updater.actions import Actions, Arrived
from edge_agent.updater.counters import Counters
from edge_agent.updater.errors import NotTrusted, UpdaterError
from edge_agent.updater.floor import TimeFloor
from edge_agent.updater.handover import Health, UpdaterSide
from edge_agent.updater.health import Limits
from edge_agent.updater.layout import Layout
from edge_agent.updater.settings import Settings
from edge_agent.updater.source import Source
from edge_agent.updater.store import Accepted, Store
from edge_agent.updater.workflow import Action, Facts, Outcome, Work
from protocols.contract.orders import Desired
from protocols.contract.records import Installed, Update, Versions

log = logging.getLogger(__name__)

KEEP_EVERY_MS = 30_000
"""How old the time counters on the disk may be; states are kept at once."""
TELL_BYTES_EVERY_MS = 60_000
OWN_TRIAL_MS = 30_000
"""So long a new version of the updater must have worked before it is confirmed."""
CANNOT_STOP_MS = 120_000
"""An action that goes on so long after its step was given up ends the process; whoever runs the updater starts it again."""
_NEEDED = frozenset({"read_desired", "collect", "go_on"})
"""Steps without which an updater is none: one whose disk refuses them does not confirm itself."""
_COUNTING = ("stuck_ms", "retry_ms", "rest_ms", "probation_ms", "silent_ms", "unheard_ms", "moved", "boot_ms", "watch")
"""Fields of the work that change with every tick."""


class GiveUp(AgentError):
    """The updater must be started again: a step cannot be ended otherwise."""


@dataclass
class Job:
    """One action on its way."""

    action: Action
    work: Work
    thread: threading.Thread
    outcome: Outcome | None = None


class Service:
    """One terminal's updater. `tick` again and again, from one thread; `close` at the end."""

    def __init__(
        self,
        *,
        settings: Settings,
        who: Identity,
        source: Source,
        counters: Counters,
        floor: TimeFloor,
        clock: Clock,
        boot_id: bytes,
        proc: Path = Path("/proc"),
        in_thread: bool = True,
        self_test: install.SelfTest = install.self_test,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`in_thread`: False carries actions out inside `tick`, one after the other (tests that cut them off). `proc`: where processes are found."""
        self._settings, self._who, self._clock, self._boot_id = settings, who, clock, boot_id.hex()
        self._counters, self._floor, self._proc = counters, floor, proc
        self._layout = Layout(Path(settings.root))
        self._side = UpdaterSide(Path(settings.requests_dir), Path(settings.updates_dir))
        self._store = Store(Path(settings.state_dir))
        self._memory = self._store.load()
        self._actions = Actions(
            self._layout,
            self._side,
            source,
            counters,
            settings.limits,
            keep_on=self._wanted,
            self_test=self_test,
            random_bytes=random_bytes,
        )
        self._in_thread = in_thread
        self._job: Job | None = None
        self._desired: Desired | None = None
        self._seen: str | None = None
        self._kept_ms = self._told_ms = clock.boot_ms()
        self._began_ms = clock.boot_ms()
        self._given_up_ms: int | None = None
        self._stop_actions = False
        self._tell_again = True
        self._failing: set[str] = set()
        """Steps that the disk refused last time."""
        self.restart_wanted = False
        """A newer updater was put in charge; this process should end."""
        self._store.keep_reserve()
        self._take_up_accepted()

    @property
    def work(self) -> Work | None:
        return self._memory.work

    @property
    def busy(self) -> bool:
        """An action is being carried out."""
        return self._job is not None

    def close(self, timeout_s: float = 10.0) -> None:
        """Let go: a transfer stops and is kept, other actions end by themselves."""
        self._stop_actions = True
        if self._job is not None:
            self._job.thread.join(timeout_s)

    def tick(self) -> None:
        """Once around. What the disk refuses is told once and borne, each step by itself: a place that is broken must not stop the others."""
        for step in (
            self._read_desired,
            self._collect,
            self._go_on,
            self._let_go_of_quiet,
            self._watch_job,
            self._tell,
            self._confirm_self,
        ):
            self._borne(step)

    def _borne(self, step: Callable[[], None]) -> None:
        name = step.__name__.strip("_")
        try:
            step()
        except (OSError, UpdaterError) as err:
            if name not in self._failing:
                log.warning("the updater's disk cannot be used", extra={"step": name, "reason": _why(err)})
            self._failing.add(name)
            if (err.errno in (errno.ENOSPC, errno.EDQUOT)) if isinstance(err, OSError) else err.reason == "noSpace":
                self._layout.give_up_reserve()
                self._store.give_up_reserve()
        else:
            self._failing.discard(name)

    def _go_on(self) -> None:
        work, action = workflow.advance(self._memory.work, self._facts())
        self._put(work)
        if action is not Action.NOTHING and work is not None and self._job is None:
            self._begin(action, work)

    # ------------------------------------------------------------------------------------------------------------------ desired

    def _take_up_accepted(self) -> None:
        accepted = self._store.accepted()
        if accepted is not None:
            self._desired = self._opened(accepted.raw, accepted.certificates)

    def _read_desired(self) -> None:
        raw, certificates = self._side.desired(), self._side.order_keys()
        if raw is None:
            return
        seen = hashlib.sha256(raw + b"".join(certificates)).hexdigest()
        if seen == self._seen:
            return
        desired = self._opened(raw, certificates)
        if desired is not None:
            try:
                self._counters.accept_desired(desired.counter, raw)
            except NotTrusted as err:
                log.warning("a desired state was refused", extra={"reason": err.reason})
            else:
                self._floor.hear_server(desired.counter, desired.issued_ms)
                self._store.accept(Accepted(raw=raw, certificates=certificates))
                self._desired = desired
        self._seen = seen

    def _opened(self, raw: bytes, certificates: tuple[bytes, ...]) -> Desired | None:
        try:
            who = self._who
            return trusting.open_desired(raw, certificates, root=who.root(), fleet=who.fleet, terminal=who.terminal)
        except NotTrusted as err:
            log.warning("what the agent handed over is no desired state", extra={"reason": str(err)})
            return None

    # -------------------------------------------------------------------------------------------------------------------- facts

    def _facts(self) -> Facts:
        boot_ms, system_ms = self._clock.boot_ms(), self._clock.wall_ms()
        health = self._side.health()
        limits = self._settings.limits
        fresh = (
            health is not None and health.boot_id == self._boot_id and -2_000 <= boot_ms - health.boot_ms <= limits.fresh_s * 1000
        )
        work = self._memory.work
        tree = work.tree if work is not None else None
        return Facts(
            boot_id=self._boot_id,
            boot_ms=boot_ms,
            wall_ms=self._floor.now_ms(system_ms),
            clock_ok=system_ms >= self._floor.ms,
            known=self._desired is not None,
            bundle=self._desired.bundle if self._desired is not None else None,
            installed={one.component: one for one in self._installed()},
            seat=self._layout.state().seat("agent"),
            tree_is_complete=tree is not None and self._waits_with(work) and self._layout.complete(tree),
            health=health,
            fresh=fresh,
            owned=health is not None and tree is not None and self._runs_from(health, self._layout.tree(tree)),
            rss_kib=self._rss_kib(health) if health is not None and fresh else None,
            grant=self._side.grant(),
            applied=self._side.applied(),
            busy=self._job is not None,
            moved=self._actions.arrived.moved,
            health_limits=Limits(
                rss_kib=limits.memory_mib * 1024, steady_ms=int(limits.steady_s * 1000), device_ms=int(limits.device_s * 1000)
            ),
        )

    @staticmethod
    def _waits_with(work: Work | None) -> bool:
        """Only then is it worth looking at every file of the tree."""
        return work is not None and work.state in ("waiting", "installing")

    def _runs_from(self, health: Health, tree: Path) -> bool:
        """The process that the agent names was started from this tree. Where /proc is closed to us (hidepid), its version must do."""
        try:
            words = (self._proc / str(health.pid) / "cmdline").read_bytes().split(b"\0")
        except PermissionError:
            return True
        except OSError:
            return _hidden(health.pid)
        trees = {f"{tree}/".encode(), f"{tree.resolve()}/".encode()}
        return any(word.startswith(one) for word in words for one in trees)

    def _rss_kib(self, health: Health) -> int | None:
        try:
            lines = (self._proc / str(health.pid) / "status").read_text("ascii", "replace").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        except (OSError, ValueError, IndexError, StopIteration):
            return None

    def _installed(self) -> tuple[Installed, ...]:
        about = self._layout.installed()
        others = tuple(one for one in self._memory.installed if one.component != "agent")
        if about is None:
            return others
        agent = Installed(component="agent", version=about.version, release=about.release, sha256=bytes.fromhex(about.sha256))
        return (agent, *others)

    # --------------------------------------------------------------------------------------------------------------------- work

    def _begin(self, action: Action, work: Work) -> None:
        job = Job(
            action, work, threading.Thread(target=lambda: self._carry_out(job), name=f"updater {action.value}", daemon=True)
        )
        self._job = job
        self._given_up_ms = None
        if not self._in_thread:
            self._carry_out(job)
            self._collect()
            return
        job.thread.start()
        if action not in (Action.FETCH, Action.VERIFY, Action.LOOK):
            job.thread.join(30.0)  # short; a switch should be known before the next look
            self._collect()

    def _carry_out(self, job: Job) -> None:
        outcome = Outcome(reason="interrupted")
        try:
            outcome = self._actions.carry_out(job.action, job.work)
        except Exception as err:  # whatever an action did not foresee must not end the updater: it is tried again, and limited
            log.exception("an action failed", extra={"action": job.action.value, "kind": type(err).__name__})
        finally:
            job.outcome = outcome

    def _collect(self) -> None:
        job = self._job
        if job is None:
            return
        self._note_arrived(job)
        if job.outcome is None or job.thread.is_alive():
            return
        work = self._memory.work
        if work is None or work.bundle.id != job.work.bundle.id:
            self._job = None
            return
        if job.outcome.reason != "none":
            log.warning("a step did not go well", extra={"action": job.action.value, "reason": job.outcome.reason})
        after = workflow.done(work, job.action, job.outcome, self._facts())
        if job.action is Action.COMMIT and job.outcome.reason == "none":
            self._remember_installed(after)
        self._put(after)
        self._job = None
        if job.action is Action.CLEAN and after.state == "committed" and after.agent is not None:
            self._hand_over_to_new_self(after)

    def _note_arrived(self, job: Job) -> None:
        work, arrived = self._memory.work, self._actions.arrived
        if job.action is not Action.FETCH or work is None or work.at is None or job.work.at != work.at:
            return
        self._memory = msgspec.structs.replace(self._memory, work=_with_arrived(work, work.at, arrived))

    def _remember_installed(self, work: Work) -> None:
        known = {one.component: one for one in self._memory.installed}
        for part in work.others:
            wanted = part.wanted
            known[wanted.component] = Installed(
                component=wanted.component, version=wanted.version, release=wanted.release, sha256=wanted.sha256
            )
        self._memory = msgspec.structs.replace(self._memory, installed=tuple(known.values()))

    def _put(self, work: Work | None) -> None:
        """Keep the work, at once if more than its counters changed. What cannot be kept has not happened: it is decided again."""
        memory = msgspec.structs.replace(self._memory, work=work)
        now = self._clock.boot_ms()
        changed = _essence(self._memory.work) != _essence(work)
        if changed or now - self._kept_ms >= KEEP_EVERY_MS:
            self._store.save(memory)
            self._kept_ms = now
        self._memory = memory
        if changed:
            # At once: the next state may follow in the same round, and each is told. Where it cannot be told it has happened nevertheless.
            self._borne(self._tell)

    def _wanted(self) -> bool:
        """Asked by a transfer at each piece, in the worker's thread."""
        work, desired = self._memory.work, self._desired
        if self._stop_actions or self._given_up_ms is not None or work is None:
            return False
        return desired is None or (desired.bundle is not None and desired.bundle.id == work.bundle.id)

    def _watch_job(self) -> None:
        """A step that was given up while its action goes on: first the action is asked to stop, then the process ends."""
        job, work = self._job, self._memory.work
        if job is None or work is None or (work.state == job.work.state and work.bundle.id == job.work.bundle.id):
            return
        if self._given_up_ms is None:
            self._given_up_ms = self._clock.boot_ms()
        elif self._clock.boot_ms() - self._given_up_ms > CANNOT_STOP_MS:
            raise GiveUp(f"{job.action.value} cannot be stopped")

    def _let_go_of_quiet(self) -> None:
        """Nobody is kept away from the terminal by a wish that is over."""
        work = self._memory.work
        if (work is None or work.want is None) and self._job is None and self._side.wanted():
            self._side.write_want(None)

    # --------------------------------------------------------------------------------------------------------------------- tell

    def _tell(self) -> None:
        """Say what changed since it was said last. The lines are on the disk before the memory says that they are."""
        bodies: list[Update | Versions] = []
        work, memory = self._memory.work, self._memory
        now = self._clock.boot_ms()
        if work is not None:
            resumed = sum(part.resumed for part in work.parts)
            is_news = int(self._bytes_are_news(work, now))
            told = f"{work.bundle.id.hex()} {work.state} {work.reason} {work.rounds} {resumed} {is_news}"
            if told != memory.told:
                bodies += workflow.reports(work)
                memory = msgspec.structs.replace(memory, told=told.rpartition(" ")[0] + " 0")
        versions = Versions(installed=self._installed())
        digest = hashlib.sha256(msgspec.json.encode(versions)).hexdigest()
        if self._tell_again or digest != memory.versions_told:
            bodies.append(versions)
            memory = msgspec.structs.replace(memory, versions_told=digest)
        if not bodies:
            return
        self._side.tell(self._floor.now_ms(self._clock.wall_ms()), *bodies)
        self._tell_again = False
        self._told_ms = now
        self._memory = memory
        self._store.save(memory)
        self._kept_ms = now

    def _bytes_are_news(self, work: Work, now: int) -> bool:
        moved = work.state == "downloading" and self._job is not None and self._job.action is Action.FETCH
        return moved and now - self._told_ms >= TELL_BYTES_EVERY_MS

    # --------------------------------------------------------------------------------------------------------- the updater itself

    def _hand_over_to_new_self(self, work: Work) -> None:
        """The version that the agent has proved becomes the updater's, on trial as well: the launcher goes back if it does not work."""
        assert work.tree is not None
        own = self._layout.state().seat("updater")
        if own.good != work.tree and self._layout.complete(work.tree):
            install.begin_trial(self._layout, work.tree, work.bundle.id.hex(), seat="updater", tries=self._settings.limits.tries)
            self.restart_wanted = True

    def _confirm_self(self) -> None:
        if self._clock.boot_ms() - self._began_ms < OWN_TRIAL_MS or self._failing & _NEEDED:
            return
        own = self._layout.state().seat("updater")
        if own.trial is not None and own.trial.tries > 0 and not self.restart_wanted:
            install.commit(self._layout, own.trial.name, seat="updater")


def _why(err: OSError | UpdaterError) -> str:
    return str(err.strerror) if isinstance(err, OSError) else err.reason


def _hidden(pid: int) -> bool:
    """The process lives, but /proc does not show it to us."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def _with_arrived(work: Work, index: int, arrived: Arrived) -> Work:
    return workflow.with_part(
        work, index, via=arrived.via, bytes_done=arrived.done, bytes_total=arrived.total, resumed=arrived.resumed
    )


def _essence(work: Work | None) -> Work | None:
    """The work without what changes all the time."""
    if work is None:
        return None
    plain = Work(bundle=work.bundle, parts=())
    parts = tuple(msgspec.structs.replace(part, bytes_done=0, bytes_total=0) for part in work.parts)
    return msgspec.structs.replace(work, parts=parts, **{name: getattr(plain, name) for name in _COUNTING})


def run(service: Service, stop: threading.Event, tick_s: float, alive: Callable[[], None] = lambda: None) -> None:
    """Tick until told to stop, or until a newer updater is to start."""
    try:
        while not stop.is_set() and not service.restart_wanted:
            service.tick()
            alive()
            stop.wait(tick_s)
    finally:
        service.close()
