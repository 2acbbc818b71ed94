import math
from typing import Any

import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from senet.training.masking import MaskedOptimizer, Saved, cancel_where

KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8]


def of_all_kinds() -> list[Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(2, 3, 4, 5).mul(50).to(kind) for kind in KINDS]
    made[0] = made[0].to(memory_format=torch.channels_last)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45])
    return [*made, torch.tensor(3), torch.tensor(2.5), torch.empty(0), special, torch.randn(4, 6).T]


def bits(tensors: list[Tensor]) -> list[bytes]:
    return [bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist()) for tensor in tensors]


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("on_device", [False, True])
def test_saved_tensors_are_set_back_where_a_flag_says_so(cancelled: bool, on_device: bool) -> None:
    tensors = of_all_kinds()
    saved = Saved(tensors)
    saved.save()
    before = bits(tensors)
    for tensor in tensors:
        tensor.fill_(1 if tensor.dtype in (torch.int64, torch.bool, torch.uint8) else math.nan)
    after = bits(tensors)
    saved.restore(torch.tensor(cancelled) if on_device else cancelled)
    assert bits(tensors) == (before if cancelled else after)
    assert before != after


@pytest.mark.parametrize("cancelled", [False, True])
def test_an_update_is_cancelled_bit_for_bit(cancelled: bool) -> None:
    """Among them a tensor that the update replaces, and values that the update makes nan, or that were nan."""
    tensors = of_all_kinds()
    before, after = bits(tensors), bits(tensors[::-1])

    def update() -> None:
        tensors[0] = tensors[0] * math.nan
        for tensor in tensors[1:]:
            tensor.zero_()

    after = bits([tensors[0] * math.nan, *(torch.zeros_like(tensor) for tensor in tensors[1:])])
    cancel_where(lambda: tensors, torch.tensor(cancelled), update)
    assert bits(tensors) == (before if cancelled else after)


def test_an_update_that_makes_tensors_is_refused() -> None:
    tensors = [torch.zeros(2)]
    with pytest.raises(RuntimeError, match="an update changed the number of tensors"):
        cancel_where(lambda: tensors, torch.tensor(True), lambda: tensors.append(torch.zeros(1)))


# --- Optimizers


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "fused sgd": {"opt": "momentum", "fused": True},
    "fused adamw": {"opt": "adamw", "fused": True},
    "fused adagrad": {"opt": "adagrad", "fused": True},
    **{name: {"opt": name} for name in ("sgd", "adamw", "adopt", "lamb", "lion", "lars", "rmsproptf", "radam", "muon")},
    **{name: {"opt": name} for name in ("adafactorbv", "nadam", "sgdp")},
}
# Of these, steps are counted in Python.
COUNTING = ("adan", "adafactor", "adabelief", "madgrad", "novograd", "mars", "laprop")


def optimizer_of(options: dict[str, Any]) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (3,), (2, 3, 3, 3))]
    made = create_optimizer_v2(
        [{"params": parameters, "weight_decay": 0.1}], lr=0.1, momentum=0.9, filter_bias_and_bn=False, **options
    )
    return made, parameters


def give_gradients(parameters: list[nn.Parameter], step: int, value: float = 1.0) -> None:
    torch.manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * value


def state_of(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> list[bytes]:
    values = [*parameters, *(value for state in optimizer.state.values() for value in state.values())]
    values += [value for group in optimizer.param_groups for value in group.values()]
    return bits([value.detach() for value in values if isinstance(value, Tensor)])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cancelled_steps_leave_no_trace(name: str) -> None:
    """Steps 2 and 4 are cancelled, their gradients nan: afterwards all is as after the others alone."""
    found = []
    for masked in (True, False):
        optimizer, parameters = optimizer_of(OPTIMIZERS[name])
        steps = MaskedOptimizer(optimizer)
        for step in range(6):
            bad = step in (2, 4)
            if bad and not masked:
                continue
            give_gradients(parameters, step, math.nan if bad else 1.0)
            assert steps.can_mask(True) == (step > 0)
            steps.step(torch.tensor(bad) if steps.can_mask(True) and masked else bad)
        found.append(state_of(optimizer, parameters))
    assert found[0] == found[1]


def test_counts_on_another_device_are_left_where_counts_do_not_matter() -> None:
    """As timm's LAMB keeps its count on the host, and the parameters are on a GPU."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=False)
    optimizer.param_groups[0]["step"] = torch.zeros((), device="meta")
    steps = MaskedOptimizer(optimizer)
    parameter.grad = torch.ones(2)
    steps.step(False)
    assert not steps.can_mask(True)
    assert steps.can_mask(False)
    changed = [parameter.detach(), optimizer.state[parameter]["momentum_buffer"]]
    before = bits(changed)
    # Of no size that has integers: whoever looks at its bits fails, as a flag of a GPU does with a tensor of the host.
    optimizer.param_groups[0]["step"] = torch.zeros((), device="meta", dtype=torch.complex128)
    steps.step(torch.tensor(True))
    assert bits(changed) == before
    steps.step(torch.tensor(False))
    assert all(now != then for now, then in zip(bits(changed), before, strict=True))


@pytest.mark.parametrize("name", COUNTING)
def test_optimizers_that_count_in_python_are_masked_where_counts_do_not_matter(name: str) -> None:
    """No step follows the cancelled step of a run that stops: parameters stay unchanged."""
    optimizer, parameters = optimizer_of({"opt": name})
    steps = MaskedOptimizer(optimizer)
    give_gradients(parameters, 0)
    steps.step(False)
    assert not steps.can_mask(True)
    assert steps.can_mask(False)
    before = bits([p.detach() for p in parameters])
    give_gradients(parameters, 1, math.nan)
    steps.step(torch.tensor(True))
    assert bits([p.detach() for p in parameters]) == before
    give_gradients(parameters, 2)
    steps.step(torch.tensor(False))
    assert bits([p.detach() for p in parameters]) != before


@pytest.mark.parametrize("name", ["fused sgd", "adamw"])
def test_no_step_is_masked_before_the_state_is_there(name: str) -> None:
    optimizer, parameters = optimizer_of(OPTIMIZERS[name])
    steps = MaskedOptimizer(optimizer)
    assert not steps.can_mask(False)
    give_gradients(parameters, 0, math.nan)
    steps.step(True)
    assert not steps.can_mask(False)
    assert not optimizer.state
    parameters[0].requires_grad_(False)
    give_gradients(parameters[1:], 1)
    parameters[0].grad = None
    steps.step(False)
    assert steps.can_mask(False)
    parameters[0].requires_grad_(True)
    assert not steps.can_mask(False)


def test_a_state_on_another_device_counts_as_the_hosts() -> None:
    """As PyTorch's Adam keeps its counts on the CPU unless it is fused."""
    optimizer, parameters = optimizer_of({"opt": "adamw"})
    steps = MaskedOptimizer(optimizer)
    give_gradients(parameters, 0)
    step = optimizer.step

    def elsewhere() -> None:
        step()
        for state in optimizer.state.values():
            state["step"] = state["step"].to("meta")

    optimizer.step = elsewhere  # type: ignore[method-assign, assignment]
    steps.step(False)
    assert not steps.can_mask(True)
    assert steps.can_mask(False)
