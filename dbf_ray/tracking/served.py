"""The code of a registered model: MLflow runs this file when it loads one ("models from code").

It holds no weights and no detector: what predicts is named in the model's configuration, and made of the
checkpoint among the model's files.
"""

import importlib
import warnings
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from dbf_ray.errors import DbfRayError

# an image may be a path, an array, nested lists or text: there is no narrower type, of which MLflow warns
with warnings.catch_warnings(record=True):

    class DetectorModel(PythonModel):
        """Images in, a row for each detection out.

        The configuration has ``predictor`` (``package.module:Name``, called with the checkpoint's folder; its
        ``rows(images, **parameters)`` gives dictionaries) and ``columns``.
        """

        def load_context(self, context: PythonModelContext) -> None:
            """Load the checkpoint."""
            module, _, name = context.model_config["predictor"].partition(":")
            self._predictor = getattr(importlib.import_module(module), name)(context.artifacts["checkpoint"])
            self._columns = list(context.model_config["columns"])

        def predict(
            self, context: PythonModelContext, model_input: list[Any], params: dict[str, Any] | None = None
        ) -> pd.DataFrame:
            """A table of what is found in images.

            Args:
                context: unused here.
                model_input: a list of images, as the predictor takes them.
                params: the predictor's parameters.
            """
            try:
                rows = self._predictor.rows(model_input, **(params or {}))
            except DbfRayError as error:  # the person's input: a server answers 400 and says why
                raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
            return pd.DataFrame(rows, columns=self._columns)


set_model(DetectorModel())
