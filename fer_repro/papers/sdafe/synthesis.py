"""The stages that make generated faces: fit the encoders, fit the generator, generate, filter, store.

Every stage leaves its output in the run folder and finds it there again, so a run that was killed loses two minutes
of a fit or one portion of candidates. The generator is a setting: the small one, fitted here on Training images, or
Stable Diffusion from the user's own folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_repro.data.dataset import FER2013
from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_parameters
from fer_repro.papers.sdafe import diffusion, generated, mini_clip, stable_diffusion
from fer_repro.papers.sdafe.generated import Generated, Plan
from fer_repro.papers.sdafe.training import StepFit
from fer_repro.recipe import Recipe, Step, step
from fer_repro.training.artifacts import ArtifactCache
from fer_repro.training.execution import native_bf16
from fer_repro.training.run import Pause, Run

log = logging.getLogger(__name__)

STORE = "generated.npz"
GENERATORS = {
    "mini_diffusion": "mini_diffusion and mini_clip, fitted on Training only",
    "stable-diffusion": "Stable Diffusion and CLIP from local folders; what those were trained on is not ours to know",
}
Cosines = Callable[[np.ndarray], np.ndarray]
Editor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the generated faces: a recipe's options without the arm that uses them."""
    return {name: value for name, value in recipe.options.options if name != "arm"}


class LabelSimilarity:
    """The label filter, also as a classifier: which of the seven prompts is most similar to a face?

    ``encoders``: functions uint8 [N,48,48] -> cosines float32 [N,7], and the ``scales`` before a softmax. ``judge``
    int8 [N]: which encoder has not seen a Training image, and so judges it and the faces made from it. ``parameters``:
    of all encoders. `Maker` sets ``generated``, the faces; ``sources``, the Training images; ``facts``, the record.
    """

    def __init__(
        self, recipe: Recipe, encoders: Sequence[Cosines], scales: Sequence[float], judge: np.ndarray, parameters: int
    ) -> None:
        self.recipe, self.encoders, self.scales = recipe, encoders, scales
        self.judge, self.parameters = judge, parameters
        self.generated: Generated | None = None
        self.sources: FER2013 | None = None
        self.facts: dict[str, Any] = {}

    def cosines(self, images: np.ndarray, judge: np.ndarray) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7], each image by the encoder that ``judge`` int [N] names."""
        return np.stack([encoder(images) for encoder in self.encoders])[judge, np.arange(len(images))]

    def predict_proba(self, images: np.ndarray, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]: softmax of the scaled cosines, mean over the encoders."""
        scaled = [encoder(np.asarray(images)) * s for encoder, s in zip(self.encoders, self.scales, strict=True)]
        return np.mean([torch.tensor(rows).softmax(dim=1).numpy() for rows in scaled], axis=0)


