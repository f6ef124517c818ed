"""Mini-ResEmoteNet: knowledge distillation from ResEmoteNet to a half and a quarter of its width (Murtada et al., arXiv
2501.18538, 2025).

Idea: a narrow network learns more from the probabilities of a trained wide one than from the labels alone (Hinton et
al. 2015). Claims: student A 76.33 %, student B 70.20 %. Five facts (accuracy claimed and measured, parameters, cost,
hardware) stand in the claims and in ``results/mini-resemotenet-*/``; the chapter prints them.

Protocols. Neither split, selection, temperature nor weight of the two losses could be read; the recipe is the
teacher's of the same protocol, with Hinton's loss at T = 4 and alpha = 0.5. The teacher is this book's own run of
``resemotenet`` with the same protocol and seed. ``*-alone`` are the same students without a teacher (alpha = 0): the
difference to them is the effect of distillation. ``mini-resemotenet-c`` has an eighth of the width.
"""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.data.protocol import Splits
from fer_repro.errors import FerReproError
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.layers import SqueezeExcite, logits_of
from fer_repro.papers import resemotenet
from fer_repro.papers.base import Variant, deviations
from fer_repro.recipe import Recipe, step
from fer_repro.training.artifacts import ArtifactCache
from fer_repro.training.checkpoint import writer
from fer_repro.training.run import Run
from fer_repro.training.weights import digest

TEACHER = "resemotenet"
DIVISORS = {"a": 2, "b": 4, "c": 8}


