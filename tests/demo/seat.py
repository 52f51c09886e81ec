"""What stands in for a computer's launcher and process table where the agent lives in the fleet process: which version starts, and whether it does.

The decisions are the launcher's own (`edge_agent.launcher`), on the terminal's own `versions/` and `state.json`. What cannot be had in one process is
a second copy of the agent's code: whatever version is installed, this process runs its own, under the name of the installed one. So that a release
that cannot run is no success here either, its program is started once, in a process of its own, without devices and without a server; what became
of it counts for every terminal in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent import launcher
from edge_agent.updater.handover import UpdaterSide
from edge_agent.updater.layout import Layout
from edge_agent.version import AGENT_VERSION
from tests.demo.setup import Places

WELL_WITHIN_S: Final = 60.0
"""From its start until the program says that it is well; a busy machine included. Later counts as hung."""
WATCHED_S: Final = 3.0
"""So long it must go on then."""
LOOK_EVERY_S: Final = 0.1
SWITCH_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """How a version starts. `reason`: the launcher's word for how it ended, empty if it runs. `rss_kib`: what its own process needed."""

    version: str
    reason: str = ""
    rss_kib: int = 0


class FirstStarts:
    """One for all terminals of a process. The factory's version needs no start: its code is this process's own."""

    def __init__(self, factory: str) -> None:
        """`factory`: the name of its directory."""
        self.factory = factory
        self._known = {factory: Start(AGENT_VERSION)}
        self._looking: dict[str, asyncio.Task[Start]] = {}

    def known(self, name: str) -> Start | None:
        return self._known.get(name)

    async def look(self, tree: Path, identity: Path) -> Start:
        """How the version in `tree` starts, with the identity of a terminal on which it is installed."""
        name = tree.name
        if name not in self._known:
            if name not in self._looking:
                self._looking[name] = asyncio.create_task(_first_start(tree, identity))
            self._known[name] = await asyncio.shield(self._looking[name])
        return self._known[name]

    async def close(self) -> None:
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)


class Seat:
    """One terminal's. `prepare` before the first start and `switched` beside each running agent; `begin` at each start."""

    def __init__(self, places: Places, terminal: str, starts: FirstStarts) -> None:
        self._root, self._process_table = places.versions(terminal), places.process_table(terminal)
        self._identity, self._starts = places.identity(terminal), starts
        self._layout = Layout(self._root)

    async def prepare(self) -> None:
        """Find out how the versions start that lie here."""
        for name in self._unknown():
            await self._starts.look(self._layout.tree(name), self._identity)

    def begin(self) -> Start | None:
        """Count starts until one succeeds, as the launcher does when a version ends at once. None: nothing can start here, or it is not prepared."""
        own = self._layout.state().seat("agent")
        if own.trial is None and own.good == self._starts.factory and (start := self._starts.known(own.good)) is not None:
            self._enter(self._layout.tree(own.good), start)  # nothing to count, and no file of that tree ever changes
            return start
        if self._unknown():
            return None
        while (name := launcher.count(self._root)) is not None and (start := self._starts.known(name)) is not None:
            if not start.reason:
                self._enter(self._layout.tree(name), start)
                return start
            launcher.ended(self._root, "agent", start.reason)
            if self._layout.state().seat("agent").trial is None:
                break  # what was good does not start either: the launcher would try for ever
        return None

    def _unknown(self) -> list[str]:
        names = (path.name for path in self._layout.versions.iterdir())
        return [name for name in names if self._starts.known(name) is None and launcher.is_complete(self._root, name)]

    async def switched(self) -> None:
        """Returns when the updater has asked for a start since this was called. What it unpacks meanwhile is prepared."""
        before = self._mark()
        while self._mark() == before:
            await asyncio.sleep(SWITCH_EVERY_S)
            await self.prepare()

    def _mark(self) -> tuple[int, int] | None:
        try:
            found = (self._root / launcher.SWITCH).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _enter(self, tree: Path, start: Start) -> None:
        """What /proc of this terminal would say: its one agent was started from this tree."""
        folder = self._process_table / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(f"VmRSS:\t{start.rss_kib} kB\n", encoding="ascii")
        (folder / "cmdline").write_bytes(b"\0".join((os.fsencode(tree / "bin" / "edge-agent"), b"run", b"")))


async def _first_start(tree: Path, identity: Path) -> Start:
    folder = Path(tempfile.mkdtemp(prefix="kf-first-start-"))  # short: it holds a socket
    child = None
    try:
        side = UpdaterSide(folder / "requests", folder / "updates")
        for made in (folder / "requests", folder / "updates"):
            made.mkdir()
        shutil.copytree(identity, folder / "identity")
        (folder / "agent.toml").write_text(_alone(folder), encoding="utf-8")
        child = await asyncio.create_subprocess_exec(
            *(tree / "bin" / "edge-agent", "run", "--config", folder / "agent.toml", "--log-level", "error"),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return await _watched(child, side, tree)
    finally:
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _watched(child: asyncio.subprocess.Process, side: UpdaterSide, tree: Path) -> Start:
    loop = asyncio.get_running_loop()
    late_s = loop.time() + WELL_WITHIN_S
    while (health := side.health()) is None:
        if child.returncode is not None:
            return Start(tree.name, "crashed")
        if loop.time() > late_s:
            return Start(tree.name, "hung")
        await asyncio.sleep(LOOK_EVERY_S)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), WATCHED_S)
        return Start(health.version, "crashed")
    return Start(health.version, rss_kib=_rss_kib(health.pid))


def _rss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def _alone(folder: Path) -> str:
    """The configuration of a terminal without devices whose server is not there."""
    return (
        f'schema = 1\nidentity_dir = "{folder / "identity"}"\nstate_dir = "{folder / "state"}"\n'
        '[server]\nurl = "https://127.0.0.1:1"\n[mqtt]\nhost = "127.0.0.1"\nport = 1\n'
        f'[updater]\nrequests_dir = "{folder / "requests"}"\nupdates_dir = "{folder / "updates"}"\n'
        f'[local_api]\nsocket_path = "{folder / "agent.sock"}"\n'
    )
