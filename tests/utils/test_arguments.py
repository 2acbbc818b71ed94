from senet.utils.arguments import argument, as_options


def test_arguments_are_written_as_in_python_or_as_options() -> None:
    assert [argument("example"), argument("at", "layer3.*")] == ["example=", 'at="layer3.*"']
    assert [argument("at", ["a", "b*"]), argument("stages", [2, 3])] == ["at=['a', 'b*']", "stages=[2, 3]"]
    with as_options({"example": "--input", "at": "--at", "stages": "--stages"}):
        assert [argument("example"), argument("at", "layer3.*")] == ["--input", "--at 'layer3.*'"]
        assert [argument("at", ["a", "b*"]), argument("stages", [2, 3])] == ["--at a --at 'b*'", "--stages 2,3"]
        assert argument("window") == "window="  # which this command lacks
    assert argument("example") == "example="
