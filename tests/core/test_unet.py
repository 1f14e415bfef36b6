import pytest
import tiny
import torch
from generated import det, golden

GOLDEN = golden()


@pytest.mark.parametrize("case", [k for k in GOLDEN if k.startswith("unet/")])
@pytest.mark.usefixtures("ways")
def test_golden(case):
    name = case.removesuffix("/out")
    b, t, h, w = (int(n) for n in name.split("/")[1].split("x"))
    with torch.inference_mode():
        v = tiny.unet()(
            det(f"{name}/latent", (b, 4, t, h, w)),
            torch.full((b,), 500),
            det(f"{name}/low_res", (b, 3, t, h, w)),
            tiny.context()[:b],
            torch.full((b,), 120),
        )
    torch.testing.assert_close(v, GOLDEN[case], rtol=1e-4, atol=1e-4)
