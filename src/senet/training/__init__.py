"""Recipes, and the loop that follows them."""

from senet.training.comparison import Arm, compare
from senet.training.loop import train
from senet.training.optimisation import lr_factor, make_optimiser
from senet.training.recipe import Recipe
from senet.training.recipe_file import list_recipes, load_recipe, recipe_heading, recipe_text, write_recipe
from senet.training.reporting import Epoch, Reporter, Run, Silent
from senet.training.runner import train_epoch
from senet.training.trainer import Trainer

__all__ = [
    "Arm",
    "Epoch",
    "Recipe",
    "Reporter",
    "Run",
    "Silent",
    "Trainer",
    "compare",
    "list_recipes",
    "load_recipe",
    "lr_factor",
    "make_optimiser",
    "recipe_heading",
    "recipe_text",
    "train",
    "train_epoch",
    "write_recipe",
]
