"""What a process says of its memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
CALL = "from uav_core.devices.memory import peak_ram; print(peak_ram())"


def test_a_peak_is_of_the_process_alone():
    if not Path("/proc/self/status").exists():
        pytest.skip("this system counts the process that started it as well")
    held = np.ones(3 * 2**29, np.uint8)
    child = subprocess.run([sys.executable, "-c", CALL], cwd=ROOT, capture_output=True, check=True)
    assert 0 < int(child.stdout) < held.nbytes
