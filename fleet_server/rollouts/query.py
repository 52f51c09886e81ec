"""Target groups: which terminals a rollout is for, as a value that a form makes, a page says in words and `matches` decides. Pure.

Conditions hold all together; each holds if one of its values fits (`none`: if no value fits).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from fleet_server.errors import Refused

Field = Literal["type", "area", "site", "siteKind", "class", "profile", "version", "tag", "id"]
FIELDS: Final[tuple[Field, ...]] = get_args(Field)
VALUES_MAX: Final = 500
_Value = Annotated[str, Meta(min_length=1, max_length=80)]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One condition. `component` is for `version` only; the value `-` of a version means: none reported."""

    field: Field
    values: Annotated[tuple[_Value, ...], Meta(min_length=1, max_length=VALUES_MAX)]
    none: bool = False
    component: Annotated[str, Meta(max_length=72)] = ""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """No test at all: every terminal."""

    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16)] = ()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a query may ask of a terminal."""

    id: str
    code: str
    type: str
    areas: frozenset[str]
    """Its site's area and all above it."""
    site: str
    site_kind: str
    owner_class: str
    profiles: frozenset[str]
    versions: Mapping[str, str]
    """Component → version that runs, by the terminal's own word."""
    tags: frozenset[str]


UNKNOWN_VERSION: Final = "-"


def matches(query: Query, target: Target) -> bool:
    return all(_holds(each, target) for each in query.conditions)


def _holds(one: Condition, target: Target) -> bool:
    wanted = set(one.values)
    match one.field:
        case "type":
            found = target.type in wanted
        case "area":
            found = not wanted.isdisjoint(target.areas)
        case "site":
            found = target.site in wanted
        case "siteKind":
            found = target.site_kind in wanted
        case "class":
            found = target.owner_class in wanted
        case "profile":
            found = not wanted.isdisjoint(target.profiles)
        case "version":
            found = target.versions.get(one.component, UNKNOWN_VERSION) in wanted
        case "tag":
            found = not {value.casefold() for value in wanted}.isdisjoint(tag.casefold() for tag in target.tags)
        case _:
            found = not {value.casefold() for value in wanted}.isdisjoint({target.id.casefold(), target.code.casefold()})
    return found is not one.none


def encode(query: Query) -> str:
    return msgspec.json.encode(query).decode()


def decode(text: str) -> Query:
    """Raises Refused(`query`) for what is no query of this version."""
    try:
        return msgspec.json.decode(text, type=Query)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise Refused("query", "query") from None


def of_form(form: Mapping[str, Sequence[str]]) -> Query:
    """The query of a form: `type`, `area`, `site`, `siteKind`, `class`, `profile` and `tag` with one or more values each (a comma or a line
    break separates, too), `id` as a list, `version` with `component` and `versionIs` (`is` or `not`). Fields left empty ask nothing.

    Raises Refused naming the field.
    """
    conditions: list[Condition] = []
    for field in FIELDS:
        values = _values(form.get(field, ()))
        if not values:
            continue
        if len(values) > VALUES_MAX:
            raise Refused(field, "manyValues")
        if any(len(value) > 80 for value in values):
            raise Refused(field, "longValue")
        if field == "version":
            component = "".join(form.get("component", ())[:1]).strip()
            if not component:
                raise Refused("component", "component")
            conditions.append(
                Condition(field=field, values=values, component=component, none=form.get("versionIs", ["is"])[0] == "not")
            )
        else:
            conditions.append(Condition(field=field, values=values))
    return Query(conditions=tuple(conditions))


def _values(given: Sequence[str]) -> tuple[str, ...]:
    parts = (part.strip() for text in given for part in text.translate(_SEPARATORS).split("\n"))
    return tuple(dict.fromkeys(part for part in parts if part))


_SEPARATORS: Final = str.maketrans({",": "\n", "，": "\n", ";": "\n", "；": "\n", "、": "\n", "\r": "\n", "\t": "\n"})
