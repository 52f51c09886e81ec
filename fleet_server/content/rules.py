"""What may happen to a package, who may do it, what may be in a file. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from fleet_server.errors import Conflict, Refused
from protocols.packages import content
from protocols.packages.content import File, Manifest, PackageName, Page
from protocols.packages.profiles import PackageError

State = Literal["draft", "review", "approved", "publishing", "published", "disabling", "disabled", "deleted"]
Act = Literal["submit", "return", "approve", "publish", "disable", "delete"]
ACTS: Final[Mapping[str, tuple[frozenset[str], State, str]]] = {
    "submit": (frozenset({"draft"}), "review", "manage"),
    "return": (frozenset({"review", "approved"}), "draft", "approve"),
    "approve": (frozenset({"review"}), "approved", "approve"),
    "publish": (frozenset({"approved", "publishing"}), "published", "manage"),
    "disable": (frozenset({"published", "disabling"}), "disabled", "manage"),
    "delete": (frozenset({"draft", "review", "approved", "disabled"}), "deleted", "manage"),
}
"""From which states, to which, and the permission it takes."""
CLAIMED: Final[Mapping[str, tuple[State, State]]] = {"publish": ("publishing", "approved"), "disable": ("disabling", "published")}
"""What signs is claimed first: (state meanwhile, state if it was not signed). Meanwhile nothing else can happen to the package; a server that was
stopped in between leaves it so, and the same act goes on from there."""
EVENT: Final[Mapping[str, str]] = {
    "submit": "submitted",
    "return": "returned",
    "approve": "approved",
    "publish": "published",
    "disable": "disabled",
    "delete": "deleted",
}
WEEKDAYS: Final = 7
FILE_MAX_BYTES: Final = 300 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A package as it stands. `editors`: everybody who changed it, or brought a file that is in it, also to an earlier version."""

    name: str
    release: int
    state: str
    pages: tuple[Page, ...]
    files: tuple[File, ...]
    from_ms: int
    until_ms: int | None
    weekdays: int
    priority: int
    offline: bool
    created_by: str
    editors: frozenset[str]
    reviewed_by: str | None

    @property
    def version(self) -> str:
        return f"{self.release}.0"


def check_name(text: str) -> str:
    try:
        return msgspec.convert(text.strip(), PackageName)
    except msgspec.ValidationError:
        raise Refused("name", "contentName") from None


def check_act(act: str, draft: Draft, *, by: str, may: Collection[str]) -> State:
    """The state after it. Refused or Conflict with the reason why not; whether two accounts are two people needs the database (`store.act`)."""
    if act not in ACTS:
        raise Refused("act", "unknown")
    froms, to, permission = ACTS[act]
    if permission not in may:
        raise Refused("act", "contentRole")
    if draft.state not in froms:
        raise Conflict("state", "contentState")
    if act == "approve" and by in draft.editors | {draft.created_by}:
        raise Refused("act", "contentOwnWork")
    if act == "submit":
        manifest_of(draft, reviewed_by="reviewer" if draft.created_by != "reviewer" else "other")
    return to


def check_draft(draft: Draft) -> None:
    """Only a draft may be changed: what was reviewed stays what was reviewed."""
    if draft.state != "draft":
        raise Conflict("state", "contentNotDraft")


def manifest_of(draft: Draft, *, reviewed_by: str) -> Manifest:
    """Refused with the first thing that a terminal would not take."""
    if not draft.pages:
        raise Refused("pages", "contentNoPages")
    used = {page.file for page in draft.pages}
    shown = tuple(sorted(draft.files, key=lambda file: (file.name not in used, file.name)))
    manifest = Manifest(
        name=draft.name,
        version=draft.version,
        pages=draft.pages,
        files=shown,
        from_ms=draft.from_ms,
        until_ms=draft.until_ms,
        weekdays=draft.weekdays,
        priority=draft.priority,
        offline=draft.offline,
        created_by=draft.created_by,
        reviewed_by=reviewed_by,
    )
    try:
        return content.check(msgspec.json.encode(manifest))
    except PackageError as err:
        raise Refused("pages", _WORDS.get(str(err).partition(":")[0].partition("[")[0], "contentPackage")) from None


_WORDS = {"until_ms": "contentWindow", "files": "contentFiles", "pages": "contentPages"}


