"""Muon: orthogonal steps for kernels and matrices, AdamW for the rest, resumable like any optimizer."""

import functools

import pytest
import torch
from launches import Launches
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fer.config.errors import FerError
from fer.models import create
from fer.models.blocks import by_layer
from fer.optim import muon
from fer.optim.muon import MOST_IN_BF16
from fer.optim.optimizers import OPTIMIZERS, largest_rate


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3))


def made(parameters, **changes):
    return OPTIMIZERS.get("muon")(parameters, **({"lr": 0.1, "adam_lr": 0.01, "weight_decay": 0.0} | changes))


def orthogonal(matrix, *how):
    """Return a single matrix, orthogonalised."""
    [near] = muon.orthogonal([matrix], *how)
    return near


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5)])
def test_singular_values_come_near_1_and_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    near = orthogonal(matrix, 5)
    assert near.shape == shape
    assert (torch.linalg.svdvals(near) - 1).abs().max() < 0.35  # the polynomial oscillates about 1
    inner = left.T @ near @ right.T  # the same vectors: diagonal in the given matrix's own
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05


@pytest.mark.parametrize("iterations", [3, 5])
def test_a_matrix_of_low_rank_stays_one(iterations):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(256, 64, generator=generator) @ torch.randn(64, 1152, generator=generator)
    values = torch.linalg.svdvals(orthogonal(matrix, iterations))
    assert values[:64].max() < 1.3
    assert values[64:].max() < 0.1


@pytest.mark.parametrize("iterations", [0, 6])
def test_too_many_iterations_are_refused(iterations):
    with pytest.raises(FerError, match="iterations"):
        OPTIMIZERS.arguments({"name": "muon", "lr": 0.02, "iterations": iterations})


def test_the_first_groups_last_matrix_is_adams():
    head, trunk = nn.Linear(4, 3, bias=False), nn.Linear(5, 4, bias=False)
    optimizer = made([{"params": head.parameters(), "lr": 0.1}, {"params": trunk.parameters(), "lr": 0.05}])
    kinds = {id(one): group["orthogonal"] for group in optimizer.param_groups for one in group["params"]}
    assert (kinds[id(head.weight)], kinds[id(trunk.weight)]) == (False, True)


def test_nothing_but_the_layer_of_the_logits_and_vectors_is_refused():
    with pytest.raises(FerError, match=r"optimizer=muon: .*set optimizer=adamw optimizer.lr=0.01"):
        made(nn.Linear(4, 3).parameters())
    frozen = network()
    frozen[:-1].requires_grad_(False)
    with pytest.raises(FerError, match="optimizer=muon: "):
        made(frozen.parameters())


def test_scale_of_the_gradient_does_not_matter():
    matrix = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonal(1e4 * matrix, 3), orthogonal(matrix, 3), rtol=1e-3, atol=1e-4)


def test_a_step_is_orthogonal_for_kernels_and_adams_for_vectors_and_the_head():
    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = made(model.parameters())
    model(torch.randn(8, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    changes = [(parameter - old).detach() for parameter, old in zip(model.parameters(), before, strict=True)]
    for kernel in (changes[0], changes[4]):
        assert 0.02 < torch.linalg.svdvals(kernel.flatten(1) / 0.1).median() < 2
    for vector in (changes[2], changes[-2], changes[-1]):  # Adam's first step is its rate, up or down
        moved = vector[vector.abs() > 1e-6]
        torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.01), rtol=1e-2, atol=1e-5)


def test_weight_decay_spares_vectors():
    model = network()
    for parameter in model.parameters():
        parameter.data.fill_(1)
        parameter.grad = torch.zeros_like(parameter)
    made(model.parameters(), weight_decay=0.5).step()
    shrunk = [bool((parameter < 1).all()) for parameter in model.parameters()]
    assert shrunk == [parameter.ndim > 1 for parameter in model.parameters()]


def test_the_schedule_moves_both_rates_in_proportion():
    optimizer = made(network().parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scheduler.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.05, 0.005}


