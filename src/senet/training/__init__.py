"""Recipes, and the loop that follows them."""

from senet.training.loop import Epoch, Reporter, Run, Silent, train, train_epoch
from senet.training.optimisation import lr_factor, make_optimiser
from senet.training.recipe import Recipe, list_recipes, load_recipe, write_recipe

__all__ = [
    "Epoch",
    "Recipe",
    "Reporter",
    "Run",
    "Silent",
    "list_recipes",
    "load_recipe",
    "lr_factor",
    "make_optimiser",
    "train",
    "train_epoch",
    "write_recipe",
]
