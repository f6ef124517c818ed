"""The stages that make generated faces: fit the encoders, fit the generator, generate, filter, store.

Every stage leaves what it made in the run folder and finds it there again, so a run that was killed loses two minutes
of a fit or one portion of candidates. Which generator is used is a setting: the small one, fitted here on Training
images, or Stable Diffusion from the user's own folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_repro.data.dataset import FER2013
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.papers.sdafe import diffusion, generated, mini_clip, stable_diffusion
from fer_repro.papers.sdafe.generated import Generated, Plan
from fer_repro.papers.sdafe.training import Pause, StepFit
from fer_repro.recipe import Recipe, Step, step
from fer_repro.training.artifacts import ArtifactCache
from fer_repro.training.run import Run

log = logging.getLogger(__name__)

STORE = "generated.npz"
GENERATORS = ("mini_diffusion", "stable-diffusion")
Judge = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
Editor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the generated faces: a recipe's options without the arm that uses them."""
    return {name: value for name, value in recipe.options.options if name != "arm"}


class LabelSimilarity:
    """The label filter as a classifier: which of the seven prompts is most similar to a face.

    ``generated``: the faces that were made beside it, ``sources``: the Training images; ``facts``: what is recorded.
    """

    def __init__(self, recipe: Recipe, rows: Callable[[np.ndarray], np.ndarray]) -> None:
        self.recipe, self._rows = recipe, rows
        self.generated: Generated | None = None
        self.sources: FER2013 | None = None
        self.facts: dict[str, Any] = {}

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]: softmax of the scaled cosines, mean over the encoders."""
        return self._rows(np.asarray(images))


class Maker:
    """Makes the faces of one run; `make` goes through the stages."""

    def __init__(self, train: FER2013, run: Run, pause: Pause) -> None:
        generated.require_training_only(train, "the generator and its filters")
        self.train, self.run, self.pause = train, run, pause
        self.settings = settings_of(run.recipe)
        if self.settings["generator"] not in GENERATORS:
            raise FerReproError(
                f"recipe: unknown generator '{self.settings['generator']}', expected one of {', '.join(GENERATORS)}"
            )
        self.own = self.settings["generator"] == "mini_diffusion"
        self.device = torch.device(run.device)
        self.images, self.labels = np.asarray(train.images), np.asarray(train.labels)
        self.checkpoints: dict[str, str] = {}
        if not self.own:
            self.folders = stable_diffusion.require()
            self.checkpoints = {name: stable_diffusion.folder_digest(path) for name, path in self.folders.items()}
        told = json.dumps([self.settings, self.checkpoints], sort_keys=True)
        self.identity = {
            "settings": hashlib.sha256(told.encode()).hexdigest(),
            "data set": run.data_digest,
            "seed": run.seed,
            "device": self.device.type,
        }
        self.artifacts = ArtifactCache(run.folder, self.identity, run.resume)

    def make(self) -> LabelSimilarity:
        """All stages; the result's ``generated`` is also in the run folder."""
        judge, judged_by, classifier, size = self._own_filter() if self.own else self._clip()
        plan = generated.plan(
            self.labels, self.settings["target"], self.settings["surplus"], self.run.seed, self.settings["most"]
        )
        editor, begin = self._editor(), time.monotonic()
        made = self._candidates(plan, editor)
        self._note("candidates", time.monotonic() - begin + self.artifacts.saved)
        begin = time.monotonic()
        classifier.generated = found = self._filtered(plan, made, judge, judged_by)
        classifier.sources = self.train
        found.save(self.run.folder / STORE)
        self._note("filters", time.monotonic() - begin)
        self._tell(found, classifier, size)
        return classifier

    # ---- fits ----

    def _by_steps(self, name: str) -> StepFit:
        seed = int(np.random.SeedSequence([self.run.seed, *name.encode()]).generate_state(1)[0])
        return StepFit(
            self.run.folder / name,
            self.identity,
            seed,
            self.device,
            self.pause,
            self.run.resume,
            autocast=self.run.recipe.precision == "bf16" and self.run.execution.autocast,
        )

    def _resident(self, chosen: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        return (
            torch.tensor(self.images[chosen], device=self.device),
            torch.tensor(self.labels[chosen], dtype=torch.long, device=self.device),
        )

    def _own_filter(self) -> tuple[Judge, np.ndarray | None, LabelSimilarity, int]:
        """Two encoders, each fitted on a half of Training; a face is judged by the one that did not see its source."""
        s, encoders, total = self.settings, [], 0.0
        side = mini_clip.halves(self.labels, self.run.seed)
        for half in (0, 1):
            name = f"encoder-{half + 1}"
            lesson = mini_clip.Lesson(*self._resident(side == half), s["encoder_batch"])
            encoder, seconds = self._by_steps(name).fit(
                name,
                lambda: mini_clip.DualEncoder(s["encoder_channels"]),
                lesson,
                s["encoder_steps"],
                step("adamw", lr=s["encoder_rate"], weight_decay=0.05),
            )
            encoders.append(encoder)
            total += seconds
        self._note("encoders", total)

        def judge(images: np.ndarray, by: np.ndarray | None) -> np.ndarray:
            both = [mini_clip.cosines(encoder, images, self.device) for encoder in encoders]
            return np.where((by == 0)[:, None], *both)

        def rows(images: np.ndarray) -> np.ndarray:
            both = [mini_clip.cosines(e, images, self.device) * e.scale.item() for e in encoders]
            return np.mean([torch.tensor(scaled).softmax(dim=1).numpy() for scaled in both], axis=0)

        size = sum(count_parameters(encoder.requires_grad_(True)) for encoder in encoders)
        return judge, 1 - side, LabelSimilarity(self.run.recipe, rows), size

    def _clip(self) -> tuple[Judge, np.ndarray | None, LabelSimilarity, int]:
        clip = stable_diffusion.Clip(self.folders["CLIP_CHECKPOINT"], self.device)

        def rows(images: np.ndarray) -> np.ndarray:
            return torch.tensor(clip.cosines(images) * clip.scale).softmax(dim=1).numpy()

        size = sum(parameter.numel() for parameter in clip.model.parameters())
        return lambda images, by: clip.cosines(images), None, LabelSimilarity(self.run.recipe, rows), size

    def _editor(self) -> Editor:
        """(sources uint8 [B,48,48], classes, seeds) -> uint8 [B,48,48]."""
        s = self.settings
        if not self.own:
            folder = self.folders["SD_CHECKPOINT"]
            return stable_diffusion.ImageToImage(
                folder, self.device, s["strength"], s["guidance"], s["grid"], s["size"]
            ).edit
        told = self._by_steps("denoiser")
        lesson = diffusion.Lesson(*self._resident(slice(None)), s["size"], s["batch"], s["silent"])
        network, seconds = told.fit(
            "denoiser", lambda: unet(self.run.recipe), lesson, s["steps"], step("adamw", lr=s["rate"]), s["ema"]
        )
        self._note("generator", seconds)

        def edit(sources: np.ndarray, classes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
            made = diffusion.edit(
                network,
                torch.tensor(sources, device=self.device),
                torch.tensor(classes, device=self.device),
                diffusion.start_noise(seeds, s["size"]).to(self.device),
                s["strength"],
                s["grid"],
                s["guidance"],
                told.autocast,
            )
            return made.cpu().numpy()

        return edit

    # ---- images ----

    def _candidates(self, plan: Plan, editor: Editor) -> np.ndarray:
        """uint8 [N,48,48], portion by portion."""
        parts, size = [], self.settings["portion"]
        for number, first in enumerate(range(0, len(plan), size)):
            part = slice(first, first + size)

            def make(part: slice = part) -> np.ndarray:
                self.pause(lambda: None)
                return editor(self.images[plan.sources[part]], plan.classes[part], plan.seeds[part])

            parts.append(self.artifacts.get_or_compute(f"faces-{number:04d}", {"portion": [first, size]}, make))
            if number % 10 == 9:
                log.info(f"candidates: {min(first + size, len(plan))} of {len(plan)}")
        return np.concatenate(parts)

    def _filtered(self, plan: Plan, made: np.ndarray, judge: Judge, judged_by: np.ndarray | None) -> Generated:
        s = self.settings
        distance = generated.psnr(made, self.images[plan.sources])
        lowest = generated.lowest_psnr(distance, s["psnr_percentile"], s["pilot"])
        near = generated.passes_psnr(distance, lowest, s["psnr_highest"])
        # Real images are judged like the candidates: by an encoder that has not seen them.
        real = judge(self.images, judged_by)
        groups = np.zeros(len(self.labels), np.int8) if judged_by is None else judged_by
        bounds = np.stack(
            [
                generated.thresholds(real[groups == g], self.labels[groups == g], s["cosine_percentile"])
                for g in range(int(groups.max()) + 1)
            ]
        )
        whose = groups[plan.sources]
        rows = judge(made, None if judged_by is None else whose)
        fitting = generated.passes_cosine(rows, plan.classes, bounds[whose])
        self.run.facts["filters"] = {
            "psnr_lowest": lowest,
            "psnr_highest": s["psnr_highest"],
            "cosine_lowest": bounds.round(4).tolist(),
        }
        return Generated(
            images=made,
            source=np.asarray(self.train.ids)[plan.sources],
            classes=plan.classes,
            seed=plan.seeds,
            psnr=distance,
            cosine=rows[np.arange(len(plan)), plan.classes].astype(np.float32),
            guess=rows.argmax(axis=1).astype(np.int64),
            near=near,
            fitting=fitting,
            accepted=near & fitting,
            seen=np.asarray(self.train.ids) if self.own else np.zeros(0, np.str_),
        )

    # ---- records ----

    def _note(self, stage: str, seconds: float) -> None:
        self.run.history.append({"stage": stage, "seconds": seconds, "select_accuracy": None, "n": None})
        log.info(f"{stage}: {seconds:.1f} s")

    def _tell(self, found: Generated, classifier: LabelSimilarity, encoders: int) -> None:
        facts = self.run.facts
        facts |= {
            "generator": "mini_diffusion and mini_clip, fitted on Training only"
            if self.own
            else "Stable Diffusion and CLIP from local folders; what those were trained on is not ours to know",
            "fitted_on": self._about(found.seen) if self.own else self.checkpoints,
            "sources": self._about(np.unique(found.source)),
            "encoder_parameters": encoders,
            "acceptance": found.rates(),
            "images_sha256": found.digest(),
        }
        if self.own:
            with torch.device("meta"):
                facts["generator_parameters"] = count_parameters(unet(self.run.recipe))
        classifier.facts = dict(facts)
        facts |= {"status": "done", "seconds": sum(row["seconds"] for row in self.run.history)}

    def _about(self, ids: np.ndarray) -> Mapping[str, Any]:
        """Number, usages and digest of some Training images."""
        known = np.isin(np.asarray(self.train.ids), ids)
        usages = sorted(set(np.asarray(self.train.usage)[known].tolist()))
        return {"n": len(ids), "usages": usages, "ids_sha256": generated.ids_digest(ids.tolist())}


def unet(recipe: Recipe) -> diffusion.Unet:
    """The denoising network that a recipe's options describe."""
    options: Step = recipe.options
    return diffusion.Unet(**{name: options[name] for name in ("base", "widths", "blocks", "heads", "dropout")})


def store_in(folder: Path) -> Generated | None:
    """The generated faces that a run left in its folder, or None."""
    return generated.load(folder / STORE)
