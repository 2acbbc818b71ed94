"""Squeeze-and-Excitation for PyTorch: build SE networks, or insert SE into the network that you already have.

The public names are listed in `__init__.pyi` and imported when first used: `import senet` costs little.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
