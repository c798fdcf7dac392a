"""The backtest of flights-late, April to December by month under five policies: time, memory, and whether it is right.

The whole command runs as a process, with models of its own. Its time is held against the sum of the trainings and
predictions that it must do, each counted once, as its processes measured them. `calendar` is what retraining each month
gains over `never`; what `cautious` keeps of it, and with how many retrainings, is the answer that must be right. With
several starts there is a line for each: models that two of them have in common are trained once, and no time is told.

    PYTHONPATH=src:scripts python -m bench.speed.backtest
    PYTHONPATH=src:scripts python -m bench.speed.backtest --start 2013-03-01,2013-04-01,2013-05-01,2013-06-01,2013-07-01
    PYTHONPATH=src:scripts python -m bench.speed.backtest --use-case flights-delay
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

from afterfit.performance.metrics import metric

ROOT = Path(__file__).parents[3]
COMPARED = {"never", "calendar", "cautious"}


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


def measure(options: argparse.Namespace, folder: Path, start: str) -> dict:
    """Run the command once; gives its answer with `wall` seconds and `memory` bytes."""
    answer = folder / "answer.json"
    words = [sys.executable, str(ROOT / "scripts" / "backtest.py"), "--config", options.config]
    words += ["--policies", options.policies, "--start", start, "--end", options.end, "--delay", options.delay]
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
    if set(policies) >= COMPARED:
        lines.append(kept(answer))
    return [*lines, f"recommended: {answer['recommended']}. {answer['reason']}"]


def kept(answer: dict) -> str:
    """What `cautious` keeps of what `calendar` gains over `never`, in a sentence."""
    policies = {one["policy"]: one for one in answer["policies"]}
    gain = better(answer, "calendar")
    if not gain > 0:
        return f"calendar gains nothing ({gain:+.4f}), cautious {better(answer, 'cautious'):+.4f}"
    trained = [policies[name]["retrainings"] for name in ("cautious", "calendar")]
    return (
        f"cautious keeps {better(answer, 'cautious') / gain:.0%} of what calendar gains ({gain:+.4f}), "
        f"with {trained[0]:.0f} of its {trained[1]:.0f} retrainings"
    )


def better(answer: dict, name: str) -> float:
    """By how much a policy's mean is better than that of `never`; above nothing is better, whatever the metric."""
    means = {one["policy"]: one[f"mean_{answer['metric']}"] for one in answer["policies"]}
    sign = 1.0 if metric(answer["metric"]).greater_is_better else -1.0
    return sign * (means[name] - means["never"])


def over_starts(options: argparse.Namespace, folder: Path, starts: list[str]) -> list[str]:
    """A line for each start: the means of the three policies, what was retrained, and what `cautious` keeps."""
    lines = []
    for start in starts:
        answer = measure(options, folder, start)
        policies, mean = {one["policy"]: one for one in answer["policies"]}, f"mean_{answer['metric']}"
        shown = "  ".join(f"{name} {policies[name][mean]:.4f}" for name in ("never", "calendar", "cautious"))
        lines.append(f"{start}  {answer['metric']}: {shown}; {kept(answer)}; recommended: {answer['recommended']}")
        print(lines[-1], flush=True)
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", "--use-case", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--policies", default="never,calendar,on-drift,on-performance,cautious")
    parser.add_argument("--start", default="2013-04-01", help="where the windows begin; several with commas between")
    parser.add_argument("--end", default="2014-01-01")
    parser.add_argument("--delay", default="24", help="hours until outcomes are known")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, default=None)
    options = parser.parse_args(arguments)
    starts = options.start.split(",")
    if len(starts) > 1 and not set(options.policies.split(",")) >= COMPARED:
        parser.error(f"several starts are compared by {', '.join(sorted(COMPARED))}: name them all in --policies")
    with tempfile.TemporaryDirectory() as folder:
        if len(starts) > 1:
            over_starts(options, Path(folder), starts)
        else:
            print("\n".join(told(measure(options, Path(folder), starts[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
