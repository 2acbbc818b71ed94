"""Train an SE network with the Trainer of transformers, and log its gates: the lines with senet are marked.

    python examples/integrations/train_transformers.py --output runs/transformers

Needs the extra `demo`, and `pip install transformers accelerate`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import random_split
from transformers import Trainer, TrainerCallback, TrainingArguments

import senet


class Classifier(torch.nn.Module):
    """What a Trainer expects: images and labels by name, a loss and logits."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class GateLog(TrainerCallback):
    """Log the gates of the network to wherever the Trainer reports."""

    def __init__(self, trainer: Trainer, network: torch.nn.Module, every: int) -> None:
        self.monitor = senet.GateMonitor(network, lambda metrics, step: trainer.log(dict(metrics)), every=every)  # 1

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.monitor.step(state.global_step)  # 2

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.monitor.close()


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; returns the validation accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--images", type=int, help="use the first images only")
    parser.add_argument("--report-to", default="none", help="wandb, mlflow, trackio, tensorboard")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args(arguments)

    torch.manual_seed(0)
    digits = load_digits()  # 1,797 images of 8x8
    images = torch.tensor(digits.images[: args.images], dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target[: args.images])
    data: Any = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    train, val = random_split(data, [0.8, 0.2])

    network = senet.create_model("se_resnet20", num_classes=10, in_channels=1)  # 3: or senet.insert(your_network)
    settings = TrainingArguments(
        output_dir=str(args.output),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.lr,
        lr_scheduler_type="cosine",
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=10,
        report_to=args.report_to,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=Classifier(network),
        args=settings,
        train_dataset=train,
        eval_dataset=val,
        compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
    )
    trainer.add_callback(GateLog(trainer, network, every=10))
    trainer.train()
    senet.save(network, args.output / "se_resnet20.safetensors")  # 4: one file, which senet.load reads
    trainer.state.save_to_json(str(args.output / "trainer_state.json"))
    accuracy = float(trainer.evaluate()["eval_accuracy"])
    print(f"accuracy {100 * accuracy:.1f} %; metrics and gates: {args.output / 'trainer_state.json'}")
    return accuracy


if __name__ == "__main__":
    main()
