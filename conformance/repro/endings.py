"""How a script decides: the lines that compare, count, or wait for an exception, and exit with 0 or 1."""

from __future__ import annotations

from collections.abc import Sequence

#: What follows runs in a process of its own, since it may take that with it.
GUARD = [
    "",
    "if len(sys.argv) == 1:  # what follows runs in a process of its own, which may die",
    "    try:",
    '        child = subprocess.run([sys.executable, __file__, "child"], timeout=120)',
    "    except subprocess.TimeoutExpired as error:",
    "        sys.exit(str(error))",
    '    print(f"The process ended with status {child.returncode}.")',
    "    sys.exit(child.returncode != 0)",
]


def compared(pair: str) -> list[str]:
    """`seen` against `expected` within `bounds`; `pair` is source of a tensor's two arrays, named by `name`."""
    return [
        "failed = False",
        "for name, (rtol, atol) in bounds.items():",
        f"    a, b = {pair}",
        '    with np.errstate(all="ignore"):',
        "        error = np.abs(a - b) / (atol + rtol * np.abs(b))",
        "        error[~np.isfinite(a - b)] = np.inf  # a NaN or an infinity out of its place",
        "    error[(a == b) | (np.isnan(a) & np.isnan(b))] = 0",
        "    at = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))",
        "    print(",
        '        f"{name}{list(at)} is {a[at]:.9g}, should be {b[at]:.9g}: {error[at]:.3g} times the bound,"',
        '        f" {(error > 1).sum()} of {error.size} beyond it"',
        "    )",
        "    failed |= bool(error[at] > 1)",
        "sys.exit(failed)",
    ]


def repeated(body: Sequence[str], again: int, steps: int) -> list[str]:
    """`body`, which fills `seen`, `again` more times, and how many of them differ from the first."""
    return [
        "def run():",
        "    seen = {}",
        *indented(body),
        '    return b"".join(value.tobytes() for value in seen.values())',
        "",
        "",
        "first = run()",
        f"differing = sum(run() != first for _ in range({again}))",
        f'print(f"{{differing}} of {again} runs of {steps} steps differ from the first")',
        "sys.exit(differing > 0)",
    ]


def attempted(body: Sequence[str], meaningless: bool) -> list[str]:
    """Construction and calls that raise, or should as they are `meaningless`."""
    ends = "It is refused, as it should be." if meaningless else "It should not raise."
    after = "It should have raised an exception." if meaningless else "It does not raise: nothing is wrong."
    return [
        "try:",
        *indented(body),
        "except Exception as error:",
        '    print(f"{type(error).__name__}: {error}")',
        f'    sys.exit("{ends}")' if not meaningless else f'    print("{ends}")\n    sys.exit(0)',
        f'sys.exit(f"y is {{y}}\\n{after}")' if meaningless else f'print("{after}")',
    ]


def let(body: Sequence[str]) -> list[str]:
    """`body`, which raises; nobody minds."""
    return ["try:", *indented(body), "except Exception as error:", '    print(f"refused: {type(error).__name__}")']


def indented(lines: Sequence[str]) -> list[str]:
    """Lines within a block."""
    return [f"    {line}" if line else "" for line in lines]
