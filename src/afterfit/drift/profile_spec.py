"""What a reference teaches: the bins of each column, the scores of relations, and how rows depend on each other.

A layout is learnt once, from an even sample of the reference, and then says how any window is counted.

A layout as JSON and back: with a format number, so that what an older release wrote stays readable.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from afterfit.drift import binning, correlations
from afterfit.drift import design_effects as time_blocks
from afterfit.drift import tabular as table_parts
from afterfit.drift.binning import (
    Bins,
    CategoryBins,
    Combination,
    DateBins,
    NumberBins,
    known_list,
    learn_category,
    learn_number,
    looks_of,
)
from afterfit.drift.correlations import Score
from afterfit.drift.tabular import Kind
from afterfit.errors import DataError

Array = np.ndarray[Any, Any]
SAMPLE = 200_000
"""Most rows that bins and design effects are learnt from."""
SAMPLE_VALUES = 20_000_000
"""Most values that they are learnt from: a very wide table is learnt from fewer rows."""
ROWS_OF_DIRECTIONS = 60_000
RELATED = 2_000


@dataclass(frozen=True)
class Moments:
    """What rows do in some directions: variance and skewness (directions,), and lags (units, directions)."""

    variance: Array
    skewness: Array
    lags: Array


@dataclass(frozen=True)
class Dependence:
    """How rows depend on each other: lag correlations of each column's looks, moments of the relations' directions.

    `looks` holds one (units, looks) array a column. `residual` is by score, `column_forms` by column position in
    `related`, `pair_forms` by pair. `effective` is the number of independent rows that the sample was worth.
    """

    looks: tuple[Array, ...]
    residual: Moments
    column_forms: Moments
    pair_forms: Moments
    effective: float


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a layout."""

    name: str
    kind: Kind
    bins: Bins


@dataclass(frozen=True)
class ProfileSpec:
    """How windows are counted. `units` are nested units of time, finest first, and `blocks` how many the sample had."""

    columns: tuple[ColumnSpec, ...]
    time: str | None
    units: tuple[str, ...]
    blocks: tuple[int, ...]
    scores: tuple[Score, ...]
    related: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    combinations: tuple[Combination, ...]
    dependence: Dependence
    hidden: bool


