"""SEC.CERT_EXPIRING: opened by the server when a certificate runs out and nobody renewed it, over when it was renewed."""

from __future__ import annotations

from fleet_server.faults.certificates import CODE, DAY_MS, follow_certificates
from fleet_server.thresholds.rules import put
from tests.support.facts import T0, FactBench


def certify(bench: FactBench, terminal: str, days: float, serial: str = "1", class_: str = "government") -> None:
    bench.conn.execute(
        "INSERT OR IGNORE INTO terminal (id, code, type, site, class, created_ms, enrolled_ms) VALUES (?, ?, 'kiosk', 'S1', ?, 0, 1)",
        (terminal, terminal.upper(), class_),
    )
    bench.conn.execute(
        "INSERT INTO tls_certificate (serial, terminal, not_after_ms, issued_ms) VALUES (?, ?, ?, 0)",
        (f"{terminal}-{serial}", terminal, T0 + int(days * DAY_MS)),
    )


def alarms(bench: FactBench) -> list[tuple[object, ...]]:
    return bench.rows(
        "SELECT terminal, severity, source FROM fault WHERE code = ? AND cleared_ms IS NULL ORDER BY terminal", CODE
    )


def test_only_those_that_run_out_soon_raise_an_alarm_and_only_once(bench: FactBench) -> None:
    for terminal, days in (("kf-21", 13.9), ("kf-22", 14.1), ("kf-23", -1)):
        certify(bench, terminal, days)
    assert follow_certificates(bench.conn, T0) == 2
    assert alarms(bench) == [("kf-21", "P2", "platform"), ("kf-23", "P2", "platform")]
    assert follow_certificates(bench.conn, T0 + 1) == 0
    assert len(bench.rows("SELECT 1 FROM fault WHERE code = ?", CODE)) == 2


def test_a_renewal_ends_it(bench: FactBench) -> None:
    certify(bench, "kf-21", 3)
    follow_certificates(bench.conn, T0)
    certify(bench, "kf-21", 90, serial="2")
    assert follow_certificates(bench.conn, T0 + 5) == 1
    assert alarms(bench) == []
    assert bench.one("SELECT cleared_ms, cleared_by FROM fault WHERE code = ?", CODE) == (T0 + 5, "platform")


def test_the_warning_time_is_the_threshold_of_the_class(bench: FactBench) -> None:
    certify(bench, "kf-21", 20)
    certify(bench, "kf-22", 20, class_="social")
    put(bench.conn, "certificate.warn_days", 30, by="op", now_ms=T0, terminal_class="social")
    follow_certificates(bench.conn, T0)
    assert [row[0] for row in alarms(bench)] == ["kf-22"]
    put(bench.conn, "certificate.warn_days", None, by="op", now_ms=T0, terminal_class="social")
    follow_certificates(bench.conn, T0)
    assert alarms(bench) == []


def test_who_left_service_or_was_never_enrolled_is_left_alone(bench: FactBench) -> None:
    certify(bench, "kf-21", 1)
    certify(bench, "kf-22", 1)
    bench.conn.execute("UPDATE terminal SET revoked_ms = 5 WHERE id = 'kf-21'")
    bench.conn.execute("UPDATE terminal SET enrolled_ms = NULL WHERE id = 'kf-22'")
    assert follow_certificates(bench.conn, T0) == 0
    assert alarms(bench) == []
