"""The profile of a window: small, exact, and mergeable in any order.

A profile holds only whole numbers: counts, and sums of whole-number cells and scores. So the profiles of parts, added
in any order, give the profile of the whole to the bit, however it was cut into parts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd

from afterfit.drift import tabular
from afterfit.drift.binning import CELLS, Bins, CategoryBins, NumberBins, digest
from afterfit.drift.correlations import Sums, empty_sums, one_thread, score_table, sum_scores
from afterfit.drift.design_effects import count_blocks
from afterfit.drift.profile_spec import (
    FORMAT,
    SAMPLE,
    ColumnSpec,
    ProfileSpec,
    check_format,
    layout_from_dict,
    layout_to_dict,
    learn_layout,
    parse_json,
)
from afterfit.drift.tabular import Kind, Names
from afterfit.errors import DataError

Array = np.ndarray[Any, Any]

CHUNK = 65_536
"""Rows that are counted at once: small enough for the processor's cache, and for exact products in float32."""
NEW_NAMES = 20
"""Most new category names that a profile keeps: those with the smallest digests, so that the order of adding does not
matter."""
UNKNOWN_COLUMNS = 50
_CELL_NUMBERS = np.arange(CELLS, dtype=np.int64)
_BOOLEAN_NAMES = {"1": "true", "0": "false", "True": "true", "False": "false"}


@dataclass(frozen=True)
class Counts:
    """What was counted in one column.

    Attributes:
        levels: (levels,) rows in each level of the column's bins.
        invalid: values that do not fit the column's kind, such as text or infinities in a number; in level 0 too.
        absent: rows of parts that had no such column; in level 0 too.
        finer: values with more decimals than any of the reference's.
        first, second: sum of a number's cells, and sum of their squares.
        types: the types in which the column came: number, boolean, datetime, text.
        new: some of the names that the reference did not have, with their rows.
    """

    levels: Array
    invalid: int = 0
    absent: int = 0
    finer: int = 0
    first: int = 0
    second: int = 0
    types: frozenset[str] = frozenset()
    new: Mapping[str, int] = field(default_factory=dict)

    @property
    def present(self) -> int:
        """Rows with a value."""
        return int(self.levels[1:].sum())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            levels=self.levels + other.levels,
            invalid=self.invalid + other.invalid,
            absent=self.absent + other.absent,
            finer=self.finer + other.finer,
            first=self.first + other.first,
            second=self.second + other.second,
            types=self.types | other.types,
            new=_add_name_counts(self.new, other.new, NEW_NAMES),
        )


@dataclass(frozen=True)
class Profile:
    """A window, counted over the bins of a layout. Add profiles of parts with `+` or `merged`; save with `to_json`."""

    layout: ProfileSpec
    rows: int
    counts: tuple[Counts, ...]
    sums: Sums
    blocks: Mapping[int, int]
    combined: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()

    def check_same_bins(self, other: "Profile") -> None:
        """Raise a DataError where another profile was measured over other bins."""
        if self.layout is not other.layout and layout_to_dict(self.layout) != layout_to_dict(other.layout):
            raise DataError(
                "Only profiles over the same reference can be added or compared: these two were measured over "
                "different bins. Measure both with the same reference's `measure`."
            )

    def __add__(self, other: "Profile") -> "Profile":
        self.check_same_bins(other)
        blocks = dict(self.blocks)
        for block, rows in other.blocks.items():
            blocks[block] = blocks.get(block, 0) + rows
        return Profile(
            layout=self.layout,
            rows=self.rows + other.rows,
            counts=tuple(
                own_value + other_value for own_value, other_value in zip(self.counts, other.counts, strict=True)
            ),
            sums=self.sums + other.sums,
            blocks=blocks,
            combined=tuple(
                own_value + other_value for own_value, other_value in zip(self.combined, other.combined, strict=True)
            ),
            unknown=tuple(sorted({*self.unknown, *other.unknown})[:UNKNOWN_COLUMNS]),
        )

    def merged(self, others: Iterable["Profile"]) -> "Profile":
        """This profile and others, added up."""
        total = self
        for other in others:
            total += other
        return total

    def measure(self, frame: Any) -> "Profile":
        """The profile of another window, over this one's bins.

        Args:
            frame: a pandas frame, an Arrow table or record batch, or an iterable of them; an iterable is read once,
                one part at a time.
        """
        total = empty_profile(self.layout)
        for part in parts_of(frame):
            total += measure_part(self.layout, part)
        return total

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain values: equal for equal windows, however they were cut into parts."""
        size = len(self.layout.scores)
        first = min(self.blocks, default=0)
        return {
            "format": FORMAT,
            "rows": self.rows,
            "layout": layout_to_dict(self.layout),
            "columns": [_counts_to_dict(counts) for counts in self.counts],
            "totals": self.sums.totals.tolist(),
            "products": self.sums.products[np.triu_indices(size)].tolist(),
            "blocks": {"first": first, "rows": _block_runs(self.blocks, first)},
            "combined": list(self.combined),
            "unknown": list(self.unknown),
        }

    def to_json(self) -> str:
        """The profile as JSON text, ASCII only."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Profile":
        """The profile from plain values that this or an older release wrote."""
        check_format(saved)
        try:
            return _from_dict(saved)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"This saved profile is damaged: {type(error).__name__}: {error}.") from error

    @classmethod
    def from_json(cls, text: str | bytes) -> "Profile":
        """The profile from JSON text that this or an older release wrote."""
        return cls.from_dict(parse_json(text))


