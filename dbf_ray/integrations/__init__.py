"""Freezing in other people's trainers: :mod:`dbf_ray.integrations.lightning` and ``.transformers``, each with
a ``FreezingCallback``. Neither library is a dependency: import the module of the one that you have.

These trainers wrap the model in DDP once. On several ranks freezing is right then only if DDP looks in each
step for the parameters that were not used; it still all-reduces the bytes of frozen ones. A loop of your own
with :class:`dbf_ray.FreezingSchedule`, which says when to wrap anew, all-reduces what is trained and no more.
"""
