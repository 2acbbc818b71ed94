"""Write a network as a folder that timm reads: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from senet.utils.files import atomic_path
from senet.weights.export import Exported

__all__ = ["write_timm_folder"]

# Of `pretrained_cfg`: how images are prepared. What else timm has of a network stays its own.
_PREPROCESSING = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def write_timm_folder(exported: Exported, folder: str | PathLike[str], cfg: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` in the form that timm and the hub read.

    Args:
        exported: weights of `export_weights(model, "timm")`.
        folder: is created if it does not exist; other files in it stay.
        cfg: `pretrained_cfg` of the network: the preprocessing, and class names.

    Raises:
        OSError: a file cannot be written.
    """
    import timm
    from timm.models import save_for_hf

    network = timm.create_model(exported.network, **exported.options)
    network.load_state_dict(exported.tensors, strict=True)
    config: dict[str, Any] = {"pretrained_cfg": {key: cfg[key] for key in _PREPROCESSING if key in cfg}}
    if cfg.get("label_names"):
        config["label_names"] = [str(name) for name in cfg["label_names"]]
    options = {key: value for key, value in exported.options.items() if key != "num_classes"}
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        save_for_hf(network, temporary, model_config=config, model_args=options or None, safe_serialization=True)
        for name in ("model.safetensors", "config.json"):  # the weights first: where config.json is, both are
            with atomic_path(target / name) as path:
                path.write_bytes(Path(temporary, name).read_bytes())
