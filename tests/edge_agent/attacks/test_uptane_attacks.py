"""The attacks that Uptane adds (Uptane standard 2.1.0, section 2; design 1.2): what a stolen director or a stolen image repository can do alone.

Each stands beside the same request from the rightful party, which succeeds.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom
from protocols.contract.orders import Wanted
from tests.edge_agent.attacks.play import accepted, path_of, refused, swapped, tampered
from tests.edge_agent.attacks.world import ARCH, OTHER, READER, TERMINAL, OrderKey, World, tar

pytestmark = pytest.mark.spec("U-104 U-105 U-106")

DIRECTED = artifacts.director_role(TERMINAL)
EVIL = tar({"bin/agent": b"evil" * 1000})
PRINTER_SLOT = "firmware/receipt-printer"


@pytest.fixture
def new(world: World) -> Wanted:
    want = world.release(2)
    world.order(want)
    return want


def evil_release(world: World, role: str, path: str, **custom: object) -> Wanted:
    """A release that `role`'s keys describe and sign, with content that the attacker chose."""
    kind = str(custom.pop("component", role))
    described = ImageCustom(component=kind, version="9.0", release=9, **{"arch": ARCH, **custom})  # type: ignore[arg-type]
    target = world.image.add(role, path, EVIL, described)
    world.image.publish(role)
    digest = bytes.fromhex(target.hashes["sha256"])
    return Wanted(component=kind, target=path, version="9.0", release=9, length=len(EVIL), sha256=digest)


# ----------------------------------------------------------------------------------------------------------------- read and deny updates


@pytest.mark.spec("U-502")
def test_eavesdropper_finds_no_secret_and_no_citizen(world: World, new: Wanted) -> None:
    """All metadata that travel are read: names, versions, hashes, keys' public halves, times; nothing that must be hidden from a listener."""
    accepted(world, new)
    allowed_words = {
        "kiosk-fleet",
        "bundle",
        "size",
        "component",
        "target",
        "version",
        "release",
        "downgrade",
        "arch",
        "hardware",
        "name",
    }
    allowed_words |= {"unpacked_bytes", "unpacked_files", "min_from", "signed_ms"}
    seen = 0
    for path, data in world.mirror.files.items():
        if not path.endswith(".json"):
            continue
        assert isinstance(data, bytes)
        assert b"PRIVATE" not in data and b'"private"' not in data
        for target in json.loads(data)["signed"].get("targets", {}).values():
            assert set(target) <= {"length", "hashes", "custom"}
            assert set(target["custom"]) == {"kiosk-fleet"} and set(target["custom"]["kiosk-fleet"]) <= allowed_words
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("where", ["image", "director"])
def test_dropped_requests_change_nothing_and_are_told(world: World, new: Wanted, where: str) -> None:
    """Drop-request: every answer of one repository is cut off. The terminal keeps what it has and says that the server is not to be reached."""

    def drop(handler: object) -> None:
        handler.close_connection = True  # type: ignore[attr-defined]

    repo = world.image if where == "image" else world.director
    with tampered(repo, "timestamp.json", drop):
        refused(world, "unreachable")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------ mixed, partial


def test_partial_bundle_the_director_leaves_one_out(world: World, new: Wanted) -> None:
    profiles = world.release(2, component="profiles")
    world.assign(new, profiles)
    del world.director.targets[DIRECTED].signed.targets[artifacts.director_path(TERMINAL, "profiles")]
    world.director.publish(DIRECTED)
    world.want(new, profiles)
    refused(world, "partialBundle")
    world.order(new, profiles)
    accepted(world, new)


def test_partial_bundle_the_desired_state_leaves_one_out(world: World, new: Wanted) -> None:
    profiles = world.release(2, component="profiles")
    world.assign(new, profiles)
    world.want(new)
    refused(world, "partialBundle")
    world.want(new, profiles)
    accepted(world, new)


def test_partial_bundle_the_image_of_one_is_withheld(world: World, new: Wanted) -> None:
    """The mirror gives the first component and not the second: nothing at all is installed."""
    profiles = world.release(2, component="profiles")
    world.order(new, profiles)
    with swapped(world.image, path_of(world, profiles), None):
        refused(world, "notFound")
    accepted(world, new)


def test_mixed_bundles_old_director_with_new_desired_state(world: World, new: Wanted) -> None:
    world.assign(new, bundle=b"\5" * 16)
    world.want(new, bundle=b"\6" * 16)
    refused(world, "mixedBundle")
    world.assign(new, bundle=b"\6" * 16)
    accepted(world, new)


def test_mixed_bundles_two_in_one_directors_answer(world: World, new: Wanted) -> None:
    profiles = world.release(2, component="profiles")
    world.assign(new, profiles, bundle=b"\5" * 16)
    world.direct(profiles, size=2, bundle=b"\6" * 16)
    world.director.publish(DIRECTED)
    world.want(new, profiles, bundle=b"\5" * 16)
    refused(world, "mixedBundle")
    world.order(new, profiles, bundle=b"\5" * 16)
    accepted(world, new)


