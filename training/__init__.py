"""Training of the models: needs the `train` extra."""

import models.inference.runtime  # noqa: F401  before any module of training imports onnxruntime
