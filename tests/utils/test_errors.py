import pytest

from senet.utils.errors import DataError, ModelFileError, SenetError, TrainingError, unknown_name


@pytest.mark.parametrize(
    ("name", "known", "message"),
    [
        ("sigmod", ["relu", "sigmoid"], "unknown gate 'sigmod'; did you mean 'sigmoid'? Choose from: relu, sigmoid."),
        ("zzz", ["relu", "sigmoid"], "unknown gate 'zzz'. Choose from: relu, sigmoid."),
        # "cifar10" and "CIFAR10" share two letters of seven, were case to count.
        (
            "cifar10",
            ["MNIST", "CIFAR10"],
            "unknown gate 'cifar10'; did you mean 'CIFAR10'? Choose from: MNIST, CIFAR10.",
        ),
        ("GATES", ["sigmoid", "gate"], "unknown gate 'GATES'; did you mean 'gate'? Choose from: sigmoid, gate."),
        (3, ["1"], "unknown gate 3. Choose from: 1."),
        ("gates", ["gate", *"abcdefghijklmnopqrstuvwxyz"], "unknown gate 'gates'; did you mean 'gate'?"),
    ],
)
def test_unknown_name(name: object, known: list[str], message: str) -> None:
    assert unknown_name("gate", name, iter(known)) == message


@pytest.mark.parametrize(
    ("kind", "base"), [(DataError, ValueError), (ModelFileError, ValueError), (TrainingError, RuntimeError)]
)
def test_errors_are_caught_as_senets_and_as_pythons(kind: type[Exception], base: type[Exception]) -> None:
    assert issubclass(kind, SenetError)
    assert issubclass(kind, base)
