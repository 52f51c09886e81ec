"""The verdict on a version in probation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_agent.updater import health as healths
from edge_agent.updater.handover import Health
from edge_agent.updater.health import Before, Evidence, Limits, Watch

pytestmark = pytest.mark.spec("U-304")

LIMITS = Limits(rss_kib=100_000, steady_ms=10_000, device_ms=30_000)
WELL = Health(
    boot_id="ab" * 16,
    boot_ms=0,
    version="2",
    pid=5,
    idle=True,
    devices={"scanner": "online", "id-reader": "deviceBusy", "climate": "offline"},
    mandatory=("scanner", "id-reader", "climate"),
)
WAS = Before(working=("id-reader", "scanner"))


def watched(*seen: tuple[int, dict[str, Any]]) -> tuple[str, str]:
    """What the last of several looks says; (boot_ms, changes of the evidence)."""
    watch, said, reason = Watch(), "wait", "none"
    for now, changes in seen:
        evidence = Evidence(health=WELL, fresh=True, owned=True, rss_kib=50_000, now_boot_ms=now)
        watch, said, reason = healths.look(watch, msgspec.structs.replace(evidence, **changes), WAS, "2", LIMITS)
    return said, reason


def devices(**changes: str) -> dict[str, Any]:
    renamed = {slot.replace("_", "-"): state for slot, state in changes.items()}
    return {"health": msgspec.structs.replace(WELL, devices={**WELL.devices, **renamed})}


def test_well_for_long_enough_is_good() -> None:
    assert watched((0, {}), (9_000, {})) == ("wait", "none")
    assert watched((0, {}), (10_000, {})) == ("good", "none")


@pytest.mark.parametrize("break_", [{"fresh": False}, {"owned": False}, {"health": None}, devices(scanner="offline")])
def test_a_break_begins_it_anew(break_: dict[str, Any]) -> None:
    assert watched((0, {}), (8_000, break_), (9_000, {}), (12_000, {}))[0] == "wait"
    assert watched((0, {}), (8_000, break_), (9_000, {}), (19_000, {}))[0] == "good"


def test_another_version_confirms_nothing() -> None:
    old = {"health": msgspec.structs.replace(WELL, version="1")}
    assert watched((0, old), (60_000, old)) == ("wait", "noConfirmation")


def test_the_word_of_another_process_confirms_nothing() -> None:
    assert watched((0, {"owned": False}), (60_000, {"owned": False})) == ("wait", "noConfirmation")


@pytest.mark.parametrize("state", ["offline", "noDevice", "hardwareError", "powerOff", "unknown", "starting"])
def test_a_mandatory_device_that_worked_must_work(state: str) -> None:
    lost = devices(scanner=state)
    assert watched((0, lost), (29_000, lost)) == ("wait", "peripheralLost")
    assert watched((0, lost), (30_000, lost)) == ("bad", "peripheralLost")
    assert watched((0, lost), (29_000, {}), (31_000, {})) == ("wait", "none"), "it came in time"


def test_a_device_that_is_not_listed_any_more_is_lost() -> None:
    bare = {"health": msgspec.structs.replace(WELL, devices={"id-reader": "online"})}
    assert watched((0, bare), (30_000, bare)) == ("bad", "peripheralLost")


@pytest.mark.parametrize("state", ["userError", "inUse", "deviceBusy", "online"])
def test_paper_out_or_another_owner_is_no_loss(state: str) -> None:
    seen = devices(scanner=state)
    assert watched((0, seen), (10_000, seen)) == ("good", "none")


def test_memory_above_the_limit_is_bad_if_it_lasts() -> None:
    much = {"rss_kib": 100_001}
    assert watched((0, much), (4_000, much)) == ("wait", "memory")
    assert watched((0, much), (5_000, much)) == ("bad", "memory")
    assert watched((0, much), (4_000, {}), (14_000, {})) == ("good", "none")


def test_what_did_not_work_before_cannot_be_lost() -> None:
    assert healths.before(WELL) == Before(working=("id-reader", "scanner"))
    assert healths.before(None) == Before()
