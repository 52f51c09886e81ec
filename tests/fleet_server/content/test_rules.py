"""What may happen to a package and what may be in it."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from fleet_server.content import rules
from fleet_server.content.rules import Draft
from fleet_server.errors import Conflict, Refused
from protocols.packages import content
from protocols.packages.content import Page, file_of
from protocols.packages.profiles import PackageError

BOTH = ("manage", "approve")


def draft(**changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "name": "tax-guide", "release": 3, "state": "draft", "pages": (Page(id="page.1", zh="一", en="One", file="a.png"),),
        "files": (file_of("a.png", b"x"), file_of("b.css", b"y")), "from_ms": 0, "until_ms": None, "weekdays": 127, "priority": 5,
        "offline": True, "created_by": "li", "editors": frozenset({"li", "zhao"}), "reviewed_by": None,
    }  # fmt: skip
    return Draft(**(fields | changes))


def test_the_life_of_a_package() -> None:
    state = "draft"
    steps = "submit li, return wang, submit li, approve wang, publish li, disable li, delete li"
    for act, by in (step.split() for step in steps.split(", ")):
        state = rules.check_act(act, draft(state=state), by=by, may=BOTH)
    assert state == "deleted"


@pytest.mark.parametrize("by", ["li", "zhao"])
def test_nobody_approves_what_they_worked_on(by: str) -> None:
    with pytest.raises(Refused, match="contentOwnWork"):
        rules.check_act("approve", draft(state="review"), by=by, may=BOTH)
    assert rules.check_act("approve", draft(state="review"), by="wang", may=BOTH) == "approved"


def test_each_step_takes_its_state_and_its_permission() -> None:
    for act, (froms, _, permission) in rules.ACTS.items():
        for state in get_args(rules.State):
            if state not in froms:
                with pytest.raises(Conflict):
                    rules.check_act(act, draft(state=state), by="wang", may=BOTH)
        with pytest.raises(Refused, match="contentRole"):
            rules.check_act(act, draft(state=min(froms)), by="wang", may=[one for one in BOTH if one != permission])
    with pytest.raises(Refused):
        rules.check_act("explode", draft(), by="wang", may=BOTH)


def test_only_a_withdrawal_has_no_reviewer() -> None:
    gone = rules.withdrawal_of("tax-guide", 4, created_by="li")
    assert content.check(msgspec.json.encode(gone)) == gone
    assert (gone.created_by, gone.reviewed_by) == ("li", None)
    shown = rules.manifest_of(draft(), reviewed_by="wang")
    with pytest.raises(PackageError, match="nobody reviewed it"):
        content.check(msgspec.json.encode(msgspec.structs.replace(shown, reviewed_by=None)))


@pytest.mark.parametrize("state", sorted(set(get_args(rules.State)) - {"draft"}))
def test_only_a_draft_changes(state: str) -> None:
    with pytest.raises(Conflict):
        rules.check_draft(draft(state=state))
    rules.check_draft(draft())


def test_a_package_without_pages_goes_nowhere() -> None:
    with pytest.raises(Refused, match="contentNoPages"):
        rules.check_act("submit", draft(pages=()), by="li", may=BOTH)
    with pytest.raises(Refused, match="contentWindow"):
        rules.check_act("submit", draft(from_ms=9, until_ms=9), by="li", may=BOTH)


def test_the_manifest_names_both_people_and_the_pages_files_first() -> None:
    made = rules.manifest_of(draft(files=(file_of("0.css", b"y"), file_of("a.png", b"x"))), reviewed_by="wang")
    assert (made.version, made.created_by, made.reviewed_by) == ("3.0", "li", "wang")
    assert [file.name for file in made.files] == ["a.png", "0.css"]


@pytest.mark.parametrize(
    ("given", "name"),
    [("Guide Film.MP4", "guide-film.mp4"), ("C:\\x\\A_b.png", "a-b.png"), ("../../etc/passwd.html", "passwd.html"),
        ("办事.mp4", None), ("x.svg", None), ("run.js", None), (".html", None)],
)  # fmt: skip
def test_names_of_files(given: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(Refused):
            rules.file_name(given)
    else:
        assert rules.file_name(given) == name


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n", ""), ("a.png", b"GIF89a", "contentFileOther"), ("a.mp4", b"\0\0\0\x18ftypisom", ""),
        ("a.mp4", b"<html>", "contentFileOther"), ("a.webp", b"RIFF\0\0\0\0WEBPVP8 ", ""), ("a.webp", b"RIFF\0\0\0\0WAVE", "contentFileOther"),
        ("a.jpg", b"", "contentFileEmpty"), ("a.html", b"<p>ok</p>", ""), ("a.html", b"\xff\xfe", "contentFileText"),
        ("a.html", b"<ScRiPt>x", "contentFileActive"), ("a.html", b"<p onclick = x>", "contentFileActive"),
        ("a.html", b"<a href='javascript: x'>", "contentFileActive"), ("a.html", b"< iframe>", "contentFileActive"),
        ("a.html", b"<meta http-equiv=refresh>", "contentFileActive"), ("a.css", b"@import url(x)", "contentFileActive"),
        ("a.css", b"p { color: red }", ""), ("a.vtt", b"WEBVTT\n", ""), ("a.vtt", b"1\n", "contentFileOther"),
    ],
)  # fmt: skip
def test_bytes_must_be_what_the_name_says(name: str, data: bytes, word: str) -> None:
    text = data if rules.is_text(name) else None
    if word:
        with pytest.raises(Refused, match=word):
            rules.check_file(name, data[:64], len(data), text)
    else:
        rules.check_file(name, data[:64], len(data), text)


def test_large_files_are_refused() -> None:
    with pytest.raises(Refused, match="contentFileLarge"):
        rules.check_file("a.mp4", b"\0\0\0\x18ftypisom", rules.FILE_MAX_BYTES + 1, None)
    with pytest.raises(Refused, match="contentFileLarge"):
        rules.check_file("a.html", b"<p>", rules.TEXT_MAX_BYTES + 1, b"<p>")


ROW = {"id": "page.1", "zh": "一", "en": "One", "file": "a.png", "items": "tax.invoice，social.card", "seconds": "20"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, ""), ({"zh": " "}, "contentTitle"), ({"en": "<b>"}, "contentTitle"), ({"items": "No!"}, "contentItems"),
        ({"seconds": "0"}, "contentSeconds"), ({"seconds": "x"}, "contentPage"), ({"file": "b.png"}, "contentPageFile"),
        ({"id": "330102199001011235"}, "contentPage"),
    ],
)  # fmt: skip
def test_pages_of_a_form(change: dict[str, str], word: str) -> None:
    if word:
        with pytest.raises(Refused, match=word):
            rules.pages_of([{**ROW, **change}], {"a.png"})
    else:
        (page,) = rules.pages_of([ROW], {"a.png"})
        assert (page.items, page.seconds) == (("tax.invoice", "social.card"), 20)


def test_ids_are_not_used_twice() -> None:
    assert rules.page_id({"page.1", "page.3"}) == "page.2"
    assert msgspec.convert(rules.page_id({f"page.{n}" for n in range(1, 60)}), str) == "page.60"
