"""The seam to MLflow's Model Registry: versions, aliases, and bundles that are checked before they are loaded."""

import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from afterfit.errors import BundleError, UnknownVersionError
from afterfit.mlflow_store.tracking import check_reachable, store_errors
from afterfit.texts.redaction import redact

if TYPE_CHECKING:
    from afterfit.model.bundle import Bundle

STAGING, PRODUCTION, LATEST = "staging", "production", "latest"
PREFIX = "afterfit."
"""The prefix of facts about a version that programs need, wherever the store keeps them."""
DIGEST, FILES, STEP = f"{PREFIX}digest", f"{PREFIX}files", f"{PREFIX}step"
"""The digest of its bundle, that of the list of all its files, and the run of the loop's step that trained it."""
MACHINE = "mlflow.afterfit"
"""The one tag that keeps all those facts, as JSON. MLflow's page of a version hides tags that begin with `mlflow.`; its
table of versions shows every tag, and there one is better than ten."""
STATUS, DECISION, ROWS, UNTIL = "status", "decision", "rows", "trained until"
"""The tags for people."""
TRAINED = "trained"
MOST_DESCRIPTION = 5000
"""Characters of a description that MLflow's tables have room for."""
BUNDLE = Path("artifacts", "bundle")
LOADER = "served.py"
"""The file of this package that MLflow runs to load a version."""
NOTED = "registered_model_meta"
"""The file in which MLflow notes the registered version beside a model that was downloaded."""
UNKNOWN = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"})
"""MLflow's error codes for an alias that nothing holds, or that nothing can hold."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model, as it was when it was read.

    Attributes:
        name: of the model.
        number: text in every store.
        run_id: of the run that logged it.
        source: where its files are.
        stored: its tags as the store has them.
        description: what is written of it, in Markdown.
    """

    name: str
    number: str
    run_id: str
    source: str
    stored: Mapping[str, str]
    description: str = ""

    @property
    def tags(self) -> dict[str, str]:
        """Its tags, with each fact under its own name."""
        return unfold_tags(self.stored)

    @property
    def uri(self) -> str:
        """The version's models:/ address."""
        return f"models:/{self.name}/{self.number}"


def register(model_uri: str, name: str, digest: str, tags: Mapping[str, str], description: str) -> Version:
    """Register a logged model; its digest is recorded with its tags (`registration_tags` makes them)."""
    check_reachable()
    with store_errors():
        stored_tags = _fold_tags({**tags, DIGEST: digest})
        registered = mlflow.register_model(model_uri, name, tags=stored_tags, await_registration_for=0)
        MlflowClient().update_model_version(name, str(registered.version), redact(description))
    return version(name, str(registered.version))


def registration_tags(files: str, builder: str, rows: int, trained_until: str | None) -> dict[str, str]:
    """The tags that each new version is registered with, for people and for the machine.

    Args:
        files: the digest of the list of its files (`tracking.LoggedModel`).
        builder: of its estimator.
        rows: that it was trained on.
        trained_until: time of the last of them, ISO text; None or empty without a time column.
    """
    facts = {"files": files, "builder": builder, "rows": str(rows), "trained_until": trained_until or ""}
    return {STATUS: TRAINED} | {f"{PREFIX}{key}": value for key, value in facts.items()}


def unfold_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A version's tags with each fact under its own name. Older versions have them in this form in the store."""
    facts: Any = {}
    with suppress(
        ValueError, RecursionError
    ):  # somebody changed the tag by hand: the version has no digest then, and is refused
        facts = json.loads(tags.get(MACHINE, "{}"))
    plain = {key: value for key, value in tags.items() if key != MACHINE}
    return plain | ({f"{PREFIX}{key}": str(value) for key, value in facts.items()} if isinstance(facts, dict) else {})


def version(name: str, reference: str) -> Version:
    """The version that a number, an alias or `latest` names.

    Raises:
        UnknownVersionError: there is none; the sentence says which there are.
    """
    check_reachable()
    try:
        with store_errors():
            model_version = _find(name, reference.strip())
    except UnknownVersionError as error:
        raise UnknownVersionError(_unknown_message(name, reference)) from error
    run_id, tags, description = (
        str(model_version.run_id or ""),
        dict(model_version.tags),
        model_version.description or "",
    )
    return Version(name, str(model_version.version), run_id, str(model_version.source), tags, description)


def find_by_tag(name: str, key: str, value: str) -> Version | None:
    """The newest version that has a tag with this value, or None."""
    check_reachable()
    with store_errors():
        versions = MlflowClient().search_model_versions(f"name = '{name}'")
    matching = [candidate for candidate in versions if unfold_tags(candidate.tags).get(key) == value]
    return version(name, str(max(int(match.version) for match in matching))) if matching else None


def holder(name: str, alias: str) -> Version | None:
    """The version that holds an alias, or None."""
    try:
        return version(name, alias)
    except UnknownVersionError:
        return None


def set_alias(target: Version, alias: str) -> None:
    """Move an alias to a version: one atomic write; the last writer wins."""
    with store_errors():
        MlflowClient().set_registered_model_alias(target.name, alias, target.number)


