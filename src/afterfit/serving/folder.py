"""A version in a folder, baked into an image for example: what is loaded where nobody asks a registry."""

import json
from pathlib import Path

import yaml

from afterfit.errors import BundleError

BUNDLE = Path("artifacts", "bundle")
NOTED = "registered_model_meta"
"""The file in which MLflow notes the registered version beside a model that it downloaded."""


def version_in(home: Path, name: str) -> dict[str, str | None]:
    """What should be served, as the process that asks the registry would say it.

    The digest is the one that was written into the MLmodel file when the version was logged, and the version's number
    the one that MLflow noted beside it; None where it noted none.

    Args:
        home: the folder with the MLmodel file.
        name: of the use case.

    Raises:
        BundleError: there is no MLmodel file of an Afterfit version, or it is another use case's.
    """
    try:
        described = yaml.safe_load((home / "MLmodel").read_text("utf-8"))
        digest = str(described["metadata"]["digest"])
        noted = home / NOTED
        known = json.loads((home / BUNDLE / "manifest.json").read_text("utf-8"))["name"]
        number = str(yaml.safe_load(noted.read_text("utf-8"))["model_version"]) if noted.is_file() else None
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BundleError(
            f"'{home}' must be a version's folder as MLflow downloads it, with an MLmodel file that Afterfit wrote."
        ) from error
    if known != name:
        raise BundleError(f"'{home}' holds a version of {known}; the settings file is that of {name}.")
    return {"version": number, "digest": digest, "home": str(home), "bundle": str(home / BUNDLE)}
