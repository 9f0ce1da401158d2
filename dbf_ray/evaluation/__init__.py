"""How good detections are: average precision by the VOC rules, and the evaluator that gathers it over images
and ranks.
"""

from dbf_ray.evaluation.average_precision import average_precision
from dbf_ray.evaluation.evaluator import Evaluator
from dbf_ray.evaluation.matches import IOU_THRESHOLDS, Matches

__all__ = ["IOU_THRESHOLDS", "Evaluator", "Matches", "average_precision"]
