"""How channels, deliveries and reasons read: rows of words for the notifications page, in the reader's language. Holds no rules, asks nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleet_server.console.render import Voice
from fleet_server.notifications.filters import Filters
from fleet_server.notifications.planner import Hold
from fleet_server.notifications.store import Line, Newest, Stored
from fleet_server.notifications.words import Words

# What a sender says went wrong, as it stands in a row, and the sentence for it. First match wins.
_ERRORS: Final = tuple(
    (re.compile(pattern), key)
    for pattern, key in (
        (r"HTTP 429", "tooFast"),
        (r"(?:errcode|code) \d+: too fast", "tooFast"),
        (r"HTTP (?P<code>\d{3})(?: .*)?", "http"),
        (r"(?:errcode|code) (?P<code>\d+): the (?:access token does not exist|robot's address is not valid.*)", "robotGone"),
        (r"(?:errcode|code) (?P<code>\d+): the robot's (?:security settings|keyword).*", "robotSecurity"),
        (r"(?:errcode|code) (?P<code>\d+): the (?:signature|address of this server).*", "robotSecurity"),
        (r"(?:errcode|code) (?P<code>\d+): .*too long.*", "robotLong"),
        (r"(?:errcode|code) (?P<code>\d+).*", "robot"),
        (r"(?:no answer|not done) within (?P<n>\d+) s", "silent"),
        (r"no connection .*", "noConnection"),
        (r"SMTP (?P<code>\d+): no recipient was taken", "noRecipient"),
        (r"SMTP (?P<code>\d+)", "smtp"),
        (r"the mail server does not offer STARTTLS", "noStartTls"),
        (r"the mail server does not offer signing in", "noSignIn"),
        (r"no mail was taken .*", "noMail"),
        (r"the address leads to the server's own machine", "home"),
        (r"the address leads to no host .*", "nowhere"),
        (r"the address .*", "address"),
        (r"the signing secret .*", "secret"),
        (r"the channel was switched off", "switchedOff"),
        (r"the channel was removed", "removed"),
        (r"the channel was given another address", "moved"),
        (r"the test was cut off", "cutOff"),
        (r"channel .*(?:set the channel again|no secret is stored).*", "sealed"),
        (r".*set the channels? again.*", "sealed"),
    )
)


def error_words(voice: Voice, error: str | None) -> str:
    """A sentence for what a sender said; for what this list does not know, that it is in the log."""
    if not error:
        return ""
    for pattern, key in _ERRORS:
        found = pattern.fullmatch(error)
        if found:
            return voice.t(f"notify.error.{key}", **found.groupdict())
    return voice.t("notify.error.other")


def joined(voice: Voice, words: Iterable[str]) -> str:
    return voice.t("notify.and").join(words)


def hears(voice: Voice, filters: Filters, area_names: Mapping[str, str]) -> list[str]:
    """What a channel hears, one sentence for each setting that says something."""
    t = voice.t
    lines = [t("notify.hears.severities", names=joined(voice, (t(f"severity.{name}") for name in filters.severities)))]
    if filters.areas:
        lines.append(t("notify.hears.areas", names=joined(voice, (area_names.get(code, code) for code in filters.areas))))
    if filters.kinds:
        lines.append(t("notify.hears.kinds", names=joined(voice, (family_name(voice, name) for name in filters.kinds))))
    lines += [
        t("notify.hears.quiet", severity=t(f"severity.{name}"), start=start, end=end)
        for name, (start, end) in sorted(filters.quiet.items())
        if name in filters.severities
    ]
    lines += [
        t("notify.hears.escalate", severity=t(f"severity.{name}"), n=minutes)
        for name, minutes in sorted(filters.escalate_min.items())
        if name in filters.severities
    ]
    if filters.every_min > 1:
        lines.append(t("notify.hears.every", n=filters.every_min))
    if not filters.recoveries:
        lines.append(t("notify.hears.noRecoveries"))
    return lines


def family_name(voice: Voice, family: str) -> str:
    return voice.t(f"faultFamily.{family}")


def state(voice: Voice, row: Stored, newest: Newest | None, *, opens: bool) -> tuple[str, str, Any]:
    """(look, word, sentence) of how a channel is. Looks: ok, wait, bad, off."""
    t = voice.t
    if not row.enabled:
        return "off", t("notify.state.off"), t("notify.fared.off", by=row.set_by, at=voice.clock(row.set_ms))
    if not opens:
        return "bad", t("notify.state.broken"), t("notify.error.sealed")
    if newest is None:
        return "ok", t("notify.state.on"), t("notify.fared.none")
    if newest.state == "sent" and newest.sent_ms is not None:
        return "ok", t("notify.state.on"), voice.rich("notify.fared.sent", age=voice.age(newest.sent_ms))
    why = error_words(voice, newest.error)
    if newest.state == "queued" and newest.error:
        return (
            "wait",
            t("notify.state.retry"),
            t("notify.fared.retry", n=newest.attempts, why=why, at=voice.clock(newest.next_ms)),
        )
    if newest.state == "queued":
        return "wait", t("notify.state.waiting"), t("notify.fared.waiting", at=voice.clock(newest.created_ms))
    if newest.state == "failed" and row.set_ms <= newest.created_ms and newest.next_ms > voice.now_ms:
        return "bad", t("notify.state.refused"), t("notify.fared.refused", why=why, at=voice.clock(newest.next_ms))
    if newest.state == "failed":
        return "wait", t("notify.state.on"), t("notify.fared.failed", why=why, at=voice.clock(newest.created_ms))
    return "wait", t("notify.state.on"), t("notify.fared.dropped", at=voice.clock(newest.created_ms))


def delivery(voice: Voice, line: Line) -> dict[str, Any]:
    """A row of the log: the subject and lines are what the message says, in the reader's language."""
    t = voice.t
    text = Words(voice.lang, voice.zone, line.name).text(line.digest)
    look, result = _result(voice, line)
    return {
        "id": line.id,
        "at_ms": line.sent_ms or line.created_ms,
        "name": line.name or t("notify.log.gone"),
        "look": look,
        "result": result,
        "why": error_words(voice, line.error),
        "attempts": line.attempts,
        "subject": text.title,
        "lines": [(found.tag, found.text) for found in text.lines[:LINES_MAX]],
        "rest": max(0, len(text.lines) - LINES_MAX),
        "test": line.test,
    }


LINES_MAX: Final = 40


def _result(voice: Voice, line: Line) -> tuple[str, str]:
    t = voice.t
    match line.state:
        case "sent":
            return "ok", t("notify.result.sent")
        case "queued":
            key = "retry" if line.error else "waiting"
            return "wait", t(f"notify.result.{key}", at=voice.clock(line.next_ms))
        case "failed":
            return "bad", t("notify.result.failed")
        case _:
            return "off", t("notify.result.dropped")


def reason(voice: Voice, names: Sequence[str], hold: Hold) -> str:
    """Why these channels were not told, as one sentence."""
    at = "" if hold.at_ms is None else voice.clock(hold.at_ms)
    return voice.t(f"notify.why.{hold.word}", names=joined(voice, names), at=at)
