"""The one place where torchvision is imported.

A torchvision whose compiled extension does not fit the installed torch (beside a CPU-only torch
there is often no other) fails at import with "operator torchvision::nms does not exist": it
declares shape functions for operators that only the extension defines. Its datasets, transforms and
classifiers call none of them, so declaring the schemas of the missing operators is enough to
import it. Calling such an operator (box suppression in detection models) still fails.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_SYMPTOM = "operator torchvision::nms does not exist"
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# The schemas are withdrawn when their Library object dies.
_schemas: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """torchvision, importable even where its compiled operators are not.

    Raises:
        ImportError: it is not installed.
        RuntimeError: its import fails for another reason.
    """
    global _schemas
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _SYMPTOM not in str(error) or _schemas is not None:
            raise
    _schemas = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _schemas.define(operator + _SIGNATURE)
    return importlib.import_module("torchvision")
