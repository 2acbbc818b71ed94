"""Networks on the Hugging Face hub: `push_to_hub` writes the file of `senet.save` and a model card beside it."""

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from senet.costs.cost import cost
from senet.evaluation.evaluate import Evaluation
from senet.model_file import save
from senet.nn.insertions import Insertion, insertions
from senet.utils.errors import ModelFileError, first_line
from senet.weights import HUB_FILES, is_repository

__all__ = ["model_card", "push_to_hub"]


def push_to_hub(
    model: nn.Module,
    repo: str,
    *,
    evaluation: Evaluation | None = None,
    data: str | None = None,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "Add the network and its model card",
) -> str:
    """Put a network on the hub, in one commit: the file that `senet.load("hf-hub:OWNER/NAME")` reads, and a model card.

    Args:
        model: a network that `senet.save` can write.
        repo: "OWNER/NAME"; made if it is not there.
        evaluation: errors of `senet.evaluate`, for the card.
        data: what they were measured on, as the card is to call it; needed with `evaluation`.
        license: of the weights, by the hub's short name, such as "apache-2.0".
        private: whether a new repository is.
        token: of the hub; that of `hf auth login` or `HF_TOKEN` unless given.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: `repo` is no "OWNER/NAME", or one of `evaluation` and `data` is given without the other.
        ModelFileError: the network cannot be written to a file, or the hub refuses; the message says why.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not is_repository(repo):
        raise ValueError(f"a repository is OWNER/NAME, as in 'someone/se_resnet50', got {repo!r}")
    card = model_card(model, repo, evaluation=evaluation, data=data, license=license)
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder, HUB_FILES[0]))
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)
        except HFValidationError as error:
            raise ValueError(f"{repo!r} is no repository's name: {error}") from error
        except (HfHubHTTPError, OSError) as error:
            reason = first_line(error)
            raise ModelFileError(f"the hub did not take {repo}: {reason}; see `hf auth login` and the name") from error


def model_card(
    model: nn.Module,
    repo: str,
    *,
    evaluation: Evaluation | None = None,
    data: str | None = None,
    license: str | None = None,
) -> str:
    """Markdown: what a network is, what SE costs in it, the errors that were measured, and how to load it.

    Args:
        model: a network that `senet.save` can write.
        repo: where it will be, "OWNER/NAME".
        evaluation, data, license: as in `push_to_hub`.

    Raises:
        ValueError: one of `evaluation` and `data` is given without the other.
        ModelFileError: the network has no name of senet's.
    """
    from huggingface_hub import EvalResult, ModelCardData

    if (evaluation is None) != (data is None):
        raise ValueError("evaluation= and data= go together: the errors, and the name of what they were measured on")
    described: Any = model
    if getattr(model, "architecture", None) is None:
        raise ModelFileError(f"a {type(model).__name__} is not one of senet's named networks, see senet.save")
    name, cfg, blocks = described.architecture["name"], described.pretrained_cfg, insertions(model)
    results = []
    if evaluation is not None and data is not None:
        results = [
            EvalResult(
                "image-classification", "custom", data, f"top-{k} error", round(error, 2), metric_name=f"Top-{k}"
            )
            for k, error in ((1, evaluation.top1_error), (5, evaluation.top5_error))
        ]
    metadata = ModelCardData(
        library_name="senet",
        pipeline_tag="image-classification",
        tags=["squeeze-and-excitation"] if blocks else ["plain-twin"],
        license=license,
        model_name=name if results else None,
        eval_results=results or None,
    )
    parts = [
        f"---\n{metadata}\n---",
        f"# {repo.partition('/')[2]}",
        _what(name, cfg["num_classes"], blocks),
        _cost_table(model, cfg),
    ]
    if evaluation is not None:
        parts.append(
            f"## Errors\n\nMeasured on {data}, {evaluation.images:,} images, one centre crop:\n\n"
            f"| top-1 error | top-5 error |\n|---:|---:|\n"
            f"| {evaluation.top1_error:.2f} % | {evaluation.top5_error:.2f} % |"
        )
    size = "x".join(str(n) for n in cfg["input_size"][1:])
    parts.append(
        f'## How to load it\n\n```python\nimport senet\n\nmodel = senet.load("hf-hub:{repo}")\n'
        f'senet.predict(model, ["image.jpg"])\n```\n\nImages are resized so that the centre crop of {size} is '
        f"{100 * cfg['crop_pct']:g} % of a side, scaled to 0 to 1, and normalised with mean {_list(cfg['mean'])} and "
        f"standard deviation {_list(cfg['std'])} of the channels; `senet.predict` and `senet.evaluate` do so."
    )
    return "\n\n".join(parts) + "\n"


def _what(name: str, classes: int, blocks: list[Insertion]) -> str:
    if not blocks:
        return f"The network `{name}`, {classes} classes, trained with [senet](https://pypi.org/project/senet/)."
    block = blocks[0].se
    return (
        f"`{name}` with Squeeze-and-Excitation (Hu et al., arXiv 1709.01507): {len(blocks)} blocks, squeeze "
        f"{block.squeeze}, gate {block.gate_name}; {classes} classes."
    )


def _cost_table(model: nn.Module, cfg: dict[str, Any]) -> str:
    found = cost(model, cfg["input_size"], activations=False)
    rows = [("whole", found.params, found.macs), ("of SE", found.se.params, found.se.macs)]
    lines = [f"| {what} | {params:,} | {macs / 1e9:.3f} |" for what, params, macs in rows]
    size = "x".join(str(n) for n in cfg["input_size"][1:])
    return "\n".join(["## Cost", "", f"| | parameters | GMACs at {size} |", "|---|---:|---:|", *lines])


def _list(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
