"""A model that was not run says what a run would take and what it needs."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from fer_repro import papers
from fer_repro.campaign import hours
from fer_repro.claims import claim_of, leaderboard_claims
from fer_repro.page import cards, not_run
from fer_repro.page.cards import Verdict
from fer_repro.pretrained.addresses import address

ADDRESS = re.compile(r'<a href="https://')


def told(variant: str, *stored: str) -> dict[str, str]:
    runs = [SimpleNamespace(variant=name, protocol="official", storable=True) for name in stored]
    return dict(not_run.reasons(claim_of(variant), runs))


@pytest.mark.parametrize("name", leaderboard_claims())
def test_every_model_has_an_estimate_and_a_command(name):
    found = told(name)
    assert f"fer-repro run {name} --protocol official --profile full" in re.sub(r"<[^>]*>", "", found["To run it"])
    if papers.get(name).build is not None:
        assert re.match(r"[\d.]+ to [\d.]+ GPU hours", found["Would take"])
        assert "An estimate, not measured" in found["Would take"] and hours.ASSUMED.name in found["Would take"]
    needs = {papers.get(one).recipe("official", "full").pretrained for one in (name, *papers.needs(name))} - {None}
    assert len(ADDRESS.findall(found.get("Needs weights", ""))) == len(needs), "each file has an address"
    assert all(weights.file in found["Needs weights"] for weights in needs)


def test_a_method_without_a_network_has_no_gpu_hours():
    assert told("local-learning-bow")["Would take"].startswith("no GPU")


def test_weights_are_named_with_their_place_and_their_digest():
    found = told("efficientfer")
    words = found["Needs weights"]
    assert "EfficientNet_V2_S_Weights.IMAGENET1K_V1" in words and "sha256 begins with dd5fe13b" in words
    assert 'href="https://download.pytorch.org/models/efficientnet_v2_s-dd5fe13b.pth"' in words
    assert "--from-scratch" in found["To run it"] and "--from-scratch" not in told("vggnet")["To run it"]
    assert address(papers.get("emonext").recipe("official", "full").pretrained).endswith(
        "/timm/convnext_xlarge.fb_in22k"
    )
    assert "no digest is published" in told("emonext")["Needs weights"]


def test_private_data_and_a_missing_teacher_are_named():
    assert "images generated for the study" in told("efficientfer")["Other data"]
    assert told("efficientfer")["Other data"].endswith("a run here uses FER2013 alone")
    assert "faces that a generator trained on" in told("sdafe")["Other data"]
    assert told("ad-corre")["Other start"].endswith("ImageNet-1k (Xception); a run here starts from random weights")
    assert not any("Other start" in told(name) for name in ("vggnet", "emonext", "mini-resemotenet-a", "sdafe"))
    assert "Other data" not in told("vggnet") and "Other data" not in told("mini-resemotenet-a")
    assert "<code>resemotenet</code>: not run either" in told("mini-resemotenet-a")["Builds on"]
    assert "Builds on" not in told("mini-resemotenet-a", "resemotenet")


def test_hours_count_what_a_run_builds_on_until_that_is_there():
    alone = hours.gpu_hours("mini-resemotenet-b", "official", frozenset({"resemotenet"}))
    both = hours.gpu_hours("mini-resemotenet-b", "official")
    teacher = hours.gpu_hours("resemotenet", "official")
    assert both.low == pytest.approx(alone.low + teacher.low) and both.names == ("resemotenet", "mini-resemotenet-b")
    assert both.high / both.low == pytest.approx(hours.SHARES[1] / hours.SHARES[0])
    assert both.at_most and not hours.gpu_hours("vggnet", "official").at_most
    assert hours.gpu_hours("sdafe", "official").uncounted == ("sdafe-images",)


def test_hours_follow_from_the_operations_and_the_data_sheet():
    counted = hours._work("vggnet", "official")
    operations = counted.left(None) + counted.scoring
    assert hours.gpu_hours("vggnet", "official").low == pytest.approx(operations / (0.2 * 312e12) / 3600)


def test_one_run_is_a_seed_and_several_are_seeds():
    one = Verdict("below", "", "official", ("PrivateTest",), 0.5, (0.4, 0.6), (0,), (0.5,))
    assert cards._seeds(one) == ("Seed", "0 (one run)")
    two = Verdict("below", "", "official", ("PrivateTest",), 0.5, (0.4, 0.6), (0, 3), (0.49, 0.51), 0.01414)
    term, words = cards._seeds(two)
    assert term == "Seeds" and words.replace("\u00a0", " ") == (
        "0 (49.00 %), 3 (51.00 %); the number is the mean of 2 runs; standard deviation 1.41 points"
    )
