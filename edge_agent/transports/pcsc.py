"""Watches a PC/SC service through pyscard. The only calls are those that ask: context, list of readers, change of status. No card is connected to.

The library's calls block, so a port has a thread of its own, and every wait in the service is cut into slices. A service that hangs keeps that thread
and nothing else, not even the end of the process: whoever asks meanwhile is told that it stalls. The library finds the service by an environment
variable of the process, so one process watches one service.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.transports.base import CardReaders, PortGone, PortRefused
from protocols.codecs import pcsc

T = TypeVar("T")

SOCKET_NAME = "PCSCLITE_CSOCK_NAME"
DEFAULT_SOCKET = "/run/pcscd/pcscd.comm"
SLICE_MS = 1000
"""A wait inside the service is no longer, so that closing never waits longer."""
CLOSE_TIMEOUT_S = 3.0
MAX_READERS = 16
"""pcsc-lite's own limit."""
PLUG_AND_PLAY = "\\\\?PnP?\\Notification"
"""The name under which the service tells that readers came or went."""


class _Worker:
    """One thread, call after call. The process's end does not wait for it, as it would for an executor's: a call may hang for good."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="pcsc", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """On the running loop."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as err:  # noqa: BLE001 -- handed to who waits for it
                    future.set_exception(err)

        self._calls.put(run)
        return asyncio.wrap_future(future)

    def end(self) -> None:
        """After the calls that are waiting."""
        self._calls.put(None)

    def _work(self) -> None:
        while (run := self._calls.get()) is not None:
            run()


class PcscPort:
    """One client of the service at `socket_path`. Calls are serialised on the port's thread."""

    def __init__(self, api: Any, socket_path: str) -> None:
        """`api` is the module smartcard.scard, or what looks like it."""
        self._api = api
        self._socket_path = socket_path
        self._worker = _Worker()
        self._context: Any = None
        self._running: asyncio.Future[Any] | None = None
        self._known: dict[str, int] = {}
        self._closed = threading.Event()

    async def look(self, *, timeout_s: float) -> CardReaders:
        """A service that does not answer in time stands under `pcsc.STALLED`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._run(self._look)
        except TimeoutError:
            return CardReaders(pcsc.STALLED)

    async def changed(self, *, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            if await self._run(partial(self._wait, min(SLICE_MS, max(1, round(left_s * 1000))))):
                return True
        return False

    async def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        future = self._worker.call(self._drop_context)
        self._worker.end()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(future)
        except TimeoutError:
            pass  # the thread ends with the call it is in

    async def _run(self, work: Callable[[], T]) -> T:
        """One call at a time; a cancelled one is waited for, not queued behind."""
        while self._running is not None and not self._running.done():
            await asyncio.wait({self._running})
        if self._closed.is_set():
            raise PortGone("the PC/SC service is closed")
        future = self._running = self._worker.call(work)
        return await asyncio.shield(future)

    # ------------------------------------------------------------------ on the port's thread

    def _look(self) -> CardReaders:
        code = self._ensure_context()
        if code != pcsc.SUCCESS:
            return CardReaders(code)
        code, names = self._list()
        if code != pcsc.SUCCESS:
            self._known = {}
            return CardReaders(self._failed(code))
        code, states = self._status(0, dict.fromkeys(names[:MAX_READERS], 0))
        if code not in (pcsc.SUCCESS, pcsc.TIMEOUT):
            return CardReaders(self._failed(code))
        self._known = states
        return CardReaders(pcsc.SUCCESS, tuple(sorted(states.items())))

    def _wait(self, timeout_ms: int) -> bool:
        """Whether something differs from the last look. A service that went away counts as that."""
        if self._ensure_context() != pcsc.SUCCESS:
            return True
        code, states = self._status(timeout_ms, {**self._known, PLUG_AND_PLAY: len(self._known) << 16})
        if code not in (pcsc.SUCCESS, pcsc.TIMEOUT):
            self._failed(code)
            return True
        # That a program took a reader or gave it back ends no wait, but the states say it when one ends.
        if any(_told(states.get(name, known)) != _told(known) for name, known in self._known.items()):
            return True
        return code == pcsc.SUCCESS and self._list()[1] != sorted(self._known)

    def _list(self) -> tuple[int, list[str]]:
        code, names = self._api.SCardListReaders(self._context, [])
        code = _word(code)
        if code == pcsc.NO_READERS:
            return pcsc.SUCCESS, []
        return code, sorted(str(name) for name in names or ())

    def _status(self, timeout_ms: int, known: dict[str, int]) -> tuple[int, dict[str, int]]:
        """Event states by name; waits until one differs from what is `known` (0: unaware, so at once)."""
        if not known:
            return pcsc.SUCCESS, {}
        code, states = self._api.SCardGetStatusChange(self._context, timeout_ms, list(known.items()))
        return _word(code), {str(state[0]): int(state[1]) & 0xFFFFFFFF for state in states or ()}

    def _ensure_context(self) -> int:
        if self._context is not None:
            return pcsc.SUCCESS
        if not _exists(self._socket_path):
            return pcsc.NO_SERVICE
        code, context = self._api.SCardEstablishContext(self._api.SCARD_SCOPE_SYSTEM)
        code = _word(code)
        if code == pcsc.SUCCESS:
            self._context = context
        return code

    def _failed(self, code: int) -> int:
        """The next call begins with a context of its own: a service that was restarted does not know the old one."""
        self._drop_context()
        return code

    def _drop_context(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._api.SCardReleaseContext(context)


def open_pcsc(socket_path: str) -> PcscPort:
    """A client of the service whose socket is `socket_path`; it may be absent. PortRefused without pyscard, or for a second socket."""
    told = os.environ.get(SOCKET_NAME, DEFAULT_SOCKET)
    if Path(told) != Path(socket_path):
        raise PortRefused(f"the PC/SC library of this process uses {told}; set {SOCKET_NAME} to use {socket_path}")
    try:
        with warnings.catch_warnings():
            # Modules made by older SWIGs warn about their own types from Python 3.12 on.
            warnings.simplefilter("ignore", DeprecationWarning)
            from smartcard import scard
    except ImportError as err:
        raise PortRefused("no PC/SC library on this machine: install the extra pcsc (pyscard)") from err
    return PcscPort(scard, socket_path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return False  # a directory that is closed to us: the call would only say less


def _word(code: int) -> int:
    """The library gives result codes as signed 32-bit numbers."""
    return code & 0xFFFFFFFF


def _told(state: int) -> int:
    """An event state without the bit that only says that something changed."""
    return state & ~0x0002
