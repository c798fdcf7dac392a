"""Speed and memory of profiles and drift.

    export PYTHONPATH=src:scripts
    python -m bench.speed.drift                     # 1,000,000 against 1,000,000 rows of 16 columns
    python -m bench.speed.drift --peers DIR         # the same data through Evidently, NannyML and SciPy
    python -m bench.speed.drift --stream 100000000  # a Parquet folder, streamed; at 1 million rows and up
    python -m bench.speed.drift --start             # `import afterfit` and a profile of 30,000 rows, as a process

Reading Parquet is not counted in the comparison with the peers; it is counted in the stream. The peers' time does not
hold what they do once for a reference (NannyML's fit is shown beside it).
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.shared.tables import wide

RUNS = 5
ROW_GROUP = 250_000


def best(work, runs: int = RUNS) -> float:
    """The fastest of some runs, in seconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def compared(rows: int, seed: int, peers: Path | None) -> dict[str, float | None]:
    """Seconds of each, printed with how many times slower than Afterfit it is."""
    import afterfit

    reference, window = wide(rows, seed), wide(rows, seed + 1)
    plain, related = afterfit.profile(reference, relations=False), afterfit.profile(reference)
    seconds: dict[str, float | None] = {
        "Afterfit": best(lambda: afterfit.compare_drift(plain, window)),
        "Afterfit with relations": best(lambda: afterfit.compare_drift(related, window)),
    }
    seconds |= peer_seconds(reference, window, peers)
    ours, ours_related = seconds["Afterfit"], seconds["Afterfit with relations"]
    print(f"{rows:,} against {rows:,} rows of {window.shape[1]} columns, reference ready:")
    for name, taken in seconds.items():
        if taken is None:
            print(f"{name:>24}: not installed")
        else:
            slower = f"{taken / ours:6.1f} times; {taken / ours_related:6.1f} times with relations"
            print(f"{name:>24}: {taken:8.3f} s = {slower}")
    return seconds


def peer_seconds(reference, window, folder: Path | None) -> dict[str, float | None]:
    from bench.shared.peers import PACKAGES, environment, run

    seconds: dict[str, float | None] = dict.fromkeys(PACKAGES)
    for peer in PACKAGES if folder is not None else ():
        python = environment(folder, peer)
        answer = run(python, peer, reference, [window], what="speed") if python else None
        if answer:
            seconds[peer] = min(answer["seconds"])
            print(
                f"  {peer} fitted in {answer['fitted'][0]:.1f} s" if answer["fitted"] else f"  {peer} ran", flush=True
            )
    return seconds


def write_parquet(folder: Path, rows: int, seed: int) -> None:
    """A folder of Parquet files of four million rows at most, in row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = [pa.Table.from_pandas(wide(ROW_GROUP, seed + i), preserve_index=False) for i in range(4)]
    for part, first in enumerate(range(0, rows, 16 * ROW_GROUP)):
        with pq.ParquetWriter(folder / f"{part:05d}.parquet", groups[0].schema) as writer:
            for i, start in enumerate(range(first, min(first + 16 * ROW_GROUP, rows), ROW_GROUP)):
                writer.write_table(groups[i % 4].slice(0, rows - start), row_group_size=ROW_GROUP)


def row_groups(folder: Path):
    """Row groups of a folder, one at a time."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, use_threads=False)


def stream_one(folder: Path) -> None:
    """Profile a folder in this process; print rows, seconds and peak memory."""
    import afterfit

    start = time.perf_counter()
    profile = afterfit.profile(row_groups(folder))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = 1e9 * seconds / profile.rows / 16
    print(f"{profile.rows:>13,} rows: {seconds:8.1f} s, {each:5.1f} ns a value, peak {peak:,.0f} MB", flush=True)


def stream(most: int, seed: int, where: Path | None) -> None:
    rows = min(1_000_000, most)
    while rows <= most:
        if where is not None:
            where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where) as folder:
            write_parquet(Path(folder), rows, seed)
            subprocess.run([sys.executable, __file__, "--one", folder], check=True)
        rows *= 10


def start(seed: int) -> float:
    """Seconds of a whole process that imports Afterfit and profiles 30,000 rows (reading them included)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        wide(30_000, seed).to_parquet(path)
        work = f"import afterfit, pandas, sys; afterfit.profile(pandas.read_parquet({str(path)!r}))"
        code = f"{work}; assert 'mlflow' not in sys.modules"
        seconds = best(lambda: subprocess.run([sys.executable, "-c", code], check=True), 3)
    print(f"import afterfit and a profile of 30,000 rows: {seconds:.2f} s as a whole process")
    return seconds


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers", type=Path, help="folder for the environments of the peers")
    parser.add_argument("--stream", type=int, metavar="ROWS", help="stream Parquet folders up to this many rows")
    parser.add_argument("--folder", type=Path, help="where the Parquet folders are made")
    parser.add_argument("--start", action="store_true", help="time a whole process")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        stream_one(options.one)
    elif options.stream:
        stream(options.stream, options.seed, options.folder)
    elif options.start:
        start(options.seed)
    else:
        compared(options.rows, options.seed, options.peers)


if __name__ == "__main__":
    main(sys.argv[1:])
