"""The route through diffusers and transformers for real: a tiny pipeline and a tiny CLIP, saved here, loaded there."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import string
import sys

import numpy as np
import pytest
import torch

from fer_repro import papers
from fer_repro.errors import FerReproError
from fer_repro.papers.sdafe import stable_diffusion
from fer_repro.papers.sdafe.mini_clip import PROMPTS
from fer_repro.recipe import step
from fer_repro.training.run import Run


def write_tokenizer(folder):
    """A tokenizer that knows single letters only."""
    from transformers import CLIPTokenizer

    letters = [*string.ascii_lowercase, *",.-'"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=77), len(
        words
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A pipeline shaped like Stable Diffusion and a CLIP, both of random weights and as small as they can be."""
    diffusers, transformers = pytest.importorskip("diffusers"), pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("checkpoints")
    tokenizer, size = write_tokenizer(place / "tokenizer")
    text = {
        "vocab_size": size,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = diffusers.StableDiffusionImg2ImgPipeline(
            vae=diffusers.AutoencoderKL(
                block_out_channels=(8, 8),
                norm_num_groups=2,
                latent_channels=4,
                sample_size=16,
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
            ),
            text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**text)),
            tokenizer=tokenizer,
            unet=diffusers.UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(8, 8),
                layers_per_block=1,
                cross_attention_dim=16,
                attention_head_dim=4,
                norm_num_groups=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            ),
            scheduler=diffusers.PNDMScheduler(
                steps_offset=1, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.save_pretrained(place / "sd", safe_serialization=True)
        vision = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        }
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(place / "clip")
    tokenizer.save_pretrained(place / "clip")
    shape = {"height": 32, "width": 32}
    transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=shape).save_pretrained(place / "clip")
    return {"SD_CHECKPOINT": place / "sd", "CLIP_CHECKPOINT": place / "clip"}


@pytest.fixture
def named(folders, monkeypatch):
    for name, path in folders.items():
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folders


def pipeline_of(folders, strength=0.5):
    return stable_diffusion.ImageToImage(folders["SD_CHECKPOINT"], torch.device("cpu"), strength, 7.5, 4, size=16)


def test_faces_go_through_the_pipeline(folders, few_synthetic):
    faces = np.asarray(few_synthetic.images[:3])
    made = pipeline_of(folders).edit(faces, np.array([0, 3, 5]), np.array([1, 2, 3]))
    assert made.shape == faces.shape and made.dtype == np.uint8 and not np.array_equal(made, faces)
    alone = pipeline_of(folders).edit(faces[1:2], np.array([3]), np.array([2]))
    assert np.abs(alone[0].astype(int) - made[1]).max() <= 1  # its own seed, whoever stands beside it
    other = pipeline_of(folders).edit(faces[1:2], np.array([3]), np.array([9]))
    assert np.abs(other[0].astype(int) - made[1]).max() > 1


def test_strength_decides_how_many_steps_are_made(folders, few_synthetic, monkeypatch):
    counted = []
    for strength in (0.25, 1.0):
        editor = pipeline_of(folders, strength)
        call = editor.pipeline.unet.forward
        calls = []
        monkeypatch.setattr(
            editor.pipeline.unet, "forward", lambda *a, calls=calls, call=call, **k: calls.append(1) or call(*a, **k)
        )
        editor.edit(np.asarray(few_synthetic.images[:1]), np.array([0]), np.array([0]))
        counted.append(len(calls))
    assert counted == [1, 4]


def test_clip_compares_faces_with_the_prompts(folders, few_synthetic):
    clip = stable_diffusion.Clip(folders["CLIP_CHECKPOINT"], torch.device("cpu"))
    rows = clip.cosines(np.asarray(few_synthetic.images[:5]))
    assert rows.shape == (5, len(PROMPTS)) and rows.dtype == np.float32
    assert (np.abs(rows) <= 1 + 1e-5).all() and len(np.unique(rows[0].round(6))) == len(PROMPTS)
    np.testing.assert_allclose(rows[2:4], clip.cosines(np.asarray(few_synthetic.images[2:4])), atol=1e-6)


