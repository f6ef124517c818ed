"""Training augmentation of VGGNet: the library's batched steps against the PIL pipeline that the paper's code runs.

Both start from the same uint8 faces in memory and end with ten normalised, erased float crops per image. The PIL side is the
released transform in torchvision's words, image by image in one process, as its loader runs it; the batched side is the recipe's
own steps in batches of the recipe's size, on the CPU with torch's usual threads. The two take turns and each keeps its best turn, so
that other work on the machine hits both alike. Run it with ``fer-repro bench augment`` or ``python benchmarks/augment.py``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms


from fer_repro.evaluation.cost import environment
from fer_repro.evaluation.predict import as_input
from fer_repro.papers import vggnet
from fer_repro.training.augment import Augmenter

GOAL = 30.0  # times the PIL pipeline's images per second
PIL_IMAGES, BATCHES, TURNS = 128, 40, 8


def pil_pipeline() -> Callable[[np.ndarray], Tensor]:
    """uint8 [48,48] -> float [10,1,40,40], by the transforms of the paper's released loader (float images, one at a time)."""
    to_tensor, normalise, erase = transforms.ToTensor(), transforms.Normalize((0.0,), (255.0,)), transforms.RandomErasing(p=0.5)
    transform = transforms.Compose([
        transforms.RandomResizedCrop(48, scale=(0.8, 1.2)),
        transforms.RandomApply([transforms.RandomAffine(0, translate=(0.2, 0.2))], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([transforms.RandomRotation(10)], p=0.5),
        transforms.TenCrop(40),
        transforms.Lambda(lambda crops: torch.stack([to_tensor(crop) for crop in crops])),
        transforms.Lambda(lambda crops: torch.stack([normalise(crop) for crop in crops])),
        transforms.Lambda(lambda crops: torch.stack([erase(crop) for crop in crops])),
    ])  # fmt: skip
    return lambda image: transform(Image.fromarray(image.astype(np.float32)))


def run() -> dict[str, Any]:
    """Measure both; images per second, their ratio and the goal, with the machine they were measured on."""
    recipe = vggnet.recipe("official", "full")
    batch = recipe.batch_size
    faces = np.random.default_rng(0).integers(0, 256, (BATCHES * batch, 48, 48), dtype=np.uint8)
    one_by_one, resident = pil_pipeline(), torch.from_numpy(faces)
    augment, generator = Augmenter(recipe.augment), torch.Generator().manual_seed(0)

    def pil() -> None:
        for image in faces[:PIL_IMAGES]:
            one_by_one(image)

    def batched() -> None:
        for images in resident.split(batch):
            crops = augment(as_input(images), generator)
            if (recipe.mean, recipe.std) != (0.0, 1.0):
                crops.sub_(recipe.mean).div_(recipe.std)

    turns = [(_seconds(pil) / PIL_IMAGES, _seconds(batched) / len(faces)) for _ in range(TURNS)]
    pil_best, batched_best = (min(side) for side in zip(*turns, strict=True))
    return {
        "what": "VGGNet training augmentation, uint8 face to ten erased 40x40 crops",
        "batch": batch,
        "threads": torch.get_num_threads(),
        "pil_images_per_second": round(1 / pil_best, 1),
        "batched_images_per_second": round(1 / batched_best, 1),
        "times_faster": round(pil_best / batched_best, 1),
        "goal_times_faster": GOAL,
        "environment": environment(),
    }


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
