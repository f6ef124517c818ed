"""How fast a device works through a method: remembered from its own runs, read off stored results, or guessed.

A speed is floating-point operations (as `fer_repro.campaign.estimate` counts them) per second. Each variant has a small
file ``speed.json`` beside its checkpoints, keyed by the device's name; every run and every stop renews it.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from fer_repro import results
from fer_repro.evaluation import cost
from fer_repro.files import atomic_write
from fer_repro.transforms import COPIES

FILE, FORMAT = "speed.json", 1
TRAINING = 6  # operations per multiply-add of a trained sample: two forward, twice that backward
GUESSED_SHARE = 0.2  # of the speed of a large matrix product; what a network reaches is anyone's guess before it ran


@dataclass(frozen=True)
class Speed:
    """Operations per second, and in words where they come from."""

    flops_per_second: float
    source: str


def device_name(device: str) -> str:
    """What the device ``cpu`` or ``cuda`` is called."""
    return _named(device, cost.environment()) or device


def _named(device: str, environment: Mapping[str, Any]) -> str | None:
    return environment.get("gpu" if device == "cuda" else "cpu")


class Speeds:
    """What is known of the speed of ``device`` for runs of one ``profile``.

    ``runs_dir``: checkpoints and remembered speeds; ``results_dir``: stored results, which tell of full runs only.
    """

    def __init__(self, runs_dir: Path, results_dir: Path, device: str, profile: str) -> None:
        self.runs_dir, self.results_dir, self.device, self.profile = Path(runs_dir), Path(results_dir), device, profile

    @cached_property
    def name(self) -> str:
        return device_name(self.device)

    def of(self, variant: str) -> Speed:
        """The best that is known: this variant here, its stored runs on such a device, other variants, a guess."""
        here, stored = self._remembered(), self._stored if self.profile == "full" else {}
        alike = {name: rate for name, (rate, device) in stored.items() if device == self.name}
        of_kind = {name: rate for name, (rate, _) in stored.items()}
        if variant in here:
            return Speed(here[variant], "measured here")
        if variant in alike:
            return Speed(alike[variant], f"stored results of {variant} on {self.name}")
        if here:
            return Speed(statistics.median(here.values()), f"measured here, median of {_several(here)}")
        if variant in of_kind:
            return Speed(of_kind[variant], f"stored results of {variant} on another {self.device} device")
        if stored:
            own = alike or of_kind
            where = self.name if alike else f"another {self.device} device"
            return Speed(statistics.median(own.values()), f"stored results, median of {_several(own)} on {where}")
        return Speed(self._guess, f"a guess: {GUESSED_SHARE:.0%} of a matrix product's speed here")

    def remember(self, variant: str, flops: float, seconds: float) -> None:
        """Note that ``flops`` of this variant took ``seconds``; what was known before counts half each time.

        Two runs of one variant that end at the same moment may lose one of the two notes, never the file.
        """
        if flops <= 0 or seconds <= 0:
            return
        path = self.runs_dir / variant / FILE
        known = _read(path)
        before = known.setdefault(self.name, {}).get(self.profile, {"flops": 0.0, "seconds": 0.0})
        known[self.name][self.profile] = {
            "flops": before["flops"] / 2 + flops,
            "seconds": before["seconds"] / 2 + seconds,
        }
        with atomic_write(path) as file:
            file.write((json.dumps({"format": FORMAT, "devices": known}, indent=1) + "\n").encode())

    def _remembered(self) -> dict[str, float]:
        found = {}
        for path in sorted(self.runs_dir.glob(f"*/{FILE}")):
            noted = _read(path).get(self.name, {}).get(self.profile)
            if noted is not None:
                found[path.parent.name] = noted["flops"] / noted["seconds"]
        return found

    @cached_property
    def _stored(self) -> dict[str, tuple[float, str | None]]:
        """Variant -> operations per second while training, and the device's name; the newest run on such a device."""
        found: dict[str, tuple[float, str | None]] = {}
        for record in sorted(records(self.results_dir), key=lambda record: record["ended"]):
            rate = record["cost"]["images_per_second"]
            if record["cost"]["device"] != self.device or not rate or not record["multiply_adds"]:
                continue
            name, known = record["variant"], _named(self.device, record["environment"])
            if name in found and found[name][1] == self.name != known:
                continue  # a run on this very kind of device is worth more than a newer one elsewhere
            copies = math.prod(COPIES.get(step["name"], 1) for step in record["recipe"]["augment"])
            found[name] = (rate * copies * record["multiply_adds"] * TRAINING, known)
        return found

    @cached_property
    def _guess(self) -> float:
        return GUESSED_SHARE * matmul_speed(self.device)


def records(results_dir: Path) -> Iterator[dict[str, Any]]:
    """The records of all stored results, without their predictions; what cannot be read is passed over."""
    for folder in results.stored_folders(results_dir):
        try:
            record = json.loads((folder / "result.json").read_text())
        except (OSError, ValueError):
            continue  # `fer-repro verify` is there to tell; an estimate can do without
        if isinstance(record, dict) and record.keys() >= results.KEYS and record["cost"]:
            yield record


def matmul_speed(device: str, seconds: float = 0.5) -> float:
    """Operations per second of a large matrix product, measured for about ``seconds``: bf16 on a GPU, else float32."""
    size, kind = (4096, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    matrix = torch.ones(size, size, device=device, dtype=kind)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    matrix @ matrix  # the first one sets up the libraries
    wait()
    begin, done = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        matrix @ matrix
        wait()
        done += 1
    return done * 2 * size**3 / (time.monotonic() - begin)


def _read(path: Path) -> dict[str, Any]:
    """Device -> profile -> {flops, seconds}; empty where there is nothing that could be read."""
    try:
        content = json.loads(path.read_text())
        devices = content["devices"] if content["format"] == FORMAT else {}
        for profiles in devices.values():
            for noted in profiles.values():
                float(noted["flops"]) / float(noted["seconds"])
        return devices
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return {}  # a note for estimates, renewed by the next run


def _several(found: Mapping[str, Any]) -> str:
    return "1 variant" if len(found) == 1 else f"{len(found)} variants"