def tag(target: Version, tags: Mapping[str, str], drop: Collection[str] = ()) -> None:
    """Set tags on a version and delete others; tags that have the value already are not written again.

    The facts of a version of an older release are put into the one tag too. Its old tags stay for older programs, as
    long as their values are still right; old tags with other values are deleted.

    Args:
        target: the version, read just now: its facts are kept.
        tags: for people, or facts by their names.
        drop: names of tags or facts to delete.
    """
    wanted = _fold_tags({**{key: value for key, value in target.tags.items() if key not in drop}, **tags})
    facts = unfold_tags(wanted)
    old = [key for key in target.stored if key in drop or (key.startswith(PREFIX) and facts[key] != target.stored[key])]
    with store_errors():
        client = MlflowClient()
        for key, value in wanted.items():
            if target.stored.get(key) != value:
                client.set_model_version_tag(target.name, target.number, key, value)
        for key in old:
            client.delete_model_version_tag(target.name, target.number, key)


def model_folder(target: Version, into: Path | None = None) -> Path:
    """The local folder of a version's files, downloaded where the store is not local.

    Args:
        target: the version.
        into: an existing folder that gets a copy of them in either case.

    Raises:
        BundleError: the registry knows the version, and its files are not there.
    """
    with store_errors():
        address = MlflowClient().get_model_version_download_uri(target.name, target.number)
        try:
            destination = None if into is None else str(into)
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=destination))
        except (MlflowException, OSError) as error:
            check_reachable()
            message = " ".join(redact(str(error)).split())[:300]
            raise BundleError(f"The files of {target.uri} cannot be read from {address}: {message}") from error


def load_bundle(target: Version) -> "Bundle":
    """Load a version's bundle with this package's own code, from a copy whose files are the registered ones.

    Raises:
        BundleError: no Afterfit bundle, or a file of the version was altered, added or removed.
    """
    listed = target.tags.get(FILES)
    with private_folder() as private:
        if listed is None or not _is_local(target):
            return load_fetched(target, *fetch(target, private))
        return load_fetched(target, *_bundle_of(target, private, listed))


def load_fetched(target: Version, home: Path, expected: str) -> "Bundle":
    """Load a version's bundle from what `fetch` gave."""
    from afterfit.model.bundle import load  # noqa: PLC0415 - who only asks the registry needs no scikit-learn

    return load(home / BUNDLE, expected, target.number)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder that only this user can enter, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="afterfit-version-") as private:
        yield Path(private)


def fetch(target: Version, into: Path) -> tuple[Path, str]:
    """Copy a version's files and check each one against what was registered; nothing of them is imported or loaded.

    Args:
        target: the version.
        into: an existing folder that is nobody else's. What is checked is what lies there.

    Returns:
        The local folder of the version, and the digest its bundle has.

    Raises:
        BundleError: no Afterfit bundle, its files are not there, or they are not those that were registered.
    """
    from afterfit.model import version_files  # noqa: PLC0415 - as above

    expected = target.tags.get(DIGEST)
    if expected is None:
        raise BundleError(f"{target.uri} has no recorded digest: it was not registered by Afterfit.")
    home = _copied(target, into)
    listed = target.tags.get(FILES)
    if listed is not None:
        version_files.check_listed(home, target.uri, target.name, listed)
    _refuse_pickle(target, home)
    if listed is None:
        version_files.check_older(home, target.uri, expected)
    return home, expected


def keep(target: Version, folder: Path) -> Path:
    """Copy a version's files into a new folder, so that it can be served without the registry.

    The copy is checked against the registered digests. MLflow's own file beside it says which version it is.

    Raises:
        BundleError: no Afterfit bundle, or it or the code that travels with it was altered.
    """
    with private_folder() as private:
        home, expected = fetch(target, private)
        load_fetched(target, home, expected)
        shutil.copytree(home, folder)
    content = {"model_name": target.name, "model_version": target.number}
    (folder / NOTED).write_text(yaml.safe_dump(content), "utf-8")
    return folder


def aliases(name: str) -> dict[str, str]:
    """The version that holds each alias; empty where there is no such model."""
    check_reachable()
    try:
        with store_errors():
            version_by_alias = MlflowClient().get_registered_model(name).aliases
    except UnknownVersionError:
        return {}
    return {str(alias): str(number) for alias, number in version_by_alias.items()}


def model_tag(name: str, key: str) -> str:
    """A tag of the registered model; empty where there is no such model or tag."""
    try:
        with store_errors():
            return str(MlflowClient().get_registered_model(name).tags.get(key, ""))
    except UnknownVersionError:
        return ""


def set_model_tag(name: str, key: str, value: str) -> None:
    """Set a tag of the registered model; nothing happens where there is no such model."""
    with suppress(UnknownVersionError), store_errors():
        MlflowClient().set_registered_model_tag(name, key, value)


def unset_alias(name: str, alias: str) -> None:
    """Delete an alias; nothing happens where nothing holds it."""
    with store_errors():
        MlflowClient().delete_registered_model_alias(name, alias)


