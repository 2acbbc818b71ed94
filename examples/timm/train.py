"""Train a network of timm in the style of timm's own train.py: the lines with senet are marked.

    python examples/timm/train.py IMAGES --model efficientnet_b0 --output runs/b0
    python examples/timm/train.py IMAGES --model efficientnet_b0 --output runs/b0 --resume runs/b0/last.pth.tar

IMAGES has folders train/CLASS and val/CLASS.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, CheckpointSaver, ModelEmaV3, accuracy, random_seed

import senet  # 1 of 2


def main(arguments: Sequence[str] | None = None) -> float:
    """Train; returns the best top-1 accuracy in percent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--model", default="efficientnet_b0")
    parser.add_argument("--num-classes", type=int, default=10)
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--opt", default="sgd")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--weight-decay", type=float, default=2e-5)
    parser.add_argument("--layer-decay", type=float)
    parser.add_argument("--drop-path", type=float)
    parser.add_argument("--model-ema", action="store_true")
    parser.add_argument("--amp-dtype", choices=["bfloat16"])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", default="")
    parser.add_argument("--no-fuse", action="store_true")
    args = parser.parse_args(arguments)

    random_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = timm.create_model(args.model, num_classes=args.num_classes, drop_path_rate=args.drop_path)
    model.to(device, memory_format=torch.channels_last)
    if not args.no_fuse:
        print(senet.fuse(model).fuse_report)  # 2 of 2

    optimizer = create_optimizer_v2(
        model, opt=args.opt, lr=args.lr, weight_decay=args.weight_decay, layer_decay=args.layer_decay
    )
    scheduler, epochs = create_scheduler_v2(optimizer, sched="cosine", num_epochs=args.epochs, min_lr=1e-5)
    start = (resume_checkpoint(model, args.resume, optimizer) or 0) if args.resume else 0
    ema = ModelEmaV3(model, decay=0.99) if args.model_ema else None
    if args.resume and ema is not None:
        load_checkpoint(ema.module, args.resume, use_ema=True)
    if scheduler is not None and start:
        scheduler.step(start)
    config = resolve_data_config({"img_size": args.img_size}, model=model)
    loaders = {
        split: create_loader(
            create_dataset("", root=str(args.images), split=split),
            batch_size=args.batch_size, is_training=split == "train", num_workers=args.workers, device=device,
            use_prefetcher=False, persistent_workers=False, pin_memory=False,
            **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
        )
        for split in ("train", "val")
    }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(args.output))
    best = 0.0
    for epoch in range(start, epochs):
        loss = train_one_epoch(model, loaders["train"], optimizer, ema, device, args.amp_dtype)
        best = max(best, validate(ema.module if ema else model, loaders["val"], device))
        saver.save_checkpoint(epoch, metric=best)
        if scheduler is not None:
            scheduler.step(epoch + 1)
        print(f"epoch {epoch}: loss {loss:.3f}, best top-1 {best:.1f} %")
    return best


def train_one_epoch(
    model: Any, loader: Any, optimizer: Any, ema: Any, device: torch.device, amp_dtype: str | None
) -> float:
    """Train for an epoch; returns the mean loss."""
    losses, loss_of = AverageMeter(), LabelSmoothingCrossEntropy(0.1)
    model.train()
    for images, labels in loader:
        images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
        with torch.autocast(device.type, getattr(torch, amp_dtype or "bfloat16"), enabled=amp_dtype is not None):
            loss = loss_of(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if ema is not None:
            ema.update(model)
        losses.update(loss.item(), len(images))
    return float(losses.avg)


@torch.no_grad()
def validate(model: Any, loader: Any, device: torch.device) -> float:
    """Return the top-1 accuracy in percent."""
    top1 = AverageMeter()
    model.eval()
    for images, labels in loader:
        (correct,) = accuracy(model(images.to(device)), labels.to(device), topk=(1,))
        top1.update(correct.item(), len(images))
    return float(top1.avg)


if __name__ == "__main__":
    main()
