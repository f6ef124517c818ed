"""Training augmentation of VGGNet: the library's batched steps against the PIL pipeline that the paper's code runs.

Both start from the same uint8 faces in memory and end with ten normalised, erased float crops per image. The PIL side
works image by image in one process, twice: as the released loader is written (it builds its per-crop transforms anew
for each crop) and with those built once. The batched side is the recipe's own steps in batches of the recipe's size, on
one thread too. All take turns and each keeps its best turn, so that other work on the machine slows them equally.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _goals import goal
from PIL import Image
from torch import Tensor
from torchvision import transforms

from fer_repro.evaluation.cost import environment
from fer_repro.layers import as_input, normalise_
from fer_repro.papers import vggnet
from fer_repro.transforms import Augmenter

GOAL = 30.0  # times the PIL pipeline's images per second
PIL_IMAGES, BATCHES, TURNS = 128, 40, 8


def pil_pipeline(released: bool) -> Callable[[np.ndarray], Tensor]:
    """uint8 [48,48] -> float [10,1,40,40] by the paper's transforms; ``released`` builds the per-crop ones per crop."""
    makers = [
        transforms.ToTensor,
        partial(transforms.Normalize, (0.0,), (255.0,)),
        partial(transforms.RandomErasing, p=0.5),
    ]
    built = [maker() for maker in makers]

    def on_crops(index: int) -> transforms.Lambda:
        if released:
            return transforms.Lambda(lambda crops: torch.stack([makers[index]()(crop) for crop in crops]))
        return transforms.Lambda(lambda crops: torch.stack([built[index](crop) for crop in crops]))

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(48, scale=(0.8, 1.2)),
            transforms.RandomApply([transforms.RandomAffine(0, translate=(0.2, 0.2))], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.RandomRotation(10)], p=0.5),
            transforms.TenCrop(40),
            *(on_crops(index) for index in range(len(makers))),
        ]
    )
    return lambda image: transform(Image.fromarray(image.astype(np.float32)))


def run() -> dict[str, Any]:
    """Measure all; images per second, how many times faster the batched steps are, and the goal, with the machine."""
    recipe = vggnet.recipe("official", "full")
    faces = np.random.default_rng(0).integers(0, 256, (BATCHES * recipe.batch_size, 48, 48), dtype=np.uint8)
    released, prebuilt = pil_pipeline(released=True), pil_pipeline(released=False)
    augment, generator, resident = Augmenter(recipe.augment), torch.Generator().manual_seed(0), torch.from_numpy(faces)

    def one_by_one(transform: Callable[[np.ndarray], Tensor]) -> None:
        for image in faces[:PIL_IMAGES]:
            transform(image)

    def batched() -> None:
        for images in resident.split(recipe.batch_size):
            normalise_(augment(as_input(images), generator), recipe.mean, recipe.std)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    turns = [
        (
            PIL_IMAGES / _seconds(lambda: one_by_one(released)),
            PIL_IMAGES / _seconds(lambda: one_by_one(prebuilt)),
            len(faces) / _seconds(batched),
        )
        for _ in range(TURNS)
    ]
    torch.set_num_threads(threads)
    as_released, built_once, ours = (max(side) for side in zip(*turns, strict=True))
    return {
        "what": "VGGNet training augmentation: uint8 face to ten erased 40x40 crops, images per second",
        "batch": recipe.batch_size,
        "threads": 1,
        "pil_as_released": round(as_released, 1),
        "pil_built_once": round(built_once, 1),
        "batched": round(ours, 1),
        "times_faster": round(ours / as_released, 1),
        "times_faster_than_built_once": round(ours / built_once, 1),
        "device": "cpu",
        "goals": [
            goal(
                "VGGNet's augmentation: times the PIL pipeline as released",
                "cpu",
                "cpu",
                round(ours / as_released, 1),
                GOAL,
            )
        ],
        "environment": environment(),
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