def extend_description(target: Version, heading: str, text: str) -> None:
    """Add a section to the end of a version's description, unless it has a section with that heading already.

    Args:
        target: the version, read just now.
        heading: of the section, such as "## Decision 7".
        text: of the section. If the description gets too long for MLflow's tables, the oldest sections of that kind
            are removed.
    """
    description = target.description
    if f"{heading}\n" in description:
        return
    kind, section = heading.rpartition(" ")[0], f"\n\n{heading}\n\n{text[: MOST_DESCRIPTION // 2]}\n"
    section = redact(section)
    first, *older = re.split(f"\n+(?={re.escape(kind)} )", description.rstrip())
    while older and len("\n\n".join([first, *older])) + len(section) > MOST_DESCRIPTION:
        older.pop(0)
    shortened = "\n\n".join([first, *older])[: MOST_DESCRIPTION - len(section)]
    with store_errors():
        MlflowClient().update_model_version(target.name, target.number, f"{shortened.rstrip()}{section}")


def mirror_stage(target: Version, stage: str) -> None:
    """Move a version to one of MLflow's old stages, for teams whose tooling still reads them."""
    with store_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        MlflowClient().transition_model_version_stage(
            target.name, target.number, stage, archive_existing_versions=stage in {"Production", "Staging"}
        )


def _fold_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags as they are stored: all facts in one tag, and beside it, in words, those that a person needs."""
    facts = {key.removeprefix(PREFIX): value for key, value in tags.items() if key.startswith(PREFIX)}
    shown = {key: redact(value) for key, value in tags.items() if not key.startswith(PREFIX)}
    if re.fullmatch("[0-9]{1,12}", facts.get("rows", "")):
        shown[ROWS] = f"{int(facts['rows']):,}"
    if facts.get("trained_until"):
        shown[UNTIL] = facts["trained_until"].replace("T", " ")
    return shown | ({MACHINE: json.dumps(facts, sort_keys=True)} if facts else {})


def _find(name: str, reference: str) -> Any:
    client = MlflowClient()
    if re.fullmatch("[0-9]{1,9}", reference):
        return client.get_model_version(name, reference)
    if reference == LATEST:
        client.get_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}'")
        if not versions:
            raise UnknownVersionError(name)
        return max(versions, key=lambda version: int(version.version))
    try:
        return client.get_model_version_by_alias(name, reference)
    except MlflowException as error:
        if error.error_code not in UNKNOWN:  # a store that fails has not said that nothing holds the alias
            raise
        raise UnknownVersionError(str(error.message)) from error


def _unknown_message(name: str, reference: str) -> str:
    client = MlflowClient()
    try:
        with store_errors():
            model = client.get_registered_model(name)
            versions = client.search_model_versions(f"name = '{name}'")
    except UnknownVersionError:
        return f"There is no registered model '{name}': train one first (mlflow run . -e train)."
    aliases = ", ".join(f"{alias} ({number})" for alias, number in sorted(model.aliases.items())) or "none"
    numbers = ", ".join(sorted((str(version.version) for version in versions), key=int)) or "none"
    return f"The model '{name}' has no version '{reference}'. Versions: {numbers}; aliases: {aliases}."


def _copied(target: Version, into: Path) -> Path:
    """A copy of a version's files. Links in a local store stay links: they are refused, and not followed."""
    from afterfit.model import version_files  # noqa: PLC0415 - as above

    if _is_local(target):
        return version_files.private_copy(model_folder(target), into / "version", target.uri)
    return model_folder(target, into)


def _is_local(target: Version) -> bool:
    """Whether a version's files lie in a folder here."""
    with store_errors():
        address = MlflowClient().get_model_version_download_uri(target.name, target.number)
    return urlsplit(address).scheme in {"", "file"}


def _bundle_of(target: Version, into: Path, listed: str) -> tuple[Path, str]:
    """As `fetch`, for who loads only the bundle: the other files are checked where they lie, and not copied."""
    from afterfit.model import version_files  # noqa: PLC0415 - as above

    source, home = model_folder(target), into / "version"
    if not (source / BUNDLE).is_dir() or (source / BUNDLE).is_symlink():
        return fetch(target, into)  # which says what is wrong
    version_files.private_copy(source / BUNDLE, home / BUNDLE, target.uri)
    version_files.check_listed(source, target.uri, target.name, listed, home)
    _refuse_pickle(target, source)
    return home, target.tags[DIGEST]


def _refuse_pickle(target: Version, home: Path) -> None:
    """Refuse a version that MLflow would unpickle: it must be code and data written by this package."""
    try:
        model_file = yaml.safe_load((home / "MLmodel").read_text("utf-8"))
        flavour = model_file["flavors"]["python_function"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise BundleError(f"{target.uri} has no readable MLmodel file with a python_function flavour.") from error
    is_loader = (
        Path(str(flavour.get("model_code_path"))).name == LOADER
    )  # MLflow runs the file of that name beside MLmodel
    from_code = is_loader and flavour.get("loader_module") == "mlflow.pyfunc.loaders.code_model"
    if not from_code or set(model_file["flavors"]) != {"python_function"}:
        raise BundleError(f"{target.uri} is not a model from code: it would be unpickled, which is refused.")
