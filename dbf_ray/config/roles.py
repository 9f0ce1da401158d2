"""What a configuration key is, said at its field: whether it shapes what is trained, or only where and how.

Five roles, of which the first is every field's that says nothing:

- identity: shapes what is trained;
- place: where things are (``data.root: Place[Path | None]``);
- resource: how fast, on what, with how much memory;
- label: what it is called;
- guard: what a call refuses beforehand.

A run that is resumed and a study that is continued keep their identity; the rest may change between two
calls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dbf_ray.files import is_weights_name
from dbf_ray.values import flat


@dataclass(frozen=True)
class Role:
    """A field's role. ``weights``: a file or the name of published weights; the file's folder may change, not
    which weights it is. ``matters``: "thawed" or "frozen", where the field shapes only trainings in which a
    stage is trained again, or in which one is frozen.
    """

    name: str
    weights: bool = False
    matters: Literal["thawed", "frozen"] | None = None


T = TypeVar("T")
Place = Annotated[T, Role("place")]
Weights = Annotated[T, Role("place", weights=True)]
Resource = Annotated[T, Role("resource")]
Label = Annotated[T, Role("label")]
Guard = Annotated[T, Role("guard")]
Thawed = Annotated[T, Role("identity", matters="thawed")]
Frozen = Annotated[T, Role("identity", matters="frozen")]
IDENTITY = Role("identity")


def role_of(field: FieldInfo) -> Role:
    """The role that a field carries; ``IDENTITY`` where it carries none."""
    return next((item for item in field.metadata if isinstance(item, Role)), IDENTITY)


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Dotted key, field and value of each key of a configuration; further keys of open sections are left
    out.
    """
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def identity(config: BaseModel) -> dict[str, Any]:
    """All that shapes what ``config`` trains: dotted key -> plain value, without places, resources, labels
    and guards. Two configurations train the same if these are equal.

    Of pretrained weights it has the name, or the file's without its folder. What is left to a family member
    is None; :func:`dbf_ray.build.resolved` fills it in.
    """
    found: dict[str, Any] = {}
    known = {key: field for key, field, _ in leaves(config)}
    for key, value in flat(config.model_dump(mode="json"), whole=known).items():
        role = role_of(known[key]) if key in known else IDENTITY
        if role.weights:
            found[key] = None if value is None else Path(value).name
        elif role.name == "identity":
            found[key] = value
    return found


def paths(config: BaseModel) -> dict[str, Path]:
    """The files and folders that ``config`` names: dotted key -> path as it is written.

    Names of published weights, URIs and what is null are none.
    """
    found = {}
    for key, field, value in leaves(config):
        role = role_of(field)
        is_file = role.weights and value is not None and not is_weights_name(value)
        if is_file or (role.name == "place" and isinstance(value, Path)):
            found[key] = Path(value)
    return found


def elsewhere(config: BaseModel, here: BaseModel) -> dict[str, Any]:
    """Overrides that give ``config`` the places and resources of ``here``; what shapes training stays, and so
    do its weights and labels.
    """
    return {
        key: str(value) if isinstance(value, Path) else value
        for (key, field, value), (_, _, own) in zip(leaves(here), leaves(config), strict=True)
        if role_of(field).name in ("place", "resource") and not role_of(field).weights and value != own
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each key in which two identities differ, by name."""
    return [
        f"{key} ({before.get(key)!r}, now {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def key_of(identity: Mapping[str, Any]) -> str:
    """A short name of an identity: the same for the same, different for different ones."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
