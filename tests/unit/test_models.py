"""Networks: parameter counts from the papers, shapes, errors; torchvision by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from kuiper.errors import SpecError
from kuiper.models.cifarnet import cifarnet
from kuiper.models.convnet import convnet
from kuiper.models.mlp import mlp
from kuiper.models.mnist_cnn import mnist_cnn
from kuiper.models.preact_resnet import preact_resnet18
from kuiper.models.softmax import softmax
from kuiper.models.thesis_mnist import thesis_mnist
from kuiper.models.torchvision_model import torchvision_model
from kuiper.random import seed_torch

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
PARAMETERS = {  # of ten classes; the counts of the convolutional networks are the published ones
    softmax: (MNIST, 7_850),
    mlp: (MNIST, 784 * 200 + 200 + 200 * 10 + 10),
    thesis_mnist: (MNIST, 784 * 1024 + 1024 + 2 * (1024 * 1024 + 1024) + 1024 * 10 + 10),
    convnet: (MNIST, 21_840),
    mnist_cnn: (MNIST, 431_080),
    cifarnet: (CIFAR, 62_006),
    preact_resnet18: (CIFAR, 11_171_146),
    torchvision_model: (MNIST, 11_181_642),  # torchvision's resnet18
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("function", PARAMETERS, ids=lambda function: function.__name__)
def test_parameters_logits_and_seed(function) -> None:
    shape, parameters = PARAMETERS[function]

    def build(seed: int) -> nn.Module:
        seed_torch(seed, "model")
        return function(shape, 10)

    model = build(1)
    assert count(model) == parameters and model.training
    logits = model(torch.randn(3, *shape))
    assert logits.shape == (3, 10) and logits.dtype == torch.float32
    assert not torch.allclose(logits.exp().sum(1), torch.ones(3), atol=1e-3)  # logits, not log-probabilities
    same, other = (torch.cat([p.flatten() for p in build(seed).parameters()]) for seed in (1, 2))
    assert torch.equal(torch.cat([p.flatten() for p in model.parameters()]), same)
    assert not torch.equal(same, other)


@pytest.mark.parametrize("shape", [(4,), (1, 8, 8), (3, 32, 32)])
@pytest.mark.parametrize("function", [softmax, mlp, thesis_mnist])
def test_dense_models_take_any_shape(function, shape: tuple[int, ...]) -> None:
    assert function(shape, 3)(torch.randn(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("function", [convnet, mnist_cnn, cifarnet, preact_resnet18])
def test_convolutional_models_take_other_images_and_refuse_the_rest(function) -> None:
    assert function((3, 32, 40), 7)(torch.randn(2, 3, 32, 40)).shape == (2, 7)
    assert function((1, 16, 16), 7)(torch.randn(2, 1, 16, 16)).shape == (2, 7)
    with pytest.raises(SpecError, match="needs images of at least 16 x 16 pixels, got 8 x 8"):
        function((1, 8, 8), 10)
    with pytest.raises(SpecError, match=r"needs images .* shape \(4,\)"):
        function((4,), 3)


def test_batch_norm_is_before_each_relu() -> None:
    dense, convolutional = mlp(MNIST, 10, hidden=[7, 5], norm="batch"), convnet(MNIST, 10, norm="batch")
    assert [type(layer).__name__ for layer in dense][1:4] == ["Linear", "BatchNorm1d", "ReLU"]
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in dense) == 2
    assert count(convolutional) == 21_840 + 2 * (10 + 20)
    assert convolutional(torch.randn(3, *MNIST)).shape == (3, 10)
    for function in (mlp, convnet):
        with pytest.raises(SpecError, match="model.norm: 'layer'"):
            function(MNIST, 10, norm="layer")


def test_mlp_hidden_and_dropout() -> None:
    assert count(mlp((4,), 3, hidden=[10])) == 4 * 10 + 10 + 10 * 3 + 3
    assert count(mlp((4,), 3, hidden=[])) == 15
    model = mlp((4,), 3, hidden=[50, 50], dropout=0.5)
    x = torch.randn(8, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    for wrong in ({"hidden": 200}, {"hidden": [0]}, {"dropout": 1.0}):
        with pytest.raises(SpecError, match="model."):
            mlp((4,), 3, **wrong)


def test_thesis_mnist_drops_inputs_and_starts_as_he() -> None:
    seed_torch(1, "model")
    model = thesis_mnist(MNIST, 10)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer in linear:
        assert layer.weight.std().item() == pytest.approx((2 / layer.in_features) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.2, 0.5, 0.5, 0.5]
    ones = torch.ones(50, *MNIST)
    assert (model[1](ones.flatten(1)) == 0).float().mean().item() == pytest.approx(0.2, abs=0.02)
    # ReLU halves the variance that the weights double: the scale of the inputs reaches the last layer.
    assert 0.5 < model.eval()[:-1](torch.randn(200, *MNIST)).square().mean().item() < 2
    for wrong in ({"hidden": [0]}, {"dropout": 1.0}, {"input_dropout": -0.1}):
        with pytest.raises(SpecError, match=f"model.{next(iter(wrong))}"):
            thesis_mnist(MNIST, 10, **wrong)


def test_a_preact_block_is_the_papers() -> None:
    """x + conv(relu(norm(conv(relu(norm(x)))))), and where the shape changes a shortcut of the activation."""
    network = preact_resnet18(CIFAR, 10).eval()
    assert [tuple(network[:i](torch.zeros(1, *CIFAR)).shape[1:]) for i in (1, 3, 5, 7, 9, 10)] == [
        (64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 1, 1)]  # fmt: skip
    x = torch.randn(2, 64, 8, 8)
    plain, strided = network[1], network[3]
    for block in (plain, strided):
        active = block.norm_1(x).relu()
        change = block.convolution_2(block.norm_2(block.convolution_1(active)).relu())
        torch.testing.assert_close(block(x), change + (x if block is plain else strided.shortcut(active)))


def test_torchvision_by_name() -> None:
    model = torchvision_model((3, 32, 32), 5, name="shufflenet_v2_x0_5")
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(SpecError, match="no classifier 'resnet_18'") as caught:
        torchvision_model(MNIST, 10, name="resnet_18")
    assert "'resnet18'" in caught.value.remedy
    with pytest.raises(SpecError, match="no classifier 'fcn_resnet50'"):  # segmentation, not classification
        torchvision_model(MNIST, 10, name="fcn_resnet50")


def test_torchvision_says_what_it_cannot_take() -> None:
    with pytest.raises(SpecError, match="vit_b_32 cannot take images of 28 x 28"):
        torchvision_model(MNIST, 10, name="vit_b_32")
    with pytest.raises(SpecError, match="1 or 3 channels, the samples have 2"):
        torchvision_model((2, 28, 28), 10)
    with pytest.raises(SpecError, match="needs images"):
        torchvision_model((4,), 3)


def test_trying_a_network_moves_no_batch_statistics() -> None:
    buffers = dict(torchvision_model(MNIST, 10).named_buffers())
    assert all(int(b) == 0 for name, b in buffers.items() if name.endswith("num_batches_tracked"))


def test_torchvision_imports_in_a_fresh_process_and_twice() -> None:
    program = (
        "from kuiper.models._torchvision import import_torchvision as get\n"
        "first = get()\n"
        "import gc; gc.collect()\n"
        "assert get() is first\n"
        "import torchvision.transforms.v2\n"
        "first.datasets.FakeData, first.models.resnet18\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
