import pytest
import tiny
import torch
from generated import det, golden

GOLDEN = golden()


@pytest.mark.parametrize("case", [k for k in GOLDEN if k.startswith("vae_") and "decode" in k])
@pytest.mark.usefixtures("ways")
def test_decode_golden(case):
    kind, t, what = case.split("/")
    name, shape = f"{kind}/{t}", (int(t), 6, 8)
    w = float(what.partition("_w")[2] or 1)
    with torch.inference_mode():
        out = tiny.vae(kind).decode(
            det(f"{name}/z", (1, 4, *shape)), det(f"{name}/low_res", (1, 3, *shape)).clamp(-1, 1), w
        )
    torch.testing.assert_close(out, GOLDEN[case], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
@pytest.mark.usefixtures("ways")
def test_encode_golden(kind):
    with torch.inference_mode():
        mean = tiny.vae(kind).encode(det(f"{kind}/pixels", (1, 3, 3, 24, 32)))
    torch.testing.assert_close(mean, GOLDEN[f"{kind}/encode_mean"], rtol=1e-4, atol=1e-4)
