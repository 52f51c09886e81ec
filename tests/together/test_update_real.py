"""Real releases on a terminal with real launcher, updater and agent processes: each ends in a running terminal and a report of what happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.updater.layout import name_of
from tests.support import packages
from tests.support.packages import Package
from tests.support.updating import Terminal, terminal
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.spec("U-304 U-305")]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return packages.real(tmp_path_factory.mktemp("factory"), "1.0.0")


@pytest.fixture
def kiosk(tmp_path: Path, factory: Package) -> Iterator[Terminal]:
    with terminal(tmp_path) as one:
        one.lay_out(factory)
        one.server.start()
        yield one


def test_a_good_release_goes_all_the_way(kiosk: Terminal, tmp_path: Path) -> None:
    kiosk.start_agent()
    kiosk.start_updater()
    kiosk.wait_until_running("1.0.0")
    new = packages.real(tmp_path, "1.1.0", release=2)
    kiosk.want(kiosk.release(new))
    assert kiosk.wait_for_end("committed", "rolledBack", "failed", "refused") == ("committed", "none")
    kiosk.wait_until_running("1.1.0")
    assert kiosk.layout.state().seat("agent").good == name_of("1.1.0", new.sha256)
    states = [state for state, _ in kiosk.states()]
    assert list(dict.fromkeys(states)) == [
        *("pending", "downloading", "verifying", "staged", "waiting", "installing", "probation", "committed")
    ]
    wait_until(lambda: kiosk.versions()[-1:] == ["1.1.0"], "the versions told")
    told = kiosk.told()[-1]
    assert (told.from_version, told.to_version, told.via, told.bytes_done) == ("1.0.0", "1.1.0", "full", len(new.raw))
    wait_until(lambda: kiosk.layout.pointed("updater") == name_of("1.1.0", new.sha256), "the updater is the new one as well")


BAD = {
    "crashes": "crashed",
    "hangs": "hung",
    "eats memory": "memory",
    packages.LOSES_ID_READER: "peripheralLost",
}


@pytest.mark.parametrize("harm", BAD)
def test_a_bad_release_is_back_on_the_old_version_by_itself(kiosk: Terminal, tmp_path: Path, harm: str) -> None:
    kiosk.write_settings(tries=1)
    hang = ["--hang-s", "7", "--start-s", "7"] if harm == "hangs" else []
    kiosk.start_agent("--rss-mib", "250", *hang)
    kiosk.start_updater()
    kiosk.wait_until_running("1.0.0")
    kiosk.want(kiosk.release(packages.real(tmp_path, "1.1.0", release=2, harm=harm)))
    assert kiosk.wait_for_end("committed", "rolledBack", "failed", "refused", timeout_s=90) == ("rolledBack", BAD[harm])
    kiosk.wait_until_running("1.0.0")
    assert kiosk.layout.state().seat("agent").trial is None


def test_a_release_that_does_not_load_is_never_started(kiosk: Terminal, tmp_path: Path) -> None:
    kiosk.start_agent()
    kiosk.start_updater()
    kiosk.wait_until_running("1.0.0")
    kiosk.want(kiosk.release(packages.real(tmp_path, "1.1.0", release=2, harm="does not load")))
    assert kiosk.wait_for_end("committed", "rolledBack", "failed", "refused") == ("failed", "selfTest")
    assert kiosk.health() == "1.0.0"
    assert "installing" not in [state for state, _ in kiosk.states()]
