import pytest
from timm.utils import natural_key as timms_natural_key

from senet.utils.text import natural_key, printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe 猫 👩\u200d💻 [red]:dog:", "Größe 猫 👩\u200d💻 [red]:dog:"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\x08\x00\x7f\x85\x9b1m", "a\\x0db\\x08\\x00\\x7f\\x85\\x9b1m"),
        ("\u202etxt.exe\u2066\u2028\ufeff", "\\u202etxt.exe\\u2066\\u2028\\ufeff"),
        ("file\udcff", "file\\udcff"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_one_line() -> None:
    assert printable("two\nlines\tand a tab", one_line=True) == "two\\nlines\\tand a tab"


def test_a_long_word_loses_its_middle() -> None:
    path = "/".join(100 * ["folder"])
    assert shortened(f"no file {path}") == f"no file {path}"
    assert shortened(f"epochs is {'1' * 5000}, too large").count("1") == 80


def test_natural_order_is_timms() -> None:
    names = ["img10.png", "img2.png", "IMG3.png", "1", "01", "", "a/b10/c2", "a/b9/c11", "n0143", "٣x", "x٣"]
    assert sorted(names, key=natural_key) == sorted(names, key=timms_natural_key)
    assert sorted(["x²", "²", "10", "9"], key=natural_key) == ["9", "10", "x²", "²"]  # a superscript is no number
