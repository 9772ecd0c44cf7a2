"""The operator veturbo::aes_ctr_decrypt_ on the CPU."""

from __future__ import annotations

import subprocess

import pytest
import torch
from torch.library import opcheck

import veturboio  # noqa: F401  registers the operator

decrypt_ = torch.ops.veturbo.aes_ctr_decrypt_

KEYS = {bits: torch.arange(bits // 8, dtype=torch.uint8) * 7 + 1 for bits in (128, 256)}
IV = torch.arange(16, dtype=torch.uint8) + 100
NEARLY_WRAPPED = torch.tensor([255] * 15 + [253], dtype=torch.uint8)  # 2^128 - 3


def openssl(data: bytes, bits: int, iv: torch.Tensor) -> bytes:
    arguments = ["-K", bytes(KEYS[bits].tolist()).hex(), "-iv", bytes(iv.tolist()).hex()]
    return subprocess.run(["openssl", "enc", f"-aes-{bits}-ctr", *arguments], input=data, capture_output=True, check=True).stdout


def random_bytes(size: int) -> torch.Tensor:
    return torch.randint(256, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("iv", [IV, NEARLY_WRAPPED], ids=["ordinary", "wraps around"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000, (1 << 20) + 5, (13 << 20) + 7])  # the last by several threads
def test_it_does_what_openssl_does(bits, iv, size):
    plain = random_bytes(size)
    tensor = plain.clone()
    returned = decrypt_(tensor, KEYS[bits], iv)
    assert returned is tensor
    assert bytes(tensor.numpy()) == openssl(bytes(plain.numpy()), bits, iv)
    decrypt_(tensor, KEYS[bits], iv)
    assert torch.equal(tensor, plain)


@pytest.mark.parametrize("offset", [1, 15, 16, 4097, (1 << 20) + 3])
def test_the_stream_can_be_entered_at_any_byte(offset):
    whole = random_bytes((2 << 20) + 9)
    expected = decrypt_(whole.clone(), KEYS[128], IV)
    part = whole[offset:].clone()
    assert torch.equal(decrypt_(part, KEYS[128], IV, offset), expected[offset:])
    assert torch.equal(decrypt_(whole[offset:].clone(), KEYS[128], IV, offset=offset), expected[offset:])


def test_offsets_beyond_32_bits_of_blocks():
    tensor = torch.zeros(64, dtype=torch.uint8)
    decrypt_(tensor, KEYS[128], torch.zeros(16, dtype=torch.uint8), 1 << 40)
    moved = torch.zeros(16, dtype=torch.uint8)
    moved[11] = 16  # 2^36 blocks
    assert torch.equal(tensor, decrypt_(torch.zeros(64, dtype=torch.uint8), KEYS[128], moved))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_any_dtype_is_its_bytes(dtype):
    raw = random_bytes(800) % 2  # of which every dtype can be made
    tensor = raw.clone().view(dtype).reshape(2, -1)
    decrypt_(tensor, KEYS[128], IV)
    assert torch.equal(tensor.reshape(-1).view(torch.uint8), decrypt_(raw, KEYS[128], IV))


def test_a_view_of_part_of_a_tensor():
    whole = torch.zeros(10, 8, dtype=torch.uint8)
    decrypt_(whole[3:5], KEYS[128], IV)
    assert whole[:3].sum() == whole[5:].sum() == 0
    assert torch.equal(whole[3:5].reshape(-1), decrypt_(torch.zeros(16, dtype=torch.uint8), KEYS[128], IV))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 4).t(), KEYS[128], IV), "the tensor to decrypt is not contiguous"),
        ((torch.zeros(4), KEYS[128], IV, -1), "offset is -1"),
        ((torch.zeros(4), KEYS[128][:15], IV), "key has 15 bytes: AES-CTR takes 16 or 32"),
        ((torch.zeros(4), KEYS[128], IV[:12]), "iv has 12 bytes: AES-CTR takes 16"),
        ((torch.zeros(4), KEYS[128].float(), IV), "key is not a one-dimensional tensor of uint8 on the CPU"),
        ((torch.zeros(4), KEYS[128], IV.reshape(4, 4)), "iv is not a one-dimensional tensor of uint8 on the CPU"),
        ((torch.zeros(4), KEYS[128], IV.to("meta")), "key or iv is on the meta device"),
    ],
)
def test_bad_arguments_are_refused_and_nothing_is_written(arguments, message):
    before = arguments[0].clone()
    with pytest.raises(ValueError, match=message):
        decrypt_(*arguments)
    assert torch.equal(arguments[0], before)


def test_autograd_notices():
    weight = torch.zeros(4, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        decrypt_(weight, KEYS[128], IV)
    plain = torch.zeros(4)
    version = plain._version
    decrypt_(plain, KEYS[128], IV)
    assert plain._version == version + 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])  # not floats: opcheck compares, and a NaN differs from itself
def test_opcheck(dtype):
    opcheck(decrypt_, (torch.zeros(100, dtype=dtype), KEYS[256], IV, 5))
    opcheck(torch.ops.veturbo.aes_ctr_decrypt, (torch.zeros(100, dtype=dtype), KEYS[256], IV, 5))


def test_the_functional_form_leaves_its_argument_alone():
    plain = random_bytes(100)
    before = plain.clone()
    assert torch.equal(torch.ops.veturbo.aes_ctr_decrypt(plain, KEYS[128], IV, 5), decrypt_(plain.clone(), KEYS[128], IV, 5))
    assert torch.equal(plain, before)


def test_in_torchscript():
    @torch.jit.script
    def run(tensor: torch.Tensor, key: torch.Tensor, iv: torch.Tensor) -> torch.Tensor:
        return torch.ops.veturbo.aes_ctr_decrypt_(tensor, key, iv, 3)

    expected = decrypt_(torch.zeros(50), KEYS[128], IV, 3)
    assert torch.equal(run(torch.zeros(50), KEYS[128], IV), expected)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_under_torch_compile(backend):
    def run(tensor: torch.Tensor, key: torch.Tensor, iv: torch.Tensor) -> torch.Tensor:
        copy = tensor + 0
        torch.ops.veturbo.aes_ctr_decrypt_(copy, key, iv, 3)
        return copy.view(torch.int32) + 1

    expected = run(torch.zeros(50), KEYS[128], IV)
    compiled = torch.compile(run, backend=backend, fullgraph=True)
    assert torch.equal(compiled(torch.zeros(50), KEYS[128], IV), expected)