def test_mixed_versions_of_one_component(world: World, new: Wanted) -> None:
    """Director and desired state name different releases, both of them real."""
    later = world.release(3)
    world.assign(later)
    world.want(new)
    refused(world, "differs")
    world.assign(new)
    accepted(world, new)


def test_a_component_named_twice(world: World, new: Wanted) -> None:
    world.assign(new)
    world.want(new, new)
    refused(world, "mixedBundle")
    world.want(new)
    accepted(world, new)


# -------------------------------------------------------------------------------------------------------------------- stolen repositories


@pytest.mark.parametrize(
    "lie",
    [{"version": "9.0"}, {"release": 9}, {"target": "agent/agent-1.0.tar"}, {"component": "profiles"}],
    ids=["version", "release", "path", "component"],
)
def test_director_only_compromise_describes_something_else(world: World, new: Wanted, lie: dict[str, Any]) -> None:
    """All keys of the director, its root included, and nothing else."""
    world.assign(new, **lie)
    refused(world, "differs")
    world.assign(new)
    accepted(world, new)


def test_director_only_compromise_offers_its_own_file(world: World, new: Wanted) -> None:
    evil = Wanted(
        component="agent", target=new.target, version=new.version, release=new.release, length=len(EVIL), sha256=b"\7" * 32
    )
    world.assign(evil)
    refused(world, "differs")
    world.assign(new)
    accepted(world, new)


def test_director_only_compromise_offers_an_old_release(world: World, new: Wanted) -> None:
    accepted(world, new)
    world.assign(world.release(1), downgrade=True)
    refused(world, "differs")
    world.assign(new)
    accepted(world, new)


def test_director_only_compromise_gives_nothing(world: World, new: Wanted) -> None:
    world.assign()
    refused(world, "notInDirector")
    world.assign(new)
    accepted(world, new)


def test_director_and_order_key_compromise_name_what_was_never_released(world: World, new: Wanted) -> None:
    """Both online parties of the server that say who gets what; the image repository's offline keys are missing."""
    world.order(
        Wanted(component="agent", target="agent/agent-9.0.tar", version="9.0", release=9, length=len(EVIL), sha256=b"\7" * 32)
    )
    refused(world, "notInImages")
    world.order(new)
    accepted(world, new)


def test_director_and_order_key_compromise_describe_a_released_path_otherwise(world: World, new: Wanted) -> None:
    evil = Wanted(
        component="agent", target=new.target, version=new.version, release=new.release, length=len(EVIL), sha256=b"\7" * 32
    )
    world.order(evil)
    refused(world, "differs")
    world.order(new)
    accepted(world, new)


def test_image_repository_only_compromise(world: World, new: Wanted) -> None:
    """All keys of the image repository, offline ones too: another agent under the name of the ordered one. Director and order key did not ask."""
    accepted(world, new)
    later = world.release(3)
    world.order(later)
    target = world.image.add("agent", later.target, EVIL, ImageCustom(component="agent", version="3.0", release=3, arch=ARCH))
    world.image.publish("agent")
    assert target.hashes["sha256"] != later.sha256.hex()
    refused(world, "differs")
    rightful = world.release(3)
    assert rightful == later
    accepted(world, later)


def test_image_repository_only_compromise_cannot_make_a_terminal_want_it(world: World, new: Wanted) -> None:
    accepted(world, new)
    evil_release(world, "agent", "agent/agent-9.0.tar")
    world.mirror.requests.clear()
    accepted(world, new)
    assert not any("agent-9.0" in path for path, _ in world.mirror.requests)


def test_both_without_offline_keys_cannot_bring_an_agent(world: World, new: Wanted) -> None:
    """Everything that lies on the server: director, order key, and the image repository's content, catalogue, packed, snapshot, timestamp."""
    for role, path in (("content", "content/guides/x.tar"), ("catalogue", "catalogue/x.tar"), ("packed", "packed/x.zst")):
        evil = evil_release(world, role, path, component="agent")
        world.order(evil)
        refused(world, "differs")
        evil = evil_release(world, role, "agent/agent-9.0.tar", component="agent")
        world.order(evil)
        refused(world, "notInImages")
    world.order(new)
    accepted(world, new)


def test_both_without_offline_keys_cannot_bring_firmware(world: World) -> None:
    evil = evil_release(world, "content", "firmware/receipt-printer/x.bin", component="firmware", hardware=("printer-one",))
    world.order(
        Wanted(component=PRINTER_SLOT, target=evil.target, version="9.0", release=9, length=evil.length, sha256=evil.sha256)
    )
    refused(world, "notInImages")
    world.order(world.release(2, component=PRINTER_SLOT))
    accepted(world)


def test_order_key_only_compromise(world: World, new: Wanted) -> None:
    """Who has the order key alone asks for the old release; the director does not."""
    accepted(world, new)
    world.want(world.release(1), downgrade=True)
    refused(world, "differs")
    world.want(new)
    accepted(world, new)


def test_packed_key_only_compromise(world: World, new: Wanted) -> None:
    """The key that describes packed forms is on the server: its worst lie costs a detour, and what is installed is the image that was signed."""
    world.pack(new, b"\x28\xb5\x2f\xfd" + b"evil" * 50)
    accepted(world, new)
    assert world.got is not None and (world.got.via, [via for via, _ in world.got.failed]) == ("full", ["packed"])


