"""What has to be as it was for a study to go on."""

from __future__ import annotations

import optuna

from dbf_ray.build import resolved
from dbf_ray.config import Config, differences, identity, make_config
from dbf_ray.errors import ConfigError
from dbf_ray.search.spaces import SearchSpace


def check_same(study: optuna.Study, config: Config, space: SearchSpace) -> None:
    """Refuse to go on with another base configuration, whose trials could not be compared, or with other
    baselines.

    Raises:
        ConfigError: with what differs.
    """
    stored = study.user_attrs.get("config")
    if stored is None or not study.get_trials(deepcopy=False):
        return
    name = study.study_name
    begun = make_config(stored, f"study {name!r}")
    changed = differences(identity(resolved(begun)), identity(resolved(config)))
    if changed:
        raise ConfigError(
            f"the study {name!r} was begun with other settings, it differs in {', '.join(changed[:5])}; "
            "give the same ones to continue it, or another --study"
        )
    before, now = study.user_attrs["baselines"], space.baselines
    differing = [f"{one} is new" for one in now if one not in before]
    differing += [f"{one} is gone" for one in before if one not in now]
    if differing:
        raise ConfigError(
            f"{space.file}: the study {name!r} was begun with other BASELINES, "
            f"{', '.join(differing[:5])}; give the same ones to continue it, or another --study"
        )