class Distillation(nn.Module):
    """Hinton's loss: alpha T^2 KL(p_T || q_T) + (1 - alpha) CE(z, y), each a mean over the batch (Hinton et al. 2015).

    p_T and q_T are the softmaxes of the teacher's and the student's logits over T. ``teacher``: float32 [2,N,7], the
    teacher's log probabilities for the N training images and for the same images flipped (their softmax over T equals
    that of the logits). The loop passes the index of each sample's image and whether it was flipped.
    """

    wants_samples = True

    def __init__(self, teacher: Tensor, temperature: float, alpha: float) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= alpha <= 1:
            raise FerReproError(
                f"distillation: temperature {temperature} and alpha {alpha}, expected a positive number and one in 0..1"
            )
        self.temperature, self.alpha = temperature, alpha
        # The table is an artifact of the run; a checkpoint stores its digest, so that no run changes its teacher.
        self.register_buffer("table", teacher, persistent=False)
        sha256 = hashlib.sha256(teacher.cpu().numpy().tobytes()).digest()
        self.register_buffer("digest", torch.tensor(list(sha256), dtype=torch.uint8))

    def forward(self, output: Tensor, targets: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        logits = logits_of(output)
        # The teacher's output for each sample as the student saw it: [B,7]
        teacher = self.table[mirrored.long(), chosen]
        hard = F.cross_entropy(logits, targets)
        return self.alpha * soft_loss(logits, teacher, self.temperature) + (1 - self.alpha) * hard

    def load_state_dict(self, state_dict: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint's state. Raises `FerReproError` if the run was begun with another teacher."""
        if not torch.equal(state_dict["digest"].cpu(), self.digest.cpu()):
            raise FerReproError(
                f"this run was begun with another {TEACHER}: restore that one, or run without resume to start anew"
            )
        return super().load_state_dict(state_dict, *args, **kwargs)


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_T || q_T) from logits (or log probabilities) [B,7], mean over the batch; the factor T^2 makes
    the gradient's size independent of T (Hinton et al. 2015, section 2)."""
    p, q = (logits / temperature for logits in (teacher, student))
    divergence = F.kl_div(q.log_softmax(dim=1), p.log_softmax(dim=1), reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def teacher_table(teacher: NetworkClassifier, images: np.ndarray) -> np.ndarray:
    """Log probabilities float32 [2,N,7] of ``images`` (uint8 [N,48,48]) and of the flipped images, no dropout."""
    plain = torch.tensor(np.asarray(images), device=teacher.device)
    return torch.stack([teacher.log_probabilities(faces) for faces in (plain, plain.flip(-1))]).cpu().numpy()


def require_teacher(run: Run) -> NetworkClassifier:
    """The fitted teacher, or a `FerReproError` that says what is missing or wrong."""
    name, protocol = run.recipe.variant, run.recipe.protocol.name
    teacher = run.required.get(TEACHER)
    if teacher is None:
        raise FerReproError(
            f"{name} is distilled from {TEACHER}, and no fitted one was given: run `fer-repro run {name}`, which "
            f"trains or loads it first, or `{name}-alone`, which needs none"
        )
    if not isinstance(teacher, NetworkClassifier):
        raise FerReproError(f"{name} needs a network as {TEACHER}, got {type(teacher).__name__} without logits")
    given = teacher.recipe.variant, teacher.recipe.protocol.name
    if given != (TEACHER, protocol):
        raise FerReproError(
            f"{name} under the {protocol} protocol needs {TEACHER} of the same protocol, got {given[0]} under "
            f"{given[1]}: fit the right one first"
        )
    if [(s.name, s.get("vertical", False)) for s in run.recipe.augment] != [("flip", False)] or run.recipe.mix:
        raise FerReproError(
            f"{name}: the teacher's output is stored for each image and its flipped copy, so the recipe may augment by "
            "one left-right flip and nothing else"
        )
    return teacher


class Student(resemotenet.MirrorClassifier):
    """A student that also counts how often it agrees with its teacher."""

    teacher: NetworkClassifier

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """``mirror`` as its base class gives it, and ``agreement`` on both test sets."""
        parts = splits.held_out().items()
        counts = {usage: self.agreement(part.images, part.labels) for usage, part in parts}
        return super().extra_scores(splits) | {"agreement": counts}

    def agreement(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Counts over n images: ``same`` answer, ``teacher`` right, ``student`` right, ``both`` right, and ``same
        mistake``."""
        # float16 as stored, so that the counts of correct answers are those of the stored predictions.
        probabilities = (model.predict_proba(np.asarray(images)).astype(np.float16) for model in (self, self.teacher))
        student, teacher = (part.argmax(axis=1) for part in probabilities)
        counts = {
            "same": student == teacher,
            "teacher": teacher == labels,
            "student": student == labels,
            "both": (student == labels) & (teacher == labels),
            "same_mistake": (student == teacher) & (student != labels),
        }
        return {"n": len(labels)} | {name: int(hits.sum()) for name, hits in counts.items()}


def fit(splits: Splits, run: Run) -> NetworkClassifier:
    """Store the teacher's output for every training image and its flipped copy; then train the student on both losses.

    A recipe with plain cross-entropy needs no teacher. Raises `FerReproError` for a missing or wrong teacher.
    """
    if run.recipe.loss.name == "cross-entropy":
        return resemotenet.fit(splits, run)
    teacher = require_teacher(run)
    with writer(run.folder):
        artifacts = ArtifactCache(run.folder, {"data": run.data_digest, "teacher": digest(teacher.model)}, run.resume)
        settings = {"recipe": teacher.recipe.sha256(), "train": run.recipe.protocol.train}
        table = artifacts.get_or_compute("teacher", settings, lambda: teacher_table(teacher, splits.train.images))
    fitted = resemotenet.fit(splits, run, Distillation(torch.from_numpy(table), **run.recipe.loss.kwargs()))
    student = Student(fitted.model, fitted.recipe, fitted.device)
    student.teacher = teacher
    return student


LOSS = step("distillation", temperature=4.0, alpha=0.5)

DEVIATIONS = deviations(__file__)


def name_of(student: str, alone: bool) -> str:
    return f"mini-resemotenet-{student}" + ("-alone" if alone else "")


def recipe(protocol: str, profile: str, student: str, alone: bool = False) -> Recipe:
    """The teacher's recipe with a narrower network, and with the distillation loss unless ``alone``."""
    base = resemotenet.recipe(protocol, profile, name_of(student, alone), DIVISORS[student])
    own = (DEVIATIONS["all"][0], DEVIATIONS["all"][3], *DEVIATIONS["alone"]) if alone else DEVIATIONS["all"]
    return dataclasses.replace(base, loss=base.loss if alone else LOSS, deviations=(*own, *base.deviations))


CLAIMED_STUDENT = {"a": "mini-resemotenet-a", "b": "mini-resemotenet-b", "c": "mini-resemotenet-b"}
# What the chapter shows of the source: network, loss, and what is special to the method.
SHOWN = (
    resemotenet.ResEmoteNet,
    resemotenet.stem,
    SqueezeExcite,
    resemotenet.ResidualBlock,
    Distillation,
    soft_loss,
    teacher_table,
)

VARIANTS = tuple(
    Variant(
        id=name_of(student, alone),
        slug="mini-resemotenet",
        recipe=partial(recipe, student=student, alone=alone),
        build=resemotenet.build,
        fit=fit,
        ablation_of=None if name_of(student, alone) == claimed else claimed,
        requires=() if alone else (TEACHER,),
    )
    for alone in (False, True)
    for student, claimed in CLAIMED_STUDENT.items()
)
