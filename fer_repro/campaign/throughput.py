"""How fast a device trains a method: measured in its own runs, read from stored results, or guessed.

A speed is floating-point operations (as `fer_repro.campaign.estimate` counts them) per second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from fer_repro import results
from fer_repro.errors import FerReproError
from fer_repro.evaluation import cost
from fer_repro.training.execution import native_bf16
from fer_repro.transforms import COPIES

TRAINING = 6  # operations per multiply-add of a trained sample: two forward, twice that backward
GUESSED_SHARE = 0.2  # of the speed of a large matrix product; what a network reaches is unknown before it ran


@dataclass(frozen=True)
class Speed:
    """Operations per second, and where the number comes from, as a text."""

    flops_per_second: float
    source: str


@dataclass(frozen=True)
class Measured:
    """Operations per second of one variant's runs, and the multiply-adds of its network for one image."""

    flops_per_second: float
    multiply_adds: int


class Speeds:
    """What is known of the speed of ``device`` (cpu, cuda:1, ...); ``results_dir``: of stored results, or None."""

    def __init__(self, results_dir: Path | None, device: str) -> None:
        self.results_dir, self.place, self.device = results_dir, device, device.partition(":")[0]

    @cached_property
    def name(self) -> str:
        """What the device is called."""
        return self._name_in(cost.environment(self.place)) or self.device

    def _name_in(self, environment: Mapping[str, Any]) -> str | None:
        return environment.get("gpu" if self.device == "cuda" else "cpu")

    def of(self, variant: str, multiply_adds: int, here: Mapping[str, Measured]) -> Speed:
        """The best that is known; ``here``: what runs that were begun on this machine reached, by variant.

        Without a run of the variant on such a device, that of the network nearest in ``multiply_adds``: a large network
        does many times more operations per second than a small one, whose time goes into starting them.
        """
        same, alike = self._stored
        places = {"here": here, self.name: same, f"another {self.device} device": alike}
        candidates = [
            (known is alike, name != variant, abs(math.log(one.multiply_adds / multiply_adds)), place, name)
            for place, known in places.items()
            for name, one in known.items()
        ]
        if not candidates:
            return Speed(self._guess, f"a guess: {GUESSED_SHARE:.0%} of a matrix product's speed here")
        *_, place, name = min(candidates, key=lambda one: one[:3])
        whose = variant if name == variant else f"{name}, the nearest in size,"
        source = f"stored results of {whose} on {place}"
        if place == "here":
            source = "measured here" + ("" if name == variant else f" by {name}, the nearest in size")
        return Speed(places[place][name].flops_per_second, source)

    @cached_property
    def _stored(self) -> tuple[dict[str, Measured], dict[str, Measured]]:
        """Variant -> what its newest stored run reached on this very device, and on any of its kind."""
        same, alike = {}, {}
        stored = records(self.results_dir) if self.results_dir else ()
        for record in sorted(stored, key=lambda record: record["ended"]):
            if record["cost"]["device"] == self.device and (speed := speed_of(record)):
                alike[record["variant"]] = Measured(speed, record["multiply_adds"])
                if self._name_in(record["environment"]) == self.name:
                    same[record["variant"]] = alike[record["variant"]]
        return same, alike

    @cached_property
    def _guess(self) -> float:
        return GUESSED_SHARE * matmul_speed(self.place)


def speed_of(record: Mapping[str, Any]) -> float | None:
    """Operations per second of a stored run's training; None where it recorded no speed."""
    rate, adds = record["cost"]["images_per_second"], record["multiply_adds"]
    if not rate or not adds:
        return None
    return rate * math.prod(COPIES.get(step["name"], 1) for step in record["recipe"]["augment"]) * adds * TRAINING


def records(results_dir: Path) -> Iterator[dict[str, Any]]:
    """The records of all stored results, without their predictions; those that cannot be read are left out."""
    for folder in results.stored_folders(results_dir):
        try:
            yield results.read_record(folder)
        except FerReproError:
            continue  # `fer-repro verify` reports it; an estimate does without


def matmul_speed(device: str, seconds: float = 0.5) -> float:
    """Operations per second of a large matrix product, measured for about ``seconds``: half precision on a CUDA
    GPU (the one it trains in), else float32."""
    kind, size, place = torch.float32, 1024, torch.device(device)
    if place.type == "cuda":
        kind, size = torch.bfloat16 if native_bf16(place) else torch.float16, 4096
    matrix = torch.ones(size, size, device=device, dtype=kind)
    wait = partial(torch.cuda.synchronize, place) if place.type == "cuda" else lambda: None
    matrix @ matrix  # the first one sets up the libraries
    wait()
    begin, done = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        matrix @ matrix
        wait()
        done += 1
    return done * 2 * size**3 / (time.monotonic() - begin)
