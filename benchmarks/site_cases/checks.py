"""Check one network: where senet finds sites, what is wrong with them, and what SE does there."""

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import senet
from senet.utils.choices import Placement
from site_cases.cases import Case, judge

__all__ = ["Result", "check"]


@dataclass
class Result:
    """What was found in a network.

    Attributes:
        sites: number of standard sites.
        rules: how many were found by each rule.
        placements: number of sites of each placement that there is.
        refusal: the message with which the network is refused.
        wrong: sites at no expected place.
        missing: blocks without a site.
        failed: what did not hold after SE was inserted.
    """

    sites: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    placements: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    wrong: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def verdict(self, case: Case) -> str:
        """Return "sensible", "wrong", "incomplete", "refused" or "failed"."""
        if self.failed:
            return "failed"
        if case.refused:
            return "refused" if case.refused in self.refusal else "wrong"
        if self.refusal:
            return "refused"
        return "wrong" if self.wrong else "incomplete" if self.missing else "sensible"

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def check(case: Case) -> Result:
    """Find the sites of a network, compare them with the expectation, insert SE and check what it does."""
    torch.manual_seed(0)
    model = randomized(case.build()).eval()
    options = {"example": case.inputs()} if case.example else {}
    result = Result()
    try:
        sites = senet.find_sites(model, **options)
    except ValueError as error:
        result.refusal = str(error)
        judge(model, case.blocks, [])  # the expectation fits the network
        return result
    result.sites = len(sites)
    for site in sites:
        rule = getattr(site, "rule", "table")
        result.rules[rule] = result.rules.get(rule, 0) + 1
    verdict = judge(model, case.blocks, [site.name for site in sites])
    result.wrong, result.missing = list(verdict.wrong), list(verdict.missing)
    for placement in get_args(Placement):
        with suppress(ValueError):
            result.placements[placement] = len(senet.find_sites(model, placement, **options))
    result.failed = list(_failures(case, model, options))
    return result


def randomized(model: nn.Module) -> nn.Module:
    """Give a network weights like those of a trained one: branches that start at zero, and statistics, get values."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.detach().any():
            parameter.detach().copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
            assert module.running_var is not None
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model


def _failures(case: Case, model: nn.Module, options: dict[str, Any]) -> Iterator[str]:
    """Yield what does not hold after SE was inserted into a network, and after it was removed."""
    inputs = case.inputs()
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = _outputs(model, args)
    senet.insert(model, reduction=4, init="identity", **options)
    if not _equal(before, _outputs(model, args)):
        yield "outputs differ in evaluation"
    if set(state) - set(model.state_dict()):
        yield "plain keys are lost"
    copy = deepcopy(model)
    if not _equal(before, _outputs(copy, args)):
        yield "outputs of a copy differ"
    silent = _silent(case, copy, args)
    if silent:
        yield f"{len(silent)} gates have no gradient, such as {silent[0]}"
    senet.remove(model)
    if list(state) != list(model.state_dict()) or not _equal(list(state.values()), list(model.state_dict().values())):
        yield "removal leaves other keys or tensors"


def _outputs(model: nn.Module, args: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(_plain(model(*deepcopy(args)))) if isinstance(leaf, Tensor)]


def _plain(output: Any) -> Any:
    """Return the mapping that an output of Hugging Face is."""
    return dict(output) if hasattr(output, "keys") else output


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def _silent(case: Case, model: nn.Module, args: tuple[Any, ...]) -> list[str]:
    """Return the names of SE whose last layer has no gradient from the first step."""
    model.train(case.training is not None)
    output = model(*(case.training() if case.training is not None else deepcopy(args)))
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for leaf in tree_leaves(_plain(output)):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            loss = loss + (leaf * torch.rand(leaf.shape, generator=generator)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, senet.SqueezeExcitation)
        and not any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
    ]
