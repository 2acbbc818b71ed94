"""The paper's data sets, recognized in runs by classes and numbers of images, not by name."""

import hashlib
from dataclasses import dataclass

from senet.runs.finished import FinishedRun

__all__ = ["DATA_SETS", "DataSet", "data_set_of", "training_images"]


@dataclass(frozen=True)
class DataSet:
    """A data set of the paper.

    Attributes:
        name: its name.
        spec: spec for `senet train --data`, with a placeholder in capitals for the folder.
        classes: number of classes.
        training, validation: numbers of images.
        names: names of the classes in order of their labels; empty where several sets of names are in use.
    """

    name: str
    spec: str
    classes: int
    training: int
    validation: int
    names: tuple[str, ...] = ()


_CIFAR_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
_CIFAR_10 = "airplane automobile bird cat deer dog frog horse ship truck"
# In the order of COCO's numbers; "_" is a space.
_COCO = """
    person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter bench
    bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee skis
    snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass cup fork
    knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed
    dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator book clock
    vase scissors teddy_bear hair_drier toothbrush
"""

IMAGENET = DataSet("ImageNet", "IMAGENET", 1000, 1_281_167, 50_000)
CIFAR_10 = DataSet("CIFAR-10", "'torchvision:CIFAR10?root=CIFAR'", 10, 50_000, 10_000, tuple(_CIFAR_10.split()))
CIFAR_100 = DataSet("CIFAR-100", "'torchvision:CIFAR100?root=CIFAR'", 100, 50_000, 10_000, tuple(_CIFAR_100.split()))
PLACES = DataSet("Places365", "'torchvision:Places365?root=PLACES&small=true'", 365, 1_803_460, 36_500)

COCO = DataSet("COCO", "coco:COCO", 80, 118_287, 5_000, tuple(name.replace("_", " ") for name in _COCO.split()))

# By table of the paper.
DATA_SETS = {
    **dict.fromkeys(
        ("2", "3", "8", "9", "10", "11", "12", "13", "14", "15", "16", "release", "schedule", "challenge"), IMAGENET
    ),
    "4": CIFAR_10,
    "5": CIFAR_100,
    "6": PLACES,
    "7": COCO,
}


def data_set_of(run: FinishedRun) -> DataSet | None:
    """Return the paper's data set that a run was trained on, completely or in part.

    A data set is recognized by the names of its classes; where several sets of names are in use, by the numbers of
    classes, training and validation images.

    Returns:
        The data set; None for any other.
    """
    for found in (IMAGENET, CIFAR_10, CIFAR_100, PLACES, COCO):
        if run.images.get("classes") != found.classes:
            continue
        if found.names:
            same = run.images.get("class names") == hashlib.sha256("\0".join(found.names).encode()).hexdigest()[:16]
        else:
            same = (training_images(run), run.images.get("images")) == (found.training, found.validation)
        if same:
            return found
    return None


def training_images(run: FinishedRun) -> int:
    """Return the number of images that a run was trained on."""
    return int(run.training.split()[0])
