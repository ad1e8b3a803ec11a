"""The Triton kernels against the CPU's: in Triton's interpreter, as compiled for a GPU, and on one where there is one.

The interpreter runs the kernels' Python on the CPU's tensors, with NumPy; it is slow, so the shapes are small.
"""

import importlib.util
import re

import pytest
import torch
from test_fast import layer_of, run

from lib import fast
from lib.fast import cpu
from lib.network import LEAK_RANGE

triton = pytest.importorskip("triton", reason="no Triton here: PyTorch brings it with its CUDA builds")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def load():
    """The module anew, beside the one that others may have imported."""
    spec = importlib.util.find_spec("lib.fast.cuda")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def interpreted():
    patch_tensor = interpreter._patch_lang_tensor

    def with_indices(tensor, scope):
        # Triton 3.6 takes an index from an array of one element, which NumPy 2.4 refuses (Triton's issue 9171).
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        kernels = load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang_tensor", with_indices)
        yield kernels


def arguments(shape, dtype=torch.float32, device="cpu"):
    """Weighted input, factor, offset, leak and mean of a layer whose neurons fire and whose potentials come near."""
    units = shape[-1]
    weighted = 2 * torch.randn(shape, dtype=dtype) + 1
    factor, offset = torch.empty(units, dtype=dtype).uniform_(-2, 3), torch.empty(units, dtype=dtype).uniform_(0, 2)
    leak = torch.empty(units, dtype=dtype).uniform_(*LEAK_RANGE)
    return [tensor.to(device) for tensor in (weighted, factor, offset, leak, weighted.mean(dim=(0, 1)))]


def assert_kernels_agree(kernels, shape, dtype, grad_steps, threshold, seed, dropout, device="cpu"):
    """To the bit, but for sums over all examples."""
    given = arguments(shape, dtype)
    there = [tensor.to(device) for tensor in given]
    dropout_settings = threshold, seed, fast.drop_level(dropout), 1 / (1 - dropout)
    spikes = cpu.forward(*given[:4], *dropout_settings)
    assert 0.02 < (spikes > 0).double().mean() < 0.98
    assert torch.equal(kernels.forward(*there[:4], *dropout_settings).cpu(), spikes)

    grad = torch.randn(grad_steps, *shape[1:], dtype=dtype)
    expected, expected_sums = cpu.backward(grad, *given, *dropout_settings)
    gradient, sums = kernels.backward(grad.to(device), *there, *dropout_settings)
    assert torch.equal(gradient.cpu(), expected)
    assert expected.any()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-14}[dtype] * float(expected_sums.abs().max())
    torch.testing.assert_close(sums.cpu(), expected_sums, rtol=0, atol=tolerance)

    cpu.through_statistics(expected, *given[:3])
    kernels.through_statistics(gradient, *there[:3])
    assert torch.equal(gradient.cpu(), expected)

    rounding = {torch.float32: 2e-7, torch.float64: 1e-12}[dtype]
    for own, other in zip(kernels.statistics(there[0]), cpu.statistics(given[0]), strict=True):
        torch.testing.assert_close(own.cpu(), other, rtol=rounding, atol=rounding)


KINDS = [
    # dtype, one gradient for all steps or one for each, threshold, seed, dropout
    (torch.float32, "each", 1.0, 7, 0.3),
    (torch.float32, "all", 0.7, 2**32 - 1, 0.0),
    (torch.float64, "each", 0.7, 2**31, 1 / 3),
    (torch.float64, "all", -0.2, 1, 0.9),
]


@pytest.mark.parametrize(("dtype", "grads", "threshold", "seed", "dropout"), KINDS)
@pytest.mark.parametrize("shape", [(9, 3, 37), (2, 1, 64), (1, 4, 90)])
def test_interpreted_kernels_do_what_the_cpu_s_do(interpreted, shape, dtype, grads, threshold, seed, dropout):
    grad_steps = shape[0] if grads == "each" else 1
    assert_kernels_agree(interpreted, shape, dtype, grad_steps, threshold, seed, dropout)


@pytest.mark.parametrize("pointer", ["*fp32", "*fp64"])
@pytest.mark.parametrize("kernel", ["_statistics", "_forward", "_backward", "_through_statistics"])
def test_compiled_for_a_gpu_no_multiplication_is_fused_with_an_addition(monkeypatch, tmp_path, kernel, pointer):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = load()
    function = getattr(kernels, kernel)
    numbers = dict.fromkeys(["time", "batch", "units", "grad_rows", "level"], "i32") | {"seed": "i64"}
    numbers |= dict.fromkeys(["threshold", "gain"], "fp64")
    if kernel == "_statistics":
        numbers["sums"] = "*fp64"
    source = ASTSource(function, {name: numbers.get(name, pointer) for name in function.arg_names})
    target = GPUTarget("cuda", 75, 32)
    written, otherwise = (
        triton.compile(source, target=target, options=kernels.OPTIONS | more).asm["ptx"]
        for more in ({}, {"enable_fp_fusion": True})
    )
    products, sums = (re.findall(rf"\b(?:{names})(\S*)\.f(?:32|64)\b", written) for names in ("mul", "add|sub"))
    assert products
    assert sums
    assert set(products) | set(sums) == {".rn"}  # rounded each: the assembler, too, must leave them apart
    one_for_both = re.compile(r"\b(fma|mad)\.\S*f(32|64)")
    assert not one_for_both.search(written)
    assert one_for_both.search(otherwise)  # it is what would be found


@on_gpu
@pytest.mark.parametrize(("dtype", "grads", "threshold", "seed", "dropout"), KINDS)
@pytest.mark.parametrize("shape", [(100, 128, 512), (9, 3, 37), (1, 4, 90), (50, 300, 1000)])
def test_kernels_on_a_gpu_do_what_the_cpu_s_do(shape, dtype, grads, threshold, seed, dropout):
    from lib.fast import cuda

    grad_steps = shape[0] if grads == "each" else 1
    assert_kernels_agree(cuda, shape, dtype, grad_steps, threshold, seed, dropout, "cuda")


@on_gpu
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_on_a_gpu_gives_what_it_gives_on_the_cpu_each_time(training):
    weighted = torch.randn(100, 32, 200, dtype=torch.float64)
    layer = layer_of(200, dtype=torch.float64, training=training)
    spikes, gradients, own = run(fast.spikes, layer, weighted, 0.2)
    first, second = (run(fast.spikes, layer.cuda(), weighted.cuda(), 0.2) for _ in range(2))
    # In double precision no potential comes as near to the threshold as the two devices' square roots lie apart.
    assert torch.equal(first[0].cpu(), spikes)
    for name, expected in gradients.items():
        assert torch.equal(first[1][name], second[1][name])
        scale = float(expected.abs().max())
        torch.testing.assert_close(first[1][name].cpu(), expected, rtol=1e-9, atol=1e-9 * scale)
    for name, buffer in own.named_buffers():
        torch.testing.assert_close(first[2].get_buffer(name).cpu(), buffer)
