"""What a screen may be set to, when its token holds, and who is held back at the door."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_server.errors import Refused
from fleet_server.wallboards.door import ADDRESSES, TRIES, WINDOW_MS, Door
from fleet_server.wallboards.rules import VIEWS, board_of, read_days, read_look

NOW = 1_795_000_000_000
FORM = {"view_now": "1", "view_map": "1", "interval_s": "20", "lang": "en", "days": "90"}
ROW: dict[str, Any] = {
    "id": 1, "name": "hall", "lang": "zh", "views": "needs,now", "interval_s": 20, "created_ms": 1, "created_by": "operator", "expires_ms": NOW + 1,
    "changed_ms": None, "changed_by": None, "revoked_ms": None, "revoked_by": None, "seen_ms": None,
}  # fmt: skip


def test_views_come_in_one_order_whatever_the_form_says() -> None:
    look = read_look({**FORM, "view_areas": "1"}, "Hall")
    assert look.views == ("now", "map", "areas")
    assert (look.lang, look.interval_s) == ("en", 20)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"view_now": "", "view_map": ""}, "views"),
        ({"interval_s": "4"}, "interval_s"),
        ({"interval_s": "301"}, "interval_s"),
        ({"interval_s": ""}, "interval_s"),
        ({"interval_s": "٢٠"}, "interval_s"),
        ({"interval_s": "-20"}, "interval_s"),
        ({"interval_s": "99999999999999"}, "interval_s"),
    ],
)
def test_a_form_that_does_not_fit_names_its_field(changes: dict[str, str], field: str) -> None:
    with pytest.raises(Refused) as refused:
        read_look({**FORM, **changes}, "Hall")
    assert refused.value.field == field


@pytest.mark.parametrize("days", ["", "0", "31", "99999", "forever"])
def test_a_token_lasts_one_of_the_terms_offered(days: str) -> None:
    assert read_days(FORM) == 90
    with pytest.raises(Refused):
        read_days({"days": days})


def test_a_board_lives_until_it_expires_or_is_revoked() -> None:
    assert board_of(ROW).standing(NOW) == "live"
    assert board_of(ROW).standing(NOW + 1) == "expired"
    assert board_of({**ROW, "revoked_ms": 5}).standing(NOW) == "revoked"


def test_a_newer_versions_view_is_left_out_and_one_always_remains() -> None:
    assert board_of({**ROW, "views": "needs,holograms,now"}).look.views == ("now", "needs")
    assert board_of({**ROW, "views": "holograms"}).look.views == VIEWS[:1]


def test_ten_wrong_tokens_close_the_door_for_that_address_alone_and_for_a_while() -> None:
    door = Door()
    for n in range(TRIES):
        assert door.wait_ms("a", NOW + n) == 0
        door.failed("a", NOW + n)
    assert door.wait_ms("a", NOW + TRIES) == WINDOW_MS - TRIES
    assert door.wait_ms("b", NOW + TRIES) == 0
    assert door.wait_ms("a", NOW + WINDOW_MS) == 0


def test_a_clock_set_back_locks_nobody_out() -> None:
    door = Door()
    for _ in range(TRIES):
        door.failed("a", NOW)
    assert door.wait_ms("a", NOW - 1) == 0


def test_the_door_remembers_so_many_addresses_and_no_more() -> None:
    door = Door()
    for n in range(ADDRESSES + 50):
        door.failed(str(n), NOW)
    assert len(door._wrong) == ADDRESSES
