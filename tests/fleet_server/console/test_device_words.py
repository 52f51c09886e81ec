"""No raw word of a device is shown: kinds, families of faults, and the places of whole simulated terminals have names in both languages."""

from __future__ import annotations

import pytest

from fleet_server.console import i18n
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from fleet_server.enrolment.rules import _family_of
from protocols.canon.faults import FAULTS
from protocols.profile.schema import FAULT_FAMILY, Kind
from simulators.terminal import TYPES, build_terminal

CATALOGUES = i18n.load_all()


@pytest.mark.parametrize("language", CATALOGUES)
def test_kinds_and_families(language: str) -> None:
    known = set(CATALOGUES[language])  # type: ignore[index]
    assert {f"config.kind.{kind}" for kind in Kind} <= known
    assert {f"faultFamily.{family}" for family in FAULT_FAMILY.values()} <= known
    assert {f"faultFamily.{code.partition('.')[0]}" for code in FAULTS} <= known


@pytest.mark.parametrize("language", CATALOGUES)
@pytest.mark.parametrize("kind", TYPES)
def test_places_of_whole_terminals(kind: str, language: str) -> None:
    voice = Voice(CATALOGUES[language], 0, "UTC")  # type: ignore[index]
    for entry in build_terminal(kind, seed=1, windows=6, whole=True).ports():
        slot = str(entry["slot"])
        assert slot_name(voice, slot) != slot, slot
        if language == "zh":
            assert slot_name(voice, slot) != slot.rstrip("0123456789-"), slot


def test_an_inventory_by_names_of_places_names_kinds_that_agents_know() -> None:
    """What an operator types when a terminal is added: places alone."""
    for kind in TYPES:
        for entry in build_terminal(kind, seed=1, windows=6, whole=True).ports():
            assert _family_of(str(entry["slot"])) == entry["family"]
