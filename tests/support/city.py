"""A small demo with two people at the console, and releases that are built, signed, uploaded, asked for and approved by its own forms."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fleet_server.console import rollout_form
from fleet_server.rollouts.rules import Policy, Step
from tests.demo.runner import SECOND_PERSON, UPDATED_TAG
from tests.demo.setup import Places
from tests.support.processes import Child, Processes
from tests.support.waiting import wait_until

POLICY = Policy(
    canary=1,
    steps=(Step(percent=100),),
    soak_s=1,
    failure_count=1,
    failure_first=1,
    window="any",
    ignore_freeze=True,
    probation_s=120,
)


class Person:
    """Somebody at the console, with a browser of their own."""

    def __init__(self, address: str, name: str, password: str) -> None:
        self._http = httpx.Client(base_url=address, headers={"Origin": address.rstrip("/")}, timeout=60)
        answer = self._http.post("/login", data={"name": name, "password": password, "next": "/", "lang": "en"})
        assert answer.status_code == 303, answer.text[:500]

    def page(self, path: str) -> str:
        answer = self._http.get(path)
        assert answer.status_code == 200, answer.text[:500]
        return answer.text

    def post(self, path: str, seen: str, **more: Any) -> httpx.Response:
        """As a form on the page `seen` would; its token goes along."""
        token = re.search(r'name="_csrf" value="([^"]+)"', self.page(seen))
        assert token is not None
        return self._http.post(path, headers={"X-CSRF-Token": token[1]}, **more)

    def close(self) -> None:
        self._http.close()


@dataclass
class City:
    places: Places
    processes: Processes
    child: Child
    operator: Person
    second: Person

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.places.server / 'fleet.sqlite'}?mode=ro", uri=True)) as db:
            return list(db.execute(sql, values))

    def versions(self) -> dict[str, str]:
        """What runs, by each terminal's own signed word."""
        return dict(self.query("SELECT terminal, version FROM installed_version WHERE component = 'agent'"))

    def updated(self) -> list[str]:
        return sorted(terminal for (terminal,) in self.query("SELECT id FROM terminal WHERE tags LIKE ?", f"%{UPDATED_TAG}%"))

    def release(self, kind: str, version: str) -> int:
        """Build, sign, upload; its number."""
        made = self.processes.start_python("-m", "tests.demo.release", kind, version, "--dir", self.places.root)
        assert made.popen.wait(90) == 0, made.output()
        pack: Path = self.places.releases / f"agent-{version}.kfpack"
        answer = self.operator.post(
            "/updates/releases/upload", "/updates/releases", files={"file": (pack.name, pack.read_bytes(), "application/x-tar")}
        )
        assert answer.status_code in (200, 303), answer.text[:800]
        return int(self.query("SELECT id FROM release WHERE version = ?", version)[0][0])

    def roll_out(self, release: int, policy: Policy = POLICY, **more: str) -> str:
        """Asked for by one, approved by another; the rollout."""
        form = rollout_form.of_policy(policy, "Asia/Shanghai") | {"title": f"release {release}", "priority": "0"}
        form |= {"release": str(release), "tag": UPDATED_TAG, "then": "submit"} | more
        asked = self.operator.post("/updates/new", "/updates/new", data=form)
        assert asked.status_code == 303, asked.text[:2000]
        page = asked.headers["Location"].partition("?")[0]
        rollout = page.rpartition("/")[2]
        self.operator.post(f"{page}/approve", page)
        assert self.query("SELECT state FROM rollout WHERE id = ?", rollout) == [("waiting",)], "nobody approves for themself"
        self.second.post(f"{page}/approve", page)
        assert self.query("SELECT approved_by FROM rollout WHERE id = ?", rollout) == [(SECOND_PERSON,)]
        return rollout

    def state(self, rollout: str) -> str:
        return str(self.query("SELECT state FROM rollout WHERE id = ?", rollout)[0][0])

    def members(self, rollout: str) -> list[tuple[Any, ...]]:
        return self.query("SELECT wave, state, reason FROM rollout_member WHERE rollout = ? ORDER BY wave", rollout)


@contextmanager
def running_city(
    folder: Path, *, terminals: int, own_processes: int, calm: bool = False, within_s: float = 90.0
) -> Iterator[City]:
    """Until every terminal with an updater has said what runs on it."""
    processes, places = Processes(folder), Places(folder / "data")
    try:
        child = processes.start_python(
            *("-m", "tests.demo", "--dir", places.root, "--port", "0", "--terminals", str(terminals)),
            *("--own-processes", str(own_processes), "--days", "0", *(["--calm"] if calm else [])),
        )
        child.wait_for_output("Ctrl-C ends the demo", timeout_s=within_s)
        said = child.output()
        address, password = re.search(r"Console +(\S+)", said), re.search(r"Password +(\S+)", said)
        assert address and password
        operator, second = (Person(address[1], name, password[1]) for name in ("operator", SECOND_PERSON))
        found = City(places, processes, child, operator, second)
        wait_until(
            lambda: set(found.updated()) <= found.versions().keys() and len(found.updated()) == own_processes,
            "the terminals say what runs",
            timeout_s=60 + 10 * own_processes,
        )
        yield found
        operator.close()
        second.close()
    finally:
        processes.end_all()
