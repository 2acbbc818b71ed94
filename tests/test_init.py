import subprocess
import sys

import pytest

import senet


def test_every_public_name_is_there() -> None:
    for name in senet.__all__:
        assert getattr(senet, name) is not None
        assert name in dir(senet)
    with pytest.raises(AttributeError, match="No senet attribute insrt"):
        senet.insrt  # noqa: B018


def test_import_is_light() -> None:
    """Neither an import nor a block waits for libraries that only networks and commands need, nor does an image."""
    code = (
        "import sys, senet; assert 'torch' not in sys.modules; senet.SqueezeExcitation(8); senet.insert; "
        "print([m for m in ('timm', 'torchvision', 'matplotlib', 'typer', 'rich', 'PIL') if m in sys.modules]);"
        "from PIL import Image; from senet.data import Preprocessing; "
        "Preprocessing(4, 4, (0.5,), (0.5,)).pixels(Image.new('L', (5, 6))); "
        "assert not {'torchvision', 'torch._dynamo'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
