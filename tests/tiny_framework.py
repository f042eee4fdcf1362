"""A framework of one module with a changing past, as wheels that pip installs from a folder, and its adapter.

1.0 stores the running variance biased, 2.0 unbiased; 2.1 changes nothing; 3.0 adds in float64, which rounds otherwise.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from conftest import ROOT

VERSIONS = {"1.0": "BIASED = True", "2.0": "BIASED = False", "2.1": "BIASED = False", "3.0": "BIASED = False"}
PROFILE = """\
framework: tinyframe
name: Tinyframe
package: tinyframe
options: {device: [cpu]}
parameters: {}
conventions:
  - running_variance: biased
    when: {version: "<2"}
  - summation: sequential
"""
RULES = """\
history: ["1.0", "2.0"]
packages:
  tinyframe:
    - {versions: "", python: ">=3.8", install: ["tinyframe=={version}"]}
"""
CASES = """\
conformance: 1
about: What tells the versions apart.
defaults:
  layer: {}
  input: {shape: [4, 3, 5, 5], normal: {mean: 3, std: 2}}
cases:
  evaluates: {why: Evaluation moves no statistics., gradient: null, steps: [eval]}
  trains: {why: Training does., matrix: {layer.momentum: [0.1, 0.5]}, steps: [train, eval]}
"""


def make(folder: Path) -> Path:
    """Put the wheels and the adapter ``tinyframe`` into the folder, and return the adapter's."""
    for version, said in VERSIONS.items():
        accumulator = "float64" if version == "3.0" else "float32"
        module = f'VERSION = "{version}"\n{said}\nACCUMULATOR = "{accumulator}"\n'
        with zipfile.ZipFile(folder / f"tinyframe-{version}-py3-none-any.whl", "w") as wheel:
            info = f"tinyframe-{version}.dist-info"
            wheel.writestr("tinyframe.py", module)
            wheel.writestr("tinyframe.pth", str(Path(np.__file__).parents[1]) + "\n")  # where the suite has its NumPy
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinyframe\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    adapter = folder / "tinyframe"
    adapter.mkdir()
    source = (ROOT / "adapters" / "numpy" / "adapter.py").read_text(encoding="utf-8")
    for old, new in {
        "import numpy as np\n": "import numpy as np\nimport tinyframe\n",
        '"version": np.__version__': '"version": tinyframe.VERSION',
        "unbiased = var * self.real": "unbiased = var if tinyframe.BIASED else var * self.real",
        "return values.mean(self.axes, dtype=self.real)": (
            "return values.mean(self.axes, tinyframe.ACCUMULATOR).astype(self.real)"
        ),
    }.items():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    (adapter / "adapter.py").write_text(source, encoding="utf-8")
    (adapter / "profile.yaml").write_text(PROFILE, encoding="utf-8")
    (adapter / "versions.yaml").write_text(RULES, encoding="utf-8")
    (folder / "small.yaml").write_text(CASES, encoding="utf-8")
    return adapter
