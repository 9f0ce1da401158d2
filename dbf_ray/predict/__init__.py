"""Detections of images of any size: windows over them, batches of windows through the network, files out;
resumable at any moment.
"""

from dbf_ray.predict.checkpoint import predict
from dbf_ray.predict.options import FORMATS, Options

__all__ = ["FORMATS", "Options", "predict"]
