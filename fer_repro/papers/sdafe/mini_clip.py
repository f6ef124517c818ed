"""mini_clip: do a picture and the words of a class belong together? A dual encoder made from Training images alone.

One tower looks at a face, the other reads a class' prompt; both give 128 numbers of length 1, and their dot product is
the similarity. The training is CLIP's (Radford et al. 2021) with seven texts in all, so it is at heart a classifier
that asks whether label and picture agree; it has seen nothing of what CLIP has seen, and is never called by its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_repro.layers import as_input
from fer_repro.papers.sdafe.training import ClassDraw
from fer_repro.transforms.geometry import coin, mirror

# In the order of the labels.
ADJECTIVES = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
PROMPTS = tuple(f"a grayscale photo of a face with a {word} expression" for word in ADJECTIVES)
HOTTEST = math.log(100.0)  # CLIP's bound on the logarithm of the scale
PASS = 512  # images a forward pass


class WordBag(nn.Module):
    """The text tower: the sum of a prompt's word vectors, then two layers: [7 prompts] -> [7,width]."""

    def __init__(self, prompts: Sequence[str], width: int, hidden: int) -> None:
        super().__init__()
        words = sorted({word for prompt in prompts for word in prompt.split()})
        counts = torch.tensor([[prompt.split().count(word) for word in words] for prompt in prompts]).float()
        # A word that every prompt has tells nothing: what is left is by what the prompts differ.
        self.register_buffer("bags", functional.normalize(counts - counts.mean(dim=0), dim=1), persistent=False)
        self.words = nn.Linear(len(words), hidden, bias=False)
        self.rest = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self) -> Tensor:
        # [7,words] -> [7,hidden] -> [7,width], of length 1
        return functional.normalize(self.rest(self.words(self.bags)), dim=1)


class DualEncoder(nn.Module):
    """Images float32 [B,1,48,48] in [0, 1] -> cosines with the seven prompts, float32 [B,7].

    ``channels``: of the image tower's stages, each halving the sides; ``width``: of the space that both towers share.
    """

    def __init__(self, channels: tuple[int, ...] = (64, 128, 256, 512), width: int = 128) -> None:
        super().__init__()
        stages, before = [], 1
        for after in channels:
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
            stages += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.GELU()]
            before = after
        edge = 48 // 2 ** len(channels)
        # Where in the face something is tells as much as what it is: no mean over the places.
        self.look = nn.Sequential(*stages, nn.Flatten(), nn.Linear(before * edge * edge, width))
        self.read = WordBag(PROMPTS, width, width)
        self.heat = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start

    @property
    def scale(self) -> Tensor:
        """By what cosines are multiplied before a softmax."""
        return self.heat.clamp(max=HOTTEST).exp()

    def forward(self, images: Tensor) -> Tensor:
        # Pictures: [B,1,48,48] -> [B,width], of length 1
        seen = functional.normalize(self.look((images - 0.5) / 0.25), dim=1)
        # Cosines with all prompts: [B,7]
        return seen @ self.read().T


def contrast(cosines: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
    """CLIP's symmetric loss where many pictures share a text: cosines [B,7], labels int64 [B] -> scalar.

    A picture should find its class' text among the seven; a text should find its pictures among the batch's, all of
    them alike. Texts without a picture in the batch do not count.
    """
    logits = scale * cosines
    to_text = functional.cross_entropy(logits, labels)
    mine = functional.one_hot(labels, cosines.shape[1]).to(logits.dtype)
    found = mine.sum(dim=0)
    per_text = (mine * logits.log_softmax(dim=0)).sum(dim=0) / found.clamp(min=1)
    return (to_text - per_text.sum() / (found > 0).sum()) / 2


class Lesson:
    """Batches of an encoder's half of the Training images, every class alike, mirrored and shifted at random.

    A shift is of up to four pixels.

    ``images`` uint8 [N,48,48] and ``labels`` int64 [N] on the device. Called as (network, generator): the loss.
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int) -> None:
        self.images, self.labels, self.batch = images, labels, batch
        self.draw = ClassDraw(labels, batch, alike=1.0)  # a judge should favour no label for being common

    def __call__(self, network: DualEncoder, generator: torch.Generator) -> Tensor:
        device = generator.device
        chosen = self.draw(generator)
        pictures = mirror(as_input(self.images[chosen]), coin(0.5, self.batch, generator))
        pictures = functional.pad(pictures, (4, 4, 4, 4), mode="replicate")
        corner = torch.randint(9, (2, self.batch), generator=generator, device=device)
        line = torch.arange(48, device=device)
        rows, columns = (corner[0, :, None] + line)[:, :, None], (corner[1, :, None] + line)[:, None, :]
        batch = torch.arange(self.batch, device=device)[:, None, None]
        pictures = pictures[:, 0][batch, rows, columns].unsqueeze(1)
        return contrast(network(pictures).float(), network.scale.float(), self.labels[chosen])


@torch.inference_mode()
def cosines(network: DualEncoder, images: np.ndarray, device: torch.device) -> np.ndarray:
    """uint8 [N,48,48] -> float32 [N,7]."""
    parts = [
        network(as_input(torch.tensor(np.asarray(images[first : first + PASS]), device=device))).float().cpu()
        for first in range(0, len(images), PASS)
    ]
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(PROMPTS)), np.float32)


def halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """int8 [N], 0 or 1: every class cut into two halves at random, so that an encoder of one can judge the other."""
    side = np.zeros(len(labels), np.int8)
    draws = np.random.default_rng(seed)
    for index in np.unique(labels):
        own = draws.permutation(np.flatnonzero(labels == index))
        side[own[: len(own) // 2]] = 1
    return side
