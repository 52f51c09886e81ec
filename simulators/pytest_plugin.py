"""Fixtures for tests of software that talks to kiosk devices. Installed with the package; costs nothing where no test asks for them.

`kiosk_sim`: a `simulators.kit.Kit` (`pty`, `usb`, `pipe`, `terminal`). `virtual_time`: runs a coroutine with jumping time.
`kiosk_terminal`: the terminal named by `@pytest.mark.kiosk("kiosk", script="at 1s receipt-printer paper-out")`, its script running.

Everything is imported when a fixture is first used: a run without these fixtures loads this file and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from simulators.kit import Kit, Terminal


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kiosk(type, script='', seed=0): the terminal that the fixture kiosk_terminal starts")


@pytest.fixture
def kiosk_sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Starts simulated devices and terminals; all of them end with the test."""
    from simulators.kit import Kit

    with Kit(tmp_path_factory.mktemp("kiosk-sim")) as kit:
        yield kit


@pytest.fixture
def kiosk_terminal(request: pytest.FixtureRequest, kiosk_sim: Kit) -> Terminal:
    """A terminal on pseudo-terminals, after the marker `kiosk`; without one, a kiosk."""
    marker = request.node.get_closest_marker("kiosk")
    arguments, options = (marker.args, dict(marker.kwargs)) if marker else ((), {})
    script = options.pop("script", "")
    terminal = kiosk_sim.terminal(*(arguments or ("kiosk",)), **options)
    if script:
        terminal.play(script)
    return terminal


@pytest.fixture
def virtual_time() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end on a loop whose time jumps where it would sleep."""
    from simulators.virtual_time import in_virtual_time

    return in_virtual_time
