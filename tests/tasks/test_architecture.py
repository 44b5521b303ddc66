import pytest
import torch
from codistill.tasks.architecture import ShapeError
from codistill.tasks.networks import build
from codistill.tasks.streams import torch_stream

IMAGES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 17, 30)]
CASES = [
    *(("linear", {}, shape) for shape in [*IMAGES, (64,)]),
    *(("mlp", {"hidden": hidden}, shape) for hidden in ([64], [9, 7, 5]) for shape in [*IMAGES, (13,)]),
    *(
        ("cnn", said, shape)
        for said in ({}, {"channels": [4] * 5, "kernel": 5, "hidden": 7}, {"kernel": 1})
        for shape in IMAGES
    ),
    *(("fedavg-cnn", said, shape) for said in ({}, {"hidden": [20, 10]}) for shape in [(1, 16, 16), *IMAGES[1:]]),
    *(("resnet", said, shape) for said in ({}, {"width": 8, "blocks": 2}) for shape in [*IMAGES, (1, 1, 8)]),
]


@pytest.mark.parametrize(("name", "said", "shape"), CASES)
def test_an_architecture_is_what_is_built(architectures, name, said, shape):
    one = architectures(name, shape, 7, **said)
    network = build(one, torch_stream(1, "x"))
    found = [tuple(value.shape) for value in network.parameters()]
    assert sorted(found) == sorted(one.parameter_shapes)
    assert sum(value.numel() for value in network.parameters()) == one.parameter_count
    assert len(network.state_dict()) == len(found)  # no buffers: parameters are all that a packet has to carry
    x = torch.rand(2, *shape)
    features = network.body(x)
    assert features.shape == (2, one.features)
    assert torch.equal(network(x), network.head(features)) and network(x).shape == (2, 7)


@pytest.mark.parametrize(("name", "shape"), [("mlp", (1, 8, 8)), ("cnn", (3, 9, 12)), ("resnet", (3, 16, 16))])
def test_multiply_adds_are_those_of_the_layers(architectures, name, shape):
    one = architectures(name, shape)
    counted = 0

    def count(module, given, output):
        nonlocal counted
        if isinstance(module, torch.nn.GroupNorm):
            counted += output[0].numel()
        else:
            counted += output[0].numel() * module.weight[0].numel()

    network = build(one, torch_stream(1, "x"))
    for module in network.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm)):
            module.register_forward_hook(count)
    network(torch.rand(1, *shape))
    assert one.multiply_adds == counted


def test_the_fedavg_cnn_has_582026_parameters(architectures):
    assert architectures("fedavg-cnn", (1, 28, 28), 10).parameter_count == 582_026


def test_names_tell_architectures_apart(architectures):
    names = [architectures("mlp", hidden=hidden).name for hidden in ([8], [8, 8], [88])]
    assert names == ["mlp(hidden=8)", "mlp(hidden=8x8)", "mlp(hidden=88)"]
    assert architectures("linear").name == "linear"


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("cnn", (64,), r"a convolution needs \[channels, height, width\], not \[64\]"),
        ("fedavg-cnn", (1, 8, 8), "a 5 x 5 convolution does not fit an image of 2 x 2"),
        ("fedavg-cnn", (1, 4, 9), "a 5 x 5 convolution does not fit an image of 4 x 9"),
        ("fedavg-cnn", (1, 5, 5), r"a pool of 2 x 2 does not fit \[32, 1, 1\]"),
    ],
)
def test_what_does_not_fit_is_said(architectures, name, shape, sentence):
    with pytest.raises(ShapeError, match=sentence):
        architectures(name, shape)


def test_a_body_that_does_not_end_flat_is_refused():
    from codistill.tasks.architecture import Architecture, Relu

    with pytest.raises(ShapeError, match=r"odd: the body must end flat, not \[1, 8, 8\]"):
        Architecture("odd", (1, 8, 8), 3, (Relu(),))


def test_initial_weights_come_from_the_stream_alone(architectures):
    one = architectures("cnn")
    torch.manual_seed(0)
    first = build(one, torch_stream(1, "x")).state_dict()
    state = torch.get_rng_state()
    torch.manual_seed(1)
    second, other = build(one, torch_stream(1, "x")).state_dict(), build(one, torch_stream(1, "y")).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)
    torch.manual_seed(0)
    build(one, torch_stream(1, "x"))
    assert torch.equal(torch.get_rng_state(), state)