class Maker:
    """Makes the faces of one run; `make` goes through the stages."""

    def __init__(self, train: FER2013, run: Run, pause: Pause) -> None:
        generated.require_training_only(train, "the generator and its filters")
        self.train, self.run, self.pause = train, run, pause
        self.settings = settings_of(run.recipe)
        self.generator = self.settings["generator"]
        if self.generator not in GENERATORS:
            known = ", ".join(GENERATORS)
            raise FerReproError(f"recipe: unknown generator '{self.generator}', expected one of {known}")
        self.own = self.generator == "mini_diffusion"
        self.device = torch.device(run.device)
        bf16 = run.recipe.precision == "bf16" and run.execution.autocast
        self.autocast = bf16 and self.device.type == "cuda" and native_bf16(self.device)
        self.images, self.labels = np.asarray(train.images), np.asarray(train.labels)
        self.folders = {} if self.own else stable_diffusion.require()
        self.checkpoints = {name: stable_diffusion.folder_digest(path) for name, path in self.folders.items()}
        settings = json.dumps([self.settings, self.checkpoints], sort_keys=True)
        identity = {"settings": hashlib.sha256(settings.encode()).hexdigest(), "data set": run.data_digest}
        identity |= {"seed": run.seed, "device": self.device.type}
        self.artifacts = ArtifactCache(run.folder, identity, run.resume)
        self.steps = StepFit(run.folder, identity, run.seed, self.device, pause, run.resume, self.autocast)

    def make(self) -> LabelSimilarity:
        """All stages; the result's ``generated`` is also in the run folder."""
        s = self.settings
        classifier = self._mini_clip() if self.own else self._clip()
        plan = generated.plan(self.labels, s["target"], s["surplus"], self.run.seed, s["most"])
        editor, begin = self._mini_diffusion() if self.own else self._stable_diffusion(), time.monotonic()
        candidates = self._candidates(plan, editor)
        self._note("candidates", time.monotonic() - begin + self.artifacts.saved)
        begin = time.monotonic()
        classifier.generated, classifier.sources = self._filtered(plan, candidates, classifier), self.train
        classifier.generated.save(self.run.folder / STORE)
        self._note("filters", time.monotonic() - begin)
        self._record(classifier)
        return classifier

    def _on_device(self, chosen: np.ndarray | slice) -> tuple[Tensor, Tensor]:
        images = torch.tensor(self.images[chosen], device=self.device)
        return images, torch.tensor(self.labels[chosen], dtype=torch.long, device=self.device)

    def _mini_clip(self) -> LabelSimilarity:
        """Two encoders, each fitted on a half of Training; a face is judged by the one that did not see its source."""
        s, side = self.settings, mini_clip.halves(self.labels, self.run.seed)
        optimiser = step("adamw", lr=s["encoder_rate"], weight_decay=0.05)
        fits = [
            self.steps.fit(
                f"encoder-{half + 1}",
                lambda: mini_clip.DualEncoder(s["encoder_channels"]),
                mini_clip.ContrastiveLoss(*self._on_device(side == half), s["encoder_batch"]),
                s["encoder_steps"],
                optimiser,
            )
            for half in (0, 1)
        ]
        encoders, seconds = zip(*fits, strict=True)
        self._note("encoders", sum(seconds))
        cosines = [partial(mini_clip.cosines, encoder, device=self.device) for encoder in encoders]
        size = sum(count_parameters(encoder.requires_grad_(True)) for encoder in encoders)
        return LabelSimilarity(self.run.recipe, cosines, [e.scale.item() for e in encoders], 1 - side, size)

    def _clip(self) -> LabelSimilarity:
        clip = stable_diffusion.Clip(self.folders["CLIP_CHECKPOINT"], self.device)
        judge, size = np.zeros(len(self.labels), np.int8), sum(part.numel() for part in clip.model.parameters())
        return LabelSimilarity(self.run.recipe, [clip.cosines], [clip.scale], judge, size)

    def _stable_diffusion(self) -> Editor:
        """(sources uint8 [B,48,48], classes, seeds) -> uint8 [B,48,48]."""
        settings = (self.settings[name] for name in ("strength", "guidance", "grid", "size"))
        return stable_diffusion.ImageToImage(self.folders["SD_CHECKPOINT"], self.device, *settings).edit

    def _mini_diffusion(self) -> Editor:
        """The same from the small generator, fitted on all of Training."""
        s = self.settings
        loss = diffusion.NoiseLoss(*self._on_device(slice(None)), s["size"], s["batch"], s["silent"])
        build, optimiser = partial(unet, self.run.recipe), step("adamw", lr=s["rate"])
        network, seconds = self.steps.fit("denoiser", build, loss, s["steps"], optimiser, s["ema"])
        self._note("generator", seconds)

        def edit(sources: np.ndarray, classes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
            images, labels = (torch.tensor(part, device=self.device) for part in (sources, classes))
            noise = diffusion.start_noise(seeds, s["size"]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                made = diffusion.edit(network, images, labels, noise, s["strength"], s["grid"], s["guidance"])
            return made.cpu().numpy()

        return edit

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

    def _filtered(self, plan: Plan, made: np.ndarray, filter_: LabelSimilarity) -> Generated:
        s, judge = self.settings, filter_.judge
        distance = generated.psnr(made, self.images[plan.sources])
        lowest = generated.lowest_psnr(distance, s["psnr_percentile"], s["pilot"])
        near = generated.passes_psnr(distance, lowest, s["psnr_highest"])
        # Real images are judged like the candidates: by an encoder that has not seen them.
        real, percentile = filter_.cosines(self.images, judge), s["cosine_percentile"]
        groups = [judge == index for index in range(len(filter_.encoders))]
        bounds = np.stack([generated.thresholds(real[own], self.labels[own], percentile) for own in groups])
        cosines = filter_.cosines(made, judge[plan.sources])
        fitting = generated.passes_cosine(cosines, plan.classes, bounds[judge[plan.sources]])
        limits = {"psnr_lowest": lowest, "psnr_highest": s["psnr_highest"], "cosine_lowest": bounds.round(4).tolist()}
        self.run.facts["filters"] = limits
        ids = np.asarray(self.train.ids)
        return Generated(
            images=made,
            source=ids[plan.sources],
            classes=plan.classes,
            seed=plan.seeds,
            psnr=distance,
            cosine=cosines[np.arange(len(plan)), plan.classes].astype(np.float32),
            guess=cosines.argmax(axis=1).astype(np.int64),
            near=near,
            fitting=fitting,
            accepted=near & fitting,
            seen=ids if self.own else np.zeros(0, np.str_),
        )

    def _note(self, stage: str, seconds: float) -> None:
        self.run.history.append({"stage": stage, "seconds": seconds, "select_accuracy": None, "n": None})
        log.info(f"{stage}: {seconds:.1f} s")

    def _record(self, classifier: LabelSimilarity) -> None:
        facts, faces = self.run.facts, classifier.generated
        facts |= {
            "generator": GENERATORS[self.generator],
            "precision": "bf16" if self.autocast else "fp32",
            "fitted_on": self._about(faces.seen) if self.own else self.checkpoints,
            "sources": self._about(np.unique(faces.source)),
            "encoder_parameters": classifier.parameters,
            "acceptance": faces.rates(),
            "images_sha256": faces.digest(),
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
