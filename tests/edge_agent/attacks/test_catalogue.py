"""No attack may lose its test: what the literature and our own list name, and the tests (by the beginning of their names) that stand for it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.edge_agent.attacks.hostile_archives import HOSTILE

CATALOGUE: dict[str, tuple[str, ...]] = {
    # TUF specification 1.0.34, section 1.5.2, and "Survivable Key Compromise in Software Update Systems" (2010)
    "arbitrary installation": ("arbitrary_installation", "arbitrary_metadata", "arbitrary_root"),
    "endless data": ("endless_data_in_place_of_metadata", "endless_data_in_place_of_root", "endless_data_in_place_of_the_image"),
    "extraneous dependencies": ("extraneous_dependency", "unexpected_target"),
    "fast-forward": (
        "fast_forward_of_the_timestamp",
        "fast_forward_of_the_snapshot",
        "fast_forward_of_a_delegated",
        "fast_forward_of_time",
    ),
    "indefinite freeze": (
        "indefinite_freeze_of_everything",
        "indefinite_freeze_of_the_root",
        "indefinite_freeze_of_the_snapshot",
        "indefinite_freeze_of_the_targets",
        "indefinite_freeze_of_a_delegated",
    ),
    "malicious mirror": ("malicious_mirror",),
    "mix and match": ("mix_and_match",),
    "rollback": (
        "rollback_of_the_root",
        "rollback_of_the_timestamp",
        "rollback_of_the_snapshot",
        "rollback_of_targets",
        "rollback_to_an_older",
    ),
    "slow retrieval": (
        "slow_retrieval_of_metadata",
        "slow_retrieval_of_the_root",
        "slow_retrieval_of_the_image",
        "slow_retrieval_in_the_head",
    ),
    "wrong software, wrong delegation": ("wrong_developer", "wrong_delegation"),
    "compromise of one role's keys": (
        "key_compromise_of_one_role",
        "key_compromise_of_one_root_key",
        "key_compromise_of_one_firmware_key",
    ),
    "threshold by duplicates": ("threshold_met_by",),
    "root rotations missed": ("root_rotation_missed_for_twenty",),
    "expired root": ("expired_root_on_a_terminal",),
    # Uptane standard 2.1.0
    "eavesdrop": ("eavesdropper",),
    "drop request": ("dropped_requests",),
    "partial bundle": ("partial_bundle",),
    "mixed bundles": ("mixed_bundles", "mixed_versions"),
    "director compromised": ("director_only_compromise",),
    "image repository compromised": ("image_repository_only_compromise",),
    "both without offline keys": ("both_without_offline_keys",),
    "wrong hardware": ("wrong_hardware", "wrong_architecture"),
    "stale time": ("stale_time", "clock_set_back"),
    # our own
    "for another terminal or fleet": ("bundle_for_another_terminal", "bundle_for_another_fleet", "order_key_of_another_fleet"),
    "withdrawn or misused keys": ("order_key_that_is_withdrawn", "greeting_key_in_place"),
    "nobody approved": ("bundle_that_no_second_person",),
    "replayed desired state": ("replayed_desired_state", "second_desired_state"),
    "bombs": ("zstd_bomb",),
    "delta against the wrong base": ("delta_against_the_wrong_base",),
    "spoiled parts": ("truncated_part", "bit_flipped_part", "part_that_is_a_link", "ledger_that_lies"),
    "swapped between check and use": ("archive_exchanged_between", "archive_changed_in_place", "finished_image_swapped"),
    "downgrade by disk-image restore": ("downgrade_by_disk_image_restore",),
    "clock at 1970 and 2038": ("clock_at_1970", "clock_at_2038"),
    "man in the middle": ("man_in_the_middle",),
    "two updaters": ("two_updaters",),
}
ARCHIVES = (
    "path-traversal",
    "absolute-name",
    "symlink-out-of-the-tree",
    "write-through-a-symlink",
    "hard-link",
    "character-device",
    "block-device",
    "setuid",
    "duplicate-names",
    "too-many-files",
    "long-name",
    "more-bytes-than-signed",
)


def names() -> list[str]:
    found = []
    for path in Path(__file__).parent.glob("test_*.py"):
        found += [
            node.name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
    return [name.removeprefix("test_") for name in found if name.startswith("test_")]


@pytest.mark.parametrize("attack", CATALOGUE)
def test_every_attack_of_the_catalogue_has_its_tests(attack: str) -> None:
    missing = [begin for begin in CATALOGUE[attack] if not any(name.startswith(begin) for name in names())]
    assert not missing


def test_there_are_as_many_named_attacks_as_promised() -> None:
    assert not [name for name, count in Counter(names()).items() if count > 1]
    assert len(names()) + len(HOSTILE) >= 150
    assert set(ARCHIVES) <= set(HOSTILE)
