"""Outcomes for a stream of answers: sorted runs on disk, looked up part by part, the one that arrived last wins.

Memory is bounded by one run and one part of answers: the runs are Arrow files in a temporary folder, mapped and
searched by the hash of an id or a key, and each hit is compared with the text itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.logids import Hashes, hashes
from afterfit.logparts import TIME, cast, common

RUN_ROWS = 500_000
"""Outcomes of one run: what is sorted in memory at once."""
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _Run:
    """Outcomes of one kind sorted by the hash of their text: hashes (n,), and the mapped table (text, value, time)."""

    hashes: Hashes
    table: pa.Table

    def places(self, texts: pa.Array, wanted: Hashes) -> npt.NDArray[np.int64]:
        """(n,) the row of each text, -1 where it has none; the text decides where hashes are equal by accident."""
        found = np.full(len(wanted), -1, dtype=np.int64)
        at = np.searchsorted(self.hashes, wanted)
        left = np.arange(len(wanted))
        while len(left):
            left = left[at[left] < len(self.hashes)]
            left = left[self.hashes[at[left]] == wanted[left]]
            same = pc.equal(self.table["text"].take(pa.array(at[left])), texts.take(pa.array(left)))
            equal = same.to_numpy(zero_copy_only=False).astype(bool) if len(left) else np.zeros(0, dtype=bool)
            found[left[equal]] = at[left[equal]]
            left = left[~equal]
            at[left] += 1
        return found


class Outcomes:
    """All outcomes that a window's answers may have.

    Args:
        tables: tables with prediction_id, key, value and time, in any order and number.
        folder: an empty folder for the runs.
    """

    def __init__(self, tables: Iterable[pa.Table], folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, list[_Run]] = {"prediction_id": [], "key": []}
        self.type: pa.DataType = pa.null()
        waiting: list[pa.Table] = []
        types: set[pa.DataType] = set()
        for table in tables:
            types.add(table.schema.field("value").type)
            waiting.append(table)
            if sum(one.num_rows for one in waiting) >= RUN_ROWS:
                self._add(waiting)
                waiting = []
        self._add(waiting)
        self.type = common(types)

    def __enter__(self) -> "Outcomes":  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._runs.clear()  # lets go of the files, so that their folder can be removed everywhere

    def _add(self, tables: Sequence[pa.Table]) -> None:
        if not sum(table.num_rows for table in tables):
            return
        type_ = common(table.schema.field("value").type for table in tables)
        columns = ["prediction_id", "key", "value", "time"]
        whole = pa.concat_tables(
            [
                t.set_column(t.column_names.index("value"), "value", cast(t["value"], type_)).select(columns)
                for t in tables
            ]
        )
        by_id = pc.is_valid(whole["prediction_id"])
        for name, kept in (("prediction_id", whole.filter(by_id)), ("key", whole.filter(pc.invert(by_id)))):
            some = kept.select([name, "value", "time"]).rename_columns(["text", "value", "time"])
            some = some.filter(pc.is_valid(some["text"]))
            if some.num_rows:
                self._runs[name].append(self._sorted(some, f"{name}-{len(self._runs[name])}.arrow"))

    def _sorted(self, table: pa.Table, file: str) -> _Run:
        """The last outcome of each text, sorted by hash, written and mapped."""
        marks = hashes(table["text"])
        times = table["time"].to_numpy().astype(np.int64)
        texts = table["text"].combine_chunks().dictionary_encode().indices.to_numpy()
        order = np.lexsort((np.arange(len(times)), times, texts, marks))  # by text where hashes are equal by accident
        ordered = table.take(pa.array(order)).combine_chunks()
        marks = marks[order]
        texts = texts[order]
        last = np.append((marks[1:] != marks[:-1]) | (texts[1:] != texts[:-1]), True)
        place = self._folder / file
        with pa.OSFile(str(place), "wb") as sink, pa.ipc.new_file(sink, ordered.schema) as writer:
            writer.write_table(ordered.filter(pa.array(last)))
        del ordered
        return _Run(marks[last], pa.ipc.open_file(pa.memory_map(str(place))).read_all())

    def of(self, answers: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """The (outcomes, times of arrival) of n answers with prediction_id and key; missing where unknown."""
        n = answers.num_rows
        values = pa.chunked_array([pa.nulls(n, self.type)])
        times = np.full(n, NEVER, dtype=np.int64)
        for name, runs in self._runs.items():
            if not runs:
                continue
            texts = answers[name].combine_chunks()
            wanted = hashes(texts)
            for run in runs:
                at = run.places(texts, wanted)
                rows = pa.array(np.maximum(at, 0), mask=at < 0)
                came = pc.fill_null(run.table["time"].cast(pa.int64()).take(rows), NEVER).to_numpy()
                later = came > times if name == "key" else came >= times
                later &= at >= 0
                if later.any():
                    values = pc.if_else(pa.array(later), cast(run.table["value"], self.type).take(rows), values)
                    times = np.where(later, came, times)
        stamps = pa.array(times, mask=times == NEVER).cast(TIME)
        return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values]), pa.chunked_array([stamps])
