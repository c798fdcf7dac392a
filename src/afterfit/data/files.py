"""Files, folders and S3 objects, CSV or Parquet, as a stream of frames: memory does not grow with their rows.

A CSV file is scanned once for the types of its columns, so that every part of it is read in the same way. A column is
numeric where all its values are. Text such as "007" and whole numbers of 17 digits or more, which a float would change,
stay text. An empty field is missing. `MISSING_WORDS` count as missing where everything else in the column is a number
or a boolean; in a text column they are text.
"""

import contextlib
import csv
import difflib
import io
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from afterfit.contract.values import MISSING_WORDS
from afterfit.data import s3
from afterfit.data.column_names import choose_columns, clean_names, list_names
from afterfit.errors import DataError, SourceError
from afterfit.texts.decoding import advice

CSV, PARQUET = (".csv", ".csv.gz", ".tsv", ".tsv.gz"), (".parquet", ".pq")
ENDINGS = (*CSV, *PARQUET)
FIRST = pa.array([b"0", b"+", b"-", b" ", b"\t"])  # first bytes of numbers with a leading zero: it, a sign, a space
BLOCK = 2**21
LARGEST_EXACT = 2**53
ROWS = 65_536
Type = Literal["integer", "number", "boolean", "text"]
LADDER: tuple[Type, ...] = ("integer", "number", "boolean", "text")


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a source: a path on disk or an S3 object."""

    place: Path | s3.S3Object

    @property
    def text(self) -> str:
        """The file's name in messages."""
        return self.place.address if isinstance(self.place, s3.S3Object) else str(self.place)

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet, by its ending; otherwise it is CSV."""
        return self.text.lower().endswith(PARQUET)

    def open(self) -> io.BufferedReader:
        """The file's bytes, seekable.

        Raises:
            SourceError: the file cannot be opened.
        """
        if isinstance(self.place, s3.S3Object):
            return s3.open_object(self.place)
        try:
            return self.place.open("rb")
        except OSError as error:
            raise SourceError(f"{self.text}: cannot be read: {error.strerror}") from error


def items(path: str, root: Path) -> list[Item]:
    """The files at a path or s3:// address, in the order of their names.

    Of a folder these are all CSV and Parquet files in it and below it, except those with a name, or in a folder with a
    name, that begins with '.' or '_'.

    Raises:
        SourceError: nothing is there, or no file that can be read.
    """
    if path.startswith("s3://"):
        listing: list[Item] = [Item(stored) for stored in s3.list_objects(path)]
        is_file = len(listing) == 1 and listing[0].text == path
        prefix = path if path.endswith("/") else f"{path}/"
    else:
        place = root / Path(path).expanduser()
        is_file, prefix = not place.is_dir(), f"{place}{os.sep}"
        listing = [Item(place)] if is_file else [Item(file) for file in sorted(place.rglob("*")) if file.is_file()]
        if is_file and not place.exists():
            raise SourceError(f"There is no file or folder {place}{_similar_name_hint(place)}")
    if is_file and not listing[0].text.lower().endswith(ENDINGS):
        name = listing[0].text
        raise SourceError(f"{name}: cannot tell how to read this file: its name must end in {list_names(ENDINGS)}")
    readable = [item for item in listing if item.text.lower().endswith(ENDINGS)]
    visible = [item for item in readable if is_file or not _hidden(item.text.removeprefix(prefix))]
    if not visible:
        raise SourceError(f"{path}: the folder has no file that ends in {list_names(ENDINGS)}")
    return visible


def frames(
    listing: Sequence[Item],
    columns: Sequence[str] | None = None,
    rows: int = ROWS,
    *,
    texts: Collection[str] | None = (),
) -> Iterator[pd.DataFrame]:
    """The files' rows in order, in frames of at most `rows` rows, with the columns in the first file's order.

    Columns of CSV files have the type that all their values fit; those in `texts` are text, and all are where it is
    None.

    Raises:
        DataError: a file is empty, has duplicate columns, lacks a requested one, or files differ in columns.
        SourceError: a file is broken; the message names the row where it is known.
    """
    names = header(listing)
    chosen = choose_columns(names, columns, listing[0].text)
    csv_items = [item for item in listing if not item.is_parquet]
    inferred = [] if texts is None else [name for name in chosen if name not in texts]
    types: dict[str, Type] = dict.fromkeys(chosen, "text")
    types |= _scan_types(csv_items, inferred) if csv_items and inferred else {}
    empty = True
    for item in listing:
        for table in _parquet(item, chosen, rows) if item.is_parquet else _csv(item, chosen):
            converted = table if item.is_parquet else _convert(table, types)
            for start in range(0, converted.num_rows, rows):
                empty = False
                yield to_frame(converted.slice(start, rows), item.text)
    if empty:
        raise DataError(f"{listing[0].text}: there is a header ({list_names(names)}) and no row below it")


def header(listing: Sequence[Item]) -> list[str]:
    """The column names that all the files share.

    Raises:
        DataError: a name comes twice, or the files differ.
    """
    first = names_of(listing[0])
    for item in listing[1:]:
        names = names_of(item)
        absent, added = [n for n in first if n not in names], [n for n in names if n not in first]
        if absent or added:
            differences = [f"lacks {list_names(absent)}"] * bool(absent)
            differences += [f"has {list_names(added)} more"] * bool(added)
            raise DataError(
                f"{item.text}: its columns are not those of {listing[0].text}: it {' and '.join(differences)}. "
                "Keep tables of one kind in one folder"
            )
    return first


def names_of(item: Item) -> list[str]:
    """The column names of one file, as `clean_names` returns them."""
    with _translate_errors(item), item.open() as file:
        if item.is_parquet:
            return clean_names(_parquet_file(item, file).schema_arrow.names, item.text)
        return clean_names(_csv_header(item, file)[0], item.text)


def to_frame(table: pa.Table, where: str = "the table") -> pd.DataFrame:
    """Arrow to pandas, the same for every part of a table, in types that a column can be read from.

    Dates are times, decimals floats, booleans nullable, bytes the text that they are as UTF-8; durations and times of
    day are floats, in seconds.

    Raises:
        DataError: a column of another type; it is named.
    """
    for i, field in enumerate(table.schema):
        table = table.set_column(i, field.name, _readable(table.column(i), field, where))
    frame: pd.DataFrame = table.to_pandas(
        date_as_object=False,
        types_mapper=lambda kind: pd.BooleanDtype() if pa.types.is_boolean(kind) else None,
        ignore_metadata=True,
    )
    large = {field.name: table.column(i) for i, field in enumerate(table.schema) if _would_lose_digits(table.column(i))}
    whole = {name: pd.array(values.to_pylist(), dtype="Int64") for name, values in large.items()}
    return frame.assign(**whole).reset_index(drop=True)


def _would_lose_digits(values: pa.ChunkedArray) -> bool:
    """Whether whole numbers with gaps are too large for the floats that pandas makes of them."""
    if not (pa.types.is_int64(values.type) and values.null_count):
        return False
    ends = pc.min_max(values).as_py()
    return any(end is not None and abs(end) > LARGEST_EXACT for end in ends.values())


def seconds_columns(listing: Sequence[Item]) -> list[str]:
    """The columns of Parquet files that are durations or times of day, which are read as seconds."""
    names: dict[str, None] = {}
    for item in listing:
        if item.is_parquet:
            with _translate_errors(item), item.open() as file:
                fields = _parquet_file(item, file).schema_arrow
            names |= dict.fromkeys(str(f.name).strip() for f in fields if _in_seconds(_value_type(f.type)))
    return list(names)


def _readable(values: pa.ChunkedArray, field: pa.Field, where: str) -> pa.ChunkedArray:
    type_, is_ = _value_type(field.type), pa.types
    if type_ != field.type and not (is_.is_string(type_) or is_.is_large_string(type_)):
        values = values.cast(type_)
    if is_.is_decimal(type_):
        return values.cast(pa.float64())
    if _in_seconds(type_):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[type_.unit]
        whole = values.cast(pa.int32() if is_.is_time32(type_) else pa.int64())
        return pc.divide(whole.cast(pa.float64(), safe=False), float(per_second))
    if (
        is_.is_binary(type_)
        or is_.is_large_binary(type_)
        or is_.is_fixed_size_binary(type_)
        or "binary_view" in str(type_)
    ):
        try:
            return values.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{where}: the column '{field.name}' holds bytes that are no UTF-8 text: make text or numbers of them, "
                "or leave the column out"
            ) from error
    if isinstance(type_, pa.BaseExtensionType):
        plain = pa.chunked_array([part.storage for part in values.chunks], type_.storage_type)
        return _readable(plain, pa.field(field.name, type_.storage_type), where)
    if is_.is_interval(type_) or is_.is_union(type_):
        raise DataError(
            f"{where}: the column '{field.name}' is of the type {type_}, which cannot be read: make text or numbers of "
            "it, or leave the column out"
        )
    return values


def _value_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return type_.value_type
    return type_


def _in_seconds(type_: pa.DataType) -> bool:
    return bool(pa.types.is_duration(type_) or pa.types.is_time(type_))


def typed_by_file(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with its columns of text in the types that all their values fit, as `frames` types CSV files."""
    typed: dict[str, Any] = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):
            values = pa.chunked_array([pa.array(frame[name].array, type=pa.string(), from_pandas=True)])
            kind = next(kind for kind in LADDER if _fits(values, kind))
            kind = kind if values.null_count < len(values) else "number"
            typed[name] = to_frame(pa.table({"": _cast(values, kind)}))[""].set_axis(frame.index)
    return frame.assign(**typed) if typed else frame


