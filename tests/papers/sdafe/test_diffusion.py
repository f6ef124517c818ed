"""The small diffusion model: its size, its noise, its steps against diffusers', and whether it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from apple_gpu import WithoutFloat64, exact_there

from fer_repro.errors import FerReproError
from fer_repro.evaluation.cost import count_multiply_adds, count_parameters
from fer_repro.papers.sdafe import diffusion, training
from fer_repro.papers.sdafe.diffusion import NoiseLoss, Unet
from fer_repro.papers.sdafe.training import ClassSampler

TINY = {"base": 8, "widths": (1, 2), "blocks": 1, "heads": 2, "dropout": 0.0}


@pytest.mark.parametrize(("base", "parameters"), [(64, 16_431_937), (48, 9_546_993)])
def test_parameters(base, parameters):
    with torch.device("meta"):
        assert count_parameters(Unet(base=base)) == parameters


def test_operations_of_one_face():
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = Unet()

        def forward(self, images):
            one = torch.zeros(len(images), dtype=torch.long, device=images.device)
            return self.network(images, one, one)

    with torch.device("meta"):
        network = Whole()
    assert 2 * count_multiply_adds(network, (1, 1, 48, 48)) == pytest.approx(9.71e9, rel=0.01)


def test_shapes_and_conditions():
    torch.manual_seed(0)
    network = Unet(**TINY).eval()
    torch.nn.init.normal_(network.down[0][0].conv2.weight)  # blocks start as their shortcuts, without the condition
    noisy, level = torch.randn(3, 1, 24, 24), torch.tensor([0, 500, 999])
    given = network(noisy, level, torch.tensor([0, 1, 2]))
    assert given.shape == noisy.shape
    assert not torch.allclose(given, network(noisy, level, torch.full((3,), 7)))
    assert not torch.allclose(given, network(noisy, level.flip(0), torch.tensor([0, 1, 2])))


def test_the_schedule_and_the_steps_are_those_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", clip_sample=True, set_alpha_to_one=True, timestep_spacing="trailing"
    )
    left = diffusion.signal_left()
    torch.testing.assert_close(left, theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)
    theirs.set_timesteps(50)
    levels = diffusion.noise_levels(0.6, 50)
    assert len(levels) == 30 and theirs.timesteps.tolist()[20:] == levels and levels[0] == 599
    torch.manual_seed(0)
    now = torch.randn(2, 1, 8, 8)
    for before, after in zip(levels, [*levels[1:], None], strict=True):
        noise = torch.randn(2, 1, 8, 8)
        ours = diffusion.ddim(now, noise, left[before].item(), 1.0 if after is None else left[after].item())
        now = theirs.step(noise, before, now, eta=0.0, use_clipped_model_output=True).prev_sample
        torch.testing.assert_close(ours, now, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("strength", "grid"), [(0.0, 50), (1.1, 50), (0.001, 50), (0.5, 0), (0.5, 2000)])
def test_a_strength_without_a_step_is_refused(strength, grid):
    with pytest.raises(FerReproError, match="strength"):
        diffusion.noise_levels(strength, grid)


class Oracle(torch.nn.Module):
    """Knows the face of every class, so its noise is exact, and so is the result of an edit."""

    def __init__(self, known):
        super().__init__()
        self.known, self.left = known, diffusion.signal_left()

    def forward(self, noisy, level, label):
        left = self.left[level].view(-1, 1, 1, 1)
        return (noisy - left.sqrt() * self.known[label]) / (1 - left).sqrt()


def test_an_edit_ends_at_the_wanted_class(few_synthetic):
    known = diffusion.as_signal(torch.tensor(np.asarray(few_synthetic.images[:8])), 48)
    sources = torch.tensor(np.asarray(few_synthetic.images[20:23]))
    classes, noise = torch.tensor([4, 0, 2]), diffusion.start_noise(np.arange(3), 48)
    made = diffusion.edit(Oracle(known), sources, classes, noise, strength=0.6, grid=10, guidance=1.0)
    assert (made.int() - torch.tensor(few_synthetic.images[:8])[classes].int()).abs().max() <= 1
    # without guidance the class has no effect: everything becomes the face of "no class"
    made = diffusion.edit(Oracle(known), sources, classes, noise, strength=0.6, grid=10, guidance=0.0)
    assert (made.int() - torch.tensor(few_synthetic.images[7]).int()).abs().max() <= 1


def test_less_strength_stays_nearer_to_the_source(few_synthetic):
    torch.manual_seed(0)
    network, sources = Unet(**TINY).eval(), torch.tensor(np.asarray(few_synthetic.images[:4]))
    noise = diffusion.start_noise(np.arange(4), 24)
    errors = [
        (diffusion.edit(network, sources, torch.zeros(4, dtype=torch.long), noise, strength, 10, 1.0).float() - sources)
        .abs()
        .mean()
        .item()
        for strength in (0.1, 0.5, 0.9)
    ]
    assert errors == sorted(errors) and errors[0] < errors[2] / 1.5


def test_noise_depends_on_the_seed_and_not_on_the_position():
    both = diffusion.start_noise(np.array([5, 2**31 - 1]), 24)
    assert torch.equal(both[1:], diffusion.start_noise(np.array([2**31 - 1]), 24))
    assert not torch.equal(both[0], both[1])
    assert abs(both.mean().item()) < 0.1 and both.std().item() == pytest.approx(1, abs=0.1)


def test_pixels_survive_both_conversions(few_synthetic):
    faces = torch.tensor(np.asarray(few_synthetic.images[:5]))
    assert torch.equal(diffusion.as_images(diffusion.as_signal(faces, 48)), faces)
    small = diffusion.as_signal(faces, 24)
    assert small.shape == (5, 1, 24, 24) and small.abs().max() <= 1
    assert (diffusion.as_images(small).float() - faces).abs().mean() < 12


def test_half_a_batch_has_the_datas_proportions_and_half_balanced_ones():
    labels = torch.tensor([0] * 90 + [1] * 10)
    draws = labels[ClassSampler(labels, 20_000, balanced=0.5)(torch.Generator().manual_seed(0))]
    assert draws.float().mean().item() == pytest.approx(0.5 * 0.1 + 0.5 * 0.5, abs=0.015)
    draws = labels[ClassSampler(labels, 20_000, balanced=1.0)(torch.Generator().manual_seed(0))]
    assert draws.float().mean().item() == pytest.approx(0.5, abs=0.015)


def test_batches_are_sampled_on_a_device_without_float64(monkeypatch):
    labels = torch.arange(7).repeat_interleave(torch.tensor([3995, 436, 4097, 7215, 4830, 3171, 4965]))
    monkeypatch.setattr(training, "exact", exact_there)
    with WithoutFloat64():
        chosen = ClassSampler(labels, 200_000, balanced=1.0)(torch.Generator().manual_seed(0))
    assert chosen.max() < len(labels) and chosen.unique().numel() > 0.95 * len(labels)
    assert labels[chosen].bincount().div(200_000).tolist() == pytest.approx([1 / 7] * 7, abs=0.005)


def test_it_learns_to_predict_the_noise(few_synthetic):
    torch.manual_seed(0)
    faces, labels = torch.tensor(np.asarray(few_synthetic.images[:40])), torch.tensor(few_synthetic.labels[:40])
    network, generator = Unet(**TINY), torch.Generator().manual_seed(0)
    loss_of = NoiseLoss(faces, labels, 24, 6, silent=0.1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    losses = []
    for _ in range(30):
        loss = loss_of(network, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.7 and np.mean(losses[-10:]) < 0.4
