"""MixUp, CutMix and the soft cross entropy, against PySlowFast's values where they are deterministic."""

import numpy as np
import pytest
import torch

from tests.golden_json import load_json
from vidformers.engine.mixup import MixUp, soft_cross_entropy

GOLDEN = load_json("slowfast_data/mixup_softce.json")


def clips(batch=4):
    """Clips whose every value is their number in the batch."""
    return (
        torch.arange(batch, dtype=torch.float32)[:, None, None, None, None]
        .expand(batch, 3, 2, 20, 30)
        .clone()
    )


def generator(seed=0):
    return np.random.default_rng(seed)


def test_targets_are_pyslowfasts():
    mixup = MixUp(label_smoothing=GOLDEN["smoothing"], num_classes=GOLDEN["num_classes"])
    targets = mixup.targets(torch.tensor(GOLDEN["targets"]), GOLDEN["lam"])
    torch.testing.assert_close(targets, torch.tensor(GOLDEN["mixed_targets"]))


def test_soft_cross_entropy_is_pyslowfasts():
    loss = soft_cross_entropy(torch.tensor(GOLDEN["logits"]), torch.tensor(GOLDEN["mixed_targets"]))
    assert loss.item() == pytest.approx(GOLDEN["soft_ce_mean"], rel=1e-6)


def test_soft_cross_entropy_takes_labels_and_half_precision():
    logits, labels = torch.randn(3, 5), torch.tensor([0, 4, 2])
    one_hot = torch.eye(5)[labels]
    torch.testing.assert_close(soft_cross_entropy(logits, labels), soft_cross_entropy(logits, one_hot))
    assert soft_cross_entropy(logits.bfloat16(), one_hot).dtype == torch.float32


def test_mixup_mixes_a_clip_with_its_mirror():
    mixup = MixUp(cutmix_alpha=0.0, label_smoothing=0.0, num_classes=4)
    original = clips()
    mixed, targets = mixup(original, torch.arange(4), generator())
    torch.testing.assert_close(original, clips())
    lam = targets[0, 0].item()
    assert 0 < lam < 1
    assert targets[0].tolist() == pytest.approx([lam, 0, 0, 1 - lam])
    for i in range(4):
        torch.testing.assert_close(mixed[i], torch.full((3, 2, 20, 30), lam * i + (1 - lam) * (3 - i)))


def test_cutmix_pastes_a_box_and_counts_its_area():
    mixup = MixUp(alpha=0.0, label_smoothing=0.0, num_classes=4)
    random = generator()
    areas = set()
    for _ in range(20):
        mixed, targets = mixup(clips(), torch.arange(4), random)
        pasted = mixed[0] == 3
        torch.testing.assert_close(mixed[0], torch.where(pasted, 3.0, 0.0))
        assert (pasted == pasted[:1, :1]).all()  # the same box in every channel and frame
        rows, columns = pasted[0, 0].any(1), pasted[0, 0].any(0)
        assert torch.equal(pasted[0, 0], rows[:, None] & columns[None, :])
        area = pasted[0, 0].float().mean().item()
        assert targets[0].tolist() == pytest.approx([1 - area, 0, 0, area])
        areas.add(round(area, 3))
    assert len(areas) > 10


def test_both_alphas_switch_between_the_two():
    random = generator()
    mixup = MixUp(switch_prob=0.25, num_classes=4)
    pasted = 0
    for _ in range(200):
        mixed, _ = mixup(clips(), torch.arange(4), random)
        pasted += bool(((mixed[0] == 0) | (mixed[0] == 3)).all())
    assert 30 < pasted < 70


def test_prob_zero_only_smooths():
    mixup = MixUp(prob=0.0, label_smoothing=0.1, num_classes=4)
    mixed, targets = mixup(clips(), torch.tensor([0, 1, 2, 3]), generator())
    torch.testing.assert_close(mixed, clips())
    torch.testing.assert_close(targets, torch.eye(4) * 0.9 + 0.025)


def test_the_generator_decides_all():
    mixup = MixUp(num_classes=4)
    torch.manual_seed(1)
    first = mixup(clips(), torch.arange(4), generator(5))
    torch.manual_seed(2)
    second = mixup(clips(), torch.arange(4), generator(5))
    other = mixup(clips(), torch.arange(4), generator(6))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_something_to_mix_with_is_needed():
    with pytest.raises(ValueError, match="both 0"):
        MixUp(alpha=0.0, cutmix_alpha=0.0, num_classes=4)
    MixUp(alpha=0.0, cutmix_alpha=0.0, prob=0.0, num_classes=4)
