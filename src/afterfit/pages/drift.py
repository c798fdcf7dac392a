"""One self-contained page about drift: what changed, how much, and a small picture a column. No script in it.

Names and words come from data, and data may be hostile: everything is escaped by the template, control characters are
made visible, texts are cut, and what is drawn has limits, so that the page stays small whatever the table.
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
from afterfit.pages.charts import HeatMap, NamePicture, NumberPicture, heat_map, middle, percent, picture
from afterfit.pages.template import template

MOST_CARDS, MOST_QUIET_CARDS = 60, 24
"""Pictures drawn: of changed columns, and the fewest in all where there are so many columns."""
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
class Compared:
    """Windows against a reference.

    Attributes:
        current: what was compared, in words.
        reference: with what, in words.
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
        """The columns: those that alarm in most windows first, then by their largest effect, then in their order."""
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
        """All of it as plain values for JSON; of many columns in many windows, those that alarm."""
        whole = sum(len(report.columns) for _, report in self.windows) <= MOST_WRITTEN
        return {
            "alarm": self.alarm,
            "current": self.current,
            "reference": self.reference,
            "changed": list(self.changed),
            "notes": list(self.notes),
            "windows": [{"window": name, **_plain(report, whole=whole)} for name, report in self.windows],
        }


def _plain(report: DriftReport, *, whole: bool) -> dict[str, Any]:
    if not whole:
        alarming = {name: column for name, column in report.columns.items() if column.alarm}
        report = replace(report, columns=alarming, relations=tuple(r for r in report.relations if r.alarm))
    return report.to_dict()


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


# Words.


def shown(text: object, most: int = NAME) -> str:
    """A text from data as it may be shown: control characters visible, cut after so many characters."""
    whole = str(text)
    cut = whole if len(whole) <= most else f"{whole[: most - 1]}…"
    return "".join(map(_visible, cut))


def _visible(character: str) -> str:
    code = ord(character)
    if code < 32:
        return chr(0x2400 + code)
    return "\ufffd" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character


def by_weight(column: ColumnReport) -> list[DriftFinding]:
    """A column's findings: alarms first, then the largest in smallest effects of interest.

    A moved mean or spread comes before the values out of range and the other shape that follow from it.
    """
    moved = any(f.alarm and f.kind in {"location", "spread"} for f in column.findings)

    def place(finding: DriftFinding) -> tuple[bool, bool, float]:
        follows = moved and finding.kind in {"new values", "shape"}
        return not finding.alarm, follows, 0.0 if math.isnan(finding.weight) else -finding.weight

    return sorted(column.findings, key=place)


def weight(column: ColumnReport) -> float:
    """The size of a column's most important finding, in smallest effects of interest; 0 where nothing can be told."""
    told = [f.weight for f in by_weight(column) if f.outcome != "not applicable" and not math.isnan(f.weight)]
    return min(told[0], STRONGEST) if told else 0.0


def changed(report: DriftReport) -> list[ColumnReport]:
    """The columns that are alarms, the largest change first."""
    return sorted((c for c in report.columns.values() if c.alarm), key=lambda column: -weight(column))


def first_words(column: ColumnReport) -> str:
    """The words of a column's largest change."""
    return shown(next(f.words for f in by_weight(column) if f.alarm), WORDS)


def in_short(report: DriftReport) -> str:
    """A window in one line: its largest changes."""
    columns = changed(report)
    if not report.alarm:
        return "nothing changed that matters"
    words = [first_words(column) for column in columns[:MOST_NAMED]]
    words = words or [shown(r.words, WORDS) for r in report.relations if r.alarm][:MOST_NAMED]
    more = [f"{len(columns) - MOST_NAMED} more"] if len(columns) > MOST_NAMED else []
    return "ALARM  " + "; ".join([*words, *more])


