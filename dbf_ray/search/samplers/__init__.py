"""The family of samplers: what is tried next. One line per member in :data:`SAMPLERS`.

A new member is a class as :class:`Sampler` in a file of its own and a line here.
"""

from __future__ import annotations

from dbf_ray.errors import ConfigError
from dbf_ray.search.samplers.base import Candidate, Facts, Sampler, Told
from dbf_ray.search.samplers.by_chance import ByChance
from dbf_ray.search.samplers.cost import Cost
from dbf_ray.search.samplers.grid import Grid
from dbf_ray.search.samplers.tpe import Tpe

__all__ = ["SAMPLERS", "Candidate", "Facts", "Sampler", "Told", "make_sampler"]

MEMBERS: tuple[type[Sampler], ...] = (Cost, Grid, Tpe, ByChance)
SAMPLERS = {member.name: member for member in MEMBERS}


def make_sampler(name: str | None, facts: Facts, seed: int = 0, *, space: str = "the space") -> Sampler:
    """Make a sampler by name.

    Args:
        name: a key of :data:`SAMPLERS`; None: ``cost`` where all costs are known before training, else
            ``tpe``.
        facts: of the space that it is to serve.
        seed: of what is left to chance.
        space: which space that is, for messages.

    Raises:
        ConfigError: there is no such sampler, or it cannot serve the space.
    """
    name = name or ("cost" if facts.unknown is None else "tpe")
    if name not in SAMPLERS:
        raise ConfigError(f"{space}: a sampler must be one of {', '.join(SAMPLERS)}, got {name!r}")
    if (why := SAMPLERS[name].why_not(facts)) is not None:
        able = [other for other, member in SAMPLERS.items() if member.why_not(facts) is None]
        raise ConfigError(
            f"{space}: the sampler {name} {why}; give --search.sampler {able[0]}"
            + (f", or {', '.join(able[1:])}" if able[1:] else "")
        )
    return SAMPLERS[name](seed)