def check_writable(path: Path) -> Path:
    """The path, after a check that it can be written: to be called before long work whose result goes there.

    Missing folders are made. An existing file is left as it is.

    Raises:
        SourceError: the folder cannot be made or written, or the path is a folder.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder: a file's name is needed")
    probe = path.parent / f".{path.name[:100]}.probe-{os.getpid()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
        if path.exists():
            with path.open("ab"):
                pass
    except OSError as error:
        raise SourceError(f"{path}: cannot be written here: {error.strerror}") from error
    return path


def _parquet_file(item: Item, file: io.BufferedReader) -> pq.ParquetFile:
    if not file.peek(1):
        raise DataError(f"{item.text}: the file is empty")
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=BLOCK)


def _parquet(item: Item, columns: list[str], rows: int) -> Iterator[pa.Table]:
    with _translate_errors(item), item.open() as file:
        parquet = _parquet_file(item, file)
        all_raw_names = parquet.schema_arrow.names
        raw_name_of = dict(zip(clean_names(all_raw_names, item.text), all_raw_names, strict=True))
        raw_names = [raw_name_of[column] for column in columns]
        for batch in parquet.iter_batches(batch_size=rows, columns=raw_names, use_threads=False):
            yield pa.Table.from_batches([batch]).select(raw_names).rename_columns(columns)


def _csv_header(item: Item, file: io.BufferedReader) -> tuple[list[str], str]:
    """The names in the first row as they are, and the delimiter: the one that comes most often in that row."""
    text = io.TextIOWrapper(_decompress(item, file), encoding="utf-8-sig", newline="")
    try:
        line = next((line for line in text if line.strip()), "")
        if not line:
            raise DataError(f"{item.text}: the file is empty")
        delimiter = delimiter_of(line)
        names = next(csv.reader(_prepend(line, text), delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise _encoding_error(item) from error
    except csv.Error as error:
        raise SourceError(f"{item.text}: the header cannot be read as CSV: {error}") from error
    finally:
        text.detach()
    return names, delimiter


def delimiter_of(header_line: str) -> str:
    """The delimiter of CSV: what comes most often in its first line outside quotes; a comma where nothing does."""
    return max(",;\t|", key=lambda mark: (_outside_quotes(header_line).count(mark), mark == ","))


def _prepend(line: str, rest: Iterable[str]) -> Iterator[str]:
    yield line
    yield from rest


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def _decompress(item: Item, file: Any) -> Any:
    return io.BufferedReader(pa.input_stream(file, compression="gzip")) if item.text.lower().endswith(".gz") else file


def _csv(item: Item, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The chosen columns as text; an empty field is missing."""
    with item.open() as file:
        all_raw_names, delimiter = _csv_header(item, file)
    raw_name_of = dict(zip(clean_names(all_raw_names, item.text), all_raw_names, strict=True))
    raw_names = [raw_name_of[column] for column in columns]
    with _translate_errors(item), item.open() as file:
        reader = pyarrow.csv.open_csv(
            _decompress(item, file),
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=raw_names,
                column_types=dict.fromkeys(raw_names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch]).rename_columns(list(columns))


