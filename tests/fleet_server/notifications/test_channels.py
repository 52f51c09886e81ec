"""Each kind of channel over a real socket, against a fake that enforces what the platform documents."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from fleet_server.notifications import dingtalk, feishu, mail, webhook, wecom
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.kinds import KINDS
from fleet_server.notifications.sending import Sender, SendFailed, check_url, host_of
from fleet_server.notifications.setup import Setup
from fleet_server.notifications.words import Language, Words
from tests.fleet_server.notifications.bench import NOON_MS, ZONE
from tests.fleet_server.notifications.samples import AT_MS, digest, event, many, mixed
from tests.support.clock import HandClock
from tests.support.fakes import smtp
from tests.support.fakes.http import Answer, Served, serve
from tests.support.fakes.receiver import Receiver
from tests.support.fakes.robots import DingTalk, Feishu, Robot, WeCom
from tests.support.tls import server_context

ROOT = Path(__file__).resolve().parents[3]
SIGNING = "SEC0123456789abcdef"
WEBHOOK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
ROBOTS: dict[str, type[Robot]] = {"dingtalk": DingTalk, "wecom": WeCom, "feishu": Feishu}
SIGNED = ("dingtalk", "feishu")


@pytest.fixture
def clock() -> HandClock:
    return HandClock(AT_MS)


def opened(kind: str, secret: dict[str, Any], **config: Any) -> Sender:
    config = {"own_machine": True, **config}
    return KINDS[kind].open(Setup("duty", json.dumps(config).encode(), json.dumps(secret).encode(), ZONE, "jinhua"))


@contextmanager
def robot(kind: str, clock: HandClock, **traits: Any) -> Iterator[tuple[Robot, Callable[..., Sender], Served]]:
    fake = ROBOTS[kind](**traits)
    with serve(fake, now_ms=clock) as served:

        def open_(**config: Any) -> Sender:
            secret = {"url": served.url(fake.url_path())}
            return opened(kind, secret if fake.secret is None else {**secret, "secret": fake.secret}, **config)

        yield fake, open_, served


async def send(sender: Sender, found: Digest, clock: HandClock) -> None:
    try:
        await sender.send(found, now_ms=clock.now_ms)
    finally:
        await sender.close()


# Robots ------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ROBOTS))
async def test_a_digest_is_shown_in_the_group(kind: str, clock: HandClock) -> None:
    with robot(kind, clock) as (fake, open_, _):
        await send(open_(), mixed(), clock)
        await send(open_(lang="en"), mixed(), clock)
    assert fake.codes == [0, 0]
    zh, en = fake.shown
    assert "2026-05-29 12:07:05" in zh.title
    for words in ("KF-0317", "A4 打印机缺纸，不能办事", "金东行政服务中心：8 台终端", "P1 紧急", "平台已恢复"):
        assert words in zh.text
    for words in ("KF-0317", "A4 printer out of paper, no service", "P2 major"):
        assert words in en.text


@pytest.mark.parametrize("kind", SIGNED)
async def test_the_platforms_signature_is_made(kind: str, clock: HandClock) -> None:
    with robot(kind, clock, secret=SIGNING) as (fake, open_, _):
        await send(open_(), digest(), clock)
        assert fake.codes == [0]
        sender = open_()
        fake.secret = "SECchanged"
        with pytest.raises(SendFailed, match="signature") as failed:
            await send(sender, digest(), clock)
        assert failed.value.permanent


@pytest.mark.parametrize("kind", SIGNED)
async def test_a_clock_that_is_wrong_by_more_than_an_hour_is_refused(kind: str, clock: HandClock) -> None:
    with robot(kind, clock, secret=SIGNING) as (_, open_, _served):
        sender = open_()
        with pytest.raises(SendFailed, match="clock"):
            await sender.send(digest(), now_ms=clock.now_ms - 3_601_000)
        await send(sender, digest(), clock)


@pytest.mark.parametrize("kind", SIGNED)
async def test_a_keyword_is_said(kind: str, clock: HandClock) -> None:
    with robot(kind, clock, keywords=("监控报警",)) as (fake, open_, _):
        await send(open_(keyword="监控报警"), digest(), clock)
        with pytest.raises(SendFailed, match="keyword") as failed:
            await send(open_(), digest(), clock)
    assert failed.value.permanent
    assert fake.shown[0].title.startswith("监控报警 ")


@pytest.mark.parametrize("kind", sorted(ROBOTS))
async def test_a_storm_fits_into_one_message(kind: str, clock: HandClock) -> None:
    with robot(kind, clock) as (fake, open_, _):
        await send(open_(), many(500), clock)
    assert fake.codes == [0]
    assert re.search(r"其余 4[5-9]\d 条见控制台", fake.shown[0].text)


@pytest.mark.parametrize("kind", sorted(ROBOTS))
async def test_a_token_that_is_not_valid_is_refused_for_good(kind: str, clock: HandClock) -> None:
    with robot(kind, clock) as (fake, open_, _):
        sender = open_()
        fake.token = "another"
        with pytest.raises(SendFailed) as failed:
            await send(sender, digest(), clock)
    assert failed.value.permanent


@pytest.mark.parametrize(
    ("kind", "allowed", "block_ms"), [("dingtalk", 20, 600_000), ("wecom", 20, 60_000), ("feishu", 5, 60_000)]
)
async def test_too_fast_is_understood_and_waited_for(kind: str, allowed: int, block_ms: int, clock: HandClock) -> None:
    with robot(kind, clock) as (fake, open_, _):
        sender = open_()
        for number in range(allowed):
            await sender.send(digest(event(f"kf-{number}")), now_ms=clock.now_ms)
        with pytest.raises(SendFailed, match="too fast") as failed:
            await sender.send(digest(event("kf-99")), now_ms=clock.now_ms)
        assert (failed.value.permanent, failed.value.blocks, failed.value.wait_ms) == (False, True, block_ms)
        clock.now_ms += block_ms
        await send(sender, digest(event("kf-99")), clock)
    assert fake.codes[-2:] != [0, 0]
    assert fake.codes[-1] == 0


@pytest.mark.parametrize("kind", sorted(ROBOTS))
async def test_the_same_fault_on_another_day_reads_differently(kind: str, clock: HandClock) -> None:
    with robot(kind, clock) as (fake, open_, _):
        await send(open_(), digest(), clock)
        await send(open_(), digest(event(since_ms=NOON_MS + 86_400_000), at_ms=AT_MS + 86_400_000), clock)
    assert len(fake.shown) == 2


@pytest.mark.parametrize("kind", sorted(ROBOTS))
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(502, b"<html>bad gateway</html>"), "HTTP 502 without"),
        (Answer(200, b"[]"), "without a readable answer"),
        (Answer(200, b'{"errcode": -1, "code": -1, "errmsg": "system busy"}'), "-1: not taken"),
        (Answer(200, b"x" * 200_000), "without a readable answer"),
        (Answer(200, b'{"errcode": 777777, "code": 777777}'), "777777: not taken"),
    ],
)
async def test_what_may_pass_is_tried_again(kind: str, answer: Answer, words: str, clock: HandClock) -> None:
    with serve(Fixed(answer)) as served, pytest.raises(SendFailed, match=words) as failed:
        await send(opened(kind, {"url": served.url("/x?access_token=PLANTED")}), digest(), clock)
    assert not failed.value.permanent


@pytest.mark.parametrize("kind", sorted(ROBOTS))
async def test_http_429_says_how_long(kind: str, clock: HandClock) -> None:
    with serve(Fixed(Answer(429, b"", {"Retry-After": "7"}))) as served, pytest.raises(SendFailed) as failed:
        await send(opened(kind, {"url": served.url("/x")}), digest(), clock)
    assert (failed.value.blocks, failed.value.wait_ms) == (True, 7_000)


@pytest.mark.parametrize("kind", [*sorted(ROBOTS), "webhook"])
async def test_nobody_there_is_tried_again_and_the_token_stays_secret(
    kind: str, clock: HandClock, free_port: Callable[[], int]
) -> None:
    secret = {"url": f"http://127.0.0.1:{free_port()}/x?access_token=PLANTED", "secret": WEBHOOK_SECRET}
    with pytest.raises(SendFailed, match="no connection") as failed:
        await send(opened(kind, secret), digest(), clock)
    assert not failed.value.permanent
    chain: list[str] = []
    err: BaseException | None = failed.value
    while err is not None:
        chain.append(repr(err))
        err = err.__cause__ if err.__suppress_context__ else err.__context__
    assert "PLANTED" not in "".join(chain)


@pytest.mark.parametrize("kind", sorted(ROBOTS))
@pytest.mark.parametrize(
    "url", ["http://example.org/x?key=1", "ftp://example.org/x", "https://", "nonsense", "https://a b/", "https://[x/"]
)
def test_an_address_that_is_none_or_would_show_its_token_is_refused(kind: str, url: str) -> None:
    with pytest.raises(SendFailed) as failed:
        opened(kind, {"url": url})
    assert failed.value.permanent


def test_feishu_is_not_written_to_at_full_and_half_hours_unless_somebody_must_act() -> None:
    minor, major = digest(event(severity="P3")), digest(event(severity="P2"))
    over = digest(event(kind="recovered", severity="P1", until_ms=NOON_MS))
    test = Digest(id="m", at_ms=NOON_MS, test=True)
    not_before_ms = feishu.FeishuSender.not_before_ms
    for hour_ms in (NOON_MS, NOON_MS + 1_800_000):
        for found in (minor, over):
            assert not_before_ms(found, hour_ms) == not_before_ms(found, hour_ms + 44_999) == hour_ms + 45_000
            assert not_before_ms(found, hour_ms + 45_000) == hour_ms + 45_000
            assert not_before_ms(found, hour_ms - 1) == hour_ms - 1
        for found in (major, test):
            assert not_before_ms(found, hour_ms) == hour_ms


class Fixed:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def answer(self, request: object) -> Answer:
        return self._answer


# Webhook -----------------------------------------------------------------------------------------------------------------------------------


async def test_a_webhook_is_verified_by_the_standards_own_library() -> None:
    receiver = Receiver(WEBHOOK_SECRET)
    with serve(receiver) as served:
        sender = opened("webhook", {"url": served.url("/hook"), "secret": WEBHOOK_SECRET})
        now_ms = int(served.now_ms())
        await sender.send(mixed(), now_ms=now_ms)
        await sender.send(mixed(), now_ms=now_ms + 2_000)
        with pytest.raises(SendFailed, match="401") as failed:
            await sender.send(mixed(), now_ms=now_ms - 400_000)
        await sender.close()
    assert failed.value.permanent
    assert receiver.refused == 1
    assert receiver.ids() == ["msg_0123456789abcdef"] * 2
    first, second = served.requests[:2]
    assert Webhook(WEBHOOK_SECRET).verify(first.body, first.headers) == receiver.received[0][1]
    assert first.body == second.body, "a receiver may compare repeats"
    tree = receiver.received[0][1]
    assert (tree["type"], tree["timestamp"]) == ("fleet.digest", "2026-05-29T04:07:05.000Z")
    assert [found["kind"] for found in tree["data"]["events"]] == ["unclaimed", *["opened"] * 9, "recovered"]
    assert tree["data"]["groups"] == [
        {"kind": "opened", "site": "S2", "severity": "P2", "terminals": [f"kf-10{number}" for number in range(8)]}
    ]


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(301, True), (400, True), (404, True), (408, False), (410, True), (413, True), (425, False), (500, False), (503, False)],
)
async def test_what_a_receiver_answers_decides(status: int, permanent: bool, clock: HandClock) -> None:
    answer = Answer(status, b"secret words of a peer", {"Location": "http://127.0.0.1:1/"})
    with serve(Fixed(answer)) as served, pytest.raises(SendFailed, match=f"^HTTP {status}$") as failed:
        await send(opened("webhook", {"url": served.url("/"), "secret": WEBHOOK_SECRET}), digest(), clock)
    assert failed.value.permanent is permanent
    assert len(served.requests) == 1, "nobody is followed elsewhere"


@pytest.mark.parametrize(("text", "wait_ms"), [("30", 30_000), ("999999", 3_600_000), ("soon", None), ("-5", None), ("", None)])
async def test_a_receiver_may_say_when(text: str, wait_ms: int | None, clock: HandClock) -> None:
    with serve(Fixed(Answer(503, b"", {"Retry-After": text}))) as served, pytest.raises(SendFailed) as failed:
        await send(opened("webhook", {"url": served.url("/"), "secret": WEBHOOK_SECRET}), digest(), clock)
    assert failed.value.wait_ms == wait_ms


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_not base64", "whsec_" + "A" * 88])
def test_a_weak_or_unreadable_signing_secret_is_refused(secret: str) -> None:
    with pytest.raises(SendFailed, match="signing secret"):
        opened("webhook", {"url": "http://127.0.0.1:1/", "secret": secret})


def test_a_made_secret_is_a_good_one() -> None:
    assert len(webhook.signing_key(webhook.new_secret())) == 32
    assert webhook.new_secret() != webhook.new_secret()


def test_the_specifications_example_verifies_what_is_sent() -> None:
    text = (ROOT / "docs/spec/webhook.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "webhook.md", "exec"), names)
    verify = names["verify"]
    key = webhook.signing_key(WEBHOOK_SECRET)
    body = webhook.document(mixed(), fleet="jinhua", channel="tickets")
    headers = dict(webhook.headers_of(key, "msg_1", AT_MS // 1000, body))
    assert verify(WEBHOOK_SECRET, headers, body, AT_MS / 1000)
    assert verify(WEBHOOK_SECRET, headers, body, AT_MS / 1000 + 299)
    assert not verify(WEBHOOK_SECRET, headers, body, AT_MS / 1000 + 302)
    assert not verify(WEBHOOK_SECRET, headers, body + b" ", AT_MS / 1000)
    assert not verify(webhook.new_secret(), headers, body, AT_MS / 1000)
    example = webhook.headers_of(key, "msg_000102030405060708090a0b", 1_780_027_625, b'{"type":"fleet.test"}')
    assert f"webhook-signature: {example['webhook-signature']}\n" in text


def test_the_specifications_body_is_what_is_sent() -> None:
    text = (ROOT / "docs/spec/webhook.md").read_text("utf-8")
    (body,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    found = digest(event(), platform=mixed().platform)
    assert json.loads(webhook.document(found, fleet="jinhua", channel="tickets")) == json.loads(body)


# E-mail --------------------------------------------------------------------------------------------------------------------------------------

MAIL = {"host": "127.0.0.1", "sender": "fleet@example.org", "to": ["duty@example.org", "boss@example.org"]}


async def test_a_mail_is_one_digest_that_no_absence_answers(clock: HandClock) -> None:
    box = smtp.Mailbox()
    with smtp.serve(box) as port:
        sender = opened("mail", {}, **MAIL, port=port, security="none")
        await sender.send(mixed(), now_ms=clock.now_ms)
        await send(sender, mixed(), clock)
    first, second = box.mails
    assert first["Subject"] == "终端监控 2026-05-29 12:07:05 平台 · 新增 9 · 未认领 1 · 恢复 1"
    assert first["Message-ID"] == second["Message-ID"] == "<msg_0123456789abcdef@example.org>"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["To"] == "duty@example.org, boss@example.org"
    assert box.recipients == [["duty@example.org", "boss@example.org"]] * 2
    content = first.get_content()
    assert "[P2 严重] KF-0317 市民中心 24 小时自助区 3 号机：A4 打印机缺纸，不能办事" in content


async def test_a_mail_goes_over_starttls_with_a_password(clock: HandClock, tmp_path: Path) -> None:
    context, ca_file = server_context(tmp_path)
    box = smtp.Mailbox()
    with smtp.serve(box, tls=context, sign_in=True) as port:
        config = {**MAIL, "port": port, "user": box.user}
        await send(opened("mail", {"password": box.password}, **config, ca_file=str(ca_file)), digest(), clock)
        with pytest.raises(SendFailed, match="535") as failed:
            await send(opened("mail", {"password": "wrong"}, **config, ca_file=str(ca_file)), digest(), clock)
        with pytest.raises(SendFailed) as stranger:
            await send(opened("mail", {"password": box.password}, **config), digest(), clock)
    assert box.over_tls == [True]
    assert failed.value.permanent
    assert "certificate" not in box.password
    assert len(box.mails) == 1, "a server that nobody vouches for gets neither password nor mail"
    assert stranger.value is not None


async def test_without_starttls_at_the_server_nothing_is_sent(clock: HandClock) -> None:
    box = smtp.Mailbox()
    with smtp.serve(box) as port, pytest.raises(SendFailed, match="does not offer") as failed:
        await send(opened("mail", {}, **MAIL, port=port), digest(), clock)
    assert failed.value.permanent
    assert box.mails == []


async def test_a_mail_that_is_put_off_is_tried_again_and_one_that_is_refused_is_not(clock: HandClock) -> None:
    box = smtp.Mailbox(answers=["451 later, greylisted", "554 no thanks"])
    with smtp.serve(box) as port:
        sender = opened("mail", {}, **MAIL, port=port, security="none")
        with pytest.raises(SendFailed, match="^SMTP 451$") as later:
            await sender.send(digest(), now_ms=clock.now_ms)
        with pytest.raises(SendFailed, match="^SMTP 554$") as never:
            await sender.send(digest(), now_ms=clock.now_ms)
        await send(sender, digest(), clock)
    assert (later.value.permanent, never.value.permanent) == (False, True)
    assert len(box.mails) == 1


async def test_of_several_recipients_the_known_ones_get_it(clock: HandClock) -> None:
    box = smtp.Mailbox(unknown=frozenset({"boss@example.org"}))
    with smtp.serve(box) as port:
        await send(opened("mail", {}, **MAIL, port=port, security="none"), digest(), clock)
        box.unknown = frozenset(MAIL["to"])
        with pytest.raises(SendFailed, match="no recipient") as failed:
            await send(opened("mail", {}, **MAIL, port=port, security="none"), digest(), clock)
    assert box.recipients == [["duty@example.org"]]
    assert failed.value.permanent


async def test_a_mail_server_that_is_not_there_is_tried_again(clock: HandClock, free_port: Callable[[], int]) -> None:
    with pytest.raises(SendFailed) as failed:
        await send(opened("mail", {}, **MAIL, port=free_port(), security="none"), digest(), clock)
    assert not failed.value.permanent


def test_a_password_is_never_sent_in_the_clear() -> None:
    with pytest.raises(SendFailed, match="needs TLS"):
        opened("mail", {"password": "x"}, **MAIL, security="none", user="fleet")


async def test_a_mail_of_a_storm_has_an_end(clock: HandClock) -> None:
    box = smtp.Mailbox()
    with smtp.serve(box) as port:
        await send(opened("mail", {}, **MAIL, port=port, security="none"), many(500), clock)
    assert "其余 200 条见控制台" in box.mails[0].get_content()


# All of them -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [many(500), mixed()], ids=["storm", "mixed"])
def test_every_format_keeps_below_its_platforms_size(found: Digest) -> None:
    languages: tuple[Language, ...] = ("zh", "en")
    for language in languages:
        words = Words(language, ZONE, "duty")
        assert len(dingtalk.request_body(found, words, "监控")) <= dingtalk.LIMITS.max_bytes < 20_000
        assert len(wecom.markdown(found, words)) <= wecom.LIMITS.max_bytes < 4_096
        body = feishu.request_body(found, words, keyword="监控", secret="s" * 60, at_s=1)
        assert len(body) <= feishu.LIMITS.max_bytes < 20 * 1024
    assert len(webhook.document(found, fleet="f", channel="c")) < 1 << 20
    config = mail.MailConfig(host="h", sender="a@b.org", to=("c@d.org",))
    assert len(bytes(mail.compose(found, Words("zh", ZONE, "duty"), config, "f"))) < 1 << 20


def test_what_may_be_shown_of_an_address_is_its_host() -> None:
    assert host_of("https://oapi.dingtalk.com/robot/send?access_token=PLANTED") == "oapi.dingtalk.com"
    assert host_of("https://user:PLANTED@example.org:8443/x") == "example.org"


def test_reprs_show_no_secret() -> None:
    setup = Setup("duty", b"{}", b'{"url": "PLANTED"}', ZONE, "f")
    assert "PLANTED" not in repr(setup) + str(setup)
    for secret in (KINDS["dingtalk"].secret(url="PLANTED", secret="PLANTED"), KINDS["mail"].secret(password="PLANTED")):
        assert "PLANTED" not in repr(secret) + str(secret)


def test_plain_http_is_for_webhooks_of_a_closed_network_only() -> None:
    check_url("http://tickets.internal/hook", plain_allowed=True)
    with pytest.raises(SendFailed, match="carries a token"):
        check_url("http://tickets.internal/hook", plain_allowed=False)
