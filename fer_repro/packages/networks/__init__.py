"""Our own networks of what packages carry, one file an architecture: written from the weights' shapes and the packages'
descriptions, each with the package's own preprocessing."""

from fer_repro.packages.networks import big_xception, dense_depthwise, keras_cnn, mini_xception, reflected_cnn, tanh_cnn
from fer_repro.packages.networks.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        mini_xception.FAMILY,
        big_xception.FAMILY,
        dense_depthwise.FAMILY,
        reflected_cnn.FAMILY,
        tanh_cnn.FAMILY,
        keras_cnn.MOOD,
        keras_cnn.EMOTION,
    )
}

__all__ = ["FAMILIES", "Family"]
