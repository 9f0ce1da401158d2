"""The errors a person can cause, each a clear line instead of a traceback.

Every message states the rule, echoes the value that broke it, names the place (key, file and line) and offers
the next step. Entry points catch :class:`DbfRayError`, print it on one line and exit with status 2.
"""

from __future__ import annotations


class DbfRayError(Exception):
    """Base of all errors that bad input or a failed run can cause."""


class ConfigError(DbfRayError, ValueError):
    """A configuration key, value or combination is not usable."""


class DataError(DbfRayError, ValueError):
    """A data folder, image or label file is not usable."""


class WeightsError(DbfRayError, ValueError):
    """A weights file or checkpoint is missing, unreadable or does not fit the model."""


class TrainingError(DbfRayError, RuntimeError):
    """Training had to stop, for example because a loss was not finite."""


class ResourceError(DbfRayError, RuntimeError):
    """The machine or cluster cannot hold what was asked for."""
