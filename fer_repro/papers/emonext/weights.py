"""A ConvNeXt's weights as their publishers name them: Facebook's files, timm's models, torchvision's.

All three hold the same tensors. A network made of torchvision's blocks takes any of them through `torchvision_names`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fer_repro.pretrained import Rules, renamed

# Facebook's and timm's names -> torchvision's, rule after rule. torchvision numbers the stem, the stages and the
# downsampling layers between them in one sequence; a block's layers too.
NAMES: Rules = (
    (r"^downsample_layers\.(\d)\.", lambda found: f"features.{2 * int(found[1])}."),
    (r"^stem\.", "features.0."),
    (r"^stages\.(\d)\.downsample\.", lambda found: f"features.{2 * int(found[1])}."),
    (r"^stages\.(\d)\.(?:blocks\.)?(\d+)\.", lambda found: f"features.{2 * int(found[1]) + 1}.{found[2]}."),
    (r"\.(dwconv|conv_dw)\.", ".block.0."),
    (r"^(features\.[1357]\.\d+)\.norm\.", r"\1.block.2."),
    (r"\.(pwconv1|mlp\.fc1)\.", ".block.3."),
    (r"\.(pwconv2|mlp\.fc2)\.", ".block.5."),
    (r"\.gamma$", ".layer_scale"),
    (r"^(head\.norm|classifier\.0)\.", "norm."),
)


def torchvision_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` under torchvision's names and in its shapes, the last norm as ``norm``; a head keeps its own name."""
    return {
        name: tensor.reshape(-1, 1, 1) if name.endswith(".layer_scale") else tensor
        for name, tensor in renamed(state, NAMES).items()
    }
