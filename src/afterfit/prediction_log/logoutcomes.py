"""Outcomes for a stream of answers: sorted runs on disk, looked up part by part, the one that arrived last wins.

Memory is bounded by one run and one part of answers: the runs are Arrow files in a temporary folder, mapped and
searched by the hash of an id or a key, and each hit is compared with the text itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from afterfit.prediction_log.arrow import TIME, cast, common
from afterfit.prediction_log.logids import Hashes, hashes

RUN_ROWS = 250_000
"""Outcomes of one run: what is sorted in memory at once."""
Rows = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class _Run:
    """Outcomes of one kind sorted by the hash of their text: hashes (n,), times (n,), and the table, all mapped."""

    hashes: Hashes
    times: npt.NDArray[np.int64]
    table: pa.Table

    def places(self, texts: pa.Array, wanted: Hashes) -> tuple[Rows, Rows]:
        """The rows (k,) of the texts that it has, and where (k,) they are; `wanted` are the texts' hashes in order.

        The text decides where hashes are equal by accident.
        """
        at = np.searchsorted(self.hashes, wanted)
        left = np.arange(len(wanted))
        found: list[tuple[Rows, Rows]] = []
        while len(left):
            left = left[at[left] < len(self.hashes)]
            left = left[self.hashes[at[left]] == wanted[left]]
            same = pc.equal(self.table["text"].take(pa.array(at[left])), texts.take(pa.array(left)))
            equal = np.asarray(same.to_numpy(), dtype=bool)
            found.append((left[equal], at[left[equal]]))
            left = left[~equal]
            at[left] += 1
        rows, places = (np.concatenate(some) for some in zip(*found, strict=True)) if found else (left, left)
        return rows, places


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
        mapped = pa.ipc.open_file(pa.memory_map(str(place))).read_all()
        return _Run(
            self._mapped(f"{file}.hashes", marks[last]), self._mapped(f"{file}.times", times[order][last]), mapped
        )

    def _mapped(self, file: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        place = self._folder / f"{file}.npy"
        np.save(place, values, allow_pickle=False)
        return np.asarray(np.load(place, mmap_mode="r", allow_pickle=False))

    def of(self, answers: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """The (outcomes, times of arrival) of n answers with prediction_id and key; missing where unknown."""
        n = answers.num_rows
        times = np.full(n, NEVER, dtype=np.int64)
        source, place = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
        every = [(name, run) for name, runs in self._runs.items() for run in runs]
        sought = {name: _sought(answers[name]) for name, runs in self._runs.items() if runs}
        for number, (name, run) in enumerate(every):
            order, texts, wanted = sought[name]
            rows, at = run.places(texts, wanted)
            rows, came = order[rows], run.times[at]
            later = came > times[rows] if name == "key" else came >= times[rows]
            rows = rows[later]
            times[rows], source[rows], place[rows] = came[later], number, at[later]
        values = self._gathered([run for _, run in every], source, place)
        return pa.chunked_array([values]), pa.chunked_array([pa.array(times, mask=source < 0).cast(TIME)])

    def _gathered(self, runs: Sequence[_Run], source: Rows, place: Rows) -> pa.Array:
        """The values (n,) at a place of a run each; missing where the source is -1."""
        positions = np.full(len(source), -1, dtype=np.int64)
        pieces, size = [], 0
        for number in np.unique(source[source >= 0]).tolist():
            rows = np.flatnonzero(source == number)
            column = runs[number].table["value"].take(pa.array(place[rows]))
            pieces.extend(cast(column, self.type).chunks)
            positions[rows] = np.arange(size, size + len(rows))
            size += len(rows)
        whole = pa.concat_arrays(pieces) if pieces else pa.array([], self.type)
        return whole.take(pa.array(positions, mask=positions < 0))


def _sought(column: pa.ChunkedArray) -> tuple[Rows, pa.Array, Hashes]:
    """Texts (n,) in the order of their hashes: that order, the texts and the hashes."""
    marks = hashes(column)
    order = np.argsort(marks, kind="stable")
    return order, column.combine_chunks().take(pa.array(order)), marks[order]
