"""mini_clip: do a picture and the text of a class belong together? A dual encoder trained on Training images alone.

One tower encodes a face, the other a class' prompt; both give 128 numbers of length 1, and their dot product is the
similarity. The training is CLIP's (Radford et al. 2021) with seven texts in all: in effect a classifier that checks
whether label and picture agree. It has seen nothing of what CLIP has seen, and is never called by its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.layers import as_input
from fer_repro.papers.sdafe.training import ClassSampler
from fer_repro.transforms.geometry import flip

# In the order of the labels.
ADJECTIVES = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
PROMPTS = tuple(f"a grayscale photo of a face with a {word} expression" for word in ADJECTIVES)
MAX_LOG_SCALE = math.log(100.0)  # CLIP's bound on the logarithm of the scale
WIDTH = 128  # of the space that both towers share
REACH = 4  # pixels of a random shift
IMAGES_PER_PASS = 512


class WordBag(nn.Module):
    """The text tower: the sum of a prompt's word vectors, then two layers: [7 prompts] -> [7,128]."""

    def __init__(self, prompts: Sequence[str]) -> None:
        super().__init__()
        words = sorted({word for prompt in prompts for word in prompt.split()})
        counts = torch.tensor([[prompt.split().count(word) for word in words] for prompt in prompts]).float()
        # A word that every prompt has carries no information: only the differences between prompts are left.
        self.register_buffer("bags", F.normalize(counts - counts.mean(dim=0), dim=1), persistent=False)
        self.words = nn.Linear(len(words), WIDTH, bias=False)
        self.rest = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self) -> Tensor:
        # [7,words] -> [7,128] -> [7,128], of length 1
        return F.normalize(self.rest(self.words(self.bags)), dim=1)


class DualEncoder(nn.Module):
    """Images float32 [B,1,48,48] in [0, 1] -> cosines with the seven prompts, float32 [B,7].

    ``channels``: of the image tower's stages, each halving the sides.
    """

    def __init__(self, channels: tuple[int, ...] = (64, 128, 256, 512)) -> None:
        super().__init__()
        stages, before = [], 1
        for after in channels:
            stages += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.GELU()]
            stages += [nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.GELU()]
            before = after
        edge = 48 // 2 ** len(channels)
        # The position in the face matters as much as the feature: no mean over the positions.
        self.look = nn.Sequential(*stages, nn.Flatten(), nn.Linear(before * edge * edge, WIDTH))
        self.read = WordBag(PROMPTS)
        self.heat = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # CLIP's start

    @property
    def scale(self) -> Tensor:
        """The factor of the cosines before a softmax."""
        return self.heat.clamp(max=MAX_LOG_SCALE).exp()

    def forward(self, images: Tensor) -> Tensor:
        # Pictures: [B,1,48,48] -> [B,128], of length 1
        pictures = F.normalize(self.look((images - 0.5) / 0.25), dim=1)
        # Cosines with all prompts: [B,7]
        return pictures @ self.read().T


def contrastive(cosines: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
    """CLIP's symmetric loss where many pictures share a text: cosines [B,7], labels int64 [B] -> scalar.

    A picture should find its class' text among the seven; a text should find its pictures among the batch's, all of
    them equally. Texts without a picture in the batch do not count.
    """
    logits = scale * cosines
    to_text = F.cross_entropy(logits, labels)
    own = F.one_hot(labels, cosines.shape[1]).to(logits.dtype)
    pictures = own.sum(dim=0)
    per_text = (own * logits.log_softmax(dim=0)).sum(dim=0) / pictures.clamp(min=1)
    return (to_text - per_text.sum() / (pictures > 0).sum()) / 2


class ContrastiveLoss:
    """An encoder's loss on a batch with balanced classes, flipped with probability 0.5 and shifted by up to 4 pixels.

    ``images`` uint8 [N,48,48] and ``labels`` int64 [N] on the device. Called as (network, generator).
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int) -> None:
        self.images, self.labels, self.batch = images, labels, batch
        # Balanced: the filter should prefer no label for being frequent.
        self.sample = ClassSampler(labels, batch, balanced=1.0)

    def __call__(self, network: DualEncoder, generator: torch.Generator) -> Tensor:
        device = generator.device
        chosen = self.sample(generator)
        pictures = flip(as_input(self.images[chosen]), generator)
        pictures = F.pad(pictures, (REACH,) * 4, mode="replicate")
        corner = torch.randint(2 * REACH + 1, (2, self.batch), generator=generator, device=device)
        rows, columns = corner[:, :, None] + torch.arange(48, device=device)
        batch = torch.arange(self.batch, device=device)[:, None, None]
        pictures = pictures[batch, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
        return contrastive(network(pictures).float(), network.scale.float(), self.labels[chosen])


@torch.inference_mode()
def cosines(network: DualEncoder, images: np.ndarray, device: torch.device) -> np.ndarray:
    """uint8 [N,48,48] -> float32 [N,7]."""
    parts = torch.tensor(np.asarray(images), device=device).split(IMAGES_PER_PASS) if len(images) else ()
    rows = [network(as_input(part)).float().cpu() for part in parts]
    return torch.cat(rows).numpy() if rows else np.zeros((0, len(PROMPTS)), np.float32)


def halves(labels: np.ndarray, seed: int) -> np.ndarray:
    """int8 [N], 0 or 1: every class cut into two halves at random, so that an encoder of one can judge the other."""
    side = np.zeros(len(labels), np.int8)
    generator = np.random.default_rng(seed)
    for index in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == index))
        side[own[: len(own) // 2]] = 1
    return side
