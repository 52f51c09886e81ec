"""`fleet-server channel …`, called in this process."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server import cli
from fleet_server.settings import Layout
from tests.support.fakes import smtp
from tests.support.fakes.http import serve
from tests.support.fakes.receiver import Receiver
from tests.support.fakes.robots import DingTalk, WeCom

Run = Callable[..., str]


@pytest.fixture
def run(schema: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against one data directory, with what a person would type; gives what it said."""
    layout = Layout(tmp_path / "data")
    layout.make()
    layout.authority.mkdir(mode=0o700)
    with closing(sqlite3.connect(schema)) as source, closing(sqlite3.connect(layout.database)) as target:
        source.backup(target)

    def run_(*words: str, typed: str = "", status: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        got = cli.main(["--data", str(layout.root), "channel", *words])
        said = capsys.readouterr()
        assert got == status, said
        return said.out + said.err

    return run_


def test_a_webhook_is_added_shown_tested_and_removed(run: Run) -> None:
    receiver = Receiver("")
    with serve(receiver) as served:
        said = run("add", "webhook", "tickets", typed=served.url("/hook?token=PLANTED") + "\n\n")
        receiver.secret = said.split("signing secret     ")[1].split(" ")[0]
        assert "channel tickets is added: JSON webhook at 127.0.0.1" in said
        assert run("test", "tickets") == "tickets: delivered\n"
    assert [tree["type"] for _, tree in receiver.received] == ["fleet.test"]
    listed = run("list")
    assert "tickets: JSON webhook at 127.0.0.1" in listed
    assert "no message yet" in listed
    assert "PLANTED" not in said + listed
    assert receiver.secret not in listed
    assert run("remove", "tickets") == "channel tickets is removed\n"
    assert run("list") == "nobody is told: there is no channel\n"


def test_a_robot_is_added_with_its_filters(run: Run) -> None:
    robot = DingTalk(secret="SECx", keywords=("告警",))
    with serve(robot) as served:
        options = (
            "--lang",
            "en",
            "--severities",
            "P1, P2",
            "--areas",
            "3307,3308",
            "--quiet",
            "P2=22:00-07:00",
            "--escalate",
            "P1=5",
        )
        run(
            "add",
            "dingtalk",
            "duty",
            *options,
            "--keyword",
            "告警",
            "--no-recoveries",
            typed=f"{served.url(robot.url_path())}\nSECx\n",
        )
        assert run("test", "duty") == "duty: delivered\n"
    assert robot.shown[0].title.startswith("告警 Kiosk fleet ")
    listed = run("list")
    for words in (
        '"severities":["P1","P2"]',
        '"areas":["3307","3308"]',
        '"P2":["22:00","07:00"]',
        '"escalate_min":{"P1":5}',
        '"recoveries":false',
    ):
        assert words in listed
    assert "SECx" not in listed


def test_quiet_hours_and_reminders_can_be_left_out(run: Run) -> None:
    run(
        "add",
        "wecom",
        "duty",
        "--quiet",
        "none",
        "--escalate",
        "none",
        typed="https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x\n",
    )
    assert '"quiet":{}' in run("list")
    assert '"escalate_min":{}' in run("list")


def test_e_mail_is_added_with_a_password_only_if_it_signs_in(run: Run) -> None:
    box = smtp.Mailbox()
    with smtp.serve(box) as port:
        run(
            *("add", "mail", "office", "--host", "127.0.0.1", "--port", str(port), "--security", "none"),
            *("--from", "fleet@example.org", "--to", "a@example.org", "--to", "b@example.org"),
        )
        assert run("test", "office") == "office: delivered\n"
    assert box.recipients == [["a@example.org", "b@example.org"]]
    run(
        "add",
        "mail",
        "signed",
        "--host",
        "mail.internal",
        "--from",
        "a@b.org",
        "--to",
        "c@d.org",
        "--user",
        "fleet",
        typed="right horse\n",
    )
    assert "right horse" not in run("list")


def test_what_does_not_arrive_is_said_and_the_exit_status_tells(run: Run) -> None:
    robot = WeCom()
    with serve(robot) as served:
        run("add", "wecom", "duty", typed=served.url("/cgi-bin/webhook/send?key=wrong") + "\n")
        said = run("test", "duty", status=1)
    assert said.startswith("duty: not delivered: errcode 93000")
    assert "wrong" not in said


def test_a_channel_is_switched_off_and_on(run: Run) -> None:
    run("add", "wecom", "duty", typed="https://example.org/?key=x\n")
    run("disable", "duty")
    assert "switched off" in run("list")
    run("enable", "duty")
    assert "switched off" not in run("list")


@pytest.mark.parametrize(
    ("words", "typed", "why"),
    [
        (("add", "wecom", "duty"), "http://example.org/?key=PLANTED\n", "must begin with https"),
        (("add", "webhook", "duty"), "https://example.org/\nwhsec_short\n", "signing secret"),
        (("add", "wecom", "duty", "--severities", "P9"), "https://example.org/\n", "severities"),
        (("add", "wecom", "duty", "--quiet", "P3"), "https://example.org/\n", "not SEVERITY=VALUE"),
        (("add", "wecom", "duty", "--quiet", "P3=8-9"), "https://example.org/\n", "quiet"),
        (("add", "wecom", "duty", "--escalate", "P1=soon"), "https://example.org/\n", "escalate_min"),
        (("add", "wecom", "duty", "--keyword", "x"), "https://example.org/\n", "keyword"),
        (("add", "wecom", "duty", "--ca-file", "/nowhere.pem"), "https://example.org/\n", "no readable certificates"),
        (("add", "mail", "duty"), "", "--host and --from and --to"),
        (("add", "mail", "d", "--host", "h", "--from", "nobody", "--to", "a@b.org"), "", "sender"),
        (
            ("add", "mail", "d", "--host", "h", "--from", "a@b.org", "--to", "a@b.org", "--user", "u", "--security", "none"),
            "x\n",
            "needs TLS",
        ),
        (("add", "wecom", ""), "https://example.org/\n", "1 to 64 characters"),
        (("test", "nobody"), "", "no channel 'nobody'"),
        (("remove", "nobody"), "", "no channel 'nobody'"),
        (("disable", "nobody"), "", "no channel 'nobody'"),
    ],
)
def test_what_cannot_work_is_refused_at_once(run: Run, words: tuple[str, ...], typed: str, why: str) -> None:
    said = run(*words, typed=typed, status=1)
    assert why in said
    assert "PLANTED" not in said
    assert run("list") == "nobody is told: there is no channel\n"


def test_a_name_is_taken_once(run: Run) -> None:
    run("add", "wecom", "duty", typed="https://example.org/?key=x\n")
    assert "channelTaken" in run("add", "wecom", "duty", typed="https://example.org/?key=y\n", status=1)


def test_without_a_server_there_is_nothing_to_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--data", str(tmp_path / "none"), "channel", "list"]) == 1
    assert "fleet-server init" in capsys.readouterr().err
