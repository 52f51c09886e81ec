"""The udev rules against the profiles: what a profile opens over libusb, a rule gives to the agent's group."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import edge_agent
import firmware_profiles
from protocols.profile.places import InputMatch, UsbMatch
from protocols.profile.schema import parse_all

RULES = (Path(edge_agent.__file__).parent / "packaging" / "90-kiosk-fleet.rules").read_text("utf-8")
NAMED = re.findall(r'ATTR\{idVendor\}=="([^"]+)", ATTR\{idProduct\}=="([^"]+)"', RULES)
PROFILES = parse_all(firmware_profiles.read_all())
BRIDGES = sorted(
    (profile.id, rule.vid, rule.pid)
    for profile in PROFILES.values()
    if profile.family.value == "megatec"
    for rule in profile.match
    if isinstance(rule, UsbMatch) and rule.pid is not None
)


def gives(vid: int, pid: int) -> bool:
    return any(
        fnmatchcase(f"{vid:04x}", vendor) and any(fnmatchcase(f"{pid:04x}", one) for one in products.split("|"))
        for vendor, products in NAMED
    )


@pytest.mark.parametrize(("profile", "vid", "pid"), BRIDGES)
def test_each_bridge_of_a_ups_is_given_by_name(profile: str, vid: int, pid: int) -> None:
    assert gives(vid, pid), profile


def test_no_keyboard_is_given_over_libusb() -> None:
    """Keys are read as events; a HID device that usbfs may open could be read without the desktop knowing."""
    keyboards = [rule for profile in PROFILES.values() for rule in profile.match if isinstance(rule, InputMatch)]
    assert keyboards
    assert not [rule for rule in keyboards if rule.vid is not None and rule.pid is not None and gives(rule.vid, rule.pid)]
    assert ":03" not in RULES


def test_what_the_classes_say_covers_printers_readers_and_vendor_devices() -> None:
    classes = set(re.findall(r'ID_USB_INTERFACES\}=="\*:([0-9a-f]{2})\?\?\?\?:\*"', RULES))
    assert classes == {"07", "0b", "ff"}


def test_there_is_something_to_look_at() -> None:
    assert len(BRIDGES) >= 5
