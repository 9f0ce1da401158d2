"""What every section of a configuration is."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are checked again on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class OpenSection(Section):
    """A section whose further keys are parameters of the family member that it names."""

    model_config = ConfigDict(extra="allow", validate_assignment=True, allow_inf_nan=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that this section does not define itself: the member's own parameters."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _no_slips(self) -> OpenSection:
        for key in self.parameters:
            if meant := difflib.get_close_matches(key, type(self).model_fields, 1, cutoff=0.8):
                raise ValueError(f"unknown key {key}; did you mean {meant[0]}?")
        return self
