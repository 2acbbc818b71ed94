import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from senet import SEBatchNorm, SqueezeExcitation
from senet.nn.batch_norm import BATCH_NORMS
from tests.helpers import assert_close, randomise

OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-5, 1e-2]),
        "momentum": st.sampled_from([0.1, 0.9, None]),
        "affine": st.booleans(),
        "track_running_stats": st.booleans(),
    }
)


def pair(dim: int, channels: int = 6, squeeze: str = "avg", **options: object) -> tuple[SEBatchNorm, nn.Sequential]:
    """SEBatchNorm, and what it is: batch norm, then SE; of the same weights and statistics."""
    bn = randomise(BATCH_NORMS[dim](channels, **options)).double()
    se = randomise(SqueezeExcitation(channels, 2, squeeze=squeeze)).double()
    return copy.deepcopy(SEBatchNorm.from_batch_norm(bn, se)), nn.Sequential(bn, se)


@settings(deadline=None)  # the first call imports
@given(dim=st.integers(1, 3), squeeze=st.sampled_from(["avg", "max", "none"]), options=OPTIONS, n=st.integers(2, 4))
def test_is_batch_norm_then_se(dim: int, squeeze: str, options: dict[str, object], n: int) -> None:
    ours, theirs = pair(dim, squeeze=squeeze, **options)
    for _ in range(2):
        y = torch.randn(n, 6, *[3] * dim, dtype=torch.float64)
        inputs = [y.clone().requires_grad_(), y.clone().requires_grad_()]
        outputs = [module(x) for module, x in zip((ours, theirs), inputs, strict=True)]
        assert_close(*outputs)
        for output in outputs:
            (output**3).sum().backward()
        assert_close(inputs[0].grad, inputs[1].grad)
        state, expected = ours.state_dict(), {**theirs[0].state_dict()}
        for key, value in expected.items():
            assert_close(state[key], value)
    for name, parameter in theirs[0].named_parameters():
        assert_close(getattr(ours, name).grad, parameter.grad)
    for name, parameter in theirs[1].named_parameters():
        assert_close(ours.se.get_parameter(name).grad, parameter.grad)
    assert_close(ours.eval()(y), theirs.eval()(y))


def test_the_map_by_keyword() -> None:
    """As torch.nn.BatchNorm2d takes it: a network's code may call bn(input=x)."""
    ours, theirs = pair(2)
    y = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    for mode in (True, False):
        expected = theirs.train(mode)[1](input=theirs[0](input=y))
        assert_close(ours.train(mode)(input=y), expected)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_there_and_back(dim: int) -> None:
    bn = randomise(BATCH_NORMS[dim](4, eps=1e-3, momentum=0.3)).eval()
    ours = SEBatchNorm.from_batch_norm(bn, SqueezeExcitation(4, 2))
    assert not ours.training
    back = ours.to_batch_norm()
    assert type(back) is type(bn)
    assert repr(back) == repr(bn)
    assert not back.training
    for key, tensor in bn.state_dict(keep_vars=True).items():
        assert back.state_dict(keep_vars=True)[key] is tensor
        assert ours.state_dict(keep_vars=True)[key] is tensor


def test_a_new_one_is_a_new_batch_norm_and_se() -> None:
    ours = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    theirs = nn.Sequential(nn.BatchNorm2d(4), copy.deepcopy(ours.se))
    y = torch.randn(3, 4, 5, 5)
    assert_close(ours(y), theirs(y), 1e-6)
    assert type(ours.to_batch_norm()) is nn.BatchNorm2d


def test_plain_keys_stay_and_old_checkpoints_load() -> None:
    bn = randomise(nn.BatchNorm2d(4))
    ours = SEBatchNorm(4, se=SqueezeExcitation(4, 2))
    keys = list(bn.state_dict())
    assert list(ours.state_dict())[: len(keys)] == keys
    assert all(key.startswith("se.") for key in list(ours.state_dict())[len(keys) :])
    old = {key: value for key, value in bn.state_dict().items() if key != "num_batches_tracked"}
    missing = ours.load_state_dict(old, strict=False).missing_keys
    assert missing
    assert all(key.startswith("se.") for key in missing)


def test_refuses() -> None:
    se = SqueezeExcitation(4, 2)
    with pytest.raises(ValueError, match=r"se has 4 channels where num_features is 8; build it with SqueezeExc.*\(8\)"):
        SEBatchNorm(8, se=se)
    with pytest.raises(ValueError, match="dim must be 1, 2, 3, or None.*got 4"):
        SEBatchNorm(4, se=se, dim=4)
    with pytest.raises(TypeError, match="got SyncBatchNorm; .*apply SE to its output"):
        SEBatchNorm.from_batch_norm(nn.SyncBatchNorm(4), se)
    ours = SEBatchNorm.from_batch_norm(nn.BatchNorm2d(4), se)
    with pytest.raises(ValueError, match=r"a map with 2 spatial axes.*got shape \(2, 4, 3\)"):
        ours(torch.randn(2, 4, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(torch.randn(1, 4, 1, 1))


def test_fx_trace_follows_train_and_eval(traced: None) -> None:
    ours, _ = pair(2)
    graph = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(nn.Sequential(ours))))
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    for mode in (True, False):
        assert_close(graph.train(mode)(y), ours.train(mode)(y))


@pytest.mark.parametrize("training", [True, False])
def test_compiles_whole(traced: None, training: bool) -> None:
    ours, _ = pair(2)
    other = copy.deepcopy(ours).train(training)
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert_close(torch.compile(ours.train(training), fullgraph=True, backend="aot_eager")(y), other(y))
    assert_close(ours.running_var, other.running_var)
    assert int(ours.num_batches_tracked) == int(training)


def test_is_no_batch_norm_by_type() -> None:
    """Tools that replace or freeze by type would drop SE in silence; see the class."""
    assert not isinstance(SEBatchNorm(4, se=SqueezeExcitation(4)), nn.modules.batchnorm._BatchNorm)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_fx_traces_its_parts_where_it_is_the_root(traced: None, training: bool, options: dict[str, object]) -> None:
    ours, _ = pair(2, **options)
    other = copy.deepcopy(ours).train(training)
    graph = torch.fx.symbolic_trace(ours.train(training))
    graph.delete_all_unused_submodules()
    y = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert_close(graph(y), other(y))
    for key, value in other.state_dict().items():
        assert_close(ours.state_dict()[key], value)


def test_fx_refuses_a_root_that_it_cannot_record(traced: None) -> None:
    ours, _ = pair(2, momentum=None)
    with pytest.raises(ValueError, match=r"averaging all batches \(momentum=None\); trace a network that holds it"):
        torch.fx.symbolic_trace(ours)
