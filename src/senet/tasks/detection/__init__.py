"""Detection: boxes of any number of objects in each image. torchvision's losses, COCO's average precision.

Imports `senet.evaluation` and below, and the interfaces of `senet.tasks`. `senet.tasks.registry` uses it.
"""