def spectra(shape):
    """Return matrices with similar singular values, with values that fall by 10,000, and with a single large one."""
    left, values, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), False)
    falling = torch.logspace(0, -4, len(values))
    single = torch.full_like(values, 1e-3).index_fill(0, torch.tensor(0), 1.0)
    return [left * chosen @ right for chosen in (values, falling, single)]


@pytest.mark.parametrize("shape", [(96, 432), (128, 128)])
def test_in_bf16_steps_point_the_same_way_and_are_no_longer(shape):
    for matrix in spectra(shape):
        exact, half = orthogonal(matrix, MOST_IN_BF16), orthogonal(matrix, MOST_IN_BF16, torch.bfloat16)
        assert half.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(exact.flatten(), half.flatten(), dim=0) > 0.98
        assert torch.linalg.svdvals(half).max() < 1.3


def test_bf16_limits_the_number_of_iterations():
    assert made(network().parameters(), bf16=True).dtype == torch.bfloat16
    with pytest.raises(FerError, match=r"optimizer.iterations=5 with optimizer.bf16=true.*expected at most 3"):
        made(network().parameters(), bf16=True, iterations=5)
    assert (orthogonal(spectra((96, 432))[2], 5, torch.bfloat16).norm(2) > 10).item()  # why


# --- stacks -----------------------------------------------------------------------------------------------------------

MIXED = [(40, 5), (5, 40), (8, 8), (5, 40), (40, 5), (6, 4, 3, 3), (8, 24), (6, 4, 3, 3), (6, 9), (8, 1, 3, 3), (5, 7)]
FORMATS = (torch.contiguous_format, torch.channels_last)


@pytest.fixture
def together(monkeypatch):
    """Stack on the CPU too, as on a GPU."""
    monkeypatch.setattr(muon, "portions", lambda weights: [list(range(len(weights)))])


def normal(shape, seed, memory_format=torch.contiguous_format):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return tensor.to(memory_format=memory_format) if tensor.ndim == 4 else tensor


