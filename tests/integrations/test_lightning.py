"""The Lightning callback, and the example that uses it, with Lightning itself."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import senet
from tests.helpers import shallow_resnet20
from tests.integrations.scripts import load_script
from tests.training.small import small_network

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning


def fit(folder: Path, module: Any, **options: Any) -> Any:
    import lightning.pytorch as pl

    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, default_root_dir=folder, enable_checkpointing=False, **quiet, **options)
    data = TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12) % 3)
    trainer.fit(module, DataLoader(data, 2))
    return trainer


def module_of(network: nn.Module) -> Any:
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    return Module()


def test_gates_go_to_the_loggers_by_optimizer_step(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    from senet.integrations.lightning import GateMonitorCallback

    network = small_network()
    callback = GateMonitorCallback(every=2, network="network")
    trainer = fit(
        tmp_path, module_of(network), logger=CSVLogger(tmp_path), callbacks=[callback], accumulate_grad_batches=2
    )
    with Path(trainer.logger.log_dir, "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["gates/layer1.0.bn2.se/mean"]]
    assert [row["step"] for row in rows] == ["1", "2"]  # six batches are three steps
    assert all(0 < float(row["gates/layer2.0.bn2.se/mean"]) < 1 for row in rows)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_without_se_is_refused(tmp_path: Path) -> None:
    from senet.integrations.lightning import GateMonitorCallback

    with pytest.raises(senet.GatesError, match="has no SE, and no gates to monitor"):
        fit(tmp_path, module_of(small_network(se=False)), logger=False, callbacks=[GateMonitorCallback()])


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shallow_resnet20():
        load_script("train_lightning").main(["--epochs", "2", "--images", "90", "--output", str(tmp_path)])
        loaded = senet.load(tmp_path / "se_resnet20.safetensors")
    assert loaded(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    metrics = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "accuracy" in metrics
    assert "gates/layer3.0.bn2.se/std_images" in metrics
    assert "accuracy" in capsys.readouterr().out
