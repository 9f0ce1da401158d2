"""Frozen values that are checked when they are made, with errors for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from dbf_ray.errors import ConfigError


class Checked(BaseModel):
    """Base of values whose fields pydantic checks, strictly: no number is made of "4", no integer of 2.5 or
    True. A validator that compares fields raises ``ValueError("KEY must be RULE, got VALUE")``.

    Raises:
        ConfigError: naming owner, key, rule and value of everything that is wrong, on one line.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(self._refusal(values, error.errors())) from error

    @classmethod
    def _owner(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def _refusal(cls, values: dict[str, Any], errors: Sequence[ErrorDetails]) -> str:
        owner, known = cls._owner(), ", ".join(cls.model_fields)
        name = owner.split()[-1]
        signature = f"{name}({known})" if known else f"{name}, which takes no parameters"
        unknown = [str(error["loc"][0]) for error in errors if error["type"] == "extra_forbidden"]
        if unknown:
            given = ", ".join(f"{key}={values[key]!r}" for key in unknown)
            return f"{owner} does not know {given}; it is {signature}"
        missing = [str(error["loc"][0]) for error in errors if error["type"] == "missing"]
        if missing:
            return f"{owner} needs {', '.join(missing)}, got {values or 'no parameters'}; it is {signature}"
        return f"{owner}: " + "; ".join(dict.fromkeys(map(cls._problem, errors)))

    @classmethod
    def _problem(cls, error: ErrorDetails) -> str:
        if error["type"] == "value_error":
            return str(error["ctx"]["error"])
        key, *place = map(str, error["loc"])
        field = cls.model_fields[key]
        if place:
            key, field = f"each of {key}", FieldInfo.from_annotation(get_args(field.annotation)[0])
        rule = _number(field)
        said = error["msg"].removeprefix("Input should ").replace("\n", " ")
        return f"{key} must {f'be {rule}' if rule else said}, got {error['input']!r}"


def _number(field: FieldInfo) -> str | None:
    """The rule of a field that is a number, "an integer in 0..3" or "a number > 0 and <= 1"; else None."""
    limits = {
        key: getattr(m, key) for m in field.metadata for key in ("gt", "ge", "lt", "le") if hasattr(m, key)
    }
    if field.annotation is int:
        low, high = limits.get("ge", limits.get("gt", -1) + 1), limits.get("le")
        if "ge" not in limits and "gt" not in limits:
            return "an integer"
        return f"an integer >= {low}" if high is None else f"an integer in {low}..{high}"
    if field.annotation is float:
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        bounds = [f"{sign} {limits[key]:g}" for key, sign in signs.items() if key in limits]
        return f"a number {' and '.join(bounds)}".rstrip()
    return None
