import pytest
import tiny
import torch
from generated import det
from golden_cases import DECODE, GOLDEN, decode_inputs


@pytest.mark.parametrize("case", DECODE)
@pytest.mark.usefixtures("ways")
def test_decode_golden(case):
    kind, inputs = decode_inputs(case)
    with torch.inference_mode():
        out = tiny.vae(kind).decode(*inputs)
    torch.testing.assert_close(out, GOLDEN[case], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
@pytest.mark.usefixtures("ways")
def test_encode_golden(kind):
    with torch.inference_mode():
        mean = tiny.vae(kind).encode(det(f"{kind}/pixels", (1, 3, 3, 24, 32)))
    torch.testing.assert_close(mean, GOLDEN[f"{kind}/encode_mean"], rtol=1e-4, atol=1e-4)
