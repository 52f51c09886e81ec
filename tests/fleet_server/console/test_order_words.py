"""Every state and reason of the contract, and every order, has its sentence in both languages; forms mean what they say."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest

from fleet_server.console import i18n, order_forms, order_words
from fleet_server.console.order_view import OrderView, parse_view
from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from fleet_server.orders import rules
from protocols.contract import records
from protocols.contract.orders import KINDS, PullLogs, Restart, SelfTest
from protocols.profile.schema import Kind
from tests.support.seed import NOW_MS

CATALOGUES = i18n.load_all()
VOICES = {lang: Voice(catalogue, NOW_MS, "Asia/Shanghai") for lang, catalogue in CATALOGUES.items()}


def words_of(body: type[msgspec.Struct], field: str) -> tuple[str, ...]:
    """The closed list of a record's field."""
    (found,) = [one.type for one in msgspec.structs.fields(body) if one.name == field]
    return get_args(found)


CONTRACT = {
    "order.state": {*words_of(records.Order, "state"), *words_of(records.Desired, "state")},
    "order.reason": {*words_of(records.Order, "reason"), *words_of(records.Desired, "reason")},
    "order.kind": {*words_of(records.Order, "kind")} - {"unknown"},
}


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
@pytest.mark.parametrize(("prefix", "word"), [(prefix, word) for prefix, found in CONTRACT.items() for word in sorted(found)])
def test_every_word_that_a_terminal_may_say_is_told(lang: i18n.Language, prefix: str, word: str) -> None:
    assert CATALOGUES[lang].has(f"{prefix}.{word}")


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
@pytest.mark.parametrize("state", sorted({*CONTRACT["order.state"], *rules.ITEM_STATES}))
def test_every_state_has_a_word_and_a_whole_sentence(lang: i18n.Language, state: str) -> None:
    assert CATALOGUES[lang].has(f"order.state.{state}")
    assert order_words.state_sentence(VOICES[lang], state).endswith("。" if lang == "zh" else ".")


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
@pytest.mark.parametrize("reason", sorted(CONTRACT["order.reason"] - {"none"}))
def test_every_reason_is_a_whole_sentence(lang: i18n.Language, reason: str) -> None:
    assert order_words.reason_sentence(VOICES[lang], reason).endswith("。" if lang == "zh" else ".")


def test_states_are_sorted_into_looks_without_a_rest() -> None:
    assert set(order_words.ITEM_STATES) == set(rules.ITEM_STATES)
    assert {state: order_words.look_of(state) for state in ("asked", "sent", "done", "failed", "dropped")} == {
        "asked": "waiting",
        "sent": "open",
        "done": "good",
        "failed": "bad",
        "dropped": "quiet",
    }


BODIES = [
    *(("selfTest", {"slot": "receipt-printer", "test": test}) for test in get_args(SelfTest.__annotations__["test"]) or ()),
    *(("selfTest", {"slot": "receipt-printer", "test": test}) for test in ("query", "print", "read", "beep")),
    *(("restart", {"what": what, "when": when}) for what in order_forms.RESTARTS for when in order_forms.WHENS),
    ("pullLogs", {"from_ms": NOW_MS - 3_600_000, "to_ms": NOW_MS}),
    ("cancel", {"request": "00"}),
    ("configuration", {"version": 3}),
    ("lock", {"zh": "停用", "en": "Closed"}),
    ("unlock", {}),
]


@pytest.mark.parametrize("lang", i18n.LANGUAGES)
@pytest.mark.parametrize(("kind", "body"), BODIES)
def test_every_order_is_told_in_words(lang: i18n.Language, kind: str, body: dict[str, object]) -> None:
    said = order_words.what(VOICES[lang], kind, json.dumps(body))
    assert said != CATALOGUES[lang]("order.what.unknown")
    assert "{" not in said


def test_no_kind_of_the_contract_is_without_words() -> None:
    assert set(KINDS) <= {kind for kind, _ in BODIES}
    assert set(order_words.KINDS) == {kind for kind, _ in BODIES}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"slot": 4}'])
def test_what_nobody_can_read_does_not_stop_a_page(text: str) -> None:
    for kind in (*order_words.KINDS, "new"):
        assert order_words.what(VOICES["zh"], kind, text)


# Forms ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slot", "family", "tests"),
    [
        ("receipt-printer", "receipt_printer", ("query", "print")),
        ("laser-printer", "laser_printer", ("query", "print")),
        ("laser-printer", "a4-printer", ("query", "print")),
        ("id-reader", "id_reader", ("query", "read")),
        ("call-pad-3", "call_pad", ("query", "read")),
        ("call-pad-3", "", ("query", "read")),
        ("door", "door", ("query",)),
        ("climate", Kind.CLIMATE, ("query",)),
    ],
)
def test_a_device_is_offered_the_tests_that_make_sense_for_it(slot: str, family: str, tests: tuple[str, ...]) -> None:
    assert order_forms.tests_of(slot, family) == tests


def test_a_test_is_asked_of_a_device_that_can_do_it_and_of_no_other() -> None:
    slots = {"id-reader": ("query", "read"), "door": ("query",)}
    assert order_forms.read_test({"choice": "id-reader read"}, slots) == SelfTest(slot="id-reader", test="read")
    for choice, word in (
        ("id-reader print", "orderTest"),
        ("door read", "orderTest"),
        ("x read", "orderSlot"),
        ("", "orderSlot"),
    ):
        with pytest.raises(Refused) as refused:
            order_forms.read_test({"choice": choice}, slots)
        assert refused.value.reason == word


def test_a_restart_names_what_and_when() -> None:
    assert order_forms.read_restart({"what": "host", "when": "now"}) == Restart(what="host", when="now")
    for form in ({}, {"what": "host"}, {"what": "city", "when": "now"}, {"what": "agent", "when": "soon"}):
        with pytest.raises(Refused):
            order_forms.read_restart(form)


def test_logs_are_asked_for_by_the_clock_of_the_site() -> None:
    form = {"from": "2026-11-18T09:00", "to": "2026-11-18T10:00"}
    assert order_forms.read_logs(form, "Asia/Shanghai") == PullLogs(from_ms=1_794_963_600_000, to_ms=1_794_967_200_000)
    assert order_forms.read_logs(form, "UTC").from_ms - order_forms.read_logs(form, "Asia/Shanghai").from_ms == 8 * 3_600_000
    with pytest.raises(Refused):
        order_forms.read_logs({"from": "yesterday", "to": ""}, "Asia/Shanghai")


def test_an_address_of_the_list_is_its_view() -> None:
    view = parse_view({"kind": "restart", "state": "failed", "by": "lin", "page": "3"})
    assert view.query() == "?kind=restart&state=failed&by=lin&page=3"
    assert parse_view({"kind": "x", "state": "y", "page": "-1"}) == OrderView()
    assert view.without("kind") == "?state=failed&by=lin"
