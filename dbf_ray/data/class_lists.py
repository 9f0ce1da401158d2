"""Class lists of public data sets, in the order of their authors: named instead of all the classes."""

from __future__ import annotations

from collections.abc import Sequence

from dbf_ray.errors import DataError
from dbf_ray.values import is_text

_DOTA_1_0 = [
    *(
        "plane",
        "baseball-diamond",
        "bridge",
        "ground-track-field",
        "small-vehicle",
        "large-vehicle",
        "ship",
        "tennis-court",
    ),
    *(
        "basketball-court",
        "storage-tank",
        "soccer-ball-field",
        "roundabout",
        "harbor",
        "swimming-pool",
        "helicopter",
    ),
]
_DOTA_1_5 = [*_DOTA_1_0, "container-crane"]
CLASS_LISTS: dict[str, list[str]] = {
    "dota-v1.0": _DOTA_1_0,
    "dota-v1.5": _DOTA_1_5,
    "dota-v2.0": [*_DOTA_1_5, "airport", "helipad"],
    "dior-r": [
        *(
            "airplane",
            "airport",
            "baseballfield",
            "basketballcourt",
            "bridge",
            "chimney",
            "expressway-service-area",
        ),
        *(
            "expressway-toll-station",
            "dam",
            "golffield",
            "groundtrackfield",
            "harbor",
            "overpass",
            "ship",
            "stadium",
        ),
        *("storagetank", "tenniscourt", "trainstation", "vehicle", "windmill"),
    ],
    "hrsc2016": ["ship"],
    "hrsc2016-types": [
        *(
            "ship",
            "aircraft-carrier",
            "warcraft",
            "merchant-ship",
            "Nimitz",
            "Enterprise",
            "Arleigh-Burke",
            "WhidbeyIsland",
            "Perry",
        ),
        *(
            "Sanantonio",
            "Ticonderoga",
            "Kitty-Hawk",
            "Kuznetsov",
            "Abukuma",
            "Austen",
            "Tarawa",
            "Blue-Ridge",
            "Container",
            "OXo|--)",
        ),
        *(
            "Car-carrier([]==[])",
            "Hovercraft",
            "yacht",
            "CntShip(_|.--.--|_]=",
            "Cruise",
            "submarine",
            "lute",
            "Medical",
        ),
        *("Car-carrier(======|", "Ford-class", "Midway-class", "Invincible-class"),
    ],
}
"""DOTA (Xia et al., 2018; Ding et al., 2021), DIOR-R (Cheng et al., 2022), HRSC2016 (Liu et al., 2017; its
types with hyphens for blanks).
"""


def one_word(name: str) -> str:
    """A class name without white space and commas, which lists of classes and label files could not hold:
    hyphens instead.
    """
    return "-".join(name.replace(",", " ").split())


def class_names(classes: str | Sequence[str]) -> list[str]:
    """Class names in label order, blanks in them as hyphens: of a list, or of the public data set that is
    named.

    Raises:
        DataError: no such data set, no names, a name twice, or one that is empty or no text.
    """
    if isinstance(classes, str):
        if classes not in CLASS_LISTS:
            raise DataError(
                f"`classes` must be a list of names, or one of {', '.join(CLASS_LISTS)}, got {classes!r}; "
                "choose one"
            )
        return list(CLASS_LISTS[classes])
    names = [one_word(name) for name in classes]
    if not names or len(set(names)) != len(names) or any(not name or not is_text(name) for name in names):
        raise DataError(
            "`classes` must be different names, blanks in them as hyphens, at least one, got "
            f"{list(classes)}; correct the list"
        )
    return names
