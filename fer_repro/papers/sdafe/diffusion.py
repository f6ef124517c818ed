"""A small diffusion model of faces: class-conditional U-Net, cosine noise, DDIM, and image editing by SDEdit.

It stands in for Stable Diffusion where only FER2013's own training images may be used. Ho et al. 2020 (the noise to
predict), Nichol and Dhariwal 2021 (cosine schedule), Song et al. 2021 (DDIM), Ho and Salimans 2022 (classifier-free
guidance), Meng et al. 2022 (SDEdit: add noise to an image up to a level, denoise it as something else).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_repro.errors import FerReproError
from fer_repro.papers.sdafe.training import ClassSampler
from fer_repro.transforms.geometry import coin, flip

EDGE = 48
LEVELS = 1000  # noise levels of the schedule
MAX_NOISE = 0.999  # that a single level may add
CONDITION = 256  # numbers that stand for noise level and class
CLASSES = 7  # class 7 means "no class given"


class Residual(nn.Module):
    """Two 3x3 convolutions, scaled and shifted by level and class: [B,C,H,W], [B,256] -> [B,C',H,W]."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, before), nn.Conv2d(before, after, 3, padding=1)
        self.tell = nn.Linear(CONDITION, 2 * after)
        self.norm2, self.conv2 = nn.GroupNorm(8, after), nn.Conv2d(after, after, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # a block begins as its shortcut
        nn.init.zeros_(self.conv2.bias)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        # [B,C,H,W] -> [B,C',H,W]
        hidden = self.conv1(F.silu(self.norm1(features)))
        # [B,256] -> two times [B,C',1,1]
        scale, shift = self.tell(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        # -> [B,C',H,W]
        return self.skip(features) + self.conv2(self.dropout(F.silu(hidden)))


class Attention(nn.Module):
    """Self-attention between the positions of a map: [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.ask, self.answer = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.answer.weight)
        nn.init.zeros_(self.answer.bias)

    def forward(self, features: Tensor) -> Tensor:
        # [B,C,H,W] -> queries, keys and values, each [B,heads,HW,C/heads]
        parts = self.ask(self.norm(features)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2)
        mixed = F.scaled_dot_product_attention(*parts.unbind(dim=1))
        # [B,heads,HW,C/heads] -> [B,C,H,W]
        return features + self.answer(mixed.transpose(-1, -2).reshape(features.shape))


class Block(nn.ModuleList):
    """A residual block, followed by attention where there are ``heads``: [B,C,H,W], [B,256] -> [B,C',H,W]."""

    def __init__(self, before: int, after: int, heads: int | None, dropout: float) -> None:
        attention = Attention(after, heads) if heads else nn.Identity()
        super().__init__([Residual(before, after, dropout), attention])

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        residual, attention = self
        return attention(residual(features, condition))


class Unet(nn.Module):
    """Predicts the noise in a noisy face: [B,1,S,S] in about [-1, 1], int64 [B] levels, int64 [B] classes -> [B,1,S,S].

    ``base``: channels at full size, times ``widths`` per level, each level half the size of the one above; ``blocks``
    residual blocks per level on the way down, one more on the way up; attention on the lowest level.
    """

    def __init__(
        self, base: int = 64, widths: tuple[int, ...] = (1, 2, 4), blocks: int = 2, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.base = base
        self.time = nn.Sequential(nn.Linear(base, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION))
        self.label = nn.Embedding(CLASSES + 1, CONDITION)
        self.first = nn.Conv2d(1, base, 3, padding=1)
        # Channels of each level, and heads of attention on the lowest one
        levels = [(base * width, None) for width in widths[:-1]] + [(base * widths[-1], heads)]
        skips, now = [base], base  # channels of the maps that the way up will need, and of the current one
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (width, attended) in enumerate(levels):
            if level:
                self.down.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
            for _ in range(blocks):
                self.down.append(Block(now, width, attended, dropout))
                now = width
                skips.append(now)
        self.middle = nn.ModuleList([Residual(now, now, dropout), Attention(now, heads), Residual(now, now, dropout)])
        for level, (width, attended) in reversed(list(enumerate(levels))):
            for _ in range(blocks + 1):
                self.up.append(Block(now + skips.pop(), width, attended, dropout))
                now = width
            if level:
                self.up.append(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(now, now, 3, padding=1)))
        self.last = nn.Sequential(nn.GroupNorm(8, base), nn.SiLU(), nn.Conv2d(base, 1, 3, padding=1))

    def forward(self, noisy: Tensor, level: Tensor, label: Tensor) -> Tensor:
        # Level and class: [B], [B] -> [B,256]
        condition = self.time(sinusoid(level, self.base)) + self.label(label)
        # Down: [B,1,S,S] -> [B,4*base,S/4,S/4], every map kept
        maps = [self.first(noisy)]
        for part in self.down:
            maps.append(part(maps[-1], condition) if isinstance(part, Block) else part(maps[-1]))
        # The middle keeps the shape
        before, attention, after = self.middle
        features = after(attention(before(maps[-1], condition)), condition)
        # Up, concatenated with the maps kept: -> [B,base,S,S]
        for part in self.up:
            block = isinstance(part, Block)
            features = part(torch.cat((features, maps.pop()), dim=1), condition) if block else part(features)
        # The noise: [B,1,S,S]
        return self.last(features)


def sinusoid(level: Tensor, width: int) -> Tensor:
    """int64 [B] -> float32 [B,width]: cosines and sines of the level, wavelengths geometric up to 10,000."""
    rates = torch.exp(torch.arange(width // 2, device=level.device) * (-math.log(10000) / (width // 2)))
    angles = level.float()[:, None] * rates
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def signal_left() -> Tensor:
    """float32 [LEVELS]: the share of the variance that is signal at each noise level, cosine schedule."""

    def wave(t: Tensor) -> Tensor:
        return ((t + 0.008) / 1.008 * math.pi / 2).cos() ** 2

    t = torch.arange(LEVELS, dtype=torch.float64) / LEVELS
    added = (1 - wave(t + 1 / LEVELS) / wave(t)).clamp(max=MAX_NOISE)
    return (1 - added).cumprod(dim=0).float()


def noised(clean: Tensor, noise: Tensor, left: Tensor) -> Tensor:
    """``clean`` and ``noise`` [B,1,S,S], mixed so that the share ``left`` [B] of the variance is signal."""
    left = left.view(-1, 1, 1, 1)
    return left.sqrt() * clean + (1 - left).sqrt() * noise


def as_signal(images: Tensor, size: int) -> Tensor:
    """uint8 [B,48,48] -> float32 [B,1,size,size] in [-1, 1]; smaller sizes by averaging areas."""
    signal = images.unsqueeze(1).float().div_(127.5).sub_(1)
    return signal if size == EDGE else F.interpolate(signal, size=(size, size), mode="area")


def as_images(signal: Tensor) -> Tensor:
    """float32 [B,1,S,S] -> uint8 [B,48,48], rounded."""
    if signal.shape[-1] != EDGE:
        signal = F.interpolate(signal, size=(EDGE, EDGE), mode="bilinear", align_corners=False)
    return ((signal.squeeze(1) + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


class NoiseLoss:
    """The U-Net's loss: the mean squared error of the predicted noise on a batch, half of it with balanced classes.

    ``images`` uint8 [N,48,48] and ``labels`` int64 [N] on the device; ``silent``: share of samples whose class is
    hidden. Called as (network, generator).
    """

    def __init__(self, images: Tensor, labels: Tensor, size: int, batch: int, silent: float) -> None:
        self.images, self.labels, self.size, self.batch, self.silent = images, labels, size, batch, silent
        self.sample = ClassSampler(labels, batch, balanced=0.5)
        self.left = signal_left().to(images.device)

    def __call__(self, network: Unet, generator: torch.Generator) -> Tensor:
        chosen, device = self.sample(generator), generator.device
        clean = flip(as_signal(self.images[chosen], self.size), generator)
        level = torch.randint(LEVELS, (self.batch,), generator=generator, device=device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        label = torch.where(coin(self.silent, self.batch, generator), CLASSES, self.labels[chosen])
        predicted = network(noised(clean, noise, self.left[level]), level, label)
        return F.mse_loss(predicted.float(), noise)


def noise_levels(strength: float, grid: int) -> list[int]:
    """The noise levels of an edit, falling: the last ``strength`` of a grid of so many equal steps from pure noise."""
    steps = round(grid * strength)
    if not 0 < strength <= 1 or not 1 <= steps or not 1 <= grid <= LEVELS:
        raise FerReproError(
            f"denoising: strength {strength} on a grid of {grid} steps, expected 0 < strength <= 1 that leaves at "
            f"least one step, and 1 to {LEVELS} steps"
        )
    return [round(LEVELS * number / grid) - 1 for number in range(steps, 0, -1)]


def ddim(noisy: Tensor, noise: Tensor, left: float, then: float) -> Tensor:
    """One step of DDIM without randomness, from the share ``left`` of signal to the share ``then``.

    The picture that the predicted ``noise`` implies is clipped to [-1, 1], and the noise computed anew from it.
    """
    clean = ((noisy - math.sqrt(1 - left) * noise) / math.sqrt(left)).clamp(-1, 1)
    noise = (noisy - math.sqrt(left) * clean) / math.sqrt(1 - left)
    return math.sqrt(then) * clean + math.sqrt(1 - then) * noise


@torch.inference_mode()
def edit(
    network: Unet, images: Tensor, classes: Tensor, noise: Tensor, strength: float, grid: int, guidance: float
) -> Tensor:
    """SDEdit: ``images`` uint8 [B,48,48], with noise up to ``strength``, denoised as ``classes`` int64 [B] -> uint8.

    ``noise`` float32 [B,1,S,S] decides everything that is random. ``guidance``: 1 follows the class as learnt, more
    exaggerates what it changes.
    """
    left, levels = signal_left().tolist(), noise_levels(strength, grid)
    clean = as_signal(images, noise.shape[-1])
    now = noised(clean, noise, torch.full((len(clean),), left[levels[0]], device=clean.device))
    both = torch.cat((classes, torch.full_like(classes, CLASSES)))  # with the class, and without one
    for before, after in pairwise([*levels, None]):
        level = torch.full_like(both, before)
        given, hidden = network(now.repeat(2, 1, 1, 1), level, both).float().chunk(2)
        now = ddim(now, hidden + guidance * (given - hidden), left[before], 1.0 if after is None else left[after])
    return as_images(now)


def start_noise(seeds: np.ndarray, size: int) -> Tensor:
    """float32 [N,1,size,size], each image's from its own seed, independent of the batch that it is in."""
    made = torch.empty(len(seeds), 1, size, size)
    generator = torch.Generator()
    for row, seed in zip(made, seeds.tolist(), strict=True):
        row.normal_(generator=generator.manual_seed(seed))
    return made
