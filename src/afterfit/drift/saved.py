"""A layout as JSON and back: with a format number, so that what an older release wrote stays readable."""

import json
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from afterfit.drift.binning import Bins, CategoryBins, DateBins, NumberBins, known_list
from afterfit.drift.combinations import Combination
from afterfit.drift.correlations import Score
from afterfit.drift.profile_spec import Column, Dependence, Layout, Moments
from afterfit.errors import DataError

FORMAT = 1

Array = np.ndarray[Any, Any]


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


def layout_to_dict(layout: Layout) -> dict[str, Any]:
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


def layout_from_dict(saved: Mapping[str, Any]) -> Layout:
    """A layout from plain values."""
    columns = tuple(Column(c["name"], c["kind"], _bins_from_dict(c)) for c in saved["columns"])
    units = tuple(saved["units"])
    return Layout(
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
