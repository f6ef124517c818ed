"""Where a reader finds a file of pretrained weights: an address for every source that has one."""

from __future__ import annotations

import re

import torchvision

from fer_repro.recipe import Pretrained

# Pages of publishers that a recipe names in words only: file -> page.
PAGES = {
    "vgg_face_dag.pth": "https://www.robots.ox.ac.uk/~albanie/pytorch-models.html",
    "imagenet-vgg-f.safetensors": "https://www.vlfeat.org/matconvnet/pretrained/",
    "resnet50_scratch_dims_2048.pth": "https://github.com/ox-vgg/vgg_face2",
}
REPOSITORY = re.compile(r"github\.com/([\w.-]+/[\w.-]+)|GitHub \(([\w.-]+/[\w.-]+)\)")


def address(weights: Pretrained) -> str | None:
    """The web address of the file or of the page that offers it; None where a package carries it."""
    if weights.source == "torchvision":
        return torchvision.models.get_weight(weights.name).url
    if weights.source == "timm":
        return f"https://huggingface.co/timm/{weights.name}"
    found = REPOSITORY.search(weights.source)
    if found:
        return f"https://github.com/{found[1] or found[2]}"
    return PAGES.get(weights.file)