def _scan_types(csv_items: Sequence[Item], columns: Sequence[str]) -> dict[str, Type]:
    """The narrowest type that all values of a column have, over all the files."""
    possible: dict[str, list[Type]] = {column: list(LADDER) for column in columns}
    columns_with_values: set[str] = set()
    for item in csv_items:
        for table in _csv(item, columns):
            for column in columns:
                values = table.column(column)
                columns_with_values.update([column] if values.null_count < len(values) else [])
                while not _fits(values, possible[column][0]):
                    possible[column].pop(0)
    return {column: kinds[0] if column in columns_with_values else "number" for column, kinds in possible.items()}


def _fits(values: pa.ChunkedArray, kind: Type) -> bool:
    try:
        _cast(values, kind)
    except pa.ArrowInvalid:
        return False
    return kind not in {"integer", "number"} or not _is_name_of_digits(values)


def _is_name_of_digits(values: pa.ChunkedArray) -> bool:
    """Whether any text of digits is a name, not a number: leading zeros, or more digits than a float holds."""
    longest = pc.max(pc.binary_length(values)).as_py() or 0
    suspects = (
        values if longest > 16 else values.filter(pc.is_in(pc.binary_slice(values.cast(pa.binary()), 0, 1), FIRST))
    )
    return bool(pc.any(pc.match_substring_regex(suspects, r"^\s*[+-]?(0[0-9xX]|[0-9]{17,}\s*$)")).as_py())


