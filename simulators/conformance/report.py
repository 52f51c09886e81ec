"""What the suite found, for a person and as JUnit XML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

SUITE = "kiosk_fleet.conformance"


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    """One requirement. `text` says what was seen, `remedy` what the vendor does about a failure."""

    id: str
    title: str
    verdict: Verdict
    text: str = ""
    remedy: str = ""
    took_s: float = 0.0


@dataclass
class Report:
    """One unit."""

    profile: str
    unit: str
    results: list[Result] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if result.verdict is Verdict.FAILED]

    def result(self, requirement: str) -> Result:
        return next(result for result in self.results if result.id == requirement)


def as_text(report: Report) -> str:
    """One line for each requirement, then what has to be done."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield f"{report.profile} at {report.unit}"
    for result in report.results:
        mark = {Verdict.PASSED: "ok  ", Verdict.FAILED: "FAIL", Verdict.SKIPPED: "skip"}[result.verdict]
        yield f"  {mark}  {result.id:<18} {result.title}{': ' + result.text if result.text else ''}"
    for name, value in report.figures.items():
        yield f"        {name}: {value}"
    counts = {verdict: sum(result.verdict is verdict for result in report.results) for verdict in Verdict}
    yield ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()) + "."
    if report.failed:
        yield "To be put right:"
    for number, result in enumerate(report.failed, 1):
        yield f"  {number}. {result.id}: {result.remedy or result.text}"


def as_junit(reports: Sequence[Report]) -> bytes:
    """JUnit XML: a suite for each unit, a case for each requirement."""
    root = ElementTree.Element("testsuites", name=SUITE)
    for report in reports:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=f"{SUITE}.{report.profile}",
            tests=str(len(report.results)),
            failures=str(len(report.failed)),
            errors="0",
            skipped=str(sum(result.verdict is Verdict.SKIPPED for result in report.results)),
            time=f"{sum(result.took_s for result in report.results):.3f}",
        )
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in {"unit": report.unit, **report.figures}.items():
            ElementTree.SubElement(properties, "property", name=_clean(name), value=_clean(value))
        for result in report.results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{SUITE}.{report.profile}", name=result.id, time=f"{result.took_s:.3f}"
            )
            if result.verdict is Verdict.FAILED:
                failure = ElementTree.SubElement(case, "failure", message=_clean(result.text))
                failure.text = _clean(f"{result.title}. {result.text}\n{result.remedy}")
            elif result.verdict is Verdict.SKIPPED:
                ElementTree.SubElement(case, "skipped", message=_clean(result.text))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def write_junit(path: Path, reports: Sequence[Report]) -> None:
    path.write_bytes(as_junit(reports))


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _clean(text: str) -> str:
    """XML 1.0 has no control characters; a device's own text may."""
    return _NOT_XML.sub("?", text)
