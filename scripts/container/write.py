"""Write what a container of Afterfit's server is built from, and the manifests that Kubernetes runs it with."""

import argparse
import hashlib
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from afterfit.commands import console
from afterfit.errors import AfterfitError, SettingsError
from afterfit.texts.redaction import redact
from afterfit.use_case import UseCase, load_use_case, settings_file

ROOT = Path(__file__).parents[2]
TEMPLATES = Path(__file__).parent
KUBERNETES = ("settings", "deployment", "service", "autoscaler", "servicemonitor")
FIELD = re.compile("@([A-Z]+)@")
IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,200}(?:@sha256:[0-9a-f]{64})?")
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PLACE = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._/-]+")
VARIABLE = re.compile(r"\$\{\w+\}")
COMPARED = re.compile(r"[\w.\"]+\s*(?:=|<>|!=|<=?|>=?)\s*")
LONG_PART = re.compile(r"[\w-]{16,}")
MEMORY, SHARED = 300, 400
"""Megabytes of a worker, and of what stands beside the workers."""


def options() -> argparse.ArgumentParser:
    """The options and their defaults."""
    parser = argparse.ArgumentParser("container", description=__doc__)
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument("--config", default="flights-late", help="a built-in use case or a settings file")
    parser.add_argument("--version", default="production", help="the alias or number of the version")
    parser.add_argument("--fetch", action="store_true", help="fetch the version at each start, and follow the alias")
    parser.add_argument("--image", default="", help="the image's name; empty: afterfit-NAME:VERSION")
    parser.add_argument("--tracking", default="", help="MLflow's address as the pods see it, for monitor and --fetch")
    parser.add_argument("--log", default="", help="s3://… for the prediction log's parts; empty: a volume of the pods")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, in each pod")
    return parser


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options, found to be sound."""

    out: Path
    use_case: UseCase
    settings: str
    version: str
    fetch: bool
    image: str
    tracking: str
    log: str
    workers: int

    @property
    def name(self) -> str:
        """The use case's name as Kubernetes takes names: few letters, digits and dashes, and no word of YAML's."""
        return "afterfit-" + re.sub("[^a-z0-9]+", "-", self.use_case.name.lower())[:40].strip("-")


def wanted_of(given: argparse.Namespace) -> Wanted:
    """Check the options.

    Raises:
        SettingsError: one is wrong; the sentence says which.
    """
    if given.out.exists() and (not given.out.is_dir() or any(given.out.iterdir())):
        raise SettingsError(f"{given.out} must be a new or empty folder: what is there is not written over.")
    if not 1 <= given.workers <= 64:
        raise SettingsError(f"--workers must be a whole number from 1 to 64; got {given.workers}.")
    if not ALIAS.fullmatch(given.version):
        raise SettingsError(f"--version '{given.version}' must be an alias or a version's number.")
    if given.image and not IMAGE.fullmatch(given.image):
        raise SettingsError(f"--image '{given.image}' must be an image's name, such as team/flights-late:7.")
    if given.log and not PLACE.fullmatch(given.log):
        raise SettingsError(f"--log '{given.log}' must be an s3:// address; without it the pods share a volume.")
    check_tracking(given.tracking, fetch=given.fetch)
    use_case = load_use_case(given.config)
    place = given.log or ((use_case.log.folder or "") if (use_case.log.folder or "").startswith("s3://") else "")
    return Wanted(
        given.out,
        use_case,
        settings_text(settings_file(given.config), place),
        given.version,
        given.fetch,
        given.image,
        given.tracking.rstrip("/"),
        place,
        given.workers,
    )


def check_tracking(address: str, *, fetch: bool) -> None:
    """Refuse an address that pods could not reach, or that holds a password."""
    if fetch and not address:
        raise SettingsError(
            "--fetch needs --tracking: MLflow's address as the pods see it, such as http://mlflow:5000."
        )
    found = urlsplit(address)
    if address and (found.scheme not in {"http", "https"} or not found.hostname or re.search(r'[\s"\\]', address)):
        raise SettingsError(f"--tracking '{address}' must be an http:// or https:// address that the pods can reach.")
    if found.username or found.password or redact(address) != address:
        raise SettingsError(
            "--tracking must not hold a password: put MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD into the "
            "Secret that the manifests name."
        )


def check_no_secrets(content: object, key: str = "") -> None:
    """Refuse a setting with a secret in it: whoever may read the image or the ConfigMap could read it there.

    Args:
        content: a settings file's value.
        key: where it stands in the file, with dots; empty for the whole file.

    Raises:
        SettingsError: a value holds a secret that is not `${NAME}`; the sentence names the key.
    """
    if isinstance(content, dict):
        for name, value in content.items():
            check_no_secrets(value, f"{key}.{name}".lstrip("."))
    elif isinstance(content, list):
        for value in content:
            check_no_secrets(value, key)
        check_no_secrets(" ".join(map(str, content)), key)  # an option and its value are two words
    elif content is not None and holds_secret(str(content), key):
        name = re.sub("[^A-Z0-9]+", "_", f"{key}".upper()).strip("_")
        raise SettingsError(
            f"{key} holds a secret, which everybody could read in the image and in the ConfigMap. Write "
            f"{key}: ${{{name}}} into the settings file, and put {name} with that value into the Secret that the "
            "manifests name."
        )


def holds_secret(text: str, key: str) -> bool:
    """Whether a setting's text has a secret in it, by its form or by its key's name; `${NAME}` is none."""
    text = VARIABLE.sub("", text)
    if not text:
        return False
    if key == "source.query":  # a condition on a column called token is none
        text = COMPARED.sub("", text)
    if key == "alarms.secret":  # the name of a variable
        return not re.fullmatch(r"\w+", text)
    if key == "alarms.webhook" and (urlsplit(text).query or LONG_PART.search(urlsplit(text).path)):
        return True  # who knows such an address may post to it
    named = f"{key.rpartition('.')[2]}={text}"
    return redact(text) != text or redact(named) != named


def settings_text(file: Path, place: str) -> str:
    """The settings file with the prediction log where the container has it.

    Raises:
        SettingsError: a setting holds a secret.
    """
    content = yaml.safe_load(file.read_text("utf-8"))
    check_no_secrets(content)
    log = {**(content.get("log") or {}), "folder": place or "data/log", "spool": "data/spool"}
    text: str = yaml.safe_dump({**content, "log": log}, sort_keys=False, allow_unicode=True, width=110)
    return text


def filled(text: str, fields: dict[str, str]) -> str:
    """A template with every @FIELD@ replaced."""
    return FIELD.sub(lambda found: fields[found.group(1)], text)


def fields_of(wanted: Wanted, number: str) -> dict[str, str]:
    """What stands in the templates' fields."""
    memory = MEMORY * wanted.workers + SHARED
    which = f'"--alias", "{wanted.version}"' if wanted.fetch else '"--model", "model"'
    return {
        "NAME": wanted.name,
        "IMAGE": wanted.image or f"{wanted.name}:{number}",
        "MODEL": "# the version is fetched at the start" if wanted.fetch else "COPY model model",
        "WHICH": which,
        "WORKERS": str(wanted.workers),
        "TRACKING": wanted.tracking,
        "CPU": str(500 * wanted.workers),
        "MEMORY": str(memory),
        "MOST": str(2 * memory),
        "GRACE": str(int(wanted.use_case.serving.stop_seconds) + 40),
        "SETTINGS": "".join(f"    {line}\n" if line else "\n" for line in wanted.settings.splitlines()).rstrip("\n"),
        "DIGEST": hashlib.sha256(wanted.settings.encode()).hexdigest()[:16],
        "LOG": "emptyDir: {}" if wanted.log else f"persistentVolumeClaim: {{claimName: {wanted.name}-log}}",
    }