def profile(
    frame: Any,
    time: str | None = None,
    *,
    kinds: Mapping[str, Kind] | None = None,
    hide_categories: bool = False,
    relations: bool = True,
) -> Profile:
    """Learn bins, categories, relations and design effects from a reference, and count it.

    Args:
        frame: a pandas frame, an Arrow table or record batch, or an iterable of them (Parquet row groups, CSV chunks).
            An iterable is read once, and bins are learnt from its first 200,000 rows. Where the first rows are not
            like the rest, give an even sample to `afterfit.drift.profile_spec.learn_layout` first.
        time: the column with the time of each row. With it, rows of one hour, day or week that depend on each
            other count as fewer independent rows; without it, each row counts for one.
        kinds: kinds of columns whose types do not say them: "number", "boolean", "category" or "datetime".
        hide_categories: keep digests in place of category names.
        relations: whether to count relations between columns; without them, counting takes about half of the time.

    Returns:
        A profile that other windows can be measured over (`measure`) and compared with (`compare_drift`).

    Raises:
        DataError: no column, no such time column, a time column without times, or two columns of one name.
    """
    if tabular.is_part(frame):
        layout = learn_layout(frame, time=time, kinds=kinds, hidden=hide_categories, related=relations)
        return measure_part(layout, frame)
    parts = parts_of(frame)
    first_rows = _first_rows(parts)
    layout = learn_layout(first_rows, time=time, kinds=kinds, hidden=hide_categories, related=relations)
    total = measure_part(layout, first_rows)
    for part in parts:
        total += measure_part(layout, part)
    return total


def parts_of(frame: Any) -> Iterator[Any]:
    """A table or an iterable of tables as an iterator of tables."""
    if tabular.is_part(frame):
        yield frame
        return
    if isinstance(frame, str | bytes | Mapping) or not isinstance(frame, Iterable):
        raise DataError(
            "A table must come as a pandas frame, an Arrow table or record batch, or an iterable of them; "
            f"this is {type(frame).__name__}."
        )
    for part in frame:
        if not tabular.is_part(part):
            raise DataError(
                f"Each part must be a pandas frame, an Arrow table or record batch; this is {type(part).__name__}."
            )
        yield part


def empty_profile(layout: ProfileSpec) -> Profile:
    """The profile of no rows."""
    counts = tuple(Counts(np.zeros(column.bins.size, dtype=np.int64)) for column in layout.columns)
    return Profile(layout, 0, counts, empty_sums(len(layout.scores)), {}, (0,) * len(layout.combinations))


def measure_part(layout: ProfileSpec, part: Any) -> Profile:
    """The profile of one part."""
    names = tabular.column_names(part)
    places = {name: i for i, name in enumerate(names)}
    rows = tabular.row_count(part)
    own = {column.name for column in layout.columns}
    unknown = tuple(sorted(name for name in names if name not in own and name != layout.time)[:UNKNOWN_COLUMNS])
    counter = _Counter(layout, places, rows)
    total = empty_profile(layout)
    counts, sums = list(total.counts), total.sums
    with one_thread():
        for start in range(0, rows, CHUNK):
            chunk = part.iloc[start : start + CHUNK] if isinstance(part, pd.DataFrame) else part.slice(start, CHUNK)
            for i, more in enumerate(counter.count(chunk)):
                counts[i] += more
            sums += sum_scores(counter.matrix[:, : tabular.row_count(chunk)])
    return Profile(layout, rows, tuple(counts), sums, _blocks(layout, part, places), tuple(counter.combined), unknown)


