"""Write conda.yaml from requirements.lock: one Python, and every version of the lock that can hold for it."""

from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYTHON = "3.11"
HEADER = f"""\
# Written by scripts/lock.sh from requirements.lock. Python, pip and the pip list are all that `mlflow run` with
# --env-manager uv or virtualenv reads, so that they and conda build the same thing.
name: afterfit
channels:
  - conda-forge
dependencies:
  - python={PYTHON}
  - pip
  - pip:
"""


def pins(lock: str) -> list[Requirement]:
    """The lock's requirements that hold under this Python on Linux, macOS or Windows."""
    lines = (line.rstrip("\\ ") for line in lock.splitlines() if line and line[0] not in " #")
    return [requirement for requirement in map(Requirement, lines) if _holds(requirement)]


def _holds(requirement: Requirement) -> bool:
    python = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    platforms = ("linux", "darwin", "win32")
    return requirement.marker is None or any(
        requirement.marker.evaluate({**python, "sys_platform": platform}) for platform in platforms
    )


def render(lock: str) -> str:
    """The whole text of conda.yaml."""
    return HEADER + "".join(f'      - "{str(pin).replace(chr(34), chr(39))}"\n' for pin in pins(lock))


if __name__ == "__main__":
    (ROOT / "conda.yaml").write_text(render((ROOT / "requirements.lock").read_text("utf-8")), "utf-8")
