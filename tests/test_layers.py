"""Layers that several papers share."""

import pytest
import torch

from fer_repro.errors import FerReproError
from fer_repro.layers import MaskingBlock


@pytest.mark.parametrize(("depth", "size"), [(1, 3), (2, 6), (3, 8)])
def test_a_softmax_mask_sums_to_one_over_the_channels(depth, size):
    torch.manual_seed(0)
    mask = MaskingBlock(4, depth).train()(torch.randn(2, 4, size, size))
    assert mask.shape == (2, 4, size, size)
    torch.testing.assert_close(mask.sum(dim=1), torch.ones(2, size, size))
    gated = MaskingBlock(4, depth, "sigmoid")(torch.randn(2, 4, size, size))
    assert not torch.allclose(gated.sum(dim=1), torch.ones(2, size, size))
    with pytest.raises(FerReproError, match="gate 'relu'"):
        MaskingBlock(4, depth, "relu")
