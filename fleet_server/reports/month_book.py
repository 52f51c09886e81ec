"""Lays a month report out as an office expects it: five sheets, merged headings, panes that stay, parts beside each ratio, notes, signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fleet_server.figures.board import OFF_HOURS
from fleet_server.figures.catalogue import CATALOGUE, POPULATION
from fleet_server.figures.figure import Figure
from fleet_server.figures.population import Group
from fleet_server.reports.book import Book, CellKind, Sheet
from fleet_server.reports.month import COMPARED, AreaLine, Compared, MonthReport, TerminalLine
from fleet_server.reports.words import Lang, say
from fleet_server.sites.calendar import DEFAULT_ZONE, TimeClass, local_day, local_time
from protocols.canon.faults import FAULTS

_A4_COLUMNS: Final = 15
"""More cannot be read on A4 across."""
_CLASSES: Final = (*OFF_HOURS, TimeClass.WORK)


@dataclass(frozen=True, slots=True)
class _Ratio:
    """Three columns: numerator, denominator, value."""

    figure: str
    group: str
    parts: tuple[str, str]
    kinds: tuple[CellKind, CellKind]


_ACTIVE: Final = _Ratio("active_share", "group.active", ("part.active", "part.population"), ("count", "count"))
_SUCCESS: Final = _Ratio("success_rate", "group.successRate", ("col.success", "col.cases"), ("count", "count"))
_OFFHOURS: Final = _Ratio("offhours_share", "group.offhours", ("col.offhours", "col.cases"), ("count", "count"))
_ONLINE: Final = _Ratio("online_rate", "group.online", ("part.onlineHours", "part.watchedHours"), ("hours", "hours"))
_AVAILABLE: Final = _Ratio("availability", "group.availability", ("part.servingHours", "part.knownHours"), ("hours", "hours"))
_INTACT: Final = _Ratio("intact_rate", "group.intact", ("part.intact", "part.checks"), ("count", "count"))
_GOOD: Final = _Ratio("good_rate", "group.good", ("part.good", "part.reviews"), ("count", "count"))


def write_month(report: MonthReport, *, lang: Lang, stored: tuple[int, int] | None = None) -> bytes:
    """The xlsx file. `stored`: first and last number under which its figures were published, for the notes."""
    title = f"{say(lang, 'month.title')} {_month(report, lang)}"
    book = Book(lang, title=title, made_ms=report.now_ms)
    pen = _Pen(report, lang)
    pen.summary(book.sheet(say(lang, "sheet.summary")), title, stored)
    pen.terminals(book.sheet(say(lang, "sheet.terminals")))
    pen.zero(book.sheet(say(lang, "sheet.zero")))
    pen.offhours(book.sheet(say(lang, "sheet.offhours")))
    pen.faults(book.sheet(say(lang, "sheet.faults")))
    return book.finish()


def _month(report: MonthReport, lang: Lang) -> str:
    year, month, _ = map(int, report.question.period.first.split("-"))
    return say(lang, "month.name", year=year, month=month)


class _Pen:
    def __init__(self, report: MonthReport, lang: Lang) -> None:
        self._report, self._lang = report, lang

    def _say(self, key: str, **parts: object) -> str:
        return say(self._lang, key, **parts)

    # Summary ------------------------------------------------------------------------------------------------------------------------------

    def summary(self, sheet: Sheet, title: str, stored: tuple[int, int] | None) -> None:
        """Two tables by area, one below the other so that they can be read on paper, then months compared, notes and signatures."""
        last = 14
        sheet.widths([18, *([10.5] * last)])
        sheet.title(0, last, title)
        sheet.line(1, last, self._subtitle())
        sheet.freeze(4, 1)
        row = self._use_by_area(sheet, 2)
        row = self._running_by_area(sheet, row + 1)
        row = self._comparison(sheet, row + 1, last)
        row = self._notes(sheet, row + 1, last, stored)
        self._signatures(sheet, row + 1)

    def _use_by_area(self, sheet: Sheet, row: int) -> int:
        singles = ("col.population", "col.machineDays", "col.cases", "col.success", "col.zero")
        means = ("cases_per_terminal", "cases_per_terminal_day", "cases_per_terminal_year")
        ratios = (_ACTIVE, _OFFHOURS)
        column = len(singles) + 1
        self._area_head(sheet, row, singles)
        sheet.head(row, column, self._say("group.perTerminal"), columns=len(means))
        for n, key in enumerate(("col.perMonth", "col.perDay", "col.perYear")):
            sheet.head(row + 1, column + n, self._say(key))
        for n, ratio in enumerate(ratios):
            self._ratio_head(sheet, row, column + len(means) + 3 * n, ratio)
        row += 2
        for line in (*self._report.areas, self._report.total):
            bold, figures = self._area_cell(sheet, row, line), line.figures
            numbers = (
                figures["cases"].population, figures["cases_per_terminal_day"].denominator, figures["cases"].numerator,
                figures["cases_success"].numerator, figures["zero_terminals"].numerator,
            )  # fmt: skip
            for n, number in enumerate(numbers, 1):
                sheet.cell(row, n, "count", number, bold=bold)
            for n, name in enumerate(means):
                # Cases stand in column 3 of this row, machine-days in column 2.
                sheet.ratio(row, column + n, "number", figures[name].value, (3, 2), figures[name].factor, bold=bold)
            for n, ratio in enumerate(ratios):
                self._ratio(sheet, row, column + len(means) + 3 * n, ratio, figures[ratio.figure], bold=bold)
            row += 1
        return row

    def _running_by_area(self, sheet: Sheet, row: int) -> int:
        ratios = (_ONLINE, _AVAILABLE, _INTACT, _GOOD)
        self._area_head(sheet, row, ("col.faults", "col.mttr"))
        for n, ratio in enumerate(ratios):
            self._ratio_head(sheet, row, 3 + 3 * n, ratio)
        row += 2
        for line in (*self._report.areas, self._report.total):
            bold, figures = self._area_cell(sheet, row, line), line.figures
            sheet.cell(row, 1, "count", figures["faults"].numerator, bold=bold)
            sheet.cell(row, 2, "number", figures["mttr"].value, bold=bold)
            for n, ratio in enumerate(ratios):
                self._ratio(sheet, row, 3 + 3 * n, ratio, figures[ratio.figure], bold=bold)
            row += 1
        return row

    def _area_head(self, sheet: Sheet, row: int, singles: Sequence[str]) -> None:
        for n, key in enumerate(("col.area", *singles)):
            sheet.head(row, n, self._say(key), rows=2)
        sheet.height(row + 1, 28)

    def _area_cell(self, sheet: Sheet, row: int, line: AreaLine) -> bool:
        """Whether the row is the total, which is bold."""
        is_total = line is self._report.total
        sheet.cell(row, 0, "text", self._say("total") if is_total else self._area(line.group), bold=is_total)
        return is_total

    def _subtitle(self) -> str:
        report = self._report
        scope = (report.scope_zh if self._lang == "zh" else report.scope_en) or self._say("scope.fleet")
        period = report.question.period
        parts = (
            self._say("month.scope", scope=scope),
            self._say("month.period", first=period.first, last=period.last),
            self._say("month.made", at=f"{local_time(report.now_ms, DEFAULT_ZONE):%Y-%m-%d %H:%M}"),
        )
        return "    ".join(parts)

    def _comparison(self, sheet: Sheet, row: int, last: int) -> int:
        """Each indicator in three months; returns the row behind it."""
        sheet.line(row, last, self._say("title.comparison"), bold=True)
        row += 1
        sheet.head(row, 0, self._say("col.indicator"), rows=2, columns=2)
        sheet.head(row, 2, self._say("col.unit"), rows=2)
        months = ("group.now", "group.before", "group.yearBefore")
        columns = (3, 6, 10)
        for column, key in zip(columns, months, strict=True):
            sheet.head(row, column, self._say(key), columns=3)
            for n, part in enumerate(("col.numerator", "col.denominator", "col.value")):
                sheet.head(row + 1, column + n, self._say(part))
        for column, key in ((9, "group.change"), (13, "group.yearChange")):
            sheet.head(row, column, self._say(key), rows=2)
        row += 2
        for compared in self._report.compared:
            self._compared(sheet, row, compared, columns)
            row += 1
        return row

    def _compared(self, sheet: Sheet, row: int, compared: Compared, columns: Sequence[int]) -> None:
        definition, unit = CATALOGUE[compared.now.name], compared.now.unit
        shape = sheet.book.cell_format("text")
        sheet.merged(row, 0, row, 1, definition.title(self._lang), shape)
        sheet.cell(row, 2, "text", self._say(f"unit.{unit}"))
        kind: CellKind = "share" if unit == "share" else "number" if unit in {"perTerminal", "hour"} else "count"
        for column, figure in zip(columns, (compared.now, compared.before, compared.year_before), strict=True):
            parts: CellKind = "hours" if compared.now.name in {"online_rate", "availability", "mttr"} else "count"
            sheet.cell(row, column, parts, None if figure is None else figure.numerator)
            counted: CellKind = "count" if compared.now.name == "mttr" else parts
            sheet.cell(row, column + 1, counted, None if figure is None else figure.denominator)
            if figure is None or not figure.is_ratio:
                sheet.cell(row, column + 2, kind, None if figure is None else figure.value)
            else:
                # The cells show hours; the figure of repair time counts seconds.
                factor = 1.0 if compared.now.name == "mttr" else figure.factor
                sheet.ratio(row, column + 2, kind, figure.value, (column, column + 1), factor)
        change: CellKind = "points" if unit == "share" else "growth"
        sheet.cell(row, 9, change, compared.change(compared.before))
        sheet.cell(row, 13, change, compared.change(compared.year_before))

    def _notes(self, sheet: Sheet, row: int, last: int, stored: tuple[int, int] | None) -> int:
        report, lang = self._report, self._lang
        total = report.total.figures
        online, available = total["online_rate"].shown, total["availability"].shown
        notes = [POPULATION[lang]]
        if report.is_running:
            notes.append(self._say("note.running"))
        if report.missing_year is not None:
            notes.append(self._say("note.calendar", year=report.missing_year))
        if outside := total["cases"].shown.get("outside"):
            notes.append(self._say("note.outside", count=outside))
        if pending := available.get("pending_days"):
            notes.append(self._say("note.pending", count=pending))
        for key, name in (("note.blind", "blind_s"), ("note.unwatched", "unwatched_s")):
            if seconds := online.get(name):
                notes.append(self._say(key, hours=f"{seconds / 3600:,.1f}"))
        if unknown := total["intact_rate"].shown.get("unknown"):
            notes.append(self._say("note.unknown", count=unknown))
        for name in COMPARED:
            definition = CATALOGUE[name]
            notes.append(self._say("note.formula", name=definition.title(lang), formula=definition.formula(lang)))
        notes.append(self._say("note.change"))
        if stored is not None:
            notes.append(self._say("note.trace", first=stored[0], last=stored[1]))
        sheet.line(row, last, self._say("title.notes"), bold=True)
        for n, note in enumerate(notes, 1):
            sheet.line(row + n, last, f"{n}. {note}")
        return row + len(notes) + 1

    def _signatures(self, sheet: Sheet, row: int) -> None:
        shape = sheet.book.format(bottom=1, font_size=11)
        plain = sheet.book.format(font_size=11, align="right")
        sheet.height(row, 26)
        for n, key in enumerate(("sign.made", "sign.checked", "sign.head", "sign.date")):
            column = n * 4
            sheet.cell_as(row, column, self._say(key), plain)
            sheet.merged(row, column + 1, row, column + 2, "", shape)

    # Terminals ----------------------------------------------------------------------------------------------------------------------------

    def terminals(self, sheet: Sheet) -> None:
        ratios = (_SUCCESS, _OFFHOURS, _ONLINE, _AVAILABLE, _INTACT, _GOOD)
        singles: tuple[tuple[str, float, CellKind, Callable[[TerminalLine], object]], ...] = (
            ("col.code", 12, "text", lambda line: line.member.code or line.member.id),
            ("col.name", 30, "text", lambda line: self._either(line.member.name_zh, line.member.name_en)),
            ("col.area", 12, "text", lambda line: self._either(line.area_zh, line.area_en)),
            ("col.site", 24, "text", lambda line: self._either(line.member.site_zh, line.member.site_en)),
            ("col.type", 10, "text", lambda line: self._type(line.member.type)),
            ("col.machineDays", 8, "count", lambda line: line.member.machine_days),
            ("col.cases", 10, "count", lambda line: line.figures["cases"].numerator),
            ("col.failed", 10, "count", lambda line: line.outcomes["failed"].numerator),
            ("col.abandoned", 10, "count", lambda line: line.outcomes["abandoned"].numerator),
            ("col.faults", 11, "count", lambda line: line.figures["faults"].numerator),
        )
        rows = [[value(line) for _, _, _, value in singles] for line in self._report.terminals]
        self._table(
            sheet,
            "title.terminals",
            [one[:3] for one in singles],
            rows,
            ratios,
            [line.figures for line in self._report.terminals],
            2,
        )

    def zero(self, sheet: Sheet) -> None:
        names = {line.member.id: line for line in self._report.terminals}
        columns: tuple[tuple[str, float, CellKind], ...] = (
            ("col.no", 6, "count"),
            ("col.code", 12, "text"),
            ("col.name", 32, "text"),
            ("col.area", 14, "text"),
            ("col.site", 28, "text"),
            ("col.machineDays", 10, "count"),
            ("col.lastCase", 14, "text"),
            ("col.daysSince", 11, "count"),
            ("col.mark", 12, "text"),
        )
        rows: list[list[object]] = []
        for n, row in enumerate(self._report.zero, 1):
            member, line = row.member, names[row.member.id]
            last = self._say("never") if row.last_ms is None else local_day(row.last_ms, member.zone)
            rows.append(
                [
                    n, member.code or member.id, self._either(member.name_zh, member.name_en), self._either(line.area_zh, line.area_en),
                    self._either(member.site_zh, member.site_en), member.machine_days, last, row.days_since, self._say(f"mark.{row.mark}"),
                ]
            )  # fmt: skip
        figures = [names[row.member.id].figures for row in self._report.zero]
        population = self._report.total.figures["zero_terminals"].population
        title = self._say("title.zero", count=len(rows), population=population)
        self._table(sheet, title, columns, rows, (_AVAILABLE,), figures, 3)

    # Off-hours ----------------------------------------------------------------------------------------------------------------------------

    def offhours(self, sheet: Sheet) -> None:
        last = len(_CLASSES) + 3
        sheet.widths([18, *([11] * last)])
        sheet.title(0, last, self._say("title.offhours"))
        sheet.line(1, last, self._subtitle())
        sheet.head(2, 0, self._say("col.area"), rows=2)
        sheet.head(2, 1, self._say("group.byClass"), columns=len(_CLASSES))
        for n, one in enumerate(_CLASSES, 1):
            sheet.head(3, n, self._say(f"class.{one.value}"))
        self._ratio_head(sheet, 2, len(_CLASSES) + 1, _OFFHOURS)
        sheet.freeze(4, 1)
        row = 4
        for line in (*self._report.areas, self._report.total):
            self._class_row(sheet, row, line)
            row += 1
        sheet.line(row + 1, last, self._say("title.hours"), bold=True)
        sheet.head(row + 2, 0, self._say("col.hour"))
        sheet.head(row + 2, 1, self._say("col.cases"))
        for n, figure in enumerate(self._report.by_hour):
            hour = int(figure.key)
            sheet.cell(row + 3 + n, 0, "text", f"{hour:02}:00–{hour + 1:02}:00")
            sheet.cell(row + 3 + n, 1, "count", figure.numerator)

    def _class_row(self, sheet: Sheet, row: int, line: AreaLine) -> None:
        bold = self._area_cell(sheet, row, line)
        counts = {figure.key: figure.numerator for figure in line.by_class}
        for n, one in enumerate(_CLASSES, 1):
            sheet.cell(row, n, "count", counts[one.value], bold=bold)
        self._ratio(sheet, row, len(_CLASSES) + 1, _OFFHOURS, line.figures["offhours_share"], bold=bold)

    # Faults -------------------------------------------------------------------------------------------------------------------------------

    def faults(self, sheet: Sheet) -> None:
        columns: tuple[tuple[str, float, CellKind], ...] = (
            ("col.code", 12, "text"),
            ("col.name", 30, "text"),
            ("col.area", 12, "text"),
            ("col.faults", 11, "count"),
            ("col.ended", 11, "count"),
            ("col.repairHours", 13, "hours"),
            ("col.mttr", 14, "number"),
            ("col.silentHours", 11, "hours"),
            ("col.blindHours", 13, "hours"),
        )
        rows = [
            [
                line.member.code or line.member.id, self._either(line.member.name_zh, line.member.name_en),
                self._either(line.area_zh, line.area_en), *self._fault_cells(line.figures, line.silent_s, line.blind_s),
            ]
            for line in self._report.terminals
        ]  # fmt: skip
        total = self._report.total.figures
        shown = total["availability"].shown
        rows.append([self._say("total"), "", "", *self._fault_cells(total, shown.get("silent_s", 0), shown.get("blind_s", 0))])
        figures = [*(line.figures for line in self._report.terminals), total]
        row, last = self._table(sheet, "title.faults", columns, rows, (_AVAILABLE, _ONLINE, _INTACT), figures, 2, totals=1)
        sheet.line(row + 1, last, self._say("title.codes"), bold=True)
        for n, key in enumerate(("col.faultCode", "col.fault", "", "col.faults")):
            if key:
                sheet.head(row + 2, n, self._say(key), columns=2 if key == "col.fault" else 1)
        for n, figure in enumerate(self._report.faults_by_code, row + 3):
            kind = FAULTS.get(figure.key)
            words = figure.key if kind is None else self._either(kind.zh, kind.en)
            sheet.cell(n, 0, "text", figure.key)
            sheet.merged(n, 1, n, 2, words, sheet.book.cell_format("text"))
            sheet.cell(n, 3, "count", figure.numerator)

    @staticmethod
    def _fault_cells(figures: dict[str, Figure], silent_s: int, blind_s: int) -> list[object]:
        mttr = figures["mttr"]
        return [figures["faults"].numerator, mttr.denominator, mttr.numerator, mttr.value, silent_s, blind_s]

    # Parts --------------------------------------------------------------------------------------------------------------------------------

    def _table(
        self,
        sheet: Sheet,
        title: str,
        columns: Sequence[tuple[str, float, CellKind]],
        rows: Sequence[Sequence[object]],
        ratios: Sequence[_Ratio],
        figures: Sequence[dict[str, Figure]],
        frozen: int,
        *,
        totals: int = 0,
    ) -> tuple[int, int]:
        """Title, two rows of headings, one row each; returns (row behind the last, last column). The last `totals` rows are sums."""
        last = len(columns) + 3 * len(ratios) - 1
        if last >= _A4_COLUMNS:
            sheet.wide()
        sheet.widths([*(width for _, width, _ in columns), *([10, 10, 9] * len(ratios))])
        sheet.title(0, last, self._say(title) if title.startswith("title.") else title, size=14)
        sheet.line(1, last, self._subtitle())
        for n, (key, _, _) in enumerate(columns):
            sheet.head(2, n, self._say(key), rows=2)
        for n, ratio in enumerate(ratios):
            self._ratio_head(sheet, 2, len(columns) + 3 * n, ratio)
        sheet.height(3, 28)
        sheet.freeze(4, frozen)
        for n, (values, of) in enumerate(zip(rows, figures, strict=True)):
            bold = n >= len(rows) - totals
            for column, ((_, _, kind), value) in enumerate(zip(columns, values, strict=True)):
                sheet.cell(4 + n, column, kind, value, bold=bold)
            for k, ratio in enumerate(ratios):
                self._ratio(sheet, 4 + n, len(columns) + 3 * k, ratio, of[ratio.figure], bold=bold)
        if len(rows) > totals:
            sheet.filter(3, 3 + len(rows) - totals, last)
        return 4 + len(rows), last

    def _ratio_head(self, sheet: Sheet, row: int, column: int, ratio: _Ratio) -> None:
        sheet.head(row, column, self._say(ratio.group), columns=3)
        for n, key in enumerate((*ratio.parts, "col.rate")):
            sheet.head(row + 1, column + n, self._say(key))

    @staticmethod
    def _ratio(sheet: Sheet, row: int, column: int, ratio: _Ratio, figure: Figure, *, bold: bool = False) -> None:
        sheet.cell(row, column, ratio.kinds[0], figure.numerator, bold=bold)
        sheet.cell(row, column + 1, ratio.kinds[1], figure.denominator, bold=bold)
        sheet.ratio(row, column + 2, "share", figure.value, (column, column + 1), bold=bold)

    def _area(self, group: Group) -> str:
        name = self._either(group.name_zh, group.name_en) or self._say("area.none")
        return self._say("area.itself", name=name) if group.kind == "itself" else name

    def _either(self, zh: str, en: str) -> str:
        """The name in the report's language, or what there is."""
        return (zh or en) if self._lang == "zh" else (en or zh)

    def _type(self, word: str) -> str:
        try:
            return self._say(f"type.{word}")
        except KeyError:
            return word
