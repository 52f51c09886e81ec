"""kill -9 at the worst moments: nothing is lost, and what arrives twice is the same message again."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.fleet_server.notifications.bench import NOON_MS
from tests.fleet_server.notifications.city import City
from tests.fleet_server.notifications.hurried_courier import hurried_ms
from tests.support.fakes.http import serve
from tests.support.fakes.receiver import Receiver
from tests.support.processes import Child, Processes
from tests.support.waiting import wait_until

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
SPEED = 100
"""A minute takes 0.6 s."""
DEATHS = 7
FAULTS_EACH = 4


def _is_past(end_s: float) -> bool:
    return time.monotonic() > end_s


@dataclass
class Victim:
    """The sending process. `die_at_answer` kills it with the message taken and the answer not given: it can never know."""

    city: City
    processes: Processes
    real_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    die_at_answer: bool = False
    child: Child | None = None
    killed_at_answer: int = 0

    def start(self) -> Child:
        words = ("-m", "tests.fleet_server.notifications.hurried_courier", self.city.database)
        self.child = self.processes.start_python(*words, str(self.real_ms), str(NOON_MS), str(SPEED))
        self.child.wait_for_output("looking")
        return self.child

    def before_answer(self) -> None:
        if self.die_at_answer and self.child is not None:
            self.die_at_answer = False
            self.killed_at_answer += 1
            self.child.kill()

    def now_ms(self) -> int:
        return hurried_ms(self.real_ms, NOON_MS, SPEED)


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_is_told_twice_however_often_the_sender_is_killed(city: City, processes: Processes) -> None:
    city.conn.execute("UPDATE watch_mark SET at_ms = ?", (2**50,))  # ingest is not part of this
    chance, receiver = random.Random(7), Receiver(SECRET)
    victim = Victim(city, processes)
    receiver.before_answer = victim.before_answer
    faults = 0
    with serve(receiver, now_ms=victim.now_ms) as served:
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        for death in range(DEATHS):
            victim.die_at_answer = death % 2 == 0
            child = victim.start()
            for _ in range(FAULTS_EACH):
                city.now_ms = victim.now_ms()
                city.open_fault(f"kf-{faults}", ago_ms=60_000)
                faults += 1
            if victim.die_at_answer:
                wait_until(lambda: not victim.die_at_answer, "a death with a message on its way")
            else:
                # Looking, planning, claiming or settling: wherever it happens to be.
                end_s = time.monotonic() + chance.uniform(0.0, 0.3)
                wait_until(partial(_is_past, end_s), "a moment")
                child.kill()
        victim.start()
        wait_until(lambda: len(city.subjects()) == faults, "everything is told and noted", timeout_s=60)
    assert victim.killed_at_answer == (DEATHS + 1) // 2
    assert Counter(receiver.events("opened")) == Counter({f"kf-{number}|PRN.JAM": 1 for number in range(faults)})
    repeats = len(receiver.ids()) - len(set(receiver.ids()))
    assert victim.killed_at_answer <= repeats <= DEATHS, "at least once: one repeat for each answer that nobody heard"
    assert {state for state, _, _ in city.notifications()} == {"sent"}
