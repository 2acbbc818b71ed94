"""Plot the loss of training steps by their learning rate."""

from collections.abc import Sequence
from os import PathLike

from senet.utils.figure_style import BLUE, GREEN, GREY, VERMILLION, WIDTH, save_figure, styled

__all__ = ["draw_lr_curve"]

_LOSS, _SMOOTHED, _SUGGESTED, _RECIPE = GREY, BLUE, VERMILLION, GREEN


@styled
def draw_lr_curve(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    level: float,
    path: str | PathLike[str],
    title: str,
    *,
    suggestion: float | None,
    recipe_lr: float,
) -> None:
    """Plot the loss by the learning rate, which is on a logarithmic axis.

    Args:
        lrs: learning rate of each step, rising.
        losses: of the steps.
        smoothed: the losses, smoothed.
        level: the loss before the network learns; the axis ends a little above it, so that losses that diverge do not
            squash the rest.
        path: path of the PNG.
        title: title of the figure.
        suggestion: the learning rate to mark; None for none.
        recipe_lr: the recipe's, which is marked too.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(lrs, losses, ".", color=_LOSS, markersize=4, label="loss of a step")
    axes.plot(lrs, smoothed, color=_SMOOTHED, label="smoothed")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate (lr of the recipe)")
    axes.set_ylabel("training loss")
    low = min(smoothed)
    margin = max(level - low, 0.05 * abs(level))
    axes.set_ylim(low - 0.25 * margin, level + 0.75 * margin)
    axes.axvline(recipe_lr, color=_RECIPE, linestyle=":", label=f"the recipe's lr, {recipe_lr:.3g}")
    if suggestion is not None:
        axes.axvline(suggestion, color=_SUGGESTED, linestyle="--", label=f"halfway down, {suggestion:.3g}")
    axes.grid()
    axes.legend(loc="lower left")
    figure.suptitle(title, parse_math=False)
    save_figure(figure, path)