def _add_name_counts(first: Mapping[str, int], second: Mapping[str, int], most: int) -> dict[str, int]:
    """Sums of counts by name; where there are too many names, those with the smallest digests stay, in any order."""
    total = dict(first)
    for name, count in second.items():
        total[name] = total.get(name, 0) + count
    return {name: total[name] for name in sorted(total, key=lambda name: (digest(name), name))[:most]}


def _block_runs(blocks: Mapping[int, int], first: int) -> list[list[int]]:
    """Rows of blocks as runs without gaps: for each run its distance from `first`, then the rows of its blocks."""
    runs: list[list[int]] = []
    before = None
    for block in sorted(blocks):
        if before is None or block != before + 1:
            runs.append([block - first])
        runs[-1].append(blocks[block])
        before = block
    return runs


def _counts_to_dict(counts: Counts) -> dict[str, Any]:
    return {
        "levels": counts.levels.tolist(),
        "invalid": counts.invalid,
        "absent": counts.absent,
        "finer": counts.finer,
        "moments": [counts.first, counts.second],
        "types": sorted(counts.types),
        "new": dict(sorted(counts.new.items())),
    }


def _from_dict(saved: Mapping[str, Any]) -> Profile:
    layout = layout_from_dict(saved["layout"])
    size = len(layout.scores)
    products = np.zeros((size, size), dtype=np.int64)
    products[np.triu_indices(size)] = saved["products"]
    products = products + np.triu(products, 1).T
    first = saved["blocks"]["first"]
    runs = saved["blocks"]["rows"]
    blocks = {first + run[0] + i: rows for run in runs for i, rows in enumerate(run[1:])}
    sums = Sums(saved["rows"], np.array(saved["totals"], dtype=np.int64), products)
    counts = tuple(_counts_from_dict(column) for column in saved["columns"])
    if [len(c.levels) for c in counts] != [column.bins.size for column in layout.columns]:
        raise ValueError("counts and bins do not fit each other")
    return Profile(layout, saved["rows"], counts, sums, blocks, tuple(saved["combined"]), tuple(saved["unknown"]))


def _counts_from_dict(saved: Mapping[str, Any]) -> Counts:
    return Counts(
        levels=np.array(saved["levels"], dtype=np.int64),
        invalid=saved["invalid"],
        absent=saved["absent"],
        finer=saved["finer"],
        first=saved["moments"][0],
        second=saved["moments"][1],
        types=frozenset(saved["types"]),
        new=saved["new"],
    )


def _first_rows(parts: Iterator[Any]) -> pd.DataFrame:
    frames, rows = [], 0
    for part in parts:
        names = tabular.column_names(part)
        frames.append(pd.DataFrame({name: tabular.series(part, i) for i, name in enumerate(names)}))
        rows += len(frames[-1])
        if rows >= SAMPLE:
            break
    if not frames:
        raise DataError("A reference needs rows, and there was no part at all.")
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def _blocks(layout: ProfileSpec, part: Any, places: Mapping[str, int]) -> dict[int, int]:
    if layout.time is None or not layout.units or layout.time not in places or not tabular.row_count(part):
        return {}
    seconds = tabular.as_seconds(tabular.series(part, places[layout.time]), layout.time)
    return count_blocks(seconds, layout.units[0])


