"""Model cards: what a network is, what SE costs in it, its errors, and how to load it, as Markdown with metadata."""

from typing import TYPE_CHECKING, Any

from torch import nn

from senet.costs.cost import cost
from senet.evaluation import Evaluation
from senet.nn.inserted_se import find_inserted_se
from senet.utils.errors import ModelFileError
from senet.utils.templates import render

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

__all__ = ["model_card"]


def model_card(
    model: nn.Module,
    repo: str,
    *,
    evaluation: Evaluation | None = None,
    data: str | None = None,
    license: str | None = None,
) -> str:
    """Return the model card of a network, as Markdown.

    Args:
        model: a network that `senet.save` can write.
        repo: repository of the network, "OWNER/NAME".
        evaluation, data, license: see `senet.push_to_hub`.

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
    return render(
        "senet",
        "model_card.md.jinja",
        metadata=_metadata(name, bool(blocks), evaluation, data, license),
        title=repo.partition("/")[2],
        repo=repo,
        name=name,
        classes=cfg["num_classes"],
        blocks=blocks,
        cost=cost(model, cfg["input_size"], activations=False),
        evaluation=evaluation,
        data=data,
        size="x".join(str(n) for n in cfg["input_size"][1:]),
        crop=f"{100 * cfg['crop_pct']:g}",
        mean=_numbers(cfg["mean"]),
        std=_numbers(cfg["std"]),
    )


def _metadata(
    name: str, has_se: bool, evaluation: Evaluation | None, data: str | None, license: str | None
) -> "ModelCardData":
    """Return the card's metadata; its text is YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if evaluation is not None and data is not None:
        results = [
            EvalResult(
                "image-classification", "custom", data, f"top-{k} error", round(error, 2), metric_name=f"Top-{k}"
            )
            for k, error in ((1, evaluation.top1_error), (5, evaluation.top5_error))
        ]
    return ModelCardData(
        library_name="senet",
        pipeline_tag="image-classification",
        tags=["squeeze-and-excitation"] if has_se else ["plain-twin"],
        license=license,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
