"""The weights that LHC-Net's authors published, and how they become those of our network."""

from __future__ import annotations

import re

import torch

from fer_repro.papers.base import Released, State
from fer_repro.pretrained import keras

# The blocks of channel attention stand behind the stem and behind the last unit of each stage.
PLACES = ("conv1", "conv2_3", "conv3_4", "conv4_6", "conv5_3")
UNIT = {"bn1": "norm1", "conv1": "conv1", "bn2": "norm2", "conv2": "conv2", "convId": "shortcut"}


def _arranged(state: State) -> State:
    """Torch's layouts, without what TensorFlow adds to names; the linear layers of a block's heads in one tensor."""
    plain = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE").removesuffix(":0"): part for name, part in state.items()}
    named = keras.as_torch(plain)
    for place in PLACES:
        for kind, ours in (("weight", "embed"), ("bias", "embed_bias")):
            path, heads = f"{place}/LHC_Module/Wqk", []
            while f"{path}/{len(heads)}.{kind}" in named:
                heads.append(named[f"{path}/{len(heads)}.{kind}"])
            if len({head.shape for head in heads}) == 1:
                named = {name: part for name, part in named.items() if not re.match(rf"{path}/\d+\.{kind}$", name)}
                named[f"{place}/LHC_Module/{ours}"] = torch.stack(heads)
    return named


def _block(found: re.Match[str]) -> str:
    return f"blocks.{PLACES.index(found[1])}."


RELEASED = Released(
    at="Dropbox (addresses in Download_Models.py of the repository), a TensorFlow checkpoint: where TensorFlow is "
    "installed, write what tf.train.load_checkpoint reads into an .npz file, every variable under its name",
    url="https://github.com/Bodhis4ttva/LHC_Net",
    file="LHC_Net.index and LHC_Net.data-00000-of-00001",
    licence="MIT (the repository)",
    trained_on="Training",
    selected_on="PublicTest; its backbone is one of an unknown number, by which images chosen is unknown",
    drop=r"^save_counter|^_CHECKPOINTABLE|OPTIMIZER|^optimizer",
    arrange=_arranged,
    rename=(
        (rf"^({'|'.join(PLACES)})/LHC_Module/", _block),
        (r"^(blocks\.\d)\.Wv\.", r"\1.value."),
        (r"^(blocks\.\d)\.Wp\.", r"\1.exponent."),
        (r"^conv1/bn1\.bias$", "stem.1.shift"),
        (r"^conv1/bn1\.", "stem.1.norm."),
        (r"^conv1/conv1\.", "stem.2."),
        (r"^conv1/bn2\.", "stem.3."),
        (
            rf"^conv([2-5])_(\d)/({'|'.join(UNIT)})\.",
            lambda found: f"stages.{int(found[1]) - 2}.{int(found[2]) - 1}.{UNIT[found[3]]}.",
        ),
        (r"^bn\.", "norm."),
        (r"^fc([1-3])\.", lambda found: f"head.{3 * (int(found[1]) - 1)}."),
    ),
)
