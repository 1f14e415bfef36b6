import pytest
import tiny
import torch
from golden_cases import GOLDEN, UNET, unet_inputs


@pytest.mark.parametrize("case", UNET)
@pytest.mark.usefixtures("ways")
def test_golden(case):
    with torch.inference_mode():
        v = tiny.unet()(*unet_inputs(case))
    torch.testing.assert_close(v, GOLDEN[case], rtol=1e-4, atol=1e-4)
