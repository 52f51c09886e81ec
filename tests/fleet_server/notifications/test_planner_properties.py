"""Whatever happens to a fleet, no channel is flooded, nothing that lasts is left untold, and nothing is told twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fleet_server.notifications.digest import PLATFORM, SiteGroup, decode, encode, group
from fleet_server.notifications.filters import Filters
from fleet_server.notifications.planner import (
    DIGEST_EVERY_MS,
    GATHER_MS,
    LATE_BEHIND_MS,
    SETTLE_MS,
    Fault,
    Listener,
    Message,
    PlatformState,
    why,
)
from fleet_server.notifications.store import STALE_MS
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, SITES, ZONE, Desk

CODES = ("NET.OFFLINE", "PRN.JAM", "LSR.PAPER_OUT", "IDR.OPEN_FAIL")
TERMINALS = st.integers(0, 39).map("kf-{}".format)


@given(
    count=st.integers(6, 150),
    codes=st.lists(st.sampled_from(CODES), min_size=1, max_size=3),
    spread_ms=st.integers(0, MINUTE_MS),
)
@settings(max_examples=25, deadline=None)
def test_any_number_of_faults_of_one_site_within_a_minute_is_two_messages_of_few_lines(
    count: int, codes: list[str], spread_ms: int
) -> None:
    desk = Desk(filters=Filters(escalate_min={}))
    for number in range(count):
        at_ms = desk.now_ms + spread_ms * number // count
        key = desk.opened(f"kf-{number * SITES}", codes[number % len(codes)])
        desk.change(key, opened_ms=at_ms, known_ms=at_ms)
    told = desk.settle(10 * MINUTE_MS, step_ms=5_000)
    assert sum(len(digest.events) for digest in told) == count
    assert len(told) <= 2
    assert sum(len(group(digest.events)) for digest in told) <= 1 + 5
    desk.now_ms += HOUR_MS
    for key in list(desk.faults):
        desk.clear(key)
    over = desk.settle(10 * MINUTE_MS, step_ms=5_000)
    assert [len(group(digest.events)) for digest in over] == [1]
    assert isinstance(group(over[0].events)[0], SiteGroup)


@given(count=st.integers(1, 100), length_min=st.integers(2, 120), flaps=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_blindness_is_exactly_one_message_however_many_fall_silent(count: int, length_min: int, flaps: int) -> None:
    desk = Desk()
    desk.platform = replace(desk.platform, blind_since_ms=desk.now_ms, cause="broker")
    for number in range(count):
        desk.opened(f"kf-{number}", "NET.OFFLINE")
    for _ in range(flaps):
        start_ms = desk.now_ms
        desk.settle(2 * MINUTE_MS)
        desk.platform = PlatformState(last_gap_ms=(start_ms, desk.now_ms), silence_since_ms=desk.now_ms)
        desk.settle(30_000)
        desk.platform = replace(desk.platform, blind_since_ms=desk.now_ms, cause="ingest")
    desk.settle(length_min * MINUTE_MS, step_ms=20_000)
    assert [digest.platform.kind for digest in desk.told if digest.platform is not None] == ["blind"]
    assert all(not digest.events for digest in desk.told)


class Life(RuleBasedStateMachine):
    """A fleet, people, and a channel that is sometimes not reached. What is queued may be delivered, dropped as stale, or refused."""

    @initialize()
    def begin(self) -> None:
        self.desk = Desk(filters=Filters(escalate_min={"P1": 10, "P2": 30}, quiet={}))
        self.queued: Message | None = None
        self.minutes: Counter[int] = Counter()
        self.sizes: list[int] = []

    @rule(terminal=TERMINALS, code=st.sampled_from(CODES), severity=st.sampled_from(["P1", "P2", "P3", "P4"]), late=st.booleans())
    def open(self, terminal: str, code: str, severity: str, late: bool) -> None:
        self.desk.opened(terminal, code, severity, late=late)

    @rule(data=st.data())
    def clear(self, data: st.DataObject) -> None:
        still = sorted(key for key, fault in self.desk.faults.items() if fault.cleared_ms is None)
        if still:
            self.desk.clear(data.draw(st.sampled_from(still)))

    @rule(data=st.data(), mark=st.sampled_from(["claimed", "false_alarm"]))
    def mark(self, data: st.DataObject, mark: str) -> None:
        if self.desk.faults:
            self.desk.change(data.draw(st.sampled_from(sorted(self.desk.faults))), **{mark: True})

    @rule(data=st.data(), minutes=st.integers(1, 60))
    def mute(self, data: st.DataObject, minutes: int) -> None:
        if self.desk.faults:
            self.desk.mutes[data.draw(st.sampled_from(sorted(self.desk.faults)))] = self.desk.now_ms + minutes * MINUTE_MS

    @rule(terminal=TERMINALS, minutes=st.integers(1, 60))
    def maintain(self, terminal: str, minutes: int) -> None:
        self.desk.maintenance[terminal] = self.desk.now_ms + minutes * MINUTE_MS

    @rule(terminal=TERMINALS)
    def lock_or_unlock(self, terminal: str) -> None:
        self.desk.locked ^= {terminal}

    @rule()
    def go_blind(self) -> None:
        if self.desk.platform.blind_since_ms is None:
            self.desk.platform = replace(self.desk.platform, blind_since_ms=self.desk.now_ms, cause="ingest")

    @rule()
    def see_again(self) -> None:
        since_ms = self.desk.platform.blind_since_ms
        if since_ms is not None:
            gap = (since_ms, self.desk.now_ms)
            self.desk.platform = replace(self.desk.platform, blind_since_ms=None, last_gap_ms=gap)

    @rule(length_ms=st.integers(1_000, 20 * MINUTE_MS))
    def wait(self, length_ms: int) -> None:
        self.desk.pass_ms(length_ms)

    def words(self) -> dict[str, str]:
        """What people would be told about each open fault: the reason why it is not told now."""
        seen, listener = self.desk.seen(), Listener(id=1, filters=self.desk.filters, zone=ZONE)
        subjects: dict[str, list[Fault]] = {}
        for fault in seen.faults:
            if fault.cleared_ms is None:
                subjects.setdefault(fault.subject, []).append(fault)
        return {subject: why(self.desk.now_ms, seen, listener, self.desk.sent, rows).word for subject, rows in subjects.items()}

    @rule()
    def plan(self) -> None:
        words = self.words()
        messages = self.desk.messages()
        opened = {event.subject for message in messages for event in message.digest.events if event.kind == "opened"}
        assert {words[subject] for subject in opened} <= {"next", "gathering"}, "what is told had no reason not to be"
        assert {subject for subject, word in words.items() if word == "next"} <= opened, "what nothing holds up is told"
        assert len(messages) <= 1
        if messages:
            assert self.queued is None, "one message waits at a time"
            self.queued = messages[0]
            assert decode(encode(self.queued.digest)) == self.queued.digest
            self.minutes[self.queued.digest.at_ms // DIGEST_EVERY_MS] += 1
            self.desk.sent = replace(self.desk.sent, waiting=True, last_ms=self.queued.digest.at_ms)

    @rule()
    def deliver(self) -> None:
        if self.queued is not None:
            standing = set(self.desk.sent.standing)
            for event in self.queued.digest.events:
                assert (event.subject in standing) == (event.kind != "opened"), "opened once, and nothing else before it"
            assert len({event.subject for event in self.queued.digest.events}) == len(self.queued.digest.events)
            if (platform := self.queued.digest.platform) is not None:
                assert (PLATFORM in standing) == (platform.kind == "sighted")
            self.desk.deliver(self.queued)
            self.queued = None
            self.desk.sent = replace(self.desk.sent, waiting=False)

    @rule()
    def drop(self) -> None:
        """Nobody could be reached until the message was stale."""
        if self.queued is not None:
            self.queued = None
            self.desk.pass_ms(STALE_MS)
            self.desk.sent = replace(self.desk.sent, waiting=False)

    @invariant()
    def one_digest_a_minute(self) -> None:
        if hasattr(self, "minutes"):
            assert all(count == 1 for count in self.minutes.values())

    def teardown(self) -> None:
        """In the end the channel stands exactly where the fleet stands."""
        if not hasattr(self, "desk"):
            return
        desk = self.desk
        self.see_again()
        self.deliver()
        desk.locked.clear()
        desk.pass_ms(LATE_BEHIND_MS + GATHER_MS + SETTLE_MS + HOUR_MS)
        for _ in range(200):
            desk.pass_ms(DIGEST_EVERY_MS)
            if desk.look() is None:
                break
        heard = {
            fault.subject
            for fault in desk.faults.values()
            if fault.cleared_ms is None and fault.severity in desk.filters.severities and not fault.false_alarm
        }
        silenced = {fault.subject for fault in desk.faults.values() if fault.cleared_ms is None and fault.subject not in heard}
        assert heard <= set(desk.sent.standing) <= heard | silenced


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
