"""The seam to MLflow's Model Registry: versions, aliases, and bundles that are checked before they are loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from afterfit.bundle import Bundle, code_digest, load
from afterfit.errors import BundleError, UnknownVersionError
from afterfit.tracking import check_reachable, store_errors

STAGING, PRODUCTION, LATEST = "staging", "production", "latest"
DIGEST = "afterfit.digest"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model. `number` is text in every store."""

    name: str
    number: str
    run_id: str
    source: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """The version's models:/ address."""
        return f"models:/{self.name}/{self.number}"


def register(model_uri: str, name: str, digest: str, tags: Mapping[str, str], description: str) -> Version:
    """Register a logged model; its digest is recorded as a tag of the version."""
    check_reachable()
    with store_errors():
        made = mlflow.register_model(model_uri, name, tags={**tags, DIGEST: digest}, await_registration_for=0)
        MlflowClient().update_model_version(name, str(made.version), description)
    return version(name, str(made.version))


def version(name: str, reference: str) -> Version:
    """The version that a number, an alias or `latest` names.

    Raises:
        UnknownVersionError: there is none; the sentence says which there are.
    """
    check_reachable()
    try:
        with store_errors():
            found = _found(name, reference.strip())
    except UnknownVersionError as error:
        raise UnknownVersionError(_nothing_there(name, reference)) from error
    return Version(name, str(found.version), str(found.run_id or ""), str(found.source), dict(found.tags))


def _found(name: str, reference: str) -> Any:
    client = MlflowClient()
    if reference.isdigit():
        return client.get_model_version(name, reference)
    if reference == LATEST:
        client.get_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}'")
        if not versions:
            raise UnknownVersionError(name)
        return max(versions, key=lambda one: int(one.version))
    try:
        return client.get_model_version_by_alias(name, reference)
    except MlflowException as error:
        raise UnknownVersionError(str(error.message)) from error


def _nothing_there(name: str, reference: str) -> str:
    client = MlflowClient()
    try:
        model = client.get_registered_model(name)
        versions = client.search_model_versions(f"name = '{name}'")
    except MlflowException:
        return f"There is no registered model '{name}': train one first (mlflow run . -e train)."
    aliases = ", ".join(f"{alias} ({number})" for alias, number in sorted(model.aliases.items())) or "none"
    numbers = ", ".join(sorted((str(one.version) for one in versions), key=int)) or "none"
    return f"The model '{name}' has no version '{reference}'. Versions: {numbers}; aliases: {aliases}."


def holder(name: str, alias: str) -> Version | None:
    """The version that holds an alias, or None."""
    try:
        return version(name, alias)
    except UnknownVersionError:
        return None


def set_alias(target: Version, alias: str) -> None:
    """Move an alias to a version; one atomic write of MLflow's, the last writer wins."""
    with store_errors():
        MlflowClient().set_registered_model_alias(target.name, alias, target.number)


def tag(target: Version, tags: Mapping[str, str]) -> None:
    """Set tags on a version."""
    with store_errors():
        for key, value in tags.items():
            MlflowClient().set_model_version_tag(target.name, target.number, key, value)


def model_folder(target: Version) -> Path:
    """The local folder of a version's files, downloaded where the store is not local."""
    with store_errors():
        place = MlflowClient().get_model_version_download_uri(target.name, target.number)
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=place))


def load_bundle(target: Version) -> Bundle:
    """Load a version's bundle with this package's own code, after its digests are found to be the registered ones.

    Raises:
        BundleError: no Afterfit bundle, or it or the code that travels with it was altered.
    """
    expected = target.tags.get(DIGEST)
    if expected is None:
        raise BundleError(f"{target.uri} has no recorded digest: it was not registered by Afterfit.")
    home = model_folder(target)
    _refuse_pickle(target, home)
    bundle = load(home / "artifacts" / "bundle", expected, target.number)
    if code_digest(home / "code" / "afterfit") != bundle.manifest.code:
        raise BundleError(f"The code that travels with {target.uri} is not the code that it was logged with.")
    return bundle


def _refuse_pickle(target: Version, home: Path) -> None:
    """A version must be code and data that we wrote: anything that MLflow would unpickle is refused."""
    try:
        described = yaml.safe_load((home / "MLmodel").read_text("utf-8"))
        flavour = described["flavors"]["python_function"]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise BundleError(f"{target.uri} has no readable MLmodel file with a python_function flavour.") from error
    pickled = (
        any(key in flavour for key in ("python_model", "cloudpickle_version")) and "model_code_path" not in flavour
    )
    if pickled or set(described["flavors"]) != {"python_function"}:
        raise BundleError(f"{target.uri} is not a model from code: it would be unpickled, which is refused.")