def withdrawal_of(name: str, release: int, *, created_by: str) -> Manifest:
    """The empty version that takes the place of what is shown. It names only who withdrew it: nobody has reviewed anything."""
    return Manifest(name=name, version=f"{release}.0", withdrawn=True, created_by=created_by, priority=0)


# Files ----------------------------------------------------------------------------------------------------------------------------------

_MAGIC: Final[Mapping[str, tuple[tuple[int, bytes], ...]]] = {
    "png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "jpg": ((0, b"\xff\xd8\xff"),),
    "jpeg": ((0, b"\xff\xd8\xff"),),
    "webp": ((0, b"RIFF"), (8, b"WEBP")),
    "mp4": ((4, b"ftyp"),),
    "webm": ((0, b"\x1a\x45\xdf\xa3"),),
    "woff2": ((0, b"wOF2"),),
    "vtt": ((0, b"WEBVTT"),),
}
_TEXT: Final = frozenset({"html", "css", "vtt"})
TEXT_MAX_BYTES: Final = 1024 * 1024
_ACTIVE = re.compile(
    r"<\s*(script|iframe|object|embed|applet|base|form|meta\s[^>]*http-equiv)|javascript\s*:|\son[a-z]+\s*=|@import|expression\s*\(",
    re.IGNORECASE,
)
"""What can act or reach out. Terminals forbid it anyway (Content-Security-Policy); here whoever uploads it hears so."""


def file_name(given: str) -> str:
    """The name in the package: lower case, blanks as hyphens, without folders. Refused if nothing usable is left or the type is not allowed."""
    name = re.sub(r"[\s_]+", "-", given.replace("\\", "/").rpartition("/")[2].strip().lower())
    try:
        name = msgspec.convert(name, content.FileName)
    except msgspec.ValidationError:
        raise Refused("file", "contentFileName") from None
    if content.type_of(name) is None:
        raise Refused("file", "contentFileType")
    return name


def check_file(name: str, head: bytes, size: int, text: bytes | None) -> None:
    """Whether the bytes are what the name says. `text`: the whole, for the types that are text."""
    kind = name.rpartition(".")[2]
    if size == 0:
        raise Refused("file", "contentFileEmpty")
    if size > FILE_MAX_BYTES or (kind in _TEXT and size > TEXT_MAX_BYTES):
        raise Refused("file", "contentFileLarge")
    if any(head[at : at + len(magic)] != magic for at, magic in _MAGIC.get(kind, ())):
        raise Refused("file", "contentFileOther")
    if kind in _TEXT:
        try:
            words = (text or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("file", "contentFileText") from None
        if "\x00" in words or _ACTIVE.search(words):
            raise Refused("file", "contentFileActive")


def is_text(name: str) -> bool:
    return name.rpartition(".")[2] in _TEXT


# Pages ----------------------------------------------------------------------------------------------------------------------------------


def pages_of(rows: Sequence[Mapping[str, str]], files: Collection[str]) -> tuple[Page, ...]:
    """The pages of a form, in its order. Refused with the word for the first that is wrong."""
    if len(rows) > content.MAX_PAGES:
        raise Refused("pages", "contentPagesMany")
    pages = []
    for row in rows:
        items = tuple(code for code in re.split(r"[\s,，、]+", row.get("items", "")) if code)
        try:
            pages.append(
                msgspec.convert(
                    {
                        "id": row.get("id", ""),
                        "zh": row.get("zh", "").strip(),
                        "en": row.get("en", "").strip(),
                        "file": row.get("file", ""),
                        "items": items,
                        "seconds": int(row.get("seconds") or 15),
                    },
                    Page,
                )
            )
        except (msgspec.ValidationError, ValueError) as err:
            field = str(err).rpartition("$.")[2].partition("`")[0].partition("[")[0]
            raise Refused("pages", _PAGE_WORDS.get(field, "contentPage")) from None
        if pages[-1].file not in files:
            raise Refused("pages", "contentPageFile")
    return tuple(pages)


_PAGE_WORDS = {
    "zh": "contentTitle",
    "en": "contentTitle",
    "items": "contentItems",
    "seconds": "contentSeconds",
    "file": "contentPageFile",
}


def page_id(taken: Collection[str]) -> str:
    """A new page's id: what plays are counted under, within its package."""
    return next(name for name in (f"page.{number}" for number in range(1, 10_000)) if name not in taken)
