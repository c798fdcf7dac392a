"""One self-contained HTML page about drift: what changed, how much, and a small picture of each column. No script.

Names and words come from data, and data may be hostile: the template escapes everything, control characters are made
visible, texts are cut, and the number of drawn things has limits, so that the page stays small for any table.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from afterfit.drift.reference import Reference
from afterfit.drift.report import ColumnReport, DriftFinding, DriftReport
from afterfit.pages.charts import HeatMap, NamePicture, NumberPicture, heat_map, mean_of, percent, picture
from afterfit.pages.template import template

MOST_CARDS, MOST_QUIET_CARDS = 60, 24
"""Pictures: at most 60 of changed columns. Of more than 60 columns, quiet ones are drawn until there are 24."""
MOST_RANKED = 100
MOST_CELLS = 8_000
MOST_NAMED = 3
MOST_NEW = 8
MOST_WRITTEN = 5_000
"""Columns times windows that are written to JSON in full."""
STRONGEST = 999.0
NAME, WORDS = 60, 240
"""Characters shown of a name, and of a sentence."""


@dataclass(frozen=True, slots=True)
class DriftComparison:
    """Windows against a reference.

    Attributes:
        current: the rows that were compared, in words.
        reference: what they were compared with, in words.
        profiles: the reference's profiles.
        windows: each window's name and report, in order.
        total: the profiles of all windows together.
        notes: what else a reader should know.
    """

    current: str
    reference: str
    profiles: Reference
    windows: tuple[tuple[str, DriftReport], ...]
    total: Reference
    notes: tuple[str, ...] = ()

    @property
    def alarm(self) -> bool:
        """Whether any window alarms."""
        return any(report.alarm for _, report in self.windows)

    @property
    def ranked(self) -> tuple[str, ...]:
        """All columns: by the number of windows in which they alarm, then by their largest effect, then in order."""
        alarms: dict[str, int] = {}
        largest: dict[str, float] = {}
        for _, report in self.windows:
            for name, column in report.columns.items():
                alarms[name] = alarms.get(name, 0) + column.alarm
                largest[name] = max(largest.get(name, 0.0), weight(column) if column.alarm else 0.0)
        place = {column: i for i, column in enumerate(self.profiles.names)}
        return tuple(sorted(alarms, key=lambda name: (-alarms[name], -largest[name], place[name])))

    @property
    def changed(self) -> tuple[str, ...]:
        """The columns that alarm in any window, in the order of `ranked`."""
        alarming = {name for _, report in self.windows for name, column in report.columns.items() if column.alarm}
        return tuple(name for name in self.ranked if name in alarming)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; where there are too many columns and windows, only columns that alarm."""
        whole = sum(len(report.columns) for _, report in self.windows) <= MOST_WRITTEN
        return {
            "alarm": self.alarm,
            "current": self.current,
            "reference": self.reference,
            "changed": list(self.changed),
            "notes": list(self.notes),
            "windows": [{"window": name, **_plain(report, whole=whole)} for name, report in self.windows],
        }


@dataclass(frozen=True, slots=True)
class Card:
    """One column on the page."""

    name: str
    kind: str
    alarm: bool
    words: tuple[str, ...]
    aside: str
    new: str
    number: NumberPicture | None
    names: NamePicture | None


def safe_text(text: object, most: int = NAME) -> str:
    """A text from data, safe to show: control characters are made visible, and it is cut after `most` characters."""
    whole = str(text)
    cut = whole if len(whole) <= most else f"{whole[: most - 1]}…"
    return "".join(map(_visible, cut))


def ranked_findings(column: ColumnReport) -> list[DriftFinding]:
    """A column's findings: alarms first, then by size in units of the smallest effect of interest.

    If mean or spread moved, that comes first: new values outside the range and a changed shape follow from it.
    """
    moved = any(f.alarm and f.kind in {"location", "spread"} for f in column.findings)

    def place(finding: DriftFinding) -> tuple[bool, bool, float]:
        follows = moved and finding.kind in {"new values", "shape"}
        return not finding.alarm, follows, 0.0 if math.isnan(finding.weight) else -finding.weight

    return sorted(column.findings, key=place)


def weight(column: ColumnReport) -> float:
    """The size of a column's first finding, in units of the smallest effect of interest; 0 where none is known."""
    weights = [f.weight for f in ranked_findings(column) if f.outcome != "not applicable" and not math.isnan(f.weight)]
    return min(weights[0], STRONGEST) if weights else 0.0


def changed_columns(report: DriftReport) -> list[ColumnReport]:
    """The columns that alarm, the largest change first."""
    return sorted((c for c in report.columns.values() if c.alarm), key=lambda column: -weight(column))


def first_words(column: ColumnReport) -> str:
    """The words of a column's largest change."""
    return safe_text(next(f.words for f in ranked_findings(column) if f.alarm), WORDS)