def listed(names: Sequence[str], most: int) -> str:
    """Some names in a line."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown(name, 40) for name in names[:most]) + more


def metric_names(columns: Sequence[str]) -> dict[str, str]:
    """A name that MLflow takes for each column: plain characters, at most 60, each its own."""
    named: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", column)[:50]
        if not plain or plain != column or plain in taken:
            plain = f"{plain[:43]}_{hashlib.sha256(column.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"
        named[column] = plain
        taken.add(plain)
    return named


# The page.


def render(found: Compared) -> str:
    """The page as HTML: whole in one file, without a script, nothing loaded from elsewhere."""
    cards = _cards(found)
    several = len(found.windows) > 1
    report = found.windows[0][1]
    columns = len(found.ranked)
    return template("drift.html").render(
        found=found,
        several=several,
        report=report,
        title=_title(found),
        current=shown(found.current if several else found.windows[0][0], WORDS),
        reference=shown(found.reference, WORDS),
        rows=sum(r.rows for _, r in found.windows),
        ranked=[] if several else _ranked(report),
        ranked_more=0 if several else max(len(found.changed) - MOST_RANKED, 0),
        relations=[] if several else [shown(r.words, WORDS) for r in report.relations if r.alarm][:20],
        heat=_heat(found) if several and found.changed else None,
        windows=[(shown(name), r, _lines(r), _outcomes(found, r)) for name, r in found.windows] if several else [],
        cards=cards,
        left_out=columns - len(cards),
        columns=columns,
        notes=_notes(found),
        unknown=listed(report.unknown, 20) if report.unknown else "",
    )


def _title(found: Compared) -> str:
    if len(found.windows) > 1:
        alarms = sum(report.alarm for _, report in found.windows)
        return f"{alarms} of {len(found.windows)} windows alarm" if alarms else "No alarm in any window"
    if not found.alarm:
        return "No alarm"
    many = len(found.changed)
    return f"Alarm: {many} of {len(found.ranked)} columns changed" if many else "Alarm: relations between columns broke"


def _ranked(report: DriftReport) -> list[dict[str, Any]]:
    rows = []
    for column in changed(report)[:MOST_RANKED]:
        first, *others = [finding for finding in by_weight(column) if finding.alarm]
        rows.append(
            {
                "name": shown(column.name),
                "words": _bare(column.name, first.words),
                "also": [_bare(column.name, other.words) for other in others[:4]],
                "weight": min(first.weight, STRONGEST),
                "length": round(100 * min(math.log10(max(first.weight, 1.0)) / 2.5, 1.0), 1),
                "pvalue": "< 0.0001" if first.familywise < 0.0001 else f"{first.familywise:.4f}",
            }
        )
    return rows


def _lines(report: DriftReport) -> list[tuple[str, str]]:
    """A window's largest changes: the column, and what changed in it."""
    columns = changed(report)
    lines = []
    for column in columns[:MOST_NAMED]:
        first = next(finding for finding in by_weight(column) if finding.alarm)
        lines.append((shown(column.name, 40), _bare(column.name, first.words)))
    lines = lines or [("", shown(r.words, WORDS)) for r in report.relations if r.alarm][:MOST_NAMED]
    more = [("", f"and {listed([c.name for c in columns[MOST_NAMED:]], 6)}")] if len(columns) > MOST_NAMED else []
    return [*lines, *more] or [("", "nothing that matters")]


def _outcomes(found: Compared, report: DriftReport) -> list[str]:
    """How often outcomes came, or their mean, where that is no alarm: a reader looks for it first."""
    over = found.profiles.outcomes
    names = [] if over is None else [column.name for column in over.layout.columns]
    quiet = [report.columns[name] for name in names if name in report.columns and not report.columns[name].alarm]
    told = [(c.name, f.words) for c in quiet for f in c.findings if f.kind in {"share", "location"}]
    return [f"{shown(name, 40)} {_bare(name, words)} (could be chance)" for name, words in told]


