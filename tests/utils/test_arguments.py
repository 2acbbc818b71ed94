from senet.utils.arguments import argument, argument_name, as_options, in_python_or


def test_arguments_are_written_as_in_python_or_as_options() -> None:
    assert [argument("example"), argument("at", "layer3.*")] == ["example=", 'at="layer3.*"']
    assert [argument("at", ["a", "b*"]), argument("stages", [2, 3])] == ["at=['a', 'b*']", "stages=[2, 3]"]
    with as_options({"example": "--input", "at": "--at", "stages": "--stages"}):
        assert [argument("example"), argument("at", "layer3.*")] == ["--input", "--at 'layer3.*'"]
        assert [argument("at", ["a", "b*"]), argument("stages", [2, 3])] == ["--at a --at 'b*'", "--stages 2,3"]
        assert argument("window") == "window="  # which this command lacks
    assert argument("example") == "example="


def test_settings_and_blocks_inside_others() -> None:
    assert argument_name("reduction") == "reduction"
    with as_options({"reduction": "--reduction", "at": "--at"}), as_options({"reduction": "network.reduction"}):
        assert [argument_name("reduction"), argument("reduction", 4)] == ["network.reduction", "network.reduction=4"]
        assert argument("at") == "--at"


def test_functions_are_named_in_python_only() -> None:
    assert in_python_or("call senet.remove", "give the plain network") == "call senet.remove"
    with as_options({}):
        assert in_python_or("call senet.remove", "give the plain network") == "give the plain network"
