"""The backtest of flights-late, April to December by month under five policies: time, memory, and whether it is right.

The whole command runs as a process, with models of its own. Its time is held against the sum of the trainings and
predictions that it must do, each counted once, as its processes measured them. `calendar` is what retraining each month
gains over `never`; what `cautious` keeps of it, and with how many retrainings, is the answer that must be right.

    PYTHONPATH=src python scripts/bench/backtest.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def memory_of(pid: int) -> int:
    """Bytes of a process and its children, shared pages counted once over (proportional set size)."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text("ascii")
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text("ascii").split()]
        except (OSError, StopIteration, ValueError):
            continue
    return total


def watched(process: subprocess.Popen[str]) -> int:
    """The most memory that was seen while it ran, looked at twice a second."""
    most = [0]

    def look() -> None:
        while process.poll() is None:
            most[0] = max(most[0], memory_of(process.pid))
            time.sleep(0.5)

    thread = threading.Thread(target=look)
    thread.start()
    said = process.communicate()[0]
    thread.join()
    if process.returncode:
        raise SystemExit(f"the backtest ended with {process.returncode}:\n{said}")
    return most[0]


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """Run the command once; gives its answer with `wall` seconds and `memory` bytes."""
    answer = folder / "answer.json"
    words = [sys.executable, str(ROOT / "scripts" / "backtest.py"), "--config", options.config]
    words += ["--policies", options.policies, "--start", options.start, "--end", options.end, "--delay", options.delay]
    words += ["--processes", str(options.processes), "--folder", str(folder / "models"), "--json", str(answer)]
    words += ["--page", str(options.page or folder / "page.html")]
    paths = {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    started = time.perf_counter()
    process = subprocess.Popen(
        words, cwd=folder, env={**os.environ, **paths}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    most = watched(process)
    return {**json.loads(answer.read_text("utf-8")), "wall": time.perf_counter() - started, "memory": most}


def told(answer: dict) -> list[str]:
    """The measurement in lines."""
    seconds, policies = answer["seconds"], {one["policy"]: one for one in answer["policies"]}
    must = seconds["train"] + seconds["predictions"]
    ratio = answer["wall"] / must
    lines = [
        f"{answer['wall']:.0f} s as a process, {ratio:.2f} times the {must:.0f} s of trainings and predictions",
        f"{answer['memory'] / 1e9:.2f} GB at most",
        "seconds by kind of work: " + ", ".join(f"{name} {spent:.0f}" for name, spent in sorted(seconds.items())),
    ]
    mean = f"mean_{answer['metric']}"
    for name, one in policies.items():
        against = one["against_best"]
        lines.append(
            f"  {name:<15} {one[mean]:.4f} ({against['value']:+.4f}, {against['low']:+.4f} to {against['high']:+.4f})"
            f"  {one['retrainings']:.0f} trained, {one['promotions']:.0f} promoted, {one['refusals']:.0f} refused,"
            f" {one['rollbacks']:.0f} rolled back;"
            f" alarms {one['alarms_true']:.0f} true, {one['alarms_false']:.0f} false"
        )
    if {"never", "calendar", "cautious"} <= set(policies):
        gain = policies["calendar"][mean] - policies["never"][mean]
        kept = (policies["cautious"][mean] - policies["never"][mean]) / gain if gain else float("nan")
        lines.append(
            f"cautious keeps {kept:.0%} of what calendar gains ({gain:+.4f}), with "
            f"{policies['cautious']['retrainings']:.0f} of its {policies['calendar']['retrainings']:.0f} retrainings"
        )
    return [*lines, f"recommended: {answer['recommended']}. {answer['reason']}"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="flights-late")
    parser.add_argument("--policies", default="never,calendar,on-drift,on-performance,cautious")
    parser.add_argument("--start", default="2013-04-01")
    parser.add_argument("--end", default="2014-01-01")
    parser.add_argument("--delay", default="24")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, default=None)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(told(measure(options, Path(folder)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