def _bare(name: str, words: str) -> str:
    """A finding's words without the column's name in front."""
    return shown(words.removeprefix(f"{name}: "), WORDS)


def _notes(found: Compared) -> list[str]:
    said = [*found.notes, *(note for _, report in found.windows for note in report.notes)]
    return [shown(note, 400) for note in list(dict.fromkeys(said))[:20]]


def _heat(found: Compared) -> HeatMap:
    names = found.changed
    place = {name: i for i, name in enumerate(names)}
    alarms = {
        (place[column.name], w): (weight(column), shown(f"{name} {first_words(column)}", 140))
        for w, (name, report) in enumerate(found.windows)
        for column in report.columns.values()
        if column.alarm
    }
    return heat_map([shown(n, 22) for n in names], [shown(n, 16) for n, _ in found.windows], alarms, MOST_CELLS)


def _cards(found: Compared) -> list[Card]:
    ranked, alarming = found.ranked, found.changed
    chosen, quiet = list(alarming[:MOST_CARDS]), ranked[len(alarming) :]
    chosen += quiet[: max(MOST_QUIET_CARDS - len(chosen), 0) if len(ranked) > MOST_CARDS else len(quiet)]
    places = {
        column.name: (part, i)
        for part, measured in found.profiles.parts.items()
        for i, column in enumerate(measured.layout.columns)
    }
    return [_card(found, name, *places[name]) for name in chosen]


def _card(found: Compared, name: str, part: str, place: int) -> Card:
    over, now = found.profiles.parts[part], found.total.parts[part]
    column, before, counts = over.layout.columns[place], over.counts[place], now.counts[place]
    reports = [(window, report.columns[name]) for window, report in found.windows if name in report.columns]
    drawn = picture(column.bins, before, counts)
    return Card(
        name=shown(name),
        kind={"features": column.kind, "predictions": "prediction", "outcomes": "outcome"}[part],
        alarm=any(report.alarm for _, report in reports),
        words=_card_words(name, reports),
        aside=_aside(column.bins, before, counts),
        new=_new_names(counts.new),
        number=drawn if isinstance(drawn, NumberPicture) else None,
        names=_named(drawn) if isinstance(drawn, NamePicture) else None,
    )


def _new_names(new: Mapping[str, int]) -> str:
    """Names that the reference never had, with their rows, the most frequent first."""
    ranked = sorted(new, key=lambda name: (-new[name], name))
    return ", ".join(f"{shown(name, 24)} ({new[name]:,})" for name in ranked[:MOST_NEW])


def _named(drawn: NamePicture) -> NamePicture:
    rows = tuple(type(row)(shown(row.name, 12), row.y, row.before, row.now, row.words, row.new) for row in drawn.rows)
    return NamePicture(rows, drawn.high)


def _card_words(name: str, reports: Sequence[tuple[str, ColumnReport]]) -> tuple[str, ...]:
    alarming = [(window, report) for window, report in reports if report.alarm]
    if len(reports) == 1:
        return tuple(_bare(name, f.words) for _, r in alarming for f in by_weight(r) if f.alarm)[:4]
    if not alarming:
        return ()
    window, strongest = max(alarming, key=lambda pair: weight(pair[1]))
    count = f"alarm in {len(alarming)} of {len(reports)} windows"
    return count, f"most in {shown(window)}: {_bare(name, first_words(strongest))}"


def _aside(bins: Any, before: Any, now: Any) -> str:
    """Mean and missing share, before and now, where there is something to say."""
    said = []
    means = middle(bins, before), middle(bins, now)
    if means[0] is not None and means[1] is not None:
        said.append(f"mean {_figure(means[0])} → {_figure(means[1])}")
    missing = [counts.levels[0] / max(int(counts.levels.sum()), 1) for counts in (before, now)]
    if max(missing) >= 0.002:
        said.append(f"missing {percent(missing[0])} → {percent(missing[1])}")
    return " · ".join(said)


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"