def write(wanted: Wanted) -> list[str]:
    """Write the folder; gives what a person should know."""
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wanted.out.parent, prefix=".container-") as scratch:
        draft = Path(scratch, "out")
        (draft / "kubernetes").mkdir(parents=True)
        number = wanted.version if wanted.fetch else baked(wanted, draft / "model")
        copy_code(draft)
        (draft / "usecase.yaml").write_text(wanted.settings, "utf-8")
        fields = fields_of(wanted, number)
        (draft / "Dockerfile").write_text(filled((TEMPLATES / "Dockerfile").read_text("utf-8"), fields), "utf-8")
        (draft / ".dockerignore").write_text("kubernetes\n**/__pycache__\n", "utf-8")
        names = [*KUBERNETES, *["claim"] * (not wanted.log), *["monitor"] * bool(wanted.tracking)]
        for name in names:
            text = (TEMPLATES / "kubernetes" / f"{name}.yaml").read_text("utf-8")
            (draft / "kubernetes" / f"{name}.yaml").write_text(filled(text, fields), "utf-8")
        draft.chmod(0o755)
        if wanted.out.exists():
            wanted.out.rmdir()
        draft.rename(wanted.out)
    return said(wanted, number, fields["IMAGE"])


def baked(wanted: Wanted, folder: Path) -> str:
    """Download the version; gives its number."""
    from afterfit.mlflow_store import registry

    target = registry.version(wanted.use_case.name, wanted.version)
    registry.keep(target, folder)
    return target.number


def copy_code(draft: Path) -> None:
    """The package, its commands and the locked requirements."""
    shutil.copytree(ROOT / "src", draft / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (draft / "scripts").mkdir()
    for file in sorted((ROOT / "scripts").glob("*.py")):
        shutil.copy(file, draft / "scripts")
    shutil.copy(ROOT / "requirements.lock", draft)


def said(wanted: Wanted, number: str, image: str) -> list[str]:
    """The next steps, and what is not there."""
    which = f"fetches {number} at each start" if wanted.fetch else f"version {number} is baked in"
    lines = [
        f"Wrote {wanted.out}: {wanted.use_case.name}, {which}.",
        f"  docker build -t {image} {wanted.out}",
        f"  kubectl apply -f {wanted.out / 'kubernetes'}",
    ]
    if not wanted.tracking:
        lines.append("Without --tracking there is no CronJob for monitor: it needs MLflow's address.")
    path = wanted.use_case.source.path
    if path and not path.startswith("s3://") and not Path(path).is_absolute():
        lines.append(f"The source '{path}' is not in the image; serving and monitor do without.")
    return lines


def main() -> int:
    """Write, and say what was written."""
    given = options().parse_args()
    console.settle()
    try:
        lines = write(wanted_of(given))
    except AfterfitError as error:
        print(f"container: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"container: {error.filename or given.out} cannot be written: {error.strerror}", file=sys.stderr)
        return SettingsError.exit_code
    print("\n".join(lines))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
