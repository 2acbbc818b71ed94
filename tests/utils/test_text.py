import pytest

from senet.utils.text import printable, shortened


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
