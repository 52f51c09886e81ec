"""Does what the updater asks in `apply.json`, one component after the other, and answers in `applied.json` as it goes on.

Everything may be asked again after a cut: who installs the same bytes twice finds them there. Which order: profiles before firmware, which is
written by them; what fails ends the rest, for the updater then asks to take all of it back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.outbox.errors import OutboxError
from edge_agent.updater.handover import AgentSide, Applied, AppliedOne, Apply, Artifact
from protocols.contract.records import UpdateReason

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
KINDS = ("profiles", "catalogue", "content", "firmware")

Tell = Callable[[Literal["waiting", "installing"], UpdateReason], None]


class Installer(Protocol):
    """Of one kind of component. Both may raise ArtifactRefused, OSError (disk) and OutboxError."""

    async def install(self, artifact: Artifact, tell: Tell) -> AppliedOne:
        """`waiting` in the answer: ask again."""
        ...

    async def revert(self, artifact: Artifact) -> AppliedOne:
        """Back to what was before `artifact`; nothing to do where it is not in use."""
        ...


class Desk:
    """`run` until cancelled."""

    def __init__(self, side: AgentSide, installers: Mapping[str, Installer], *, look_every_s: float = LOOK_EVERY_S) -> None:
        self._side, self._installers, self._look_every_s = side, installers, look_every_s
        self._told: Applied | None = None

    async def run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(self._look_every_s)

    async def step(self) -> None:
        """Look once, and do what can be done now."""
        apply = self._side.apply()
        if apply is None:
            if self._told is not None:
                self._told = None
                self._side.write_applied(None)
            return
        results = {} if self._told is None or self._told.id != apply.id else {one.component: one for one in self._told.results}
        for artifact in sorted(apply.artifacts, key=lambda one: KINDS.index(_kind(one)) if _kind(one) in KINDS else len(KINDS)):
            known = results.get(artifact.component)
            if known is not None and known.state in ("done", "failed"):
                continue
            results[artifact.component] = await self._one(apply, artifact, results)
            self._answer(apply, results)
            if results[artifact.component].state == "failed" and not apply.revert:
                break
            if results[artifact.component].state == "waiting" and _kind(artifact) == "firmware":
                self._others_wait(apply, artifact, results)
                break

    async def _one(self, apply: Apply, artifact: Artifact, results: dict[str, AppliedOne]) -> AppliedOne:
        installer = self._installers.get(_kind(artifact))
        if installer is None:
            return AppliedOne(component=artifact.component, state="failed", reason="wrongHardware")

        def tell(state: Literal["waiting", "installing"], reason: UpdateReason) -> None:
            results[artifact.component] = AppliedOne(component=artifact.component, state=state, reason=reason)
            if _kind(artifact) == "firmware":
                self._others_wait(apply, artifact, results)
            self._answer(apply, results)

        try:
            return await (installer.revert(artifact) if apply.revert else installer.install(artifact, tell))
        except ArtifactRefused as err:
            log.error("an artifact was refused", extra={"component": artifact.component, "reason": str(err)})
            return AppliedOne(component=artifact.component, state="failed", reason=err.reason)
        except (OSError, OutboxError):
            log.warning("no space for an artifact", extra={"component": artifact.component})
            return AppliedOne(component=artifact.component, state="waiting", reason="noSpace")

    def _others_wait(self, apply: Apply, busy: Artifact, results: dict[str, AppliedOne]) -> None:
        """Two units are never flashed at a time (U-308)."""
        for other in apply.artifacts:
            if other is not busy and _kind(other) == "firmware" and other.component not in results:
                results[other.component] = AppliedOne(component=other.component, state="waiting", reason="otherFirmware")
        self._answer(apply, results)

    def _answer(self, apply: Apply, results: Mapping[str, AppliedOne]) -> None:
        told = Applied(id=apply.id, results=tuple(results.values()))
        if told == self._told:
            return
        try:
            self._side.write_applied(told)
        except OSError:
            log.warning("the updater cannot be answered")
            return
        self._told = told


def _kind(artifact: Artifact) -> str:
    return artifact.component.partition("/")[0]