def one_line(report: DriftReport) -> str:
    """A window in one line: its largest changes."""
    columns = changed_columns(report)
    if not report.alarm:
        return "nothing changed that matters"
    words = [first_words(column) for column in columns[:MOST_NAMED]]
    words = words or [safe_text(r.words, WORDS) for r in report.relations if r.alarm][:MOST_NAMED]
    more = [f"{len(columns) - MOST_NAMED} more"] if len(columns) > MOST_NAMED else []
    return "ALARM  " + "; ".join([*words, *more])


def join_names(names: Sequence[str], most: int) -> str:
    """Some names in a line, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(safe_text(name, 40) for name in names[:most]) + more


def metric_names(columns: Sequence[str]) -> dict[str, str]:
    """A metric name that MLflow accepts for each column: plain characters, at most 60, no name twice."""
    metric_name_of: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", column)[:50]
        if not plain or plain != column or plain in taken:
            plain = f"{plain[:43]}_{hashlib.sha256(column.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
        metric_name_of[column] = plain
        taken.add(plain)
    return metric_name_of


def render(comparison: DriftComparison) -> str:
    """The page as HTML: one file, without a script; nothing is loaded from elsewhere."""
    cards = _cards(comparison)
    several = len(comparison.windows) > 1
    report = comparison.windows[0][1]
    column_count = len(comparison.ranked)
    return template("drift.html").render(
        found=comparison,
        several=several,
        report=report,
        title=_title(comparison),
        current=safe_text(comparison.current if several else comparison.windows[0][0], WORDS),
        reference=safe_text(comparison.reference, WORDS),
        rows=sum(window_report.rows for _, window_report in comparison.windows),
        ranked=[] if several else _ranked(report),
        ranked_more=0 if several else max(len(comparison.changed) - MOST_RANKED, 0),
        relations=[]
        if several
        else [safe_text(window_report.words, WORDS) for window_report in report.relations if window_report.alarm][:20],
        heat=_heat(comparison) if several and comparison.changed else None,
        windows=[
            (safe_text(name), window_report, _lines(window_report), _outcomes(comparison, window_report))
            for name, window_report in comparison.windows
        ]
        if several
        else [],
        cards=cards,
        left_out=column_count - len(cards),
        columns=column_count,
        notes=_notes(comparison),
        unknown=join_names(report.unknown, 20) if report.unknown else "",
    )


def _plain(report: DriftReport, *, whole: bool) -> dict[str, Any]:
    if not whole:
        alarming = {name: column for name, column in report.columns.items() if column.alarm}
        report = replace(report, columns=alarming, relations=tuple(r for r in report.relations if r.alarm))
    return report.to_dict()


def _visible(character: str) -> str:
    code = ord(character)
    if code < 32:
        return chr(0x2400 + code)
    return "\ufffd" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character


def _title(comparison: DriftComparison) -> str:
    if len(comparison.windows) > 1:
        alarms = sum(report.alarm for _, report in comparison.windows)
        return f"{alarms} of {len(comparison.windows)} windows alarm" if alarms else "No alarm in any window"
    if not comparison.alarm:
        return "No alarm"
    changed_count = len(comparison.changed)
    return (
        f"Alarm: {changed_count} of {len(comparison.ranked)} columns changed"
        if changed_count
        else "Alarm: relations between columns broke"
    )


def _ranked(report: DriftReport) -> list[dict[str, Any]]:
    rows = []
    for column in changed_columns(report)[:MOST_RANKED]:
        first, *others = [finding for finding in ranked_findings(column) if finding.alarm]
        rows.append(
            {
                "name": safe_text(column.name),
                "words": _without_name(column.name, first.words),
                "also": [_without_name(column.name, other.words) for other in others[:4]],
                "weight": min(first.weight, STRONGEST),
                "length": round(100 * min(math.log10(max(first.weight, 1.0)) / 2.5, 1.0), 1),
                "pvalue": "< 0.0001" if first.familywise < 0.0001 else f"{first.familywise:.4f}",
            }
        )
    return rows


def _lines(report: DriftReport) -> list[tuple[str, str]]:
    """A window's largest changes: the column, and what changed in it."""
    columns = changed_columns(report)
    lines = []
    for column in columns[:MOST_NAMED]:
        first = next(finding for finding in ranked_findings(column) if finding.alarm)
        lines.append((safe_text(column.name, 40), _without_name(column.name, first.words)))
    lines = lines or [("", safe_text(r.words, WORDS)) for r in report.relations if r.alarm][:MOST_NAMED]
    more = [("", f"and {join_names([c.name for c in columns[MOST_NAMED:]], 6)}")] if len(columns) > MOST_NAMED else []
    return [*lines, *more] or [("", "nothing that matters")]


