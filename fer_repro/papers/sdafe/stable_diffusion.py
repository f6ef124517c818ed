"""Stable Diffusion and CLIP from the user's own folders: image to image, and the similarity of image and label.

Nothing is ever downloaded. ``SD_CHECKPOINT`` names a folder as `diffusers` saves a Stable Diffusion 1.x or 2.x
pipeline, ``CLIP_CHECKPOINT`` one as `transformers` saves CLIP; both with safetensors files. The packages come with the
extra ``diffusion``; without them, everything else of the project works.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fer_repro.data.official import LABELS
from fer_repro.errors import FerReproError
from fer_repro.files import sha256_of
from fer_repro.papers.sdafe.mini_clip import PROMPTS

PACKAGES = ("diffusers", "transformers")
FOLDERS = {
    "SD_CHECKPOINT": ("model_index.json", "a Stable Diffusion pipeline"),
    "CLIP_CHECKPOINT": ("config.json", "a CLIP model"),
}
NEGATIVE = "cartoon, painting, text, watermark, deformed, multiple faces"
EDGE = 48


def require() -> dict[str, Path]:
    """The two folders by the name of their variable; `FerReproError` for a missing package, variable or folder."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise FerReproError(
            f"the Stable Diffusion route needs {' and '.join(missing)}, not installed here: pip install "
            "'fer-repro[diffusion]', or use the official protocol, whose generator needs neither"
        )
    for variable, (file, what) in FOLDERS.items():
        named = os.environ.get(variable, "")
        if not named or not (Path(named) / file).is_file():
            problem = f"{variable}={named} holds no {file}" if named else f"{variable} is not set"
            raise FerReproError(
                f"the Stable Diffusion route needs {what} in a folder of yours, but {problem}: name the folder there "
                "(it is never downloaded), or use the official protocol, whose generator is fitted on Training"
            )
    return {variable: Path(os.environ[variable]) for variable in FOLDERS}


def folder_digest(folder: Path) -> str:
    """sha256 (hex) over the names and contents of a checkpoint's files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = "".join(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def _readable(folder: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FerReproError(
            f"{folder.name} cannot be read as {what} ({first}): expected the folder that its library saves, with "
            "safetensors files"
        ) from error


class ImageToImage:
    """A Stable Diffusion pipeline that turns faces into other expressions.

    ``size``: edge at which it works; ``strength``, ``guidance`` and ``grid`` (steps from pure noise) as in diffusers.
    """

    def __init__(
        self, folder: Path, device: torch.device, strength: float, guidance: float, grid: int, size: int = 512
    ) -> None:
        from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

        half = torch.float16 if device.type == "cuda" else torch.float32
        with _readable(folder, FOLDERS["SD_CHECKPOINT"][1]):
            # The safety checker is left out: it blacks out pictures, and these are portraits of 48 pixels.
            pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=half,
                safety_checker=None,
                requires_safety_checker=False,
            )
            pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self.pipeline = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.strength, self.guidance, self.grid, self.size = strength, guidance, grid, size

    def edit(self, images: np.ndarray, classes: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """uint8 [B,48,48], int64 [B], int64 [B] -> uint8 [B,48,48]: each image as its class, by its own seed."""
        made = self.pipeline(
            prompt=[PROMPTS[index] for index in classes],
            negative_prompt=[NEGATIVE] * len(classes),
            image=[as_picture(image, self.size) for image in images],
            strength=self.strength,
            guidance_scale=self.guidance,
            num_inference_steps=self.grid,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds.tolist()],
        ).images
        return np.stack([as_face(picture) for picture in made])


class Clip:
    """CLIP's similarity of a face with the seven prompts."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

        self.device = device
        with _readable(folder, FOLDERS["CLIP_CHECKPOINT"][1]):
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self.processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            tokenizer = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
        self.model.to(device).eval()
        self.prompts = tokenizer(list(PROMPTS), padding=True, truncation=True, return_tensors="pt").to(device)

    @torch.inference_mode()
    def cosines(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7]."""
        rows = []
        for first in range(0, len(images), 64):
            pictures = [as_picture(image, EDGE) for image in images[first : first + 64]]
            pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.device)
            output = self.model(pixel_values=pixels, **self.prompts)
            # The model gives both embeddings at length 1.
            rows.append((output.image_embeds @ output.text_embeds.T).float().cpu())
        return torch.cat(rows).numpy() if rows else np.zeros((0, len(LABELS)), np.float32)

    @property
    def scale(self) -> float:
        """The factor of the cosines before a softmax."""
        return self.model.logit_scale.exp().item()


def as_picture(image: np.ndarray, size: int) -> Image.Image:
    """uint8 [48,48] -> RGB, enlarged by Lanczos."""
    picture = Image.fromarray(np.asarray(image)).convert("RGB")
    return picture if size == EDGE else picture.resize((size, size), Image.Resampling.LANCZOS)


def as_face(picture: Any) -> np.ndarray:
    """A picture of any size -> grey uint8 [48,48], shrunk by averaging areas."""
    return np.asarray(picture.convert("L").resize((EDGE, EDGE), Image.Resampling.BOX), np.uint8)
