"""What a run costs by its length: a generated sweep of small cases on the NumPy adapter.

Printed for each length: seconds to read the cases, verdicts a second, and the peak memory of the main process when
the cases are read, when all is judged and recorded, and at the end, reports written. Nothing here asserts a figure.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

#: Cases under way are few however many there are, so a case is as small as can be.
CASES = """\
conformance: 1
about: A sweep.
cases:
  sweep:
    why: It is long.
    layer: {{}}
    input: {{shape: [2, 2], normal: {{}}}}
    matrix:
      layer.eps: [{eps}]
      input.normal.seed: [{seeds}]
"""

#: Runs in a process of its own, whose peak memory never falls.
_MEASURED = """
import resource, sys, time
from conformance.commands import launch
from conformance.commands import run as command
from conformance.record import RunWriter

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def told(before, name):
    def tell(*arguments, **rest):
        result = before(*arguments, **rest)
        print(name, time.perf_counter() - started, peak(), file=sys.stderr)
        return result
    return tell

started = time.perf_counter()
command.read_cases = told(command.read_cases, "read")
RunWriter.finish = told(RunWriter.finish, "judged")
command.read = told(command.read, "reread")
code = launch.run([*map(launch.Path, sys.argv[2:])], ["numpy"], "", launch.Path(sys.argv[1]), 1, "cpu", 120.0)
print("reported", time.perf_counter() - started, peak(), file=sys.stderr)
sys.exit(code)
"""


def measure(length: int) -> None:
    """One run of so many cases."""
    across = next(n for n in range(int(length**0.5), 0, -1) if length % n == 0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sweep.yaml")
        eps = ", ".join(f"{n}e-9" for n in range(1, across + 1))
        file.write_text(CASES.format(eps=eps, seeds=", ".join(map(str, range(length // across)))))
        command = [sys.executable, "-c", _MEASURED, str(Path(folder, "run")), str(file)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
    stages = {
        words[0]: (float(words[1]), float(words[2])) for line in done.stderr.splitlines() if (words := line.split())
    }
    rate = length / (stages["judged"][0] - stages["read"][0])
    peaks = ", ".join(f"{name} {megabytes:.0f} MB" for name, (_, megabytes) in stages.items())
    print(f"{length:>7} cases: read in {stages['read'][0]:.1f} s, {rate:.0f} verdicts/s; peak {peaks}", flush=True)


def main() -> None:
    """Measure each length in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", nargs="*", type=int, default=[1_000, 10_000], help="100000 takes minutes")
    for length in parser.parse_args().lengths:
        measure(length)


if __name__ == "__main__":
    main()
