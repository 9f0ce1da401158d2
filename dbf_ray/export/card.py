"""A model card: what a trained detector is, what it was trained on, what that cost, how good it is, and where
it ends; in Markdown, from a checkpoint's record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COSTS = {
    "compute_ratio": ("training FLOPs over those of full fine-tuning", "{:.3f}"),
    "executed_flops": ("training FLOPs that really ran", "{:.3g}"),
    "device_seconds": ("seconds of training steps, over all workers", "{:,.0f}"),
    "wall_seconds": ("seconds in all, with evaluations", "{:,.0f}"),
    "peak_memory_bytes": ("peak memory of tensors, bytes", "{:,.0f}"),
}
METRICS = ("map50", "map75", "map50_95", "merged/map50")
SPLITS = {
    "val": "images that were held out: the split val",
    "selection": "images held out of train, by which settings were chosen: that is kind to the chosen one",
    "train": "the very images that it was trained on, since the data have no others: that says little",
}


def model_card(name: str, record: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """The card of a checkpoint.

    Args:
        name: of the model.
        record: of the checkpoint.
        summary: of its run; what of it is not known is left out.
    """
    config, facts, epochs = record["config"], record.get("facts") or {}, record.get("epochs") or [{}]
    detector, data = config["detector"], config["data"]
    known = {**facts, **_last_evaluated(epochs), **summary}
    window = f"{record['window']} px" if record.get("window") else "training images'"
    sections = {
        "": [
            f"Finds objects in aerial images as rotated boxes: {detector['name']} on {detector['backbone']}, "
            f"trained with the freezing policy {_policy(facts)} for {len(epochs)} epochs by dbf_ray "
            f"{(facts.get('versions') or {}).get('dbf-ray', '')}.".replace(" .", ".")
        ],
        "Use": [
            "```python",
            f'model = mlflow.pyfunc.load_model("models:/{name}/VERSION")',
            'table = model.predict(["scene.png"], params={"score": 0.3})',
            "```",
            "It needs dbf_ray installed, takes a list of paths, of arrays uint8 [H, W, 3] or of PNG or JPEG "
            "files in base64, and gives a table of image, label, score, cx, cy, w, h and angle: pixels, and "
            "degrees counter-clockwise as seen.",
        ],
        "Data": [
            f"- {data['name']}, {facts.get('train_images', '?')} training images"
            f" (digest {str(facts.get('data_digest', '?'))[:16]}); classes: {', '.join(record['classes'])}",
            f"- images are resized to {data['image_size']} px for each {window} of their pixels",
        ],
        "Policy": list(_timeline(epochs, facts.get("num_stages"))),
        "Cost": [
            f"- {text}: {shape.format(known[key])}"
            for key, (text, shape) in COSTS.items()
            if isinstance(known.get(key), int | float)
        ]
        + ([f"- on {facts['machine']}"] if facts.get("machine") else []),
        "Metrics": list(_metrics(known, facts)),
        "Limits": list(_limits(record, facts, window)),
    }
    return (
        "\n\n".join(
            "\n".join([f"# {name}" if not title else f"## {title}", "", *lines])
            for title, lines in sections.items()
        )
        + "\n"
    )


def _policy(facts: Mapping[str, Any]) -> str:
    parameters = ", ".join(f"{key} {value}" for key, value in (facts.get("parameters") or {}).items())
    return f"{facts.get('policy', '?')}" + (f" ({parameters})" if parameters else "")


def _last_evaluated(epochs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((epoch for epoch in reversed(epochs) if epoch.get("map50") is not None), {})


def _timeline(epochs: Sequence[Mapping[str, Any]], stages: int | None) -> Iterator[str]:
    """Rows of epochs in which as many stages were frozen."""
    known = [epoch["frozen_stages"] for epoch in epochs if "frozen_stages" in epoch]
    rows = [(frozen, len(list(group))) for frozen, group in itertools.groupby(known)]
    text = ", ".join(f"{frozen} for {length}" for frozen, length in rows[:24])
    more = ", ..." if len(rows) > 24 else ""
    yield f"- frozen stages of {stages or 'the backbone'}, and for how many epochs in turn: {text}{more}"


def _metrics(known: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[str]:
    split = facts.get("eval_split", "val")
    yield f"On {facts.get('eval_images', '?')} {SPLITS.get(split, split)}."
    yield ""
    yield "| metric | |"
    yield "|---|---|"
    of_class = [key for key in known if key.startswith("ap50/")]
    for key in (*METRICS, *of_class):
        value = known.get(key)
        if isinstance(value, int | float):
            yield f"| {key} | {value:.3f} |"
        elif key in of_class:
            yield f"| {key} | none (no object) |"


def _limits(record: Mapping[str, Any], facts: Mapping[str, Any], window: str) -> Iterator[str]:
    yield f"- objects of other classes are not found, or taken for one of these {len(record['classes'])}"
    yield (
        f"- objects that look much smaller or larger than in training are missed; `window` (here {window}) "
        "says what is shown to the network at once"
    )
    yield f"- one training, seed {facts.get('seed', '?')}: another seed gives other figures"
    yield "- scores order detections; they are no probabilities"
    if facts.get("data_changes"):
        yield "- its training data changed while it was trained"
