"""Compare time and memory of the networks, a run, flow and propagation with plain eager code.

Also measures the memory of long videos by their length.

    python -m bench [--quick] [--repeat N] [--size N] [--run-steps N]
                            [--device auto|cpu|cuda]

Writes output/bench.json and output/bench.md; docs/benchmarks.md explains the numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "tests" / "support"))

from torchvision_shim.prestartup_script import install as complete_torchvision  # noqa: E402

from bench.cases.all import CASES  # noqa: E402
from bench.cases.case import Setup  # noqa: E402
from bench.measure.compare import DifferentResultError, count_processor_time, run_case, run_whole  # noqa: E402
from bench.measure.machine import describe, measure_limits  # noqa: E402
from bench.studies.calibrate import calibrate  # noqa: E402
from bench.studies.long_video import (  # noqa: E402
    FRAMES,
    QUICK_FRAMES,
    LongVideoError,
    long_json,
    long_table,
    measure_long,
)
from bench.studies.moved import measure_moved  # noqa: E402
from bench.studies.precision import measure_precision  # noqa: E402
from bench.studies.real_sizes import measure_real_sizes  # noqa: E402
from bench.studies.report import (  # noqa: E402
    as_json,
    as_markdown,
    moved_table,
    precision_table,
    real_sizes_table,
    scaling_tables,
)
from bench.studies.scaling import measure_scaling  # noqa: E402

LONG = "long"

log = logging.getLogger("bench")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the options."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks; takes seconds in total"
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=5,
        help="timed runs of the pack and of the eager code (default: 5)",
    )
    parser.add_argument(
        "--size", type=int, help="height and width of the latents (default: 32; with --quick 8)"
    )
    parser.add_argument(
        "--run-steps", type=int, default=1, help="also time one run of this many steps (default: 1)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[*CASES, LONG],
        default=[*CASES, LONG],
        help="run only these cases, or none",
    )
    parser.add_argument(
        "--long-frames",
        type=int,
        nargs="+",
        help="frames of each long video (default: 50 150; 200 2000 takes ten minutes)",
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="measure the processor time of one thread, for a CPU that other programs use too",
    )
    parser.add_argument("--precision", action="store_true", help="compare half precision with fp32")
    parser.add_argument(
        "--real-sizes",
        action="store_true",
        help="compute the memory needed at usual sizes; needs no GPU",
    )
    parser.add_argument(
        "--moved", action="store_true", help="count kernels and bytes moved on a GPU; needs no GPU"
    )
    parser.add_argument(
        "--scaling", action="store_true", help="measure growth with frames and pixels"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "output", help="folder for the results"
    )
    options = parser.parse_args(words)
    options.size = options.size or (8 if options.quick else 32)
    options.long_frames = options.long_frames or (QUICK_FRAMES if options.quick else FRAMES)
    counts = (options.repeat, options.size, options.run_steps, *options.long_frames)
    if min(counts) < 1:
        parser.error("--repeat, --size, --run-steps and --long-frames: expected 1 or more")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    return options


def main() -> int:
    """Measure, log the tables and write them to files."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse()
    complete_torchvision()  # for RAFT, as torchvision may have been built for another PyTorch
    device = torch.device(options.device)
    # No TF32, so that both sides compute in fp32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if options.processor_time:
        torch.set_num_threads(1)
        count_processor_time()
    setup = Setup(device, options.size, options.quick, options.run_steps)

    machine, results, runs, skipped = describe(device), {}, [], []
    limits = measure_limits(device, options.quick)
    compared = [name for name in options.only if name != LONG]
    for name in compared:
        case = CASES[name](setup)
        if case is None:
            log.warning("%s: left out, because a package that it needs cannot be imported.", name)
            skipped.append(name)
            continue
        try:
            results[name] = run_case(case, options.repeat, device)
            if case.whole:
                results[f"{name} whole"] = run_whole(case.whole, results[name], device)
        except DifferentResultError as error:
            log.error("%s A ratio would mean nothing: this case is left out.", error)
            continue
        results[name].calibration = calibrate(case.network, setup)
        # Measured again after every case, as other load may have slowed the first measurement.
        limits = limits.best_of(measure_limits(device, options.quick))

    if LONG in options.only:
        try:
            runs = measure_long(options.long_frames, device=options.device)
        except LongVideoError as error:
            log.error("%s The long videos are left out.", error)

    text = as_markdown(machine, setup, limits, results)
    if runs:
        text += f"\n{long_table(runs)}\n"
    if options.precision:
        text += "\n" + precision_table(measure_precision(setup, options.repeat)) + "\n"
    if options.moved:
        text += "\n" + moved_table(measure_moved(options.quick)) + "\n"
    if options.real_sizes:
        text += "\n" + real_sizes_table(measure_real_sizes(options.quick)) + "\n"
    if options.scaling:
        text += "\n" + scaling_tables(measure_scaling(device, options.quick)) + "\n"
    log.info("\n%s", text)
    options.output.mkdir(parents=True, exist_ok=True)
    data = {**as_json(machine, setup, limits, results), "long_videos": long_json(runs)}
    (options.output / "bench.json").write_text(json.dumps(data, indent=2) + "\n")
    (options.output / "bench.md").write_text(text)
    done = all(name in results for name in compared if name not in skipped)
    return 0 if done and bool(runs) == (LONG in options.only) else 1


if __name__ == "__main__":
    sys.exit(main())
