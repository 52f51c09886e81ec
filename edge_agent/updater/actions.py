"""Owns how each action of the workflow is carried out on this machine. Blocking; runs in the service's worker thread, one action at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent import files
from edge_agent.updater import archive, install
from edge_agent.updater.archive import Limits
from edge_agent.updater.counters import Counters
from edge_agent.updater.delta import Base
from edge_agent.updater.download import Progress
from edge_agent.updater.errors import NotTrusted, Unavailable, UpdaterError
from edge_agent.updater.handover import Apply, Artifact, UpdaterSide, Want
from edge_agent.updater.layout import About, Layout, name_of
from edge_agent.updater.settings import LimitsTable
from edge_agent.updater.source import Source
from edge_agent.updater.trust import Component, Form, Plan, Refused
from edge_agent.updater.workflow import Action, Outcome, Part, Work

UNSIGNED_LIMIT = 1 << 30
"""Of an archive whose metadata sign no unpacked size."""


@dataclass
class Arrived:
    """What a transfer has told; written by the worker, read by the loop."""

    moved: int = 0
    via: str = "none"
    done: int = 0
    total: int = 0
    resumed: int = 0


@dataclass
class Actions:
    """Everything an action needs. `keep_on`: asked now and then; False ends a transfer."""

    layout: Layout
    side: UpdaterSide
    source: Source
    counters: Counters
    limits: LimitsTable
    keep_on: Callable[[], bool]
    self_test: install.SelfTest = install.self_test
    random_bytes: Callable[[int], bytes] = os.urandom
    arrived: Arrived = field(default_factory=Arrived)
    plan: Plan | None = None

    def carry_out(self, action: Action, work: Work) -> Outcome:
        """Never raises for what the network, the disk or the files do: that is the outcome."""
        doing: dict[Action, Callable[[Work], Outcome]] = {
            Action.LOOK: self._look,
            Action.FETCH: self._fetch,
            Action.VERIFY: self._verify,
            Action.ASK: self._ask,
            Action.SWITCH: self._switch,
            Action.APPLY: self._apply,
            Action.UNDO: self._undo,
            Action.COMMIT: self._commit,
            Action.CLEAN: self._clean,
        }
        try:
            with install.disk_errors():
                return doing[action](work)
        except UpdaterError as err:
            return Outcome(reason=err.reason, retryable=err.retryable)

    # ------------------------------------------------------------------------------------------------------------------- get it

    def _look(self, work: Work) -> Outcome:
        base = self._base()
        found = self.source.look(work.bundle, {"agent": base.sha256} if base is not None else {})
        self._alive()
        if isinstance(found, Refused):
            self.plan = None
            return Outcome(reason=found.reason, retryable=False)
        self.plan = found
        return Outcome()

    def _fetch(self, work: Work) -> Outcome:
        assert work.at is not None
        part = work.parts[work.at]
        self.arrived = Arrived(moved=self.arrived.moved, total=part.wanted.length, resumed=part.resumed)
        if self._at_hand(part) is not None:
            self.arrived.done = part.wanted.length
            return Outcome()
        component = self._component(work, part)
        if isinstance(component, Outcome):
            return component

        def tell(form: Form, progress: Progress) -> None:
            self.arrived.via, self.arrived.done, self.arrived.total = form.via, progress.done, progress.total
            self.arrived.resumed = max(progress.resumed, part.resumed)
            self._alive()

        self.source.limit(work.bundle.rate_bytes_s)
        got = self.source.obtain(component, self._base() if part.wanted.component == "agent" else None, tell, self.keep_on)
        self.arrived.via = got.via
        self.arrived.done = self.arrived.total
        return Outcome()

    def _component(self, work: Work, part: Part) -> Component | Outcome:
        """From the plan of this run; after a restart the repositories are asked again."""
        if self.plan is None or self.plan.bundle != work.bundle:
            looked = self._look(work)
            if looked.reason != "none" or self.plan is None:
                return looked
        return next(one for one in self.plan.components if one.wanted == part.wanted)

    # ----------------------------------------------------------------------------------------------------------------- verify it

    def _verify(self, work: Work) -> Outcome:
        name = None
        for part in work.parts:
            path = self._at_hand(part)
            if path is None:
                raise NotTrusted("hash", f"{part.wanted.component}: its file is gone")
            try:
                name = self._stage_agent(work, part, path) if part.wanted.component == "agent" else name
                if part.wanted.component != "agent":
                    self._lay_out(part, path)
            except NotTrusted as err:
                if err.reason in ("hash", "length"):
                    path.unlink(missing_ok=True)
                raise
        return Outcome(tree=name)

    def _stage_agent(self, work: Work, part: Part, path: Path) -> str:
        wanted = part.wanted
        component = self._component(work, part)
        if isinstance(component, Outcome):
            raise Unavailable(component.reason, "the repositories cannot be asked")
        about = About(version=wanted.version, release=wanted.release, sha256=wanted.sha256.hex())
        limits = Limits(
            files=component.image.unpacked_files + 1 if component.image.unpacked_files else Limits().files,
            unpacked_bytes=component.image.unpacked_bytes or UNSIGNED_LIMIT,
        )
        name = name_of(about.version, about.sha256)
        with archive.open_image(path) as image:
            archive.check(image, wanted.length, about.sha256, self._alive)
            if not self.layout.complete(name):
                install.preflight(
                    self.layout,
                    component.image.unpacked_bytes or 2 * wanted.length,
                    component.image.unpacked_files or 4000,
                    keep_free_bytes=self.limits.keep_free_mib * 2**20,
                )
            install.stage(self.layout, image, about, limits, alive=self._alive)
        tests = install.SelfTestLimits(timeout_s=self.limits.selftest_s)
        self.self_test(self.layout.tree(name), wanted.version, tests)
        kept = self.layout.image(about.sha256)
        if path != kept:
            path.rename(kept)
            files.sync_directory(kept.parent)
        return name

    def _lay_out(self, part: Part, path: Path) -> None:
        """A copy for the agent, made through the descriptor that is checked; it appears whole."""
        target = self.side.artifacts / part.wanted.sha256.hex()
        self.side.artifacts.mkdir(mode=0o755, exist_ok=True)
        temporary = target.with_name(f".{target.name}.new")
        with archive.open_image(path) as image:
            archive.check(image, part.wanted.length, part.wanted.sha256.hex(), self._alive)
            image.seek(0)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
            with os.fdopen(handle, "wb") as out:
                os.fchmod(handle, 0o640)
                shutil.copyfileobj(image, out, 256 * 1024)
                out.flush()
                os.fsync(handle)
        temporary.rename(target)
        files.sync_directory(target.parent)

    # ------------------------------------------------------------------------------------------------------------- put it in charge

    def _ask(self, work: Work) -> Outcome:
        want = Want(id=self.random_bytes(16).hex(), bundle=work.bundle.id.hex(), what="install", seconds=self.limits.quiet_s)
        self.side.write_want(want)
        return Outcome(want=want.id)

    def _switch(self, work: Work) -> Outcome:
        assert work.tree is not None
        install.begin_trial(self.layout, work.tree, work.bundle.id.hex(), tries=self.limits.tries)
        self.layout.restart_agent()
        return Outcome()

    def _apply(self, work: Work) -> Outcome:
        apply = Apply(id=self.random_bytes(16).hex(), bundle=work.bundle.id.hex(), artifacts=self._artifacts(work))
        self.side.write_apply(apply)
        return Outcome(apply=apply.id)

    def _artifacts(self, work: Work) -> tuple[Artifact, ...]:
        found = []
        for part in work.others:
            component = self._component(work, part)
            if isinstance(component, Outcome):
                raise Unavailable(component.reason, "the repositories cannot be asked")
            found.append(
                Artifact(
                    component=part.wanted.component,
                    version=part.wanted.version,
                    release=part.wanted.release,
                    sha256=part.wanted.sha256.hex(),
                    length=part.wanted.length,
                    hardware=component.image.hardware,
                    min_from=component.image.min_from,
                )
            )
        return tuple(found)

    def _undo(self, work: Work) -> Outcome:
        if work.agent is not None and work.tree is not None:
            before = self.layout.pointed("agent")
            install.roll_back(self.layout, work.tree, work.verdict)
            if before == work.tree and self.layout.pointed("agent") != before:
                self.layout.restart_agent()
        asked = self.side.asked()
        if work.apply is not None and asked is not None and asked.id == work.apply:
            self.side.write_apply(
                Apply(id=self.random_bytes(16).hex(), bundle=asked.bundle, artifacts=asked.artifacts, revert=True)
            )
        return Outcome()

    def _commit(self, work: Work) -> Outcome:
        if work.agent is not None:
            assert work.tree is not None
            if not install.commit(self.layout, work.tree):
                return Outcome(reason="crashed", retryable=False)
        for part in work.parts:
            lowers = work.bundle.downgrade
            self.counters.installed(part.wanted.component, part.wanted.release, lowers=lowers)
        return Outcome()

    def _clean(self, work: Work) -> Outcome:
        self.layout.clean()
        self.layout.keep_reserve()
        self.source.discard(())
        asked = self.side.asked()
        kept = {one.sha256 for one in asked.artifacts} if asked is not None else set()
        if self.side.artifacts.is_dir():
            for path in sorted(self.side.artifacts.iterdir()):
                if path.name not in kept:
                    path.unlink()
        return Outcome()

    # -------------------------------------------------------------------------------------------------------------------- inside

    def _at_hand(self, part: Part) -> Path | None:
        """The whole file, if it is here; `_verify` checks what is in it."""
        for path in (self.layout.image(part.wanted.sha256.hex()), self.source.path(part.wanted.sha256)):
            try:
                if path.stat().st_size == part.wanted.length:
                    return path
            except OSError:
                continue
        return None

    def _base(self) -> Base | None:
        """The image of the version that runs, for a difference."""
        about = self.layout.installed()
        if about is None:
            return None
        path = self.layout.image(about.sha256)
        try:
            return Base(path=path, length=path.stat().st_size, sha256=bytes.fromhex(about.sha256))
        except OSError:
            return None

    def _alive(self) -> None:
        self.arrived.moved += 1
