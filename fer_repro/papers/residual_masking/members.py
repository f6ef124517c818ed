"""The other networks of the Residual Masking ensemble: ResNets of four kinds and an EfficientNet.

Each takes grey [B,1,S,S] in [0, 1], repeats it to three channels without any normalisation (as released: pretrained
weights notwithstanding), and returns logits [B,7]. Each takes pretrained weights under the names of their publisher.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet

from fer_repro import pretrained
from fer_repro.errors import FerReproError
from fer_repro.layers import GreyAsRgb
from fer_repro.pretrained import Rules, renamed

State = Mapping[str, Tensor]


class Bottleneck(resnet.Bottleneck):
    """torchvision's bottleneck, changed where two members differ from it: [B,C,H,W] -> [B,4W,H/s,W/s].

    ``early``: the first convolution strides (Caffe, and He et al. 2016), not the second (torchvision). ``attention``:
    the residual passes a `Cbam` before it is added.
    """

    def __init__(self, before: int, width: int, stride: int, early: bool = False, attention: bool = False) -> None:
        super().__init__(before, width, stride)
        if early:
            self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride
        self.attention = Cbam(self.expansion * width) if attention else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        # Narrow, 3x3 convolution, widen: [B,C,H,W] -> [B,4W,H/s,W/s]
        residual = torch.relu(self.bn1(self.conv1(maps)))
        residual = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(residual)))))
        # Weighted, and added to the input or its projection
        return torch.relu(self.attention(residual) + self.downsample(maps))


def shortcut(before: int, after: int, stride: int) -> nn.Sequential:
    """Empty where shapes agree, otherwise a 1x1 convolution with batch norm."""
    if before == after and stride == 1:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))


class Cbam(nn.Module):
    """Weights for channels, then for positions (Woo et al. 2018, as in pytorchcv): [B,C,H,W] -> [B,C,H,W]."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.place = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, maps: Tensor) -> Tensor:
        # Mean and maximum of each channel through one small network, summed: [B,C,H,W] -> [B,C]
        pooled = (F.adaptive_avg_pool2d(maps, 1), F.adaptive_max_pool2d(maps, 1))
        weights = sum(self.excite(torch.relu(self.squeeze(part.flatten(1)))) for part in pooled)
        maps = maps * weights.sigmoid()[:, :, None, None]
        # Maximum and mean over the channels of each position, one 7x7 convolution: -> [B,1,H,W]
        pooled = torch.cat((maps.amax(dim=1, keepdim=True), maps.mean(dim=1, keepdim=True)), dim=1)
        return maps * self.place(pooled).sigmoid()


KINDS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "basic": resnet.BasicBlock,
    "bottleneck": Bottleneck,
    "caffe": partial(Bottleneck, early=True),
    "cbam": partial(Bottleneck, attention=True),
}


class ResNet(nn.Module):
    """A ResNet of four stages: [B,1,S,S] -> [B,7].

    ``kind``: ``basic`` or ``bottleneck`` (torchvision's), ``caffe`` (stride in the first 1x1 convolution, a pool that
    pads on the far side only) or ``cbam``. ``blocks``: of each stage; ``width``: channels of the first (64 in full).
    """

    def __init__(
        self, kind: str, blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise FerReproError(f"ResNet of kind '{kind}', expected one of {', '.join(KINDS)}")
        self.kind, self.rgb = kind, GreyAsRgb()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        far_side = {"padding": 0, "ceil_mode": True} if kind == "caffe" else {"padding": 1}
        self.maxpool = nn.MaxPool2d(3, 2, **far_side)
        before = width
        for index, count in enumerate(blocks):
            stage = []
            for number in range(count):
                stride = 2 if index and not number else 1
                block = KINDS[kind](before, width * 2**index, stride)
                after = block.expansion * width * 2**index
                block.downsample, before = shortcut(before, after, stride), after
                stage.append(block)
            self.add_module(f"layer{index + 1}", nn.Sequential(*stage))
        self.stages = [f"layer{index + 1}" for index in range(len(blocks))]
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(before, 7)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, images: Tensor) -> Tensor:
        """Three equal channels, halved by a 7x7 convolution and by a pool: [B,1,224,224] -> [B,64,56,56]."""
        return self.maxpool(torch.relu(self.bn1(self.conv1(self.rgb(images)))))

    def classify(self, maps: Tensor) -> Tensor:
        """The mean over the map, dropout, one linear layer: [B,C,7,7] -> [B,C] -> [B,7]."""
        return self.fc(self.dropout(maps.mean(dim=(2, 3))))

    def forward(self, images: Tensor) -> Tensor:
        # [B,1,224,224] -> [B,64,56,56]
        maps = self.stem(images)
        # Four stages; all but the first halve the map: -> [B,C,7,7]
        for name in self.stages:
            maps = getattr(self, name)(maps)
        # -> [B,7]
        return self.classify(maps)

    def load_pretrained(self, state: State) -> None:
        """Everything but the last layer, under the names of torchvision, of VGGFace2's Caffe port or of pytorchcv."""
        rename = {"caffe": from_caffe, "cbam": from_pytorchcv}.get(self.kind, dict)
        pretrained.fill_(self, rename(state), leave=("fc.", "masks."), where=f"a ResNet ({self.kind})")