def _convert(table: pa.Table, types: dict[str, Type]) -> pa.Table:
    return pa.table({name: _cast(table.column(name), types[name]) for name in table.column_names})


def _cast(values: pa.ChunkedArray, kind: Type) -> pa.ChunkedArray:
    if kind == "text":
        return values
    if kind == "boolean":
        lower = pc.utf8_lower(_clear_missing_words(values))
        if not pc.all(pc.is_in(lower.drop_null(), pa.array(["true", "false"]))).as_py():
            raise pa.ArrowInvalid("neither true nor false")
        return pc.equal(lower, "true")
    arrow_type = pa.int64() if kind == "integer" else pa.float64()
    try:
        return values.cast(arrow_type)
    except pa.ArrowInvalid:
        return _clear_missing_words(values).cast(arrow_type)


def _clear_missing_words(values: pa.ChunkedArray) -> pa.ChunkedArray:
    stripped = pc.utf8_trim_whitespace(values)
    words = pa.array([*sorted(MISSING_WORDS), ""])
    return pc.if_else(pc.is_in(pc.utf8_lower(stripped), words), pa.scalar(None, pa.string()), stripped)


@contextmanager
def _translate_errors(item: Item) -> Iterator[None]:
    """Raise the errors of Arrow and of the system as one sentence each."""
    try:
        yield
    except pa.ArrowInvalid as error:
        message = " ".join(str(error).split())
        if "UTF8" in message:
            raise _encoding_error(item) from error
        if item.is_parquet:
            raise SourceError(f"{item.text}: cannot be read as Parquet: {message}") from error
        raise SourceError(f"{item.text}: broken CSV (row 1 is the header): {message}") from error
    except (OSError, EOFError, pa.ArrowException) as error:
        raise SourceError(f"{item.text}: cannot be read to its end: {error}") from error


def _encoding_error(item: Item) -> SourceError:
    where, words = "", advice(b"")
    with contextlib.suppress(OSError, pa.ArrowException), item.open() as file:
        for number, line in enumerate(_decompress(item, file), start=1):
            text = line.decode("utf-8", "surrogateescape")
            invalid = next((char for char in text if "\udc80" <= char <= "\udcff"), None)
            if invalid is not None:
                where = f" in line {number} (byte {ord(invalid) - 0xDC00:#04x})"
                break
    with contextlib.suppress(OSError, EOFError, pa.ArrowException), item.open() as file:
        words = advice(_decompress(item, file).read(400))
    return SourceError(
        f"{item.text}: the text is not UTF-8{where}. No other encoding is guessed, as a wrong guess changes "
        f"categories silently: {words}"
    )


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.replace(os.sep, "/").split("/"))


def _similar_name_hint(place: Path) -> str:
    if not place.parent.is_dir():
        return f": there is no folder {place.parent} either"
    similar = difflib.get_close_matches(place.name, [other.name for other in place.parent.iterdir()], n=1, cutoff=0.6)
    return f": did you mean '{similar[0]}'?" if similar else ""