def test_the_whole_method_runs_on_it(named, few_synthetic, tmp_path):
    """The claimed protocol's own settings, with fewer and smaller pictures."""
    variant = papers.get("sdafe-images")
    recipe = variant.recipe("claimed", "full")
    assert recipe.options["generator"] == "stable-diffusion" and recipe.options["target"] == "largest"
    options = recipe.options.kwargs() | {"size": 16, "grid": 4, "most": 2}
    recipe = dataclasses.replace(recipe, options=step("synthesis", **options))
    run = Run(recipe, 0, "cpu", tmp_path, few_synthetic.digest)
    classifier = variant.fit(recipe.protocol.split(few_synthetic), run)
    made = classifier.generated
    assert len(made.images) == 2 * len(np.unique(made.classes)) and len(made.seen) == 0
    assert set(made.source) <= set(few_synthetic.ids[(few_synthetic.usage == "Training") & (few_synthetic.labels == 6)])
    assert set(run.facts["fitted_on"]) == {"SD_CHECKPOINT", "CLIP_CHECKPOINT"}
    rows = classifier.predict_proba(np.asarray(few_synthetic.images[:4]))
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_another_checkpoint_is_another_run(folders, tmp_path):
    whole = stable_diffusion.folder_digest(folders["CLIP_CHECKPOINT"])
    assert whole == stable_diffusion.folder_digest(folders["CLIP_CHECKPOINT"])
    (tmp_path / "config.json").write_text("{}")
    before = stable_diffusion.folder_digest(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert stable_diffusion.folder_digest(tmp_path) != before


@pytest.mark.parametrize("variable", ["SD_CHECKPOINT", "CLIP_CHECKPOINT"])
def test_a_missing_folder_is_one_sentence(named, variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(FerReproError, match=f"{variable}=.*holds no"):
        stable_diffusion.require()
    monkeypatch.delenv(variable)
    with pytest.raises(FerReproError, match=f"{variable} is not set.*never downloaded"):
        stable_diffusion.require()


def test_an_unreadable_folder_is_one_sentence(tmp_path):
    pytest.importorskip("diffusers")
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FerReproError, match="cannot be read as a Stable Diffusion pipeline"):
        stable_diffusion.ImageToImage(tmp_path, torch.device("cpu"), 0.5, 7.5, 4)
    with pytest.raises(FerReproError, match="cannot be read as a CLIP model"):
        stable_diffusion.Clip(tmp_path, torch.device("cpu"))


def test_missing_packages_are_one_sentence(named, monkeypatch, few_synthetic, tmp_path):
    for name in stable_diffusion.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    recipe = papers.get("sdafe-images").recipe("claimed", "full")
    run = Run(recipe, 0, "cpu", tmp_path, "digest")
    with pytest.raises(FerReproError, match=r"needs diffusers and transformers.*pip install 'fer-repro\[diffusion\]'"):
        papers.get("sdafe-images").fit(recipe.protocol.split(few_synthetic), run)


@pytest.mark.parametrize("name", ["stable_diffusion", "synthesis", ""])
def test_the_offline_route_imports_neither_package(name, monkeypatch):
    """It runs where torch is all there is: a fresh copy of each module is executed with both packages out of reach."""
    for package in stable_diffusion.PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.find_spec(f"fer_repro.papers.sdafe.{name}".rstrip("."))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_faces_keep_their_size_and_grey(few_synthetic):
    face = np.asarray(few_synthetic.images[0])
    picture = stable_diffusion.as_picture(face, 48 * 4)
    assert picture.mode == "RGB" and picture.size == (192, 192)
    assert np.abs(stable_diffusion.as_face(picture).astype(int) - face).mean() < 4
    assert np.array_equal(stable_diffusion.as_face(stable_diffusion.as_picture(face, 48)), face)