# ----------------------------------------------------------------------------------------------------------------------- wrong hardware


def test_wrong_hardware_firmware_of_another_unit(world: World) -> None:
    """Rightly signed firmware of the reader, for the printer's slot."""
    wrong = world.release(2, component=PRINTER_SLOT, hardware=(READER,))
    world.order(wrong)
    refused(world, "wrongHardware")
    right = world.release(3, component=PRINTER_SLOT)
    world.order(right)
    accepted(world)


def test_wrong_hardware_firmware_that_names_no_unit(world: World) -> None:
    world.order(world.release(2, component=PRINTER_SLOT, hardware=()))
    refused(world, "wrongHardware")
    world.order(world.release(3, component=PRINTER_SLOT))
    accepted(world)


def test_wrong_hardware_a_slot_that_this_terminal_does_not_have(world: World) -> None:
    want = world.release(2, component="firmware/call-pad-3")
    world.order(want)
    refused(world, "wrongHardware")
    assert world.units is not None
    world.units["call-pad-3"] = "printer-one"
    accepted(world)


def test_wrong_architecture(world: World, new: Wanted) -> None:
    world.order(world.release(3, arch="aarch64"))
    refused(world, "wrongArch")
    world.order(new)
    accepted(world, new)


# -------------------------------------------------------------------------------------------------------------- other terminal or fleet


def test_bundle_for_another_terminal_in_the_desired_state(world: World, new: Wanted) -> None:
    world.want(new, to=OTHER)
    refused(world, "wrongTerminal")
    world.want(new)
    accepted(world, new)


def test_bundle_for_another_terminal_in_the_director(world: World, new: Wanted) -> None:
    """The director gives it to the neighbour only."""
    world.assign()
    world.assign(new, to=OTHER)
    refused(world, "notInDirector")
    world.assign(new)
    accepted(world, new)


def test_bundle_for_another_terminal_in_that_ones_role(world: World, new: Wanted) -> None:
    """The neighbour's role names this terminal's path, which is not delegated to it."""
    world.assign()
    path = artifacts.director_path(TERMINAL, "agent")
    world.direct(new, size=1, bundle=b"\1" * 16)
    stolen = world.director.targets[DIRECTED].signed.targets.pop(path)
    world.director.targets[artifacts.director_role(OTHER)].signed.targets[path] = stolen
    world.director.publish(artifacts.director_role(OTHER), DIRECTED)
    refused(world, "notInDirector")
    world.assign(new)
    accepted(world, new)


def test_bundle_for_another_fleet(world: World, new: Wanted) -> None:
    world.want(new, fleet="other-city")
    refused(world, "notAuthentic")
    world.want(new)
    accepted(world, new)


def test_order_key_of_another_fleet(world: World, new: Wanted) -> None:
    key, root = OrderKey(), OrderKey()
    world.certificates.append(world.certificate(key, by=root))
    world.want(new, key=key)
    refused(world, "notAuthentic")
    world.want(new)
    accepted(world, new)


def test_order_key_that_is_withdrawn(world: World, new: Wanted) -> None:
    """The challenge does not list it any more."""
    old, world.order_key = world.order_key, OrderKey()
    world.certificates = [world.certificate(world.order_key)]
    world.want(new, key=old)
    refused(world, "notAuthentic")
    world.want(new)
    accepted(world, new)


def test_greeting_key_in_place_of_an_order_key(world: World, new: Wanted) -> None:
    """The key of the process that talks to terminals is certified, but for another purpose."""
    from protocols.contract import certs

    key = OrderKey()
    cert = certs.ServerKeyCert(kid=key.kid, public_key=key.public, issued_ms=1)
    world.certificates.append(certs.seal_server_key_cert(cert, world.root, "test-city"))
    world.want(new, key=key)
    refused(world, "notAuthentic")
    world.want(new)
    accepted(world, new)


def test_bundle_that_no_second_person_approved(world: World, new: Wanted) -> None:
    for approver in (None, "li"):  # nobody, or who asked for it
        world.want(new, approved_by=approver)
        refused(world, "notAuthentic")
    world.want(new)
    accepted(world, new)


def test_replayed_desired_state(world: World, new: Wanted) -> None:
    """A hostile agent, or whoever can write its files, hands over an old order, rightly signed in its time."""
    old = world.desired
    later = world.release(3)
    world.order(later)
    accepted(world, later)
    now, world.desired = world.desired, old
    refused(world, "superseded")
    world.desired = now
    accepted(world, later)


def test_second_desired_state_under_a_used_counter(world: World, new: Wanted) -> None:
    accepted(world, new)
    world.want(new, counter=world.counter, hold=True)
    refused(world, "superseded")
    world.want(new)
    accepted(world, new)


def test_tampered_desired_state(world: World, new: Wanted) -> None:
    good = world.desired
    for at in (5, len(good) // 2, len(good) - 1):
        world.desired = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :]
        refused(world, "notAuthentic")
    world.desired = good
    accepted(world, new)