def _outcomes(comparison: DriftComparison, report: DriftReport) -> list[str]:
    """The words on shares of outcomes, or on their mean, where they are no alarm: a reader looks for these first."""
    reference = comparison.profiles.outcomes
    names = [] if reference is None else [column.name for column in reference.layout.columns]
    quiet = [report.columns[name] for name in names if name in report.columns and not report.columns[name].alarm]
    findings = [(c.name, f.words) for c in quiet for f in c.findings if f.kind in {"share", "location"}]
    return [f"{safe_text(name, 40)} {_without_name(name, words)} (could be chance)" for name, words in findings]


def _without_name(name: str, words: str) -> str:
    """A finding's words without the column's name in front."""
    return safe_text(words.removeprefix(f"{name}: "), WORDS)


def _notes(comparison: DriftComparison) -> list[str]:
    notes = [*comparison.notes, *(note for _, report in comparison.windows for note in report.notes)]
    return [safe_text(note, 400) for note in list(dict.fromkeys(notes))[:20]]


def _heat(comparison: DriftComparison) -> HeatMap:
    names = comparison.changed
    positions = {name: i for i, name in enumerate(names)}
    alarms = {
        (positions[column.name], window): (weight(column), safe_text(f"{name} {first_words(column)}", 140))
        for window, (name, report) in enumerate(comparison.windows)
        for column in report.columns.values()
        if column.alarm
    }
    return heat_map(
        [safe_text(n, 22) for n in names], [safe_text(n, 16) for n, _ in comparison.windows], alarms, MOST_CELLS
    )


def _cards(comparison: DriftComparison) -> list[Card]:
    ranked, alarming = comparison.ranked, comparison.changed
    chosen, quiet = list(alarming[:MOST_CARDS]), ranked[len(alarming) :]
    chosen += quiet[: max(MOST_QUIET_CARDS - len(chosen), 0) if len(ranked) > MOST_CARDS else len(quiet)]
    positions = {
        column.name: (part, i)
        for part, measured in comparison.profiles.parts.items()
        for i, column in enumerate(measured.layout.columns)
    }
    return [_card(comparison, name, *positions[name]) for name in chosen]


def _card(comparison: DriftComparison, name: str, part: str, position: int) -> Card:
    reference, now = comparison.profiles.parts[part], comparison.total.parts[part]
    column, before, counts = reference.layout.columns[position], reference.counts[position], now.counts[position]
    reports = [(window, report.columns[name]) for window, report in comparison.windows if name in report.columns]
    drawn = picture(column.bins, before, counts)
    return Card(
        name=safe_text(name),
        kind={"features": column.kind, "predictions": "prediction", "outcomes": "outcome"}[part],
        alarm=any(report.alarm for _, report in reports),
        words=_card_words(name, reports),
        aside=_aside(column.bins, before, counts),
        new=_new_names(counts.new),
        number=drawn if isinstance(drawn, NumberPicture) else None,
        names=_with_safe_names(drawn) if isinstance(drawn, NamePicture) else None,
    )


def _new_names(new: Mapping[str, int]) -> str:
    """Categories that the reference never had, with their number of rows, the most frequent first."""
    ranked = sorted(new, key=lambda name: (-new[name], name))
    return ", ".join(f"{safe_text(name, 24)} ({new[name]:,})" for name in ranked[:MOST_NEW])


def _with_safe_names(drawn: NamePicture) -> NamePicture:
    rows = tuple(
        type(row)(safe_text(row.name, 12), row.y, row.before, row.now, row.words, row.new) for row in drawn.rows
    )
    return NamePicture(rows, drawn.high)


def _card_words(name: str, reports: Sequence[tuple[str, ColumnReport]]) -> tuple[str, ...]:
    alarming = [(window, report) for window, report in reports if report.alarm]
    if len(reports) == 1:
        return tuple(_without_name(name, f.words) for _, r in alarming for f in ranked_findings(r) if f.alarm)[:4]
    if not alarming:
        return ()
    window, strongest = max(alarming, key=lambda pair: weight(pair[1]))
    count = f"alarm in {len(alarming)} of {len(reports)} windows"
    return count, f"most in {safe_text(window)}: {_without_name(name, first_words(strongest))}"


def _aside(bins: Any, before: Any, now: Any) -> str:
    """Mean and share of missing values, before and now, where they are known or large enough."""
    parts = []
    means = mean_of(bins, before), mean_of(bins, now)
    if means[0] is not None and means[1] is not None:
        parts.append(f"mean {_format_mean(means[0])} → {_format_mean(means[1])}")
    missing = [counts.levels[0] / max(int(counts.levels.sum()), 1) for counts in (before, now)]
    if max(missing) >= 0.002:
        parts.append(f"missing {percent(missing[0])} → {percent(missing[1])}")
    return " · ".join(parts)


def _format_mean(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
