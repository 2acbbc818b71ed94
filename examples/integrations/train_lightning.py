"""Train an SE network with Lightning, and log its gates: the lines with senet are marked.

    python examples/integrations/train_lightning.py --output runs/lightning

Needs the extras `demo` and `lightning`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

import senet
from senet.integrations.lightning import GateMonitorCallback


class Classifier(pl.LightningModule):
    """A classifier with cross entropy and SGD."""

    def __init__(self, network: torch.nn.Module, lr: float, steps: int) -> None:
        super().__init__()
        self.network, self.lr, self.steps = network, lr, steps

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.network(images).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        groups = senet.param_groups(self.network, lr=self.lr, weight_decay=1e-4)  # 1: no weight decay of biases
        optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; returns the validation accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--images", type=int, help="use the first images only")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)

    pl.seed_everything(0)
    digits = load_digits()  # 1,797 images of 8x8
    images = torch.tensor(digits.images[: args.images], dtype=torch.float32)[:, None] / 16
    data = TensorDataset(images, torch.tensor(digits.target[: args.images]))
    train, val = random_split(data, [0.8, 0.2])
    loaders = DataLoader(train, args.batch_size, shuffle=True), DataLoader(val, args.batch_size)

    network = senet.create_model("se_resnet20", num_classes=10, in_channels=1)  # 2: or senet.insert(your_network)
    module = Classifier(network, args.lr, args.epochs * len(loaders[0]))
    trainer = pl.Trainer(
        max_epochs=args.epochs,
        default_root_dir=args.output,
        logger=CSVLogger(args.output),
        log_every_n_steps=5,
        callbacks=[GateMonitorCallback(every=10, network="network")],  # 3: gates go to the trainer's loggers
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders)
    senet.save(network, args.output / "se_resnet20.safetensors")  # 4: one file, which senet.load reads
    accuracy = float(trainer.callback_metrics["accuracy"])
    print(f"accuracy {100 * accuracy:.1f} %; metrics and gates: {trainer.logger.log_dir}/metrics.csv")
    return accuracy


if __name__ == "__main__":
    main()
