"""Pretrained weights of a backbone: by the name of torchvision's, or from a state_dict file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from dbf_ray.errors import WeightsError
from dbf_ray.tensors import load_tensors


def find_weights(build: Callable[..., nn.Module], weights: str | Path, name: str) -> WeightsEnum:
    """The member of torchvision's enum that ``weights`` names, of the classifier that ``build`` builds.
    Nothing is downloaded.

    Raises:
        WeightsError: torchvision has no such weights of ``name``.
    """
    known = get_model_weights(build)
    family, _, member = str(weights).rpartition(".")
    if family not in ("", known.__name__) or member not in known.__members__:
        raise WeightsError(
            f"unknown weights {str(weights)!r} of {name}; known: {', '.join(known.__members__)} (of "
            f"{known.__name__}); name one of these, or give a state_dict file"
        )
    return known.__members__[member]


def download_weights(weights: WeightsEnum, name: str) -> dict[str, Tensor]:
    """torchvision's state_dict of these weights, from its cache on disk or its server.

    Raises:
        WeightsError: the server cannot be reached, or what it gave is broken.
    """
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a wrong hash
        raise WeightsError(
            f"cannot download torchvision's weights {weights} of {name}: {error}; give a state_dict file "
            "instead"
        ) from error
    return state


def load_backbone_weights(
    network: nn.Module, file: Path, name: str, stages: Iterable[nn.Module] | None = None
) -> None:
    """Load a state_dict file into a torchvision classifier.

    Args:
        network: the whole classifier, whose keys the file has.
        file: written by ``torch.save``; read with ``weights_only=True``.
        name: the backbone's, for messages.
        stages: parts of the network that are used; whatever else it has may be missing from the file, or have
            another shape (a classifier for other classes). None: all of it is used.

    Raises:
        WeightsError: the file is missing, unreadable, or does not fit.
    """
    fit_state(network, read_state(file, name), f"weights file {file}", name, stages)


def read_state(file: Path, name: str) -> dict[str, Tensor]:
    """The state_dict in a file.

    Raises:
        WeightsError: the file is missing, unreadable, or holds something else.
    """
    try:
        state = load_tensors(file)
    except FileNotFoundError:
        raise WeightsError(
            f"weights file {file} does not exist; give the path of a state_dict for torchvision's {name}, or "
            "the name of its weights, such as DEFAULT"
            + (" (those of mobilenet_v2 are fetched by dbf fetch-weights)" if name == "mobilenet_v2" else "")
        ) from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"cannot read weights file {file}: {reason}; it must hold a plain state_dict saved by torch.save"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"weights file {file} must hold a state_dict (names to tensors), found {type(state).__name__}"
        )
    return state


def fit_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    name: str,
    stages: Iterable[nn.Module] | None = None,
) -> None:
    """Load a state_dict into a classifier of which only ``stages`` are used (None: all); ``source`` is what
    messages call it.

    Raises:
        WeightsError: a tensor that is used is missing or has another shape, or the network lacks one of the
            state's.
    """
    own = network.state_dict(keep_vars=True)
    used = {
        id(t)
        for stage in ([network] if stages is None else stages)
        for t in [*stage.parameters(), *stage.buffers()]
    }
    needed = {key for key, tensor in own.items() if id(tensor) in used}
    differing = {key for key, tensor in state.items() if key in own and tensor.shape != own[key].shape}
    wrong = [
        f"{k} {tuple(state[k].shape)}, expected {tuple(own[k].shape)}" for k in own if k in differing & needed
    ]
    unknown = [key for key in state if key not in own]
    missing = [key for key in own if key in needed and key not in state and "num_batches_tracked" not in key]
    for problem, keys in (
        ("with another shape", wrong),
        ("that the model lacks", unknown),
        ("missing", missing),
    ):
        if keys:
            raise WeightsError(
                f"{source} does not fit {name}: {len(keys)} tensors {problem}, first {keys[0]}; give "
                f"{name}'s weights"
            )
    network.load_state_dict(
        {key: tensor for key, tensor in state.items() if key not in differing}, strict=False
    )