def _before(number: str) -> int:
    """The publishers count from 1, `nn.Sequential` from 0."""
    return int(number) - 1


CAFFE_PARTS = {
    "1x1_reduce": ("conv1", "bn1"),
    "3x3": ("conv2", "bn2"),
    "1x1_increase": ("conv3", "bn3"),
    "1x1_proj": ("downsample.0", "downsample.1"),
}
CAFFE: Rules = (
    (
        r"^conv(\d)_(\d+)_(1x1_reduce|3x3|1x1_increase|1x1_proj)(_bn)?\.",
        lambda found: f"layer{_before(found[1])}.{_before(found[2])}.{CAFFE_PARTS[found[3]][bool(found[4])]}.",
    ),
    (r"^conv1_7x7_s2_bn\.", "bn1."),
    (r"^conv1_7x7_s2\.", "conv1."),
    (r"^classifier\.", "fc."),
)
PYTORCHCV: Rules = (
    (r"^features\.stage(\d)\.unit(\d+)\.", lambda found: f"layer{found[1]}.{_before(found[2])}."),
    (r"^features\.init_block\.conv\.(conv|bn)\.", r"\g<1>1."),
    (r"\.body\.conv(\d)\.(conv|bn)\.", r".\2\1."),
    (r"\.identity_conv\.conv\.", ".downsample.0."),
    (r"\.identity_conv\.bn\.", ".downsample.1."),
    (r"\.cbam\.ch_gate\.mlp\.fc1\.", ".attention.squeeze."),
    (r"\.cbam\.ch_gate\.mlp\.fc2\.", ".attention.excite."),
    (r"\.cbam\.sp_gate\.conv\.conv\.", ".attention.place.0."),
    (r"\.cbam\.sp_gate\.conv\.bn\.", ".attention.place.1."),
    (r"^output\.", "fc."),
)


# conv3_1_1x1_reduce_bn.weight -> layer2.0.bn1.weight
from_caffe = partial(renamed, rules=CAFFE)
# features.stage2.unit1.body.conv1.conv.weight -> layer2.0.conv1.weight
from_pytorchcv = partial(renamed, rules=PYTORCHCV)


# ---- EfficientNet ----------------------------------------------------------------------------------------------------

