"""Model cards: what a network is, what SE costs in it, its errors, and how to load it, as Markdown with metadata."""

from typing import TYPE_CHECKING, Any

from torch import nn

from senet.costs.cost import cost
from senet.nn.inserted_se import find_inserted_se
from senet.tasks import Metric, Result, task_of
from senet.utils.choices import HubLibrary
from senet.utils.errors import ModelFileError
from senet.utils.templates import render

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = ["model_card"]


def model_card(
    model: nn.Module,
    repo: str,
    *,
    library: HubLibrary = "senet",
    evaluation: Result | None = None,
    data: str | None = None,
    license: str | None = None,
) -> str:
    """Return the model card of a network, as Markdown.

    Args:
        model: a network that `senet.save` can write.
        repo: repository of the network, "OWNER/NAME".
        library, evaluation, data, license: see `senet.push_to_hub`.

    Raises:
        ValueError: one of `evaluation` and `data` is given without the other.
        ModelFileError: the network is none of senet's named networks.
    """
    if (evaluation is None) != (data is None):
        raise ValueError(
            "evaluation= and data= go together: the errors, and the name of the data they were measured on"
        )
    described: Any = model
    if getattr(model, "architecture", None) is None:
        raise ModelFileError(f"a {type(model).__name__} is not one of senet's named networks, see senet.save")
    name, cfg, blocks = described.architecture["name"], described.pretrained_cfg, find_inserted_se(model)
    part = task_of(model).trunk(model)
    return render(
        "senet",
        "model_card.md.jinja",
        metadata=_metadata(
            library, task_of(model).pipeline, name, bool(blocks), _metrics(model, evaluation), data, license
        ),
        title=repo.partition("/")[2],
        repo=repo,
        library=library,
        name=name,
        classes=cfg["num_classes"],
        blocks=blocks,
        cost=cost(part, cfg["input_size"], activations=False),
        part=task_of(model).trunk_name,
        evaluation=evaluation,
        metrics=_metrics(model, evaluation),
        data=data,
        size="x".join(str(n) for n in cfg["input_size"][1:]),
        task=task_of(model),
        cfg=cfg,
        mean=_numbers(cfg["mean"]),
        std=_numbers(cfg["std"]),
    )


def _metadata(
    library: str,
    pipeline: str,
    name: str,
    has_se: bool,
    metrics: list[tuple[Metric, float]],
    data: str | None,
    license: str | None,
) -> "ModelCardData":
    """Return the card's metadata; its text is YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            pipeline,
            "custom",
            str(data),
            metric.name,
            round(value, metric.digits),
            metric_name=metric.name.removesuffix(" error").capitalize() if metric.name.islower() else metric.name,
        )
        for metric, value in metrics
    ]
    return ModelCardData(
        library_name=library,
        pipeline_tag=pipeline,
        tags=["squeeze-and-excitation"] if has_se else ["plain-twin"],
        license=license,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _metrics(model: nn.Module, evaluation: Result | None) -> list[tuple[Metric, float]]:
    """Return the metrics of an evaluation in the unit of the decisive one: without losses."""
    if evaluation is None:
        return []
    task = task_of(model)
    values = task.values(evaluation)
    return [(metric, values[metric.key]) for metric in task.validation if metric.unit == task.decisive.unit]


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
