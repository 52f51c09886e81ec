"""Enrolment and renewal against a TLS server in the test; rule numbers as in docs/spec/enrolment.md."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import identity, tls
from edge_agent.enrol import Request, Trust, enrol, parse_fingerprint, renew
from edge_agent.errors import (
    AgentError,
    ConfigError,
    EnrolmentRefused,
    KeyRefused,
    NotEnrolled,
    ServerNotTrusted,
    ServerUnreachable,
)
from edge_agent.identity import Identity
from edge_agent.signing import FileKeyStore, Validity
from tests.edge_agent.small_fleet import SERVER_TIME_MS, SmallCa, SmallFleet

CODE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
NOW_MS = int(dt.datetime.now(dt.UTC).timestamp() * 1000)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    with SmallFleet(tmp_path, {"kiosk-0007": CODE}) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "identity"


def ask(fleet: SmallFleet, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "server_url": fleet.url,
        "terminal": "kiosk-0007",
        "code": CODE,
        "trust": Trust(fingerprint=fleet.ca.fingerprint),
        "hardware": {"arch": "x86_64", "cpus": 4},
        "check_dates": True,
    }
    return Request(**(values | changes))


def enrolled(fleet: SmallFleet, home: Path) -> tuple[Identity, FileKeyStore]:
    keys = FileKeyStore(home)
    return enrol(ask(fleet), keys, home), keys


class TestEnrol:
    def test_leaves_a_whole_identity(self, fleet: SmallFleet, home: Path) -> None:
        who, keys = enrolled(fleet, home)
        assert who == identity.load(home)
        assert (who.terminal, who.fleet, who.mqtt.port, who.enrolled_ms) == ("kiosk-0007", "testfleet", 8883, SERVER_TIME_MS)
        assert identity.load_ca(home) == fleet.ca.pem
        assert identity.load_desired(home) == {"items": [{"code": "tax.invoice"}]}
        validity = keys.validity()
        assert validity is not None
        assert validity.begin_ms < NOW_MS < validity.end_ms
        tls.client_context(fleet.ca.pem, check_dates=True, keys=keys)

    def test_every_file_is_private(self, fleet: SmallFleet, home: Path) -> None:
        enrolled(fleet, home)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
        assert set(modes.values()) == {0o600}, modes
        assert set(modes) == {"identity.json", "ca.pem", "record-key.cose", "desired.json", "record.key", "tls.pem"}

    def test_by_ca_file(self, fleet: SmallFleet, home: Path) -> None:
        who = enrol(ask(fleet, trust=Trust(ca_pem=fleet.ca.pem)), FileKeyStore(home), home)
        assert who.terminal == "kiosk-0007"

    def test_code_may_be_typed_as_printed(self, fleet: SmallFleet, home: Path) -> None:
        enrol(ask(fleet, code="abcd-efgh ijkl-mnop-qrst-uvwx-yz23-4567 "), FileKeyStore(home), home)
        assert fleet.requests[0][1]["code"] == CODE

    def test_e5_repeat_after_a_lost_answer_uses_the_same_keys(self, fleet: SmallFleet, home: Path) -> None:
        fleet.spoil = dict.clear
        with pytest.raises(ServerUnreachable, match="does not understand"):
            enrolled(fleet, home)
        with pytest.raises(NotEnrolled):
            identity.load(home)
        fleet.spoil = lambda _: None
        enrolled(fleet, home)
        assert len({request["record_key"] for _, request in fleet.requests}) == 1

    def test_again_with_the_same_name_is_allowed_and_with_another_refused(self, fleet: SmallFleet, home: Path) -> None:
        enrolled(fleet, home)
        with pytest.raises(ConfigError, match="already enrolled as kiosk-0007"):
            enrol(ask(fleet, terminal="kiosk-0008"), FileKeyStore(home), home)
        assert len(fleet.requests) == 1

    def test_nothing_personal_in_the_hardware_facts(self, fleet: SmallFleet, home: Path) -> None:
        enrolled(fleet, home)
        assert fleet.requests[0][1]["hardware"] == {"arch": "x86_64", "cpus": 4}

    def test_code_is_in_no_file_and_no_repr(self, fleet: SmallFleet, home: Path) -> None:
        enrolled(fleet, home)
        assert CODE not in repr(ask(fleet))
        assert all(CODE.encode() not in path.read_bytes() for path in home.iterdir())


class TestTheServerMustProveItself:
    """E-1: the code never reaches a server that did not."""

    def test_wrong_fingerprint(self, fleet: SmallFleet, home: Path) -> None:
        with pytest.raises(ServerNotTrusted, match="does not show the CA certificate of this fingerprint; the code was not sent"):
            enrol(ask(fleet, trust=Trust(fingerprint=bytes(32))), FileKeyStore(home), home)
        assert fleet.requests == []

    def test_shows_the_right_ca_but_is_another_server(self, fleet: SmallFleet, home: Path, tmp_path: Path) -> None:
        (tmp_path / "thief").mkdir()
        with SmallFleet(tmp_path / "thief", {"kiosk-0007": CODE}) as thief:
            thief.ca.certificate, own = fleet.ca.certificate, thief.ca.certificate
            with pytest.raises(ServerNotTrusted, match="did not prove to be the server"):
                enrol(ask(thief, trust=Trust(fingerprint=fleet.ca.fingerprint)), FileKeyStore(home), home)
            assert own != thief.ca.certificate
            assert thief.requests == []

    def test_other_ca_file(self, fleet: SmallFleet, home: Path) -> None:
        with pytest.raises(ServerNotTrusted, match="did not prove to be the server"):
            enrol(ask(fleet, trust=Trust(ca_pem=SmallCa().pem)), FileKeyStore(home), home)
        assert fleet.connections_with_bytes == 0

    def test_right_ca_but_another_host_name(self, fleet: SmallFleet, home: Path) -> None:
        url = fleet.url.replace("127.0.0.1", "localhost")
        with pytest.raises(ServerNotTrusted, match="did not prove to be the server"):
            enrol(ask(fleet, server_url=url, trust=Trust(ca_pem=fleet.ca.pem)), FileKeyStore(home), home)
        assert fleet.requests == []

    def test_no_trust_given(self, fleet: SmallFleet, home: Path) -> None:
        with pytest.raises(ConfigError, match="--ca-fingerprint"):
            enrol(ask(fleet, trust=Trust()), FileKeyStore(home), home)

    def test_plain_http(self, fleet: SmallFleet, home: Path) -> None:
        with pytest.raises(ConfigError, match="https://"):
            enrol(ask(fleet, server_url=fleet.url.replace("https", "http")), FileKeyStore(home), home)

    def test_dates_count_only_with_a_good_clock(self, home: Path, tmp_path: Path) -> None:
        long_ago = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
        with SmallFleet(tmp_path, {"kiosk-0007": CODE}, begin=long_ago, server_days=3) as late:
            with pytest.raises(ServerNotTrusted, match="certificate has expired"):
                enrol(ask(late), FileKeyStore(home), home)
            enrol(ask(late, check_dates=False), FileKeyStore(home), home)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "error", "sentence"),
        [
            ({"terminal": "kiosk-0008"}, EnrolmentRefused, "knows no terminal of this name"),
            ({"code": "A" * 32}, EnrolmentRefused, "code is wrong"),
            ({"code": "short"}, ConfigError, "32 letters"),
            ({"terminal": "Kiosk 7"}, ConfigError, "1 to 32 of a-z"),
        ],
    )
    def test_sentence(
        self, fleet: SmallFleet, home: Path, changes: dict[str, str], error: type[AgentError], sentence: str
    ) -> None:
        with pytest.raises(error, match=sentence):
            enrol(ask(fleet, **changes), FileKeyStore(home), home)
        assert not (home / identity.IDENTITY_FILE).exists()

    @pytest.mark.parametrize(
        ("status", "word", "error"),
        [
            (400, "malformed", EnrolmentRefused),
            (400, "badProof", EnrolmentRefused),
            (403, "codeExpired", EnrolmentRefused),
            (403, "revoked", EnrolmentRefused),
            (202, "waiting", ServerUnreachable),
            (429, "tooMany", ServerUnreachable),
            (500, "badCode", ServerUnreachable),
            (403, "whatever", ServerUnreachable),
            (302, "", ServerUnreachable),
        ],
    )
    def test_words(self, fleet: SmallFleet, home: Path, status: int, word: str, error: type[AgentError]) -> None:
        fleet.refuse = (status, word)
        with pytest.raises(error) as caught:
            enrolled(fleet, home)
        assert "operator's log" not in str(caught.value)

    def test_code_used_by_another_machine(self, fleet: SmallFleet, home: Path, tmp_path: Path) -> None:
        enrolled(fleet, home)
        with pytest.raises(EnrolmentRefused, match="already used by another machine"):
            enrolled(fleet, tmp_path / "other")

    def test_nobody_there(self, fleet: SmallFleet, home: Path) -> None:
        port = fleet.url.rpartition(":")[2]
        fleet.__exit__()
        with pytest.raises(ServerUnreachable, match=f"127.0.0.1:{port} does not answer"):
            enrolled(fleet, home)

    def test_answer_too_large(self, fleet: SmallFleet, home: Path) -> None:
        fleet.spoil = lambda answer: answer.update(padding="x" * 70_000)
        with pytest.raises(ServerUnreachable, match="more than 64 KiB"):
            enrolled(fleet, home)


class TestAnswerIsChecked:
    """E-6: an answer that is not ours leaves no identity behind."""

    def _spoiled(self, small: SmallFleet, home: Path, **changes: Any) -> str:
        small.spoil = lambda answer: answer.update(changes)
        with pytest.raises(ServerNotTrusted) as caught:
            enrolled(small, home)
        assert not (home / identity.IDENTITY_FILE).exists()
        assert not (home / "tls.pem").exists()
        return str(caught.value)

    def test_certificate_of_another_ca(self, fleet: SmallFleet, home: Path) -> None:
        assert "not signed by the CA" in self._spoiled(fleet, home, ca=SmallCa().pem)

    def test_certificate_for_another_name(self, fleet: SmallFleet, home: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        other = fleet.ca.issue("kiosk-0008", key.public_key())
        pem = other.public_bytes(Encoding.PEM).decode()
        assert "names another terminal" in self._spoiled(fleet, home, certificate=pem)

    def test_certificate_for_another_key(self, fleet: SmallFleet, home: Path) -> None:
        other = fleet.ca.issue("kiosk-0007", ec.generate_private_key(ec.SECP256R1()).public_key())
        pem = other.public_bytes(Encoding.PEM).decode()
        assert "made for another key" in self._spoiled(fleet, home, certificate=pem)

    def test_record_key_certificate_of_another_root(self, fleet: SmallFleet, home: Path) -> None:
        assert "did not certify" in self._spoiled(fleet, home, root_key="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")

    def test_record_key_certificate_for_another_fleet(self, fleet: SmallFleet, home: Path) -> None:
        assert "did not certify" in self._spoiled(fleet, home, fleet="other")

    def test_no_certificate_at_all(self, fleet: SmallFleet, home: Path) -> None:
        assert "cannot be read" in self._spoiled(fleet, home, certificate="hello")


class TestRenewal:
    def test_due_at_two_thirds(self) -> None:
        ninety_days = Validity(NOW_MS, NOW_MS + 90 * 86_400_000)
        assert not ninety_days.renewal_due(NOW_MS + 60 * 86_400_000 - 1)
        assert ninety_days.renewal_due(NOW_MS + 60 * 86_400_000)
        assert not ninety_days.renewal_due(0), "a clock in 1970 is no reason to renew"

    def test_new_certificate_for_a_new_key(self, fleet: SmallFleet, home: Path) -> None:
        who, keys = enrolled(fleet, home)
        before = public_key_of(home)
        got = renew(who, keys, home, now_ms=NOW_MS, check_dates=True)
        assert before != public_key_of(home)
        assert (got.server_time_ms, got.generation) == (SERVER_TIME_MS, 1)
        assert fleet.peers[-1] == "kiosk-0007"
        assert fleet.requests[0][1]["record_key"] == fleet.requests[1][1]["record_key"]

    def test_expired_certificate_is_not_presented(self, fleet: SmallFleet, home: Path) -> None:
        who, keys = enrolled(fleet, home)
        renew(who, keys, home, now_ms=NOW_MS + 400 * 86_400_000, check_dates=False)
        assert fleet.peers[-1] is None

    def test_e8_rotation_is_endorsed_by_the_old_key(self, fleet: SmallFleet, home: Path) -> None:
        who, keys = enrolled(fleet, home)
        old = keys.record_key().kid
        got = renew(who, keys, home, now_ms=NOW_MS, check_dates=True, rotate=True)
        assert got.generation == 2
        assert keys.record_key().kid == old, "the old key signs until the outbox has written its last record"
        assert keys.has_next_record_key()
        keys.promote_next_record_key()
        assert keys.record_key().kid != old
        assert FileKeyStore(home).record_key().kid == keys.record_key().kid
        renew(who, keys, home, now_ms=NOW_MS, check_dates=True)

    def test_refusal_changes_nothing(self, fleet: SmallFleet, home: Path) -> None:
        who, keys = enrolled(fleet, home)
        before = (home / "tls.pem").read_bytes()
        fleet.record_keys.clear()
        with pytest.raises(EnrolmentRefused, match="taken out of the fleet"):
            renew(who, keys, home, now_ms=NOW_MS, check_dates=True)
        assert (home / "tls.pem").read_bytes() == before


class TestKeyFiles:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_looser_modes_are_refused(self, tmp_path: Path, mode: int) -> None:
        FileKeyStore(tmp_path).record_key()
        (tmp_path / "record.key").chmod(mode)
        with pytest.raises(KeyRefused, match=f"mode {mode:04o}"):
            FileKeyStore(tmp_path).record_key()

    def test_spoiled_or_wrong_keys_are_refused(self, tmp_path: Path) -> None:
        keys = FileKeyStore(tmp_path)
        keys.record_key()
        keys.certificate_request("kiosk-0007")
        record, pending = tmp_path / "record.key", tmp_path / "tls.next.key"
        swapped = record.read_bytes()
        record.write_bytes(pending.read_bytes())
        with pytest.raises(KeyRefused, match="not an Ed25519 key"):
            FileKeyStore(tmp_path).record_key()
        pending.write_bytes(swapped)
        with pytest.raises(KeyRefused, match="not a P-256 key"):
            keys.certificate_request("kiosk-0007")
        record.write_bytes(b"")
        with pytest.raises(KeyRefused, match="not a private key"):
            FileKeyStore(tmp_path).record_key()

    def test_key_does_not_show_itself(self, tmp_path: Path) -> None:
        key = FileKeyStore(tmp_path).record_key()
        assert repr(key) == f"FileKey(kid={key.kid.hex()})"

    def test_certificate_without_key_material_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tls.pem").write_text("nothing")
        (tmp_path / "tls.pem").chmod(0o600)
        with pytest.raises(KeyRefused):
            FileKeyStore(tmp_path).validity()
        with pytest.raises(KeyRefused):
            FileKeyStore(tmp_path).load_client_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def public_key_of(home: Path) -> object:
    return x509.load_pem_x509_certificates((home / "tls.pem").read_bytes())[0].public_key()


def test_fingerprint_as_printed() -> None:
    assert parse_fingerprint("AB:" * 31 + "AB") == b"\xab" * 32
    assert parse_fingerprint("ab" * 32) == b"\xab" * 32
    with pytest.raises(ConfigError, match="64 digits"):
        parse_fingerprint("ab" * 31)
