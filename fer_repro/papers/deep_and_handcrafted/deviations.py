"""Where the recipes of "Local Learning with Deep and Handcrafted Features" differ from the paper, and why."""

from fer_repro.local_learning import LEARNING_DEVIATIONS
from fer_repro.recipe import Deviation

COMMON = (
    Deviation(
        "body, not read",
        "architectures, augmentation, stages and learning rates follow two third-party implementations",
        "the paper's text could not be read; where both agree on an unusual number it is probably the paper's",
    ),
    Deviation(
        "body, not read",
        "the best epoch of all stages by accuracy on PublicTest is kept",
        "as in one third-party implementation; the paper's rule is unknown",
    ),
    Deviation(
        "body, not read",
        "the 48x48 face is enlarged by bilinear interpolation",
        "the interpolation is unknown; one third-party implementation repeats pixels",
    ),
    Deviation("both third-party implementations", "bf16 autocast on a GPU", "speed"),
)
SPARSE = (
    Deviation(
        "both third-party implementations",
        "the mask is set once, when a sparse stage starts, on weights only",
        "as Han et al. define it; one implementation sets it anew in every epoch and prunes biases, too",
    ),
    Deviation(
        "body, not read",
        "all stages after the first at a tenth of its learning rate, each from the best weights so far",
        "Han et al. name a tenth for the dense one; one implementation continues from the best weights",
    ),
)
PRETRAINED_FACE = Deviation(
    "body, not read",
    "fc6 and fc7 start from the pretrained file too, at a learning rate of 0.0001",
    "the rate of one third-party implementation; the other starts all three linear layers anew at 0.01",
)
PRETRAINED_F = (
    Deviation("body, not read", "a learning rate of 0.001", "the only one found, 0.01, belongs to random weights"),
    Deviation("MatConvNet's imagenet-vgg-f", "ImageNet's mean colour is subtracted", "instead of its mean image"),
)
FUSION = (
    Deviation(
        "body, not read",
        "every block, the visual words too, has length 1 and the same weight",
        "third-party code scales the words by their deviation; lengths and weights of the paper are unknown",
    ),
    Deviation(
        "body, not read",
        "a network describes a face by its last hidden layer, behind the ReLU, without dropout",
        "as third-party code does",
    ),
    Deviation("body, not read", "no class weights in the SVMs", "third-party code balances them; accuracy does not"),
    *LEARNING_DEVIATIONS,
)
CLAIMED_FUSION = (
    Deviation("body, not read", "k = 200, C = 100, all four blocks", "k and C as in third-party code"),
    Deviation(
        "body, not read",
        "the mirror image of every training face is in the pool, PublicTest is not",
        "whether either was so is unknown",
    ),
    Deviation(
        "body, not read",
        "vocabularies of 17,000, 14,000, 11,000 and 8,000 words, 16-pixel patches, each pixel",
        "as recalled of the 2013 entry; third-party code has 17,000, 14,000 and 8,000 on three levels",
    ),
)
OFFICIAL_FUSION = (
    Deviation(
        "body, not read",
        "blocks, k and C are chosen on PublicTest, blocks at k = 200 and C = 100",
        "what the paper chose them on is unknown",
    ),
    Deviation(
        "body, not read",
        "visual words as this book's run of the 2013 method has them",
        "patches, words and level weights were chosen on PublicTest there",
    ),
)

RANDOM = Deviation("pretraining", "joins networks that started from random weights", "the method without pretraining")
