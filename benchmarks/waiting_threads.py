"""Clips that an encoder encodes in a second, with threads that wait as libgomp has it and as `m2dx` has it.

    python benchmarks/waiting_threads.py [--encoder starter] [--busy 0 1 2] [--rounds 5]

Beside each number of other processes of torch, with threads of their own. GOMP_SPINCOUNT, OMP_WAIT_POLICY and
OMP_NUM_THREADS must not be set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from timing import Quartiles, Tables, at_least, give, in_turns, options_of

from m2dx import cli

BUSY = """
import torch
x = torch.randn(32, 192, 192)
while True:
    torch.bmm(x, x).softmax(-1)
"""
TIMED = """
import sys, time, torch, m2dx
encoder, clips = m2dx.load_encoder(sys.argv[1]), torch.randn(32, 3 * 16000)
with torch.inference_mode():
    encoder(clips)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < 2 or batches < 3:
        encoder(clips)
        batches += 1
print(32 * batches / (time.perf_counter() - started))
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Times each load; the exit status."""
    parser = options_of(__doc__, recipe_fields=False)
    parser.add_argument("--encoder", default="starter")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="other processes of torch")
    parser.add_argument("--rounds", type=at_least(1), default=5)
    options = parser.parse_args(arguments)

    def clips_per_second(case: str, turn: int) -> float:
        environment = {**os.environ, **({"GOMP_SPINCOUNT": cli.SPINS} if case == "m2dx" else {})}
        command = [sys.executable, "-c", TIMED, options.encoder]
        return float(
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        )

    def measure() -> Tables:
        rows = []
        for busy in options.busy:
            others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
            try:
                found = in_turns(["libgomp", "m2dx"], options.rounds, clips_per_second)
            finally:
                for other in others:
                    other.kill()
            rows.append(
                {"other processes": busy}
                | {f"{case}, clips/s": str(Quartiles.of(speeds)) for case, speeds in found.items()}
                | {"times as fast": str(Quartiles.ratio(found["m2dx"], found["libgomp"]))}
            )
        return {"Clips of 3 s encoded in a second": rows}

    return give(options, measure)


if __name__ == "__main__":
    sys.exit(main())
