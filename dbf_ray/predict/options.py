"""What a prediction may be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dbf_ray.errors import ConfigError
from dbf_ray.evaluation.merge import NMS_THRESHOLD

FORMATS = ("dota", "geojson", "overlay")
OVERLAP = 200 / 1024  # of a window, as DOTA's images are cut for training


@dataclass(frozen=True)
class Options:
    """How images are looked at, and what is written of them.

    Attributes:
        window: side in pixels of the windows; each is resized to the checkpoint's ``data.image_size``. None:
            what the checkpoint was trained on.
        overlap: pixels that neighbouring windows share; None: 200 / 1024 of a window.
        batch: windows that go through the network at once; None: the checkpoint's ``evaluation.batch_size``.
        score: detections up to it are dropped, in [0, 1); None: the detector's own ``score_threshold``.
        nms: rotated IoU in (0, 1] at which the better of two detections of a class in different windows
            suppresses the other.
        formats: which of ``FORMATS`` are written.
        overlay_size: long side of a drawn overlay in pixels, at most.
        overlay_score: detections below it are not drawn.

    Raises:
        ConfigError: a value is out of its range.
    """

    window: int | None = None
    overlap: int | None = None
    batch: int | None = None
    score: float | None = None
    nms: float = NMS_THRESHOLD
    formats: tuple[str, ...] = FORMATS
    overlay_size: int = 2048
    overlay_score: float = 0.3

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ConfigError(
                f"window must be >= 1 pixel, got {self.window}; leave it out for what the checkpoint was "
                "trained on"
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(
                f"batch must be >= 1, got {self.batch}; leave it out for the checkpoint's "
                "evaluation.batch_size"
            )
        if self.score is not None and not 0 <= self.score < 1:
            raise ConfigError(
                f"score must be in [0, 1), got {self.score:g}; leave it out for the detector's own threshold"
            )
        if not 0 < self.nms <= 1:
            raise ConfigError(f"nms must be an IoU in (0, 1], got {self.nms:g}; {NMS_THRESHOLD:g} is usual")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ConfigError(
                f"formats must be some of {', '.join(FORMATS)}, got {unknown[0] if unknown else 'none'!r}; "
                "separate several by commas, without blanks"
            )
        if not 64 <= self.overlay_size <= 16384:
            raise ConfigError(
                f"overlay_size must be in 64..16384 pixels, got {self.overlay_size}; 2048 is usual"
            )
        if not 0 <= self.overlay_score <= 1:
            raise ConfigError(f"overlay_score must be in [0, 1], got {self.overlay_score:g}; 0.3 is usual")

    def overlap_of(self, window: int) -> int:
        """Pixels that windows of ``window`` pixels share.

        Raises:
            ConfigError: that is not in [0, window).
        """
        overlap = round(window * OVERLAP) if self.overlap is None else self.overlap
        if not 0 <= overlap < window:
            raise ConfigError(
                f"overlap must be in [0, window) = [0, {window}), got {overlap}; lower it or raise window"
            )
        return overlap
