"""Training recipes: every setting with its type and limits, TOML files, and the built-in recipes.

Imports `senet.data` and below. Runs, training and studies use it.
"""

from senet.recipes.recipe import Recipe
from senet.recipes.toml import apply_settings, list_recipes, load_recipe, recipe_heading, recipe_text, write_recipe

__all__ = [
    "Recipe",
    "apply_settings",
    "list_recipes",
    "load_recipe",
    "recipe_heading",
    "recipe_text",
    "write_recipe",
]
