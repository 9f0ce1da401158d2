"""A trained detector on its way out: an ONNX file, or a model in MLflow's registry.

This much needs numpy, Pillow and nothing else: how an exported file is fed and what it answers means, and the
rotated suppression, which is no ONNX operator.
"""

from dbf_ray.export.exported import Exported, Found, Prepared
from dbf_ray.export.suppression import rotated_iou, suppress_rotated

__all__ = ["Exported", "Found", "Prepared", "rotated_iou", "suppress_rotated"]
