"""The model that MLflow loads: a bundle behind pyfunc's two methods. MLflow runs this file when it loads a version."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before scikit-learn: a spinning thread stalls a busy machine

import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.pyfunc.model import PythonModel

from afterfit.errors import AfterfitError, LogError
from afterfit.model.bundle import load
from afterfit.model.safe_loading import check_code


class ServedBundle(PythonModel):
    """Answers each row by itself: one bad row never costs the others their answer."""

    def load_context(self, context: Any) -> None:
        """Load the bundle, checked against the digest that was written into the MLmodel file when it was logged."""
        folder = Path(context.artifacts["bundle"])
        home = next(parent for parent in folder.parents if (parent / "MLmodel").is_file())
        described = yaml.safe_load((home / "MLmodel").read_text("utf-8"))
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


def _version(home: Path) -> str | None:
    """The registry version, which MLflow notes beside a model that it fetched from the registry."""
    noted = home / "registered_model_meta"
    number = yaml.safe_load(noted.read_text("utf-8"))["model_version"] if noted.is_file() else None
    return None if number is None else str(number)


set_model(ServedBundle())
