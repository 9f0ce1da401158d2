"""Generated aerial scenes with oriented objects: drawn on the fly, the same on every machine, nothing to
load.

A scene is fixed by (split, index, image size). It has land with fields, roads or a coast as background,
unlabelled buildings and trees, and objects of six classes, in dense rows and alone, some cut by the border,
some difficult (tiny, faint, or mostly outside). Objects keep their size in pixels whatever the image size: a
larger image shows more of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from dbf_ray.data.contents import Flags
from dbf_ray.data.samples import Sample, make_target
from dbf_ray.data.scenes import sites
from dbf_ray.data.scenes.drawing import Canvas
from dbf_ray.data.scenes.ground import Ground, add_light_and_grain
from dbf_ray.data.scenes.objects import CLASSES, Painter
from dbf_ray.data.scenes.sites import QUARTER_TURN, Scene
from dbf_ray.data.seeds import SCENE, Stream
from dbf_ray.errors import DataError

SPLITS = {"train": 0, "val": 1}


class SyntheticDataset:
    """``images`` generated scenes of ``image_size`` pixels square; train and val never share a scene."""

    def __init__(self, split: str = "train", images: int = 240, image_size: int = 384) -> None:
        if split not in SPLITS:
            raise DataError(f"generated scenes have the splits {', '.join(SPLITS)}, got {split!r}")
        if images < 1 or image_size < 32:
            raise DataError(
                f"generated scenes need at least 1 image of at least 32 pixels, got {images} of {image_size}"
            )
        self.classes = list(CLASSES)
        self.split, self.image_size = split, image_size
        self.sizes = [(image_size, image_size)] * images
        self.image_ids = [f"{split}-{index:05d}" for index in range(images)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def flags(self, index: int) -> Flags:
        """Labels and difficult flags of the objects of scene ``index``."""
        scene = draw_scene(Stream(SCENE, SPLITS[self.split], index), self.image_size, self.image_size)
        return scene.labels, scene.difficult

    def load(self, index: int) -> Sample:
        """Draw scene ``index``: image uint8 [3, S, S] and its target."""
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        size = self.image_size
        scene = draw_scene(Stream(SCENE, SPLITS[self.split], index), size, size)
        image = torch.from_numpy(add_light_and_grain(scene.canvas, scene.stream).astype("uint8"))
        boxes = torch.tensor(scene.boxes, dtype=torch.float32).reshape(-1, 5)
        return image, make_target(boxes, scene.labels, scene.difficult, self.image_ids[index], (size, size))


def draw_scene(stream: Stream, height: int, width: int) -> Scene:
    """Draw a scene with at least one object."""
    canvas = Canvas(height, width)
    scene = Scene(canvas, stream, Ground(canvas, stream), Painter(canvas, stream))
    stream.choice(THEMES)(scene)
    while not scene.boxes:
        sites.vehicle(scene, scene.anywhere(-min(height, width) // 4), large=False)
    return scene


def _town(scene: Scene) -> None:
    pose = scene.anywhere(-60)
    roads = [pose]
    if scene.stream.chance(50):
        roads.append(pose.moved(scene.stream.between(-90, 90), 0, QUARTER_TURN))
    sites.roads(scene, roads, 45)
    for _ in range(scene.times(2)):
        sites.car_park(scene, pose.angle)
    sites.car_park(scene, pose.angle, large=scene.stream.chance(70))
    sites.surroundings(scene, 6, 14, pose.angle)


def _airfield(scene: Scene) -> None:
    pose = scene.anywhere(-60)
    if scene.stream.chance(50):
        sites.runway(scene, pose)
    else:
        sites.roads(scene, [pose], 25)
    for _ in range(scene.times(2)):
        sites.apron(scene, pose.angle)
    if scene.stream.chance(40):
        sites.car_park(scene, pose.angle, large=scene.stream.chance(40))
    sites.surroundings(scene, 4, 8, pose.angle)


def _depot(scene: Scene) -> None:
    pose = scene.anywhere(-60)
    sites.roads(scene, [pose], 40)
    for _ in range(scene.times(3)):
        sites.tank_farm(scene, pose.angle)
    sites.car_park(scene, pose.angle, large=True)
    sites.surroundings(scene, 4, 8, pose.angle)


def _country(scene: Scene) -> None:
    scene.ground.paint_fields()
    pose = scene.anywhere(-30)
    sites.roads(scene, [pose], 35)
    draw = scene.stream.below(3)
    if draw == 0:
        sites.apron(scene)
    elif draw == 1:
        sites.tank_farm(scene)
    else:
        sites.car_park(scene, pose.angle, large=True)
    sites.surroundings(scene, 3, 24)


def _port(scene: Scene) -> None:
    scene.ground.paint_water(scene.stream.between(48, 66), scene.stream.between(0, 6))
    sites.port(scene, marina=False)
    sites.ships_at_sea(scene, scene.times(4))
    coast = scene.ground.coast
    assert coast is not None
    sites.roads(scene, [coast.moved(-scene.stream.between(34, 60), 0, QUARTER_TURN)], 45)
    for _ in range(scene.times(2)):
        sites.tank_farm(scene, coast.angle)
    sites.car_park(scene, coast.angle, large=True)
    sites.surroundings(scene, 4, 6, coast.angle)


def _marina(scene: Scene) -> None:
    scene.ground.paint_water(scene.stream.between(52, 76), scene.stream.between(4, 14))
    sites.port(scene, marina=True)
    sites.ships_at_sea(scene, scene.times(4))
    coast = scene.ground.coast
    assert coast is not None
    sites.car_park(scene, coast.angle)
    sites.surroundings(scene, 4, 10, coast.angle)


def _open_sea(scene: Scene) -> None:
    scene.ground.paint_water(scene.stream.between(70, 88), scene.stream.between(16, 34))
    sites.ships_at_sea(scene, scene.times(9))
    sites.surroundings(scene, 2, 12)


THEMES: list[Callable[[Scene], None]] = [
    _town,
    _airfield,
    _depot,
    _country,
    _port,
    _marina,
    _open_sea,
    _airfield,
    _port,
]