# Channels, blocks, kernel, stride, expansion of each stage (Tan, Le 2019), scaled to B2: width 1.1, depth 1.2.
B2 = (
    (16, 2, 3, 1, 1),
    (24, 3, 3, 2, 6),
    (48, 3, 5, 2, 6),
    (88, 4, 3, 2, 6),
    (120, 4, 5, 1, 6),
    (208, 5, 5, 2, 6),
    (352, 2, 3, 1, 6),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does, the odd pixel right and below: [B,C,H,W] -> [B,C',H/s,W/s]."""

    def forward(self, maps: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        over = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (maps.shape[3], maps.shape[2])]
        return super().forward(F.pad(maps, [pad for total in over for pad in (total // 2, total - total // 2)]))


def convolution(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm with TensorFlow's epsilon."""
    layer = SameConv2d(before, after, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after, eps=1e-3))


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, weight the channels, narrow (Sandler et al. 2018): [B,C,H,W] -> [B,C',H/s,W/s]."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = before * expansion
        self.expand = convolution(before, hidden) if expansion > 1 else None
        self.depth = convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.squeeze, self.excite = nn.Conv2d(hidden, before // 4, 1), nn.Conv2d(before // 4, hidden, 1)
        self.project = convolution(hidden, after)
        self.keeps = before == after and stride == 1

    def forward(self, maps: Tensor) -> Tensor:
        # Six times the channels, then a convolution inside each: -> [B,6C,H/s,W/s]
        hidden = F.silu(self.depth(maps if self.expand is None else F.silu(self.expand(maps))))
        # One weight in (0, 1) for each channel
        weights = self.excite(F.silu(self.squeeze(hidden.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        # Narrow again: -> [B,C',H/s,W/s], added to the input where shapes agree
        hidden = self.project(hidden * weights)
        return hidden + maps if self.keeps else hidden


class EfficientNet(nn.Module):
    """EfficientNet with TensorFlow's padding, as pytorchcv's ``efficientnet_b2b``: [B,1,S,S] -> [B,7].

    ``stages``: (channels, blocks, kernel, stride, expansion) of each; ``stem`` and ``head``: channels before and after.
    """

    def __init__(
        self, stages: tuple[tuple[int, ...], ...] = B2, stem: int = 32, head: int = 1408, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.rgb, self.stem = GreyAsRgb(), convolution(3, stem, 3, 2)
        blocks, before = [], stem
        for channels, count, kernel, stride, expansion in stages:
            for number in range(count):
                blocks.append(InvertedResidual(before, channels, kernel, 1 if number else stride, expansion))
                before = channels
        self.blocks, self.head = nn.Sequential(*blocks), convolution(before, head)
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(head, 7)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        # Three equal channels: [B,1,224,224] -> [B,32,112,112]
        maps = F.silu(self.stem(self.rgb(images)))
        # 23 inverted residual blocks: -> [B,352,7,7], widened: -> [B,1408,7,7]
        maps = F.silu(self.head(self.blocks(maps)))
        # The mean over the map, dropout, one linear layer: -> [B,1408] -> [B,7]
        return self.fc(self.dropout(maps.mean(dim=(2, 3))))

    def load_pretrained(self, state: State) -> None:
        """Everything but the last layer, under pytorchcv's names."""
        pretrained.fill_(self, from_pytorchcv_efficientnet(state), leave=("fc.",), where="EfficientNet-B2b")


EFFICIENTNET: Rules = (
    (r"^features\.init_block\.conv\.(conv|bn)\.", r"stem.\1."),
    (r"^features\.final_block\.(conv|bn)\.", r"head.\1."),
    (r"\.se\.conv1\.", ".squeeze."),
    (r"\.se\.conv2\.", ".excite."),
    (r"\.dw_conv\.", ".depth."),
    (r"\.(pw_conv|conv3)\.(conv|bn)\.", r".project.\2."),
    (r"\.conv1\.(conv|bn)\.", r".expand.\1."),
    (r"\.conv2\.(conv|bn)\.", r".depth.\1."),
    (r"\.conv\.", ".0."),
    (r"\.bn\.", ".1."),
    (r"^output\.fc\.", "fc."),
)


def from_pytorchcv_efficientnet(state: State) -> dict[str, Tensor]:
    """``features.stage2.unit1.conv1.conv.weight`` -> ``blocks.2.expand.0.weight``: blocks are counted through."""
    unit = r"^features\.(stage\d\.unit\d+)\."
    units = list(dict.fromkeys(found[1] for name in state if (found := re.match(unit, name))))
    return renamed(state, [(unit, lambda found: f"blocks.{units.index(found[1])}."), *EFFICIENTNET])
