"""Training recipes: their keys with types and limits, TOML files, the built-in recipes, and the network of a recipe.

Imports `senet.data`, `senet.models` and `senet.utils`. Imported by runs, training, studies and the command line.
"""

from senet.recipes.network import create_network
from senet.recipes.recipe import Recipe
from senet.recipes.toml import apply_settings, list_recipes, load_recipe, recipe_heading, recipe_text, write_recipe

__all__ = [
    "Recipe",
    "apply_settings",
    "create_network",
    "list_recipes",
    "load_recipe",
    "recipe_heading",
    "recipe_text",
    "write_recipe",
]
