"""The cases by name."""

from __future__ import annotations

from collections.abc import Callable

from .case import Case, Setup, propagation_case, unet_case, vae_case
from .flow import builtin_flow_case, raft_case
from .run import run_case

CASES: dict[str, Callable[[Setup], Case | None]] = {
    "unet": unet_case,
    "run": run_case,
    "vae": vae_case,
    "flow": builtin_flow_case,
    "raft": raft_case,
    "propagation": propagation_case,
}
"""The functions return None if a case needs a package that is not installed."""