def even_sample(part: Any, columns: int) -> pd.DataFrame:
    """Rows of a part at even distances: the same rows for the same part, whatever is in them."""
    rows = table_parts.row_count(part)
    most = max(min(SAMPLE, SAMPLE_VALUES // max(columns, 1)), RELATED)
    step = -(-rows // most) if rows > most else 1
    if isinstance(part, pd.DataFrame):
        return part.iloc[::step]
    frame = part.take(np.arange(0, rows, step)) if step > 1 else part
    names = table_parts.column_names(part)
    return pd.DataFrame({name: table_parts.series(frame, i) for i, name in enumerate(names)})


def learn(
    part: Any,
    *,
    time: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
    hidden: bool = False,
    related: bool = True,
) -> ProfileSpec:
    """Learn a layout from one part.

    Args:
        part: a frame, an Arrow table or a record batch: the reference, or a fair sample of it.
        time: the column with the time of each row, or None where rows are independent.
        kinds: kinds of columns where their types do not say it, such as {"month": "category"}.
        hidden: keep digests of category names in place of the names.
        related: whether to look at relations between columns.
    """
    names = table_parts.column_names(part)
    if time is not None and time not in names:
        raise DataError(f"There is no time column '{time}'; the columns are: {', '.join(names[:20])}.")
    kind_by_name = table_parts.chosen_kinds(part, time, kinds)
    if not kind_by_name:
        raise DataError("A profile needs at least one column besides the time column, and there is none.")
    frame = even_sample(part, len(names))
    seconds = None if time is None else table_parts.as_seconds(frame.iloc[:, names.index(time)], time)
    units = () if seconds is None else time_blocks.chosen_units(seconds)
    sample = time_blocks.cut(seconds, units) if seconds is not None and units else None
    coarse = None if sample is None else _coarse_block(sample, len(frame))
    columns, levels = _learn_columns(frame, kind_by_name, coarse, hidden=hidden)
    watched = binning.learn([column.bins for column in columns], levels, coarse) if related else ()
    with correlations.one_thread():
        layout = _with_relations(columns, levels, sample, watched=watched, wanted=related)
    return replace(layout, time=time, units=units, hidden=hidden)


def _learn_columns(
    frame: pd.DataFrame, kinds: Mapping[str, Kind], coarse: Array | None, *, hidden: bool
) -> tuple[tuple[ColumnSpec, ...], list[Array]]:
    names = table_parts.column_names(frame)
    columns, levels = [], []
    for name, kind in kinds.items():
        values = frame.iloc[:, names.index(name)]
        column, level = _learn_column(name, kind, values, coarse, hidden=hidden)
        columns.append(column)
        levels.append(level.astype(np.uint8))
    return tuple(columns), levels


def _coarse_block(sample: time_blocks.Cut, rows: int) -> Array:
    block = np.full(rows, -1, dtype=np.int64)
    block[sample.order] = sample.parents[-1][sample.finest]
    return block


def _learn_column(
    name: str, kind: Kind, values: "pd.Series[Any]", block: Array | None, *, hidden: bool
) -> tuple[ColumnSpec, Array]:
    if kind == "datetime":
        there = values.notna().to_numpy()
        counts = (int((~there).sum()), int(there.sum()))
        return ColumnSpec(name, kind, DateBins(counts)), there.astype(np.int64)
    if kind == "number":
        numbers = table_parts.as_numbers(values).floats
        numbers = np.where(np.isinf(numbers), np.nan, numbers)
        number_bins = learn_number(numbers)
        return ColumnSpec(name, kind, number_bins), number_bins.level_of_cell[number_bins.cells(numbers)]
    text = table_parts.as_names(values)
    bins = learn_category(text, block, kind=kind, hidden=hidden)
    return ColumnSpec(name, kind, bins), bins.levels(text)[0]


def _with_relations(
    columns: tuple[ColumnSpec, ...],
    levels: list[Array],
    sample: time_blocks.Cut | None,
    *,
    watched: tuple[Combination, ...],
    wanted: bool,
) -> ProfileSpec:
    looks = tuple(_look_lags(column.bins, level, sample) for column, level in zip(columns, levels, strict=True))
    every = [correlations.scores_of(i, column.bins) if wanted else [] for i, column in enumerate(columns)]
    chosen = _related(every, columns, levels)
    scores = tuple(score for i in chosen for score in every[i])
    step = max(-(-len(levels[0]) // ROWS_OF_DIRECTIONS), 1)
    thin = [level[::step] for level in levels]
    cut = None if sample is None else _thinned(sample, step, len(levels[0]))
    sums = score_sums(scores, columns, thin)
    found = correlations.directions(sums, scores)
    strength = correlations.strengths(found)
    pairs = sorted(
        p
        for p, s in sorted(strength.items(), key=lambda item: -item[1])[: correlations.MOST_PAIRS]
        if s >= correlations.STRENGTH
    )
    related = tuple(sorted(found.groups)) if len(found.groups) > 1 else ()
    moments = _direction_moments(found, _standard_rows(found, scores, columns, thin), related, pairs, cut)
    effective = _effective(len(levels[0]), looks, sample)
    return ProfileSpec(
        columns=columns,
        time=None,
        units=(),
        blocks=() if sample is None else tuple(len(rows) for rows in sample.rows_of),
        scores=scores,
        related=related,
        pairs=tuple(pairs),
        combinations=watched,
        dependence=Dependence(looks, *moments, effective=effective),
        hidden=False,
    )


def _thinned(sample: time_blocks.Cut, step: int, rows: int) -> time_blocks.Cut:
    """The cut of every step-th row."""
    finest = np.full(rows, -1, dtype=np.int64)
    finest[sample.order] = sample.finest
    thin = finest[::step]
    order = np.argsort(thin, kind="stable")
    order = order[thin[order] >= 0]
    there, starts, counts = np.unique(thin[order], return_index=True, return_counts=True)
    parents = tuple(np.unique(parent[there], return_inverse=True)[1] for parent in sample.parents)
    rows_of = tuple(np.bincount(parent, weights=counts).astype(np.int64) for parent in parents)
    return time_blocks.Cut(order, starts, rows_of, parents)


def _look_lags(bins: Bins, level: Array, sample: time_blocks.Cut | None) -> Array:
    """Lag correlations of a column's looks: (units, looks)."""
    looks, scores = looks_of(bins)
    if sample is None:
        return np.zeros((0, len(looks)))
    counts = np.bincount(level[sample.order], minlength=bins.size).astype(np.float64)
    centred = scores - (counts[1:] @ scores[1:]) / max(counts[1:].sum(), 1.0)
    centred[0] = 0.0
    centred[:, 0] = scores[:, 0] - counts[0] / max(counts.sum(), 1.0)
    blocks = len(sample.starts)
    cell = np.bincount(sample.finest * bins.size + level[sample.order], minlength=blocks * bins.size)
    variances = (counts @ centred**2) / max(counts.sum(), 1.0)
    return rounded(time_blocks.lag_correlations(cell.reshape(blocks, bins.size) @ centred, variances, sample))


def rounded(values: Array) -> Array:
    """Four significant digits: more would be noise, and would be written into each saved profile."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.floor(np.log10(np.abs(values)))
    power = 10.0 ** np.clip(3 - np.where(np.isfinite(size), size, 0.0), -280, 280)
    result: Array = np.rint(values * power) / power
    return result


def _related(every: Sequence[Sequence[Score]], columns: Sequence[ColumnSpec], levels: Sequence[Array]) -> list[int]:
    """The columns whose relations are looked at: all, or in a wide table those that hang together most."""
    able = [i for i, scores in enumerate(every) if scores]
    if sum(len(every[i]) for i in able) <= correlations.MOST_SCORES:
        return able
    step = max(len(levels[0]) // RELATED, 1)
    rows = np.stack([correlations.score_table(every[i][0], columns[i].bins)[levels[i][::step]] for i in able]).astype(
        np.float32
    )
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    rows /= np.where(norms > 0, norms, 1.0)
    near = np.abs(rows @ rows.T)
    np.fill_diagonal(near, 0.0)
    chosen: list[int] = []
    held = 0
    for place in np.argsort(-near.max(axis=1), kind="stable").tolist():
        held += len(every[able[place]])
        if held > correlations.MOST_SCORES:
            break
        chosen.append(able[place])
    return sorted(chosen)


def score_matrix(scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]) -> Array:
    """(scores, rows) float32 whole numbers."""
    matrix = np.empty((len(scores), len(levels[0])), dtype=np.float32)
    for i, score in enumerate(scores):
        values = correlations.score_table(score, columns[score.column].bins).astype(np.float32)
        matrix[i] = values[levels[score.column]]
    return matrix


def score_sums(scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]) -> correlations.Sums:
    """Sums of scores and their products, in pieces that stay exact."""
    sums = correlations.no_sums(len(scores))
    for start in range(0, len(levels[0]), 65_536):
        sums += correlations.sums_of(score_matrix(scores, columns, [level[start : start + 65_536] for level in levels]))
    return sums


def _standard_rows(
    found: correlations.Directions, scores: Sequence[Score], columns: Sequence[ColumnSpec], levels: Sequence[Array]
) -> Array:
    """(rows, scores) centred and in units of the standard deviation; 0 where a score does not vary."""
    matrix = score_matrix(scores, columns, levels) - found.means[:, None].astype(np.float32)
    matrix *= np.where(found.scales > 0, 1.0 / np.where(found.scales > 0, found.scales, 1.0), 0.0)[:, None]
    return matrix.T


def _direction_moments(
    found: correlations.Directions,
    rows: Array,
    related: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    sample: time_blocks.Cut | None,
) -> tuple[Moments, Moments, Moments]:
    residual = rows @ found.residual.T.astype(np.float32)
    column_forms = [found.with_others(column).of_rows(rows) for column in related]
    pair_forms = [found.pair(*pair).of_rows(rows) for pair in pairs]
    return (
        _moments(residual, sample),
        _moments(np.stack(column_forms, axis=1) if column_forms else np.zeros((len(rows), 0)), sample),
        _moments(np.stack(pair_forms, axis=1) if pair_forms else np.zeros((len(rows), 0)), sample),
    )


def _moments(rows: Array, sample: time_blocks.Cut | None) -> Moments:
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    count = max(len(rows), 1)
    square = centred**2
    variance = square.sum(axis=0, dtype=np.float64) / count
    third = (square * centred).sum(axis=0, dtype=np.float64) / count
    skewness = third / np.where(variance > 0, variance, 1.0) ** 1.5
    lags = np.zeros((0, rows.shape[1]))
    if sample is not None:
        sums = np.add.reduceat(centred[sample.order], sample.starts, axis=0)
        lags = rounded(time_blocks.lag_correlations(sums.astype(np.float64), variance, sample))
    return Moments(rounded(variance), rounded(skewness), lags)


def _effective(rows: int, looks: Sequence[Array], sample: time_blocks.Cut | None) -> float:
    """How many independent rows the sample is worth, by the median over columns of what depends most in each."""
    if sample is None:
        return float(rows)
    pairs, before = [], float(rows)
    for blocks in sample.rows_of:
        now = float((blocks.astype(np.float64) ** 2).sum())
        pairs.append((now - before) / rows)
        before = now
    designs = [float((1.0 + np.array(pairs) @ lags).max()) for lags in looks]
    return float(rounded(np.array([rows / max(float(np.median(designs)), 1.0)]))[0])


FORMAT = 1


def parsed(text: str | bytes) -> Any:
    """The plain values in the JSON text of a saved profile, or a DataError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"This is not a saved profile: it is no JSON ({error}).") from error


def check_format(saved: Mapping[str, Any]) -> None:
    """Refuse what is no profile, or one that a later release wrote."""
    number = saved.get("format") if isinstance(saved, Mapping) else None
    if not isinstance(number, int):
        raise DataError("This is not a saved profile: it has no format number. Save one with `to_json`.")
    if not 1 <= number <= FORMAT:
        raise DataError(
            f"This profile has format {number}; this release reads formats 1 to {FORMAT}. "
            "Read it with the release that wrote it, or a later one."
        )


def layout_to_dict(layout: ProfileSpec) -> dict[str, Any]:
    """A layout as plain values."""
    return {
        "time": layout.time,
        "units": list(layout.units),
        "blocks": list(layout.blocks),
        "hidden": layout.hidden,
        "columns": [{"name": c.name, "kind": c.kind, **_bins_to_dict(c.bins)} for c in layout.columns],
        "scores": [list(astuple(score)) for score in layout.scores],
        "related": list(layout.related),
        "pairs": [list(pair) for pair in layout.pairs],
        "combinations": [combination.to_list() for combination in layout.combinations],
        "dependence": _dependence_to_dict(layout.dependence),
    }


def layout_from_dict(saved: Mapping[str, Any]) -> ProfileSpec:
    """A layout from plain values."""
    columns = tuple(ColumnSpec(c["name"], c["kind"], _bins_from_dict(c)) for c in saved["columns"])
    units = tuple(saved["units"])
    return ProfileSpec(
        columns=columns,
        time=saved["time"],
        units=units,
        blocks=tuple(saved["blocks"]),
        scores=tuple(Score(*score) for score in saved["scores"]),
        related=tuple(saved["related"]),
        pairs=tuple((one, other) for one, other in saved["pairs"]),
        combinations=tuple(map(Combination.from_list, saved["combinations"])),
        dependence=_dependence_from_dict(saved["dependence"], len(units)),
        hidden=saved["hidden"],
    )


def _bins_to_dict(bins: Bins) -> dict[str, Any]:
    if isinstance(bins, NumberBins):
        grid = [bins.offset, bins.scale, bins.centre, bins.curve]
        return {"grid": grid, "starts": list(bins.starts), "sample": list(bins.sample), "decimals": bins.decimals}
    if isinstance(bins, CategoryBins):
        return {
            "names": list(bins.kept),
            "known": known_list(bins.known),
            "sample": list(bins.sample),
            "once": bins.once,
            "hidden": bins.hidden,
        }
    return {"sample": list(bins.sample)}


def _bins_from_dict(saved: Mapping[str, Any]) -> Bins:
    sample = tuple(saved["sample"])
    if "grid" in saved:
        offset, scale, centre, curve = saved["grid"]
        return NumberBins(offset, scale, centre, curve, tuple(saved["starts"]), sample, saved["decimals"])
    if "names" in saved:
        known = None if saved["known"] is None else frozenset(saved["known"])
        return CategoryBins(tuple(saved["names"]), known, sample, saved["once"], saved["hidden"])
    return DateBins(sample)


def _dependence_to_dict(dependence: Dependence) -> dict[str, Any]:
    return {
        "looks": [lags.tolist() for lags in dependence.looks],
        "residual": _moments_to_dict(dependence.residual),
        "column_forms": _moments_to_dict(dependence.column_forms),
        "pair_forms": _moments_to_dict(dependence.pair_forms),
        "effective": dependence.effective,
    }


def _dependence_from_dict(saved: Mapping[str, Any], units: int) -> Dependence:
    return Dependence(
        looks=tuple(_lags(lags, units) for lags in saved["looks"]),
        residual=_moments_from_dict(saved["residual"], units),
        column_forms=_moments_from_dict(saved["column_forms"], units),
        pair_forms=_moments_from_dict(saved["pair_forms"], units),
        effective=saved["effective"],
    )


def _moments_to_dict(moments: Moments) -> dict[str, Any]:
    return {
        "variance": moments.variance.tolist(),
        "skewness": moments.skewness.tolist(),
        "lags": moments.lags.tolist(),
    }


def _moments_from_dict(saved: Mapping[str, Any], units: int) -> Moments:
    variance, skewness = np.array(saved["variance"], dtype=float), np.array(saved["skewness"], dtype=float)
    lags = np.array(saved["lags"], dtype=float).reshape(units, len(variance))
    return Moments(variance, skewness, lags)


def _lags(saved: list[list[float]], units: int) -> Array:
    return np.array(saved, dtype=float) if units else np.zeros((0, 0))
