"""Networks on the Hugging Face hub: `push_to_hub` uploads a network, in senet's or timm's form, with a model card."""

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from senet.cards import model_card
from senet.model_file import save
from senet.tasks import Result
from senet.utils.choices import HubLibrary, check_choice
from senet.utils.errors import ModelFileError, first_line
from senet.weights import HUB_FILES, export_weights, is_repository, write_timm_folder

__all__ = ["push_to_hub"]


def push_to_hub(
    model: nn.Module,
    repo: str,
    *,
    library: HubLibrary = "senet",
    evaluation: Result | None = None,
    data: str | None = None,
    license: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "Add the network and its model card",
) -> str:
    """Upload a network and its model card to the hub in one commit.

    `senet.load("hf-hub:OWNER/NAME")` reads it; with `library="timm"` it is
    `timm.create_model("hf-hub:OWNER/NAME", pretrained=True)`.

    Args:
        model: a network that `senet.save` can write.
        repo: "OWNER/NAME"; the repository is created if it does not exist.
        library: whose form the files have. With "timm", which must have the network, a gain of SE is folded.
        evaluation: errors from `senet.evaluate`, for the card.
        data: name of the evaluation data, for the card; required with `evaluation`.
        license: license of the weights, by the hub's identifier, such as "apache-2.0".
        private: whether a new repository is private.
        token: token of the hub; the one of `hf auth login` or `HF_TOKEN` unless given.
        message: commit message.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: `repo` is not "OWNER/NAME", or one of `evaluation` and `data` is given without the other.
        ModelFileError: the network cannot be written to a file, timm does not have it, or the hub refuses the upload.

    Examples:
        >>> model = senet.create_model("se_resnet20", num_classes=2)
        >>>
        >>> url = senet.push_to_hub(model, "someone/cats", license="mit")
        >>> loaded = senet.load("hf-hub:someone/cats")
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    check_choice("library", library, HubLibrary)
    if not is_repository(repo):
        raise ValueError(f"invalid repository {repo!r}: expected OWNER/NAME, such as 'someone/se_resnet50'")
    card = model_card(model, repo, library=library, evaluation=evaluation, data=data, license=license)
    described: Any = model
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        if library == "timm":
            write_timm_folder(export_weights(model, "timm"), folder, described.pretrained_cfg)
        else:
            save(model, Path(folder, HUB_FILES[0]))
        Path(folder, "README.md").write_text(card, encoding="utf-8")
        try:
            api.create_repo(repo, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message).commit_url)
        except HFValidationError as error:
            raise ValueError(f"invalid repository {repo!r}: {error}") from error
        except (HfHubHTTPError, OSError) as error:
            raise ModelFileError(
                f"the hub refused the upload to {repo}: {first_line(error)}; check the name and `hf auth login`"
            ) from error
