"""No attack may lose its test: what the literature and our own list name, and the tests (by the beginning of their names) that stand for it.

A name alone is a test of this folder; with `file::` before it, of that file.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.edge_agent.attacks.hostile_archives import HOSTILE

PROJECT = Path(__file__).resolve().parents[3]
ENROL, CODES = "tests/edge_agent/test_enrol.py", "tests/fleet_server/enrolment/test_rules.py"
KILLED, POWER, TROUBLES = (
    "tests/edge_agent/updater/test_kill.py",
    "tests/edge_agent/updater/test_power.py",
    "tests/together/test_update_troubles.py",
)
RESTORES, ORDERS = "tests/together/test_restores.py", "tests/edge_agent/attacks/test_orders.py"

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
    "for another terminal or fleet": (
        "bundle_for_another_terminal",
        "bundle_for_another_fleet",
        "order_key_of_another_fleet",
        f"{ORDERS}::order_for_another_terminal",
        f"{ORDERS}::order_of_another_fleet",
        f"{ORDERS}::desired_of_nobody",
    ),
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
    "disk full at each step": (
        f"{KILLED}::a_whole_update_with_a_full_disk_at_each_call",
        f"{TROUBLES}::a_full_disk_is_told",
        f"{TROUBLES}::a_read_only_disk_is_told",
    ),
    "power cut at each step": (f"{POWER}::ten_power_cuts", f"{POWER}::five_hundred_power_cuts"),
    "kill at each system call": (
        f"{KILLED}::killed_at_each_call_that_changes_the_disk",
        f"{KILLED}::a_whole_update_killed_at_each_call",
        f"{KILLED}::a_transfer_killed_at_each_call",
        f"{KILLED}::what_was_signed_is_never_forgotten_by_a_kill",
        f"{KILLED}::artifacts_killed_at_each_call",
    ),
    "replayed enrolment token": (
        f"{ENROL}::code_used_by_another_machine",
        f"{ENROL}::e5_repeat_after_a_lost_answer_uses_the_same_keys",
        f"{CODES}::a_lost_answer_can_be_asked_for_again_with_the_same_keys_only",
        f"{CODES}::codes_expire_after_a_day",
        f"{CODES}::a_new_code_kills_the_one_before",
        f"{CODES}::an_enrolment_proof_does_not_renew",
    ),
    "cloned key": (
        f"{RESTORES}::a_live_copy_of_a_terminal",
        f"{RESTORES}::a_copied_terminal_that_both_sides_started_anew",
        f"{RESTORES}::an_agent_s_disk_restored_from_a_copy",
    ),
    "replayed command": (
        f"{ORDERS}::replayed_order",
        f"{ORDERS}::id_reused_with_other_content",
        f"{ORDERS}::same_order_under_a_higher_counter",
        f"{ORDERS}::stale_counter",
        f"{ORDERS}::key_of_an_earlier_connection",
        f"{ORDERS}::flood_of_a_replayed_order_writes_nothing",
        f"{ORDERS}::desired_replay",
    ),
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


def names_in(path: Path) -> list[str]:
    """Of every test of a file, in classes as well, without `test_`. A file that is gone has none."""
    if not path.is_file():
        return []
    found: list[str] = []
    blocks: list[ast.Module | ast.ClassDef] = [ast.parse(path.read_text("utf-8"))]
    while blocks:
        for node in blocks.pop().body:
            if isinstance(node, ast.ClassDef):
                blocks.append(node)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append(node.name.removeprefix("test_"))
    return found


def names() -> list[str]:
    """Of this folder."""
    return [name for path in Path(__file__).parent.glob("test_*.py") for name in names_in(path)]


def is_there(begin: str) -> bool:
    file, _, start = begin.rpartition("::")
    return any(name.startswith(start) for name in (names_in(PROJECT / file) if file else names()))


@pytest.mark.parametrize("attack", CATALOGUE)
def test_every_attack_of_the_catalogue_has_its_tests(attack: str) -> None:
    assert [begin for begin in CATALOGUE[attack] if not is_there(begin)] == []


RIGHTFUL = frozenset({"accepted", "rightful", "rightful_desired", "honest"})
"""What a test calls that lets the rightful party do the same."""
IN_OTHER_WORDS = frozenset({
    "same_order_under_a_higher_counter", "key_of_an_earlier_connection", "risky_order_without_a_second_person",
    "risky_order_with_the_same_person_as_approver", "order_with_any_byte_changed",
})  # fmt: skip
"""Orders that have no helper: the order itself, approved or unchanged, is done in the end."""


def calls_of(test: ast.AST) -> set[str]:
    called = [node.func for node in ast.walk(test) if isinstance(node, ast.Call)]
    return {one.id if isinstance(one, ast.Name) else one.attr for one in called if isinstance(one, ast.Name | ast.Attribute)}


def test_beside_every_attack_stands_the_rightful_party() -> None:
    """A door that is nailed shut refuses every attacker too."""
    alone = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = {one.name: calls_of(one) for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        helping = {name for name, calls in functions.items() if not name.startswith("test_") and calls & RIGHTFUL}
        alone += [
            name.removeprefix("test_")
            for name, calls in functions.items()
            if name.startswith("test_") and path != Path(__file__) and not calls & (RIGHTFUL | helping)
        ]
    assert set(alone) == IN_OTHER_WORDS


def test_a_test_that_is_lost_is_noticed(tmp_path: Path) -> None:
    """The reader itself: a name that is gone, a file that is gone, and a comment that speaks of a test."""
    (tmp_path / "test_one.py").write_text(
        "class TestIt:\n    async def test_kept(self): ...\n\n# def test_gone(): ...\n", "utf-8"
    )
    assert names_in(tmp_path / "test_one.py") == ["kept"]
    assert names_in(tmp_path / "test_two.py") == []
    assert not is_there(f"{ENROL}::no_such_test")
    assert not is_there("tests/edge_agent/test_gone.py::code_used")
    assert is_there(f"{ENROL}::code_used_by_another_machine")


def test_there_are_as_many_named_attacks_as_promised() -> None:
    assert not [name for name, count in Counter(names()).items() if count > 1]
    assert len(names()) + len(HOSTILE) >= 150
    assert set(ARCHIVES) <= set(HOSTILE)
