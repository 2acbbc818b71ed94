import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor, nn

from senet.tasks.multilabel.objective import BinaryLoss, asymmetric_loss
from senet.tasks.objective import ObjectiveContext
from tests.helpers import assert_close
from tests.training.small import small_recipe


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return 3 * torch.randn(6, 4, dtype=torch.float64), (torch.rand(6, 4) < 0.4).to(torch.uint8)


def objective(loss: str) -> BinaryLoss:
    return BinaryLoss(
        ObjectiveContext(
            settings=small_recipe(task="multilabel", loss=loss),
            model=nn.Identity(),
            classes=4,
            labels=batch()[1],
            device=torch.device("cpu"),
            dtype=torch.float64,
        )
    )


def test_the_loss_is_binary_cross_entropy_and_counts_wrong_labels() -> None:
    logits, labels = batch()
    loss, (wrong,) = objective("cross_entropy").loss(lambda images: images, logits, labels, labels)
    p = 1 / (1 + (-logits).exp())
    by_hand = -torch.where(labels.bool(), p, 1 - p).log()
    assert_close(loss, by_hand.sum() / 4, 1e-12)
    assert float(wrong) == pytest.approx(float(((p > 0.5) != labels.bool()).sum()) / 4)


@pytest.mark.parametrize("loss", ["cross_entropy", "asymmetric"])
def test_the_losses_of_parts_add_up(loss: str) -> None:
    """As the gradients of several processes, and of accumulated parts, must."""
    logits, labels = batch()
    one = objective(loss)
    whole, (wrong,) = one.loss(lambda images: images, logits, labels, labels)
    parts = [
        one.loss(lambda images: images, logits[some], labels[some], labels[some]) for some in (slice(2), slice(2, 6))
    ]
    assert_close(sum(part[0] for part in parts), whole, 1e-12)
    assert float(sum(part[1][0] for part in parts)) == pytest.approx(float(wrong))


def test_the_asymmetric_loss_is_timms() -> None:
    logits, labels = batch()
    leaf, other = (logits.float().requires_grad_() for _ in range(2))
    for row in range(len(logits)):  # of one image, timm's sum is the same with and without its division by the batch
        expected = AsymmetricLossMultiLabel()(other[row : row + 1], labels[row : row + 1].float())
        found = asymmetric_loss(leaf[row : row + 1], labels[row : row + 1].float()).sum()
        assert_close(found, expected, 1e-6)
        found.backward()
        expected.backward()
    assert leaf.grad is not None
    assert other.grad is not None
    assert_close(leaf.grad, other.grad, 1e-5)
