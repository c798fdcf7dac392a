"""The model that MLflow loads: a bundle behind pyfunc's two methods. MLflow runs this file when it loads a version.

By then MLflow has put the version's `code` folder first among the places that Python imports from. So before anything
is imported, this file compares all files with the list that travels with them. An altered version is refused before
any other file of it runs; who alters this file or MLmodel decides what runs, and only a check from outside finds that.
"""

import hashlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

LIST, UNLISTED = "files.json", frozenset({"files.json", "files.sig", "registered_model_meta"})


def check_files(home: Path) -> None:
    """Compare the files of a version with its list, with nothing but the standard library.

    The bytecode of this file alone may be there: Python writes it before this line runs, and here it is removed again.

    Args:
        home: the folder with the MLmodel file.

    Raises:
        ImportError: a file is altered, missing or new, or is a link; the sentence names it.
    """
    own = f"__pycache__/{Path(__file__).stem}."
    for cache in [*home.glob(f"{own}*"), home / "__pycache__"]:
        with suppress(OSError):  # another process was quicker, or the folder is not empty or may not be written
            cache.rmdir() if cache.is_dir() else cache.unlink()
    found = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_symlink() or path.is_file()}
    try:
        listed = json.loads((home / LIST).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImportError(f"This version has no readable {LIST}, which it was logged with.") from error
    for name in sorted(found.keys() | listed.keys()):
        if name in UNLISTED or name.startswith(own):
            continue
        path = found.get(name)
        sound = path is not None and not path.is_symlink() and name in listed
        if not (path and sound and hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]):
            raise ImportError(f"This version is not the one that was logged: {name} was altered, added or removed.")


if (Path(__file__).parent / "MLmodel").is_file():
    sys.dont_write_bytecode = True  # a version gets no files by being loaded
    check_files(Path(__file__).parent)

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before scikit-learn: a spinning thread stalls a busy machine

import pandas as pd  # noqa: E402 - as said above
import yaml  # noqa: E402 - as above
from mlflow.exceptions import MlflowException  # noqa: E402 - as above
from mlflow.models import set_model  # noqa: E402 - as above
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE  # noqa: E402 - as above
from mlflow.pyfunc.model import PythonModel  # noqa: E402 - as above

from afterfit.errors import AfterfitError, BundleError, LogError  # noqa: E402 - as above
from afterfit.model.bundle import load  # noqa: E402 - as above
from afterfit.model.signing import check_signature  # noqa: E402 - as above
from afterfit.model.version_files import check_code  # noqa: E402 - as above


class ServedBundle(PythonModel):
    """Answers each row by itself: one bad row never costs the others their answer."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, checked against the digest that was written into the MLmodel file when it was logged.

        Where the environment has a key for signatures, the list of files must be signed by it, for this very model.
        """
        folder = Path(context.artifacts["bundle"])
        home = next(parent for parent in folder.parents if (parent / "MLmodel").is_file())
        described = yaml.safe_load((home / "MLmodel").read_text("utf-8"))
        _check_signature(home)
        self.bundle = load(folder, described["metadata"]["digest"], _version(home))
        check_code(home, self.bundle.manifest.code, Path(__file__).name)
        self.log = None
        if os.environ.get("AFTERFIT_LOG", "").strip():
            from afterfit.prediction_log.from_bundle import ServedLog  # noqa: PLC0415 - costs nothing where no log is kept

            self.log = ServedLog(os.environ["AFTERFIT_LOG"], self.bundle)

    def predict(  # MLflow reads the hint of a frame as "no schema of its own", any other as one
        self,
        context: Any,  # noqa: ARG002 - pyfunc's own signature
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002 - as above
    ) -> list[dict[str, Any]]:
        """Answers for a frame, or for what `instances` and `inputs` arrive as: a dictionary of columns.

        Where AFTERFIT_LOG names a folder they are in its log before they are returned, or not returned at all.
        """
        frame = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        try:
            return self.bundle.answers(frame) if self.log is None else self.log.answers(frame)
        except LogError as error:
            raise MlflowException("The prediction log cannot be written.", TEMPORARILY_UNAVAILABLE) from error
        except AfterfitError as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from error


def _check_signature(home: Path) -> None:
    content, signature, noted = (
        (home / name).read_bytes() if (home / name).is_file() else None
        for name in ("files.json", "files.sig", "registered_model_meta")
    )
    check_signature("This version", content, None if signature is None else signature.decode("ascii", "replace"))
    wanted = None if noted is None else yaml.safe_load(noted)["model_name"]
    made_for = None if content is None else json.loads(content)["model"]
    if wanted is not None and made_for is not None and made_for != wanted:
        raise BundleError(f"This version was made as one of '{made_for}', and not of '{wanted}'.")


def _version(home: Path) -> str | None:
    """The registry version, which MLflow notes beside a model that it fetched from the registry."""
    noted = home / "registered_model_meta"
    number = yaml.safe_load(noted.read_text("utf-8"))["model_version"] if noted.is_file() else None
    return None if number is None else str(number)


set_model(ServedBundle())