class _Counter:
    """Counts the chunks of one part.

    `matrix` (scores, rows) holds the scores of the last chunk, `combined` the new combinations of all chunks so far.
    """

    def __init__(self, layout: ProfileSpec, places: Mapping[str, int], rows: int) -> None:
        self._layout = layout
        self._places = places
        self.matrix = np.empty((len(layout.scores), min(rows, CHUNK)), dtype=np.float32)
        self.combined = [0] * len(layout.combinations)
        self._watched = {i for combination in layout.combinations for i in (combination.one, combination.other)}
        self._memory: dict[int, dict[str, int]] = {}
        self._scores: dict[int, list[tuple[int, Array]]] = {}
        for i, score in enumerate(layout.scores):
            self._scores.setdefault(score.column, []).append((i, self._table(score.column, i)))

    def _table(self, position: int, score: int) -> Array:
        bins = self._layout.columns[position].bins
        values = score_table(self._layout.scores[score], bins).astype(np.float32)
        return values[bins.level_of_cell] if isinstance(bins, NumberBins) else values

    def count(self, chunk: Any) -> Iterator[Counts]:
        """Count one chunk, a column at a time; then its new combinations."""
        rows = tabular.row_count(chunk)
        watched: dict[int, Array] = {}
        for position, column in enumerate(self._layout.columns):
            part_position = self._places.get(column.name)
            if part_position is None:
                codes, counts = np.zeros(rows, dtype=np.int64), _absent_counts(column.bins, rows)
            else:
                memory = self._memory.setdefault(position, {})
                codes, counts = _count_column(column, tabular.series(chunk, part_position), memory)
            for i, table in self._scores.get(position, ()):
                np.take(table, codes, out=self.matrix[i, :rows], mode="clip")
            if position in self._watched:
                watched[position] = codes
            yield counts
        for i, combination in enumerate(self._layout.combinations):
            self.combined[i] += combination.count(watched[combination.one], watched[combination.other])


def _absent_counts(bins: Bins, rows: int) -> Counts:
    levels = np.zeros(bins.size, dtype=np.int64)
    levels[0] = rows
    return Counts(levels, absent=rows)


def _count_column(column: ColumnSpec, values: "pd.Series[Any]", memory: dict[str, int]) -> tuple[Array, Counts]:
    """The cell (of a number) or level of each row, and the counts."""
    types = frozenset({_type_of(values)})
    if isinstance(column.bins, NumberBins):
        return _count_numbers(column.bins, values, types)
    if isinstance(column.bins, CategoryBins):
        return _count_names(column, values, types, memory)
    present = values.notna().to_numpy().astype(np.int64)
    return present, Counts(np.bincount(present, minlength=2), types=types)


def _type_of(values: "pd.Series[Any]") -> str:
    """A word for the column's type that does not depend on its values."""
    kinds = pd.api.types
    if isinstance(values.dtype, pd.CategoricalDtype) or values.dtype == object:
        return "text"
    if kinds.is_bool_dtype(values.dtype):
        return "boolean"
    if kinds.is_numeric_dtype(values.dtype):
        return "number"
    return "datetime" if kinds.is_datetime64_any_dtype(values.dtype) else "text"


def _count_numbers(bins: NumberBins, values: "pd.Series[Any]", types: frozenset[str]) -> tuple[Array, Counts]:
    parsed = tabular.as_numbers(values)
    numbers, invalid = parsed.floats, parsed.invalid
    cells = bins.cells(numbers)
    histogram = np.bincount(cells, minlength=CELLS)
    if histogram[1] or histogram[CELLS - 2]:
        infinite = np.isinf(numbers)
        if infinite.any():
            invalid += int(infinite.sum())
            cells[infinite] = 0
            histogram = np.bincount(cells, minlength=CELLS)
    levels = np.add.reduceat(histogram, np.array((0, *bins.starts)))
    cell_sums = histogram[1:] * _CELL_NUMBERS[1:]
    first, second = int(cell_sums.sum()), int((cell_sums * _CELL_NUMBERS[1:]).sum())
    all_whole = bins.decimals == 0 and isinstance(values.dtype, np.dtype) and values.dtype.kind in "iub"
    finer = 0 if all_whole else bins.finer(numbers)
    return cells, Counts(levels, invalid=invalid, finer=finer, first=first, second=second, types=types)


def _count_names(
    column: ColumnSpec, values: "pd.Series[Any]", types: frozenset[str], memory: dict[str, int]
) -> tuple[Array, Counts]:
    parsed = tabular.as_names(values)
    if column.kind == "boolean":
        parsed = Names(parsed.codes, [_BOOLEAN_NAMES.get(name, name) for name in parsed.names])
    codes, new = cast("CategoryBins", column.bins).levels(parsed, memory)
    return codes, Counts(
        np.bincount(codes, minlength=column.bins.size), types=types, new=_add_name_counts({}, new, NEW_NAMES)
    )