def order(tensor):
    """Return the order of the dimensions in memory, without those of size 1."""
    return [step for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def trained(shapes, steps, *, without=(), memory_format=torch.contiguous_format, **changes):
    """Return hidden weights after steps with random gradients; those at the indices ``without`` have none."""
    hidden = [nn.Parameter(normal(shape, 1000 + index, memory_format)) for index, shape in enumerate(shapes)]
    optimizer = made([*hidden, nn.Parameter(torch.zeros(3, 4))], **changes)
    for step in range(steps):
        for index, one in enumerate(hidden):
            one.grad = None if index in without else normal(one.shape, 100 * step + index, memory_format)
        optimizer.step()
    return [one.detach() for one in hidden]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("iterations", [3, 5])
def test_stacks_equal_one_matrix_at_a_time(memory_format, iterations):
    kernels = [normal(shape, index, memory_format) for index, shape in enumerate(MIXED)]
    stacked = muon.orthogonal(kernels, iterations)
    for kernel, change in zip(kernels, stacked, strict=True):
        alone = orthogonal(kernel.flatten(1), iterations).view(kernel.shape)
        assert order(change) == order(kernel)  # otherwise adding lists of tensors takes one operation for each
        assert (change - alone).norm() <= 1e-6 * alone.norm()


@pytest.mark.parametrize("memory_format", FORMATS)
def test_steps_of_stacks_equal_those_of_one_matrix_at_a_time(memory_format, request):
    how = {"without": (1, 5), "memory_format": memory_format, "weight_decay": 0.1}
    alone = trained(MIXED, 3, **how)
    request.getfixturevalue("together")
    for index, (one, other) in enumerate(zip(alone, trained(MIXED, 3, **how), strict=True)):
        started = normal(MIXED[index], 1000 + index)
        assert torch.equal(other, started) == (index in how["without"])
        assert (one - other).norm() <= 1e-6 * one.norm()


def test_stacks_of_a_step_without_gradients_change_nothing(together):
    for index, one in enumerate(trained(MIXED, 1, without=range(len(MIXED)), weight_decay=0.1)):
        assert torch.equal(one, normal(MIXED[index], 1000 + index))


# --- another implementation -------------------------------------------------------------------------------------------


def trained_by_torch(shapes, steps, weight_decay):
    """Return the weights after steps of ``torch.optim.Muon`` with flattened kernels."""
    matrices = [nn.Parameter(normal(shape, 1000 + index).flatten(1)) for index, shape in enumerate(shapes)]
    optimizer = torch.optim.Muon(matrices, lr=0.1, weight_decay=weight_decay, momentum=0.9, ns_steps=3)
    for step in range(steps):
        for index, one in enumerate(matrices):
            one.grad = normal(shapes[index], 100 * step + index).flatten(1)
        optimizer.step()
    return [one.detach() for one in matrices]


@pytest.mark.parametrize("stacks", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_first_steps_equal_those_of_torch(stacks, steps, monkeypatch, request):
    # torch iterates in bfloat16, whose rounding would hide a wrong step: its cast is replaced by a copy in 32 bits
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    theirs = trained_by_torch(MIXED, steps, weight_decay=0.5)
    if stacks:
        request.getfixturevalue("together")
    ours = trained(MIXED, steps, weight_decay=0.5)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        moved = (other - normal(MIXED[index], 1000 + index).flatten(1)).norm()
        assert (one.flatten(1) - other).norm() <= 1e-5 * moved


# --- operations -------------------------------------------------------------------------------------------------------


@functools.cache
def gpu_operations(name, **changes):
    """Return the number of GPU operations in a step of a network's optimizer; no GPU is needed."""
    with torch.device("meta"):
        network = create({"name": name}, classes=list("abcdefg"), image_size=48, mean=0.5, std=0.25).net
        shapes = [one.shape for one in network.parameters()]
    with FakeTensorMode(), torch.device("cuda"):
        formats = {4: torch.channels_last}
        tensors = [torch.empty(one, memory_format=formats.get(len(one), torch.contiguous_format)) for one in shapes]
        weights = list(map(nn.Parameter, tensors))
        for one in weights:
            one.grad = torch.zeros_like(one)
        optimizer = made(weights, **changes)
        optimizer.step()  # makes the momentum
        with Launches() as launches:
            optimizer.step()
    return launches.total


@pytest.mark.parametrize(
    ("name", "most"),
    [  # one matrix at a time: 275, 1,208, 3,448
        ("resnet9", 120),
        ("preact_resnet", 270),
        pytest.param("residual_masking", 280, marks=pytest.mark.slow),
    ],
)
def test_a_step_takes_few_gpu_operations_for_any_number_of_kernels(name, most):
    assert 50 < gpu_operations(name) <= most


@pytest.mark.parametrize("name", ["resnet9", pytest.param("preact_resnet", marks=pytest.mark.slow)])
def test_steps_in_bf16_take_no_more(name):
    assert gpu_operations(name, bf16=True) == gpu_operations(name)  # the conversion needs no operation of its own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matrices_are_divided_in_their_own_precision(dtype):
    matrices = [normal((8, 5), 0), normal((3, 4, 9), 1).mT, 1e4 * normal((2, 6, 6), 2)]
    for one, found in zip(matrices, muon.normalised(matrices, dtype), strict=True):
        norm = one.square().sum((-2, -1), keepdim=True).sqrt()
        assert found.dtype == dtype
        assert found.stride() == one.stride()
        assert torch.allclose(found.float(), one / norm, rtol=0.005 if dtype == torch.bfloat16 else 1e-5, atol=1e-7)
        kept = one / (torch.linalg.vector_norm(one, dim=(-2, -1), keepdim=True) + 1e-7)
        assert torch.equal(found, kept.to(dtype))  # to the last bit


def test_the_rate_that_is_logged_is_the_largest_of_muons_own():
    net = network()
    assert largest_rate(made(net.parameters(), lr=0.1, adam_lr=0.01)) == 0.1
    layers = [[*part.parameters()] for part in net if [*part.parameters()]]
    slowed = made(by_layer(net.parameters(), layers), layer_decay=0.5)
    assert slowed.param_groups[0]["lr"] == 0.01  # of the last layer, by AdamW
    assert largest_rate(slowed) == 0.1 * 0.5  # of the last kernel, a layer before the logits
    assert largest_rate(torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": 0.3}])) == 0.3
