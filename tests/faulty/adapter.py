"""The NumPy adapter with one fault, chosen by the option `fault`: a line or two of its source written otherwise.

What is wrong with BatchNorms in the wild is wrong here on purpose, so that the suite can be seen to catch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import harness
from conformance.harness import Adapter, Array, Layer, Native, Step

GOOD = Path(__file__).parents[2] / "adapters" / "numpy" / "adapter.py"

Edit = tuple[str, str]


@dataclass(frozen=True)
class Fault:
    """What a layer does wrong, and the edits that make it: text that stands once in the adapter → other text.

    `named` are the diagnoses, or types of exceptions, that say what it does; none where no convention explains it and
    it should be called unexplained.
    """

    what: str
    edits: tuple[Edit, ...]
    named: tuple[str, ...] = ()


def _f(what: str, *edits: Edit, named: str = "") -> Fault:
    return Fault(what, edits, tuple(named.split()))


# The lines that faults are written into.
AGAIN = "layer.forward(x, dtype, mask, again=True)"
ALONG = 'tensors["jvp"] = layer.along(numbers(step.tangent))'
ASSIGNED = "setattr(layer, name, value)"
AXES = "self.axes = (0, *range(2, x.ndim))"
BATCH = "self.batch = self.training or not self.track_running_stats"
BETA = "+ self.beta.reshape(self.column)"
CAPTURED = (
    'made = vars(layer).setdefault("made", {"eps": layer.eps, "momentum": layer.momentum}); '
    'now = {**made, **vars(layer).get("given", {})}; calls = vars(layer).setdefault("calls", {}); '
    "vars(layer).update(calls.setdefault((step.mode, step.frozen, step.x.shape), now))"
)
CHANNELS = 'raise ValueError(f"expected {self.features} channels, got {x.shape[1]}")'
COUNT = "self.n = x.size // max(self.features, 1) if mask is None else int(mask.sum())"
COLUMN = "self.column = (1, -1) + (1,) * (x.ndim - 2)"
CORRECTION = "var * self.real(self.n / (self.n - 1))"
DBETA = "dbeta = g.sum(self.axes)"
DGAMMA = "dgamma = (g * self.xhat).sum(self.axes)"
DIMENSIONS = 'raise ValueError(f"BatchNorm{self.rank}d does not take {x.ndim} dimensions")'
DTYPES = "layer.dtype if name in OF_PARAMETERS else dtype"
DX = "g - mean_g - self.xhat * mean_gx"
FIRST_64 = "self.gamma[np.arange(self.features) % (64 if self.rank == 3 else self.features)]"
EVAL = "mu, var = self.running_mean, self.running_var"
GAMMA = "self.xhat * self.gamma.reshape(self.column)"
HALF = 'rounded({}, "float16")'
OF_PRODUCTS = "self.inv * (g * (self.seen[0] - self.seen[1].reshape(self.column))).sum(self.axes)"
INV = "1 / np.sqrt(var + self.real(self.eps))"
MEAN_G = "mean_g = (dbeta / self.real(self.n))"
MEAN_GX = "mean_gx = (dgamma / self.real(self.n))"
MODE = 'layer.training = step.mode == "train"'
MOMENTUM = "self.real(1 / self.num_batches_tracked if self.momentum is None else self.momentum)"
MU = "mu = self.mean(x)"
OUTER = "(self.gamma * self.inv)"
R_MEAN = "(1 - m) * self.running_mean + m * mu"
R_VAR = "(1 - m) * self.running_var + m * unbiased"
ROUNDED = "rounded({}, self.given)"
SECOND = "ddx, ddgamma, ddy = layer.second(numbers(step.dy), numbers(step.v))"
SQUARES = "(x - mu.reshape(self.column)) ** 2"
START = "self.training = True"
PASSED_ON = "dx, dgamma, dbeta = layer.backward(numbers(step.dy))"
PASSES_MASK = "None if step.mask is None else step.mask.numpy()"
UPDATE = "self.update(mu, var)"
VAR = f"self.mean({SQUARES})"
SUM_OF_SQUARES = f"{VAR} * self.n"
FIRST_EPS = 'globals().setdefault("EPS", {}).setdefault(f"{self.eps:.17f}", self.eps)'
XHAT = "self.xhat = (x - mu.reshape(self.column)) * self.inv.reshape(self.column)"
XHAT_IN_STEPS = "self.xhat = rounded(self.taken * rounded(self.inv, self.given).reshape(self.column), self.given)"
XHAT_OF_Y = "xhat = (x - mu.reshape(self.column)) * inv.reshape(self.column)"
Y = 'tensors = {"y": y}'


#: Differentiates the derivative of y along v with the mean and the deviation in it held.
HELD = """def held(layer, ddx, g, v, by):
    if by not in ("reverse-over-forward", "forward-over-forward") or not layer.batch:
        return ddx
    outer = layer.gamma.reshape(layer.column) * layer.inv.reshape(layer.column) ** 2
    centred, slope = v - v.mean(layer.axes, keepdims=True), (v * layer.xhat).mean(layer.axes, keepdims=True)
    if by == "reverse-over-forward":
        return -outer * ((g * layer.xhat).mean(layer.axes, keepdims=True) * centred + slope * g)
    return -outer * (layer.xhat * (centred * g).mean(layer.axes, keepdims=True) + slope * g)


@dataclass
"""

#: The gradients are taken with x and μ as well.
SEEN = XHAT, f"{XHAT}; self.seen = x, mu"


def _helper(name: str, dtype: str) -> Edit:
    """A function that rounds to a dtype."""
    first = "@dataclass\n"
    body = f"return rounded(np.asarray(a, np.float32), '{dtype}').astype(np.result_type(a, np.float32))"
    return first, f"def {name}(a):\n    {body}\n\n\n{first}"


def _by_chain_rule(what: str, about: str, through_mean: str, named: str) -> Fault:
    """dx by the chain rule, link by link, its variance about a mean through which something goes."""
    links = (
        "x, mu = self.seen; n = self.real(self.n)",
        "of_slope = self.gamma * ((g * x).sum(self.axes) - mu * dbeta)",
        "of_variance = -(self.inv**3) * (of_slope / 2)",
        f"about = {about}",
        "spread = 2 * (x - about.reshape(self.column)) / n * of_variance.reshape(self.column)",
        f"of_mean = -{OUTER} * dbeta / n - {through_mean}",
        "taken = of_mean.reshape(self.column) + spread",
        "return outer * g + np.where(self.kept, taken, 0), dgamma, dbeta",
    )
    return _f(
        what, SEEN, (f"return outer * np.where(self.kept, {DX}, g), dgamma, dbeta", "; ".join(links)), named=named
    )


def _in_gradients(what: str, statistics: str, named: str) -> Fault:
    """A fault in the statistics that the gradients are taken with, and y is not."""
    edits = (XHAT, f"{XHAT}; xhat = self.xhat; {statistics}; {XHAT}"), (GAMMA, GAMMA.replace("self.xhat", "xhat"))
    return _f(what, *edits, named=named)


CONVENTIONS = {
    "running_variance_biased": _f(
        "Stores the variance without the n/(n−1) factor.", (CORRECTION, "var"), named="running-variance-biased"
    ),
    "running_variance_corrected_twice": _f(
        "Stores the variance with the factor squared.",
        (CORRECTION, "var * self.real((self.n / (self.n - 1)) ** 2)"),
        named="running-variance-corrected-twice",
    ),
    "batch_variance_unbiased": _f(
        "Normalises the batch by its unbiased variance.",
        (INV, "1 / np.sqrt(var * self.real(self.n / (self.n - 1) if self.batch else 1) + self.real(self.eps))"),
        named="batch-variance-unbiased",
    ),
    "momentum_reversed": _f(
        "Takes momentum for the weight of the old statistics.",
        (MOMENTUM, MOMENTUM.replace("else self.momentum", "else 1 - self.momentum")),
        named="momentum-weighs-old",
    ),
    "momentum_ignored": _f(
        "Has a momentum of 0.1 whatever was asked for.", (MOMENTUM, "self.real(0.1)"), named="momentum-0.1"
    ),
    "momentum_none_is_the_default": _f(
        "Takes no momentum for 0.1.",
        (MOMENTUM, MOMENTUM.replace("1 / self.num_batches_tracked", "0.1")),
        named="exponential-average momentum-0.1",
    ),
    "momentum_clipped": _f(
        "Holds momentum to [0, 1] without a word.",
        (MOMENTUM, f"np.clip({MOMENTUM}, self.real(0), self.real(1))"),
        named="momentum-clipped",
    ),
    "cumulative_up_to_eight": _f(
        "Weighs every batch after the eighth like the eighth in a cumulative average.",
        (MOMENTUM, MOMENTUM.replace("1 / self.num_batches_tracked", "1 / min(self.num_batches_tracked, 8)")),
    ),
    "always_cumulative": _f(
        "Averages over all batches.", (MOMENTUM, "self.real(1 / self.num_batches_tracked)"), named="cumulative-average"
    ),
    "eps_outside_root": _f(
        "Adds eps to the deviation.", (INV, "1 / (np.sqrt(var) + self.real(self.eps))"), named="eps-outside-root"
    ),
    "eps_added_twice": _f(
        "Adds eps to the variance twice.", (INV, INV.replace("self.eps", "2 * self.eps")), named="eps-added-twice"
    ),
    "eps_of_another_framework": _f(
        "Has an eps of 1e-3 whatever was asked for.", (INV, INV.replace("self.eps", "1e-3")), named="eps-1e-3"
    ),
    "eps_ignored": _f("Adds no eps.", (INV, "1 / np.sqrt(var)"), named="eps-ignored"),
    "eps_as_floor": _f(
        "Raises the variance to eps.",
        (INV, "1 / np.sqrt(np.maximum(var, self.real(self.eps)))"),
        named="eps-as-floor eps-ignored",  # the same thing where every variance is above eps
    ),
    "eps_stored": _f(
        "Stores the variance with eps added.",
        (CORRECTION, f"({CORRECTION} + self.real(self.eps))"),
        named="eps-stored",
    ),
    "root_forgotten": _f("Divides by the variance.", (INV, "1 / (var + self.real(self.eps))"), named="root-forgotten"),
    "infers_by_default": _f("Begins in evaluation.", (START, "self.training = False"), named="default-mode-eval"),
    "assignment_ignored": _f(
        "Holds what it was made with, whatever is assigned to its attributes.",
        (ASSIGNED, "pass"),
        named="assignment-ignored",
    ),
    "assignment_ignored_once_called": _f(
        "Holds what stood at the first call of each kind, as compiled code does.",
        (ASSIGNED, 'vars(layer).setdefault("given", {})[name] = value'),
        (MODE, f"{MODE}; {CAPTURED}"),
        named="assignment-ignored-once-compiled",
    ),
    "keeps_the_mode_of_its_first_tangent": _f(
        "Runs in the mode in which it was first differentiated along a tangent of this shape.",
        (
            "x, dtype = numbers(step.x), step.x.dtype",
            "x, dtype = numbers(step.x), step.x.dtype; told, modes = layer.training, vars(layer).setdefault('m', {}); "
            "layer.training = told if step.tangent is None else modes.setdefault(x.shape, told)",
        ),
        (Y, f"{Y}; layer.training = told"),
        named="mode-of-first-tangent",
    ),
    "forgets_the_mode": _f(
        "Trains wherever a call names no mode.",
        ('if step.mode != "default":', "if True:"),
        (MODE, MODE + ' or step.mode == "default"'),
        named="mode-per-call",
    ),
}

STATE = {
    "never_updates": _f(
        "Leaves the running statistics as they were.", (UPDATE, "pass"), named="statistics-not-updated"
    ),
    "updates_in_evaluation": _f(
        "Moves the running statistics in evaluation too.",
        (EVAL, f"{MU}; var = {VAR}; held = (self.running_mean, self.running_var); {UPDATE}; mu, var = held"),
        named="statistics-updated-in-eval",
    ),
    "updates_twice": _f(
        "Moves the running statistics twice a step.", (UPDATE, f"{UPDATE}; {UPDATE}"), named="statistics-updated-twice"
    ),
    "updates_thrice": _f(
        "Moves the running statistics three times a step.",
        (UPDATE, f"{UPDATE}; {UPDATE}; {UPDATE}"),
        named="statistics-updated-thrice",
    ),
    "updates_as_it_recomputes": _f(
        "Moves the running statistics again as the backward pass runs the layer again.",
        (AGAIN, AGAIN.replace("again=True", "again=False")),
        named="statistics-updated-in-backward",
    ),
    "recomputes_in_evaluation": _f(
        "Runs the layer again in evaluation, so that nothing moves, and takes the gradients by the running statistics.",
        (AGAIN, f"layer.training, mode = False, layer.training; {AGAIN}; layer.training = mode"),
        named="gradients-by-running-statistics",
    ),
    "updates_along_a_tangent": _f(
        "Moves the running statistics again as y is differentiated along a tangent.",
        (ALONG, f"layer.forward(x, dtype, mask); {ALONG}"),
        named="statistics-updated-along-tangent",
    ),
    "updates_again_in_forward_mode": _f(
        "Moves the running statistics again as second derivatives are taken in forward mode.",
        (SECOND, f"vars(layer) if step.by is None else layer.forward(x, dtype, mask); {SECOND}"),
        named="statistics-updated-along-tangent",
    ),
    "updates_before_normalising": _f(
        "Trains by the running statistics, which it moves first.",
        (UPDATE, f"{UPDATE}; {EVAL}; self.batch = False"),
        named="updated-before-normalising",
    ),
    "trains_by_running_statistics": _f(
        "Trains by the running statistics, which it moves afterwards.",
        (UPDATE, f"held = (self.running_mean, self.running_var); {UPDATE}; mu, var = held; self.batch = False"),
        named="running-statistics-in-train",
    ),
    "evaluates_by_the_batch": _f(
        "Normalises by the batch in evaluation.", (BATCH, "self.batch = True"), named="batch-statistics-in-eval"
    ),
    "starts_anew_each_step": _f(
        "Forgets the running statistics before it moves them.",
        (UPDATE, f"self.running_mean, self.running_var = np.zeros_like(mu), np.ones_like(var); {UPDATE}"),
        named="statistics-begin-anew",
    ),
    "mean_not_updated": _f("Moves running_var alone.", (R_MEAN, "self.running_mean"), named="mean-not-updated"),
    "variance_not_updated": _f("Moves running_mean alone.", (R_VAR, "self.running_var"), named="variance-not-updated"),
    "counts_to_one": _f(
        "Does not count on after the first batch.",
        ("self.num_batches_tracked += 1", "self.num_batches_tracked = 1"),
        named="counter-stops",
    ),
    "stores_the_deviation": _f(
        "Averages standard deviations.",
        (R_VAR, R_VAR.replace("unbiased", "np.sqrt(unbiased)")),
        named="deviation-stored",
    ),
    "loses_its_state_on_loading": _f(
        "Saves the parameters and not the statistics.",
        (
            "self.facts.append(",
            "layer.running_mean, layer.running_var = layer.running_mean * 0, layer.running_var * 0 + 1; "
            "self.facts.append(",
        ),
        named="statistics-not-loaded",
    ),
    "loads_in_the_order_of_names": _f(
        "Loads γ with its channels sorted as text, 10 before 2.",
        (
            "self.facts.append(",
            "layer.gamma = layer.gamma[sorted(range(layer.features), key=str)]; self.facts.append(",
        ),
        named="parameters-changed",
    ),
    "trains_its_parameters": _f(
        "Moves γ in the backward pass.",
        (DGAMMA, f"{DGAMMA}; self.gamma = self.gamma - self.real(0.1) * dgamma"),
        named="parameters-changed",
    ),
}

AXES_AND_PARAMETERS = {
    "one_mean_for_all_channels": _f(
        "Takes the mean over the channels too.",
        (MU, "mu = np.full(self.features, self.mean(x).mean())"),
        named="mean-of-all-channels",
    ),
    "statistics_of_all_channels": _f(
        "Takes mean and variance over the channels too.",
        (MU, "mu = np.full(self.features, self.mean(x).mean())"),
        (VAR, f"np.full(self.features, {VAR}.mean())"),
        named="statistics-of-all-channels",
    ),
    "counts_samples": _f(
        "Takes n for the size of the batch, whatever the spatial size.",
        (COUNT, "self.n = x.shape[0]"),
        named="samples-counted ValueError",
    ),
    "channels_on_the_last_axis": _f(
        "Takes the last axis for the channels where it is as long.",
        (
            AXES,
            "last = x.ndim > 2 and x.shape[-1] == self.features; "
            "self.axes = tuple(range(x.ndim - 1)) if last else (0, *range(2, x.ndim))",
        ),
        (COLUMN, f"{COLUMN} if not last else (-1,)"),
        named="channels-on-axis-2 channels-on-axis-3 channels-on-axis-4",
    ),
    "rank_2_alone": _f(
        "Sums over the axes of BatchNorm2d, whatever the rank.",
        (AXES, "self.axes = (0, 2, 3)"),
        named="AxisError ValueError",  # of volumes the means do not fit
    ),
    "gamma_ignored": _f("Does not apply γ.", (GAMMA, "self.xhat"), (OUTER, "self.inv"), named="gamma-ignored"),
    "beta_ignored": _f("Does not apply β.", (BETA, ""), named="beta-ignored"),
    "gamma_and_beta_swapped": _f(
        "Applies β as γ and γ as β.",
        (GAMMA, GAMMA.replace("gamma", "beta")),
        (BETA, BETA.replace("beta", "gamma")),
        (OUTER, "(self.beta * self.inv)"),
        named="gamma-beta-swapped",
    ),
    "gamma_backwards": _f(
        "Applies γ in the order of the channels reversed.",
        (GAMMA, GAMMA.replace("gamma", "gamma[::-1]")),
        (OUTER, OUTER.replace("gamma", "gamma[::-1]")),
        named="gamma-reversed",
    ),
    "gamma_of_the_first_channel": _f(
        "Applies the first γ to every channel.",
        (GAMMA, "self.xhat * self.gamma[0]"),
        (OUTER, OUTER.replace("gamma", "gamma[0]")),
        named="gamma-of-first-channel",
    ),
    "gamma_of_64_channels_of_volumes": _f(
        "Applies the first 64 γ over and over to the channels of volumes.",
        (GAMMA, f"self.xhat * {FIRST_64}.reshape(self.column)"),
        (OUTER, f"({FIRST_64} * self.inv)"),
    ),
    "gamma_forward_alone": _f(
        "Applies γ to y reversed, and to dx as it is.", (GAMMA, GAMMA.replace("gamma", "gamma[::-1]"))
    ),
    "affine_before_normalising": _f(
        "Applies γ and β to x, and normalises what comes out.",
        (GAMMA, "self.xhat"),
        (BETA, ""),
        (BATCH, f"{BATCH}; x = x * self.gamma.reshape(self.column) + self.beta.reshape(self.column)"),
    ),
    "statistics_per_sample": _f(
        "Normalises every sample by its own statistics.",
        (
            XHAT,
            "over = tuple(range(2, x.ndim)); alone = self.batch and over; "
            f"{XHAT} if not alone else (x - x.mean(over, keepdims=True)) / "
            "np.sqrt(x.var(over, keepdims=True) + self.real(self.eps))",
        ),
    ),
    "spatial_axes_swapped": _f(
        "Writes the last two axes of y in each other's order.",
        (Y, 'tensors = {"y": y.swapaxes(-1, -2).copy().reshape(y.shape) if y.ndim > 3 else y}'),
    ),
}

NUMERICS = {
    "one_pass_variance": _f(
        "Takes E[x²] − μ².",
        (VAR, "self.mean(x * x) - mu * mu"),
        named="variance-one-pass variance-cancelled sums-of-squares-overflow",
    ),
    "mask_ignored": _f("Counts what the mask leaves out.", (PASSES_MASK, "None"), named="mask-ignored"),
    "mask_multiplied": _f(
        "Multiplies what the mask leaves out by 0.",
        ("np.where(self.kept, values, 0)", "(values * self.kept)"),
        named="mask-multiplied",
    ),
    "mask_count_padded": _f(
        "Divides by the count of what the mask keeps and 1e-7.",
        ("dtype=self.real) / self.real(self.n)", "dtype=self.real) / self.real(self.n + 1e-7)"),
        named="mask-count-padded unexplained",  # where it keeps nothing, the statistics stay none the less
    ),
    "masked_output_blank": _f(
        "Returns 0 for what the mask leaves out.", (Y, 'tensors = {"y": np.where(layer.kept, y, 0)}')
    ),
    "mask_forgotten_in_dx": _f(
        "Takes both sums off dx where the mask leaves x out, too.", (f"np.where(self.kept, {DX}, g)", f"({DX})")
    ),
    "mean_in_half_precision": _f(
        "Adds up the mean in float16.",
        (MU, "mu = x.mean(self.axes, dtype=np.float16).astype(self.real)"),
        named="statistics-in-half",
    ),
    "variance_in_half_precision": _f(
        "Adds up the variance in float16.",
        (VAR, f"({SQUARES}).mean(self.axes, dtype=np.float16).astype(self.real)"),
        named="statistics-in-half",
    ),
    "output_through_half_precision": _f(
        "Rounds y to float16.",
        (Y, 'tensors = {"y": y.astype(np.float16)}'),
        named="output-in-half",
    ),
    "coarse_root": _f(
        "Has the root to four digits.",
        (INV, f"({INV}).astype(np.float16).astype(self.real)"),
        named="deviation-in-half",
    ),
    "variance_floor": _f(
        "Raises the variance to 1e-6.",
        (VAR, f"np.maximum({VAR}, self.real(1e-6))"),
        named="unexplained variance-one-pass variance-cancelled",  # one pass may make 1e-6 of 0 where the mean is 10
    ),
    "output_folded": _f(
        "Takes y as x·a + b.",
        (XHAT, f"{XHAT}; a = self.gamma * self.inv; b = self.beta - mu * a"),
        (f"{GAMMA} {BETA}", "x * a.reshape(self.column) + b.reshape(self.column)"),
        named="output-folded eps-in-float32+output-folded",
    ),
    "count_saturates": _f("Counts up to 255.", (COUNT, f"{COUNT}; self.n = min(self.n, 255)"), named="count-saturates"),
    "subnormals_flushed": _f(
        "Takes numbers below the smallest normal one for zero.",
        (MU, f"x = np.where(np.abs(x) < np.finfo(x.dtype).tiny, self.real(0), x); {MU}"),
        named="subnormals-flushed",
    ),
    "products_of_tf32": _f(
        "Rounds the factors of γ·x̂ and g·x̂ to 11 bits, as tensor cores do.",
        (GAMMA, "tf32(self.xhat) * tf32(self.gamma).reshape(self.column)"),
        (DGAMMA, "dgamma = (tf32(g) * tf32(self.xhat)).sum(self.axes)"),
        (
            "@dataclass\n",
            "def tf32(a):\n"
            "    fraction, exponent = np.frexp(a)\n"
            "    return np.ldexp(np.rint(np.ldexp(fraction, 11)), exponent - 11).astype(a.dtype)\n\n\n"
            "@dataclass\n",
        ),
        named="products-of-11-bits",
    ),
    "momentum_in_half_precision": _f(
        "Rounds momentum to float16.",
        (MOMENTUM, f"{MOMENTUM}\n        m = self.real(np.float16(m))"),
        named="momentum-in-half",
    ),
    "momentum_in_single_precision": _f(
        "Rounds momentum to float32.",
        (MOMENTUM, f"{MOMENTUM}\n        m = self.real(np.float32(m))"),
        named="momentum-in-float32",
    ),
    "eps_in_half_precision": _f(
        "Rounds eps to float16.", (INV, INV.replace("self.real", "np.float16")), named="eps-in-half eps-ignored"
    ),
    "eps_in_single_precision": _f(
        "Rounds eps to float32.", (INV, INV.replace("self.real", "np.float32")), named="eps-in-float32"
    ),
    "eps_in_single_precision_for_output": _f(
        "Rounds eps to float32 for y alone.",
        (XHAT, f"{XHAT}; inv = {INV.replace('self.real', 'np.float32')}; {XHAT_OF_Y}"),
        (GAMMA, GAMMA.replace("self.xhat", "xhat")),
        named="eps-in-float32-for-output",
    ),
    "saves_the_deviation_in_half_precision": _in_gradients(
        "Keeps the batch's mean and 1/√(σ²+ε) for the gradients in float16.",
        f"mu, self.inv = ({HALF.format('mu')}, {HALF.format('self.inv')}) if self.batch else (mu, self.inv)",
        named="gradients-deviation-in-float16",
    ),
    "saves_the_variance_in_half_precision": _in_gradients(
        "Keeps the batch's mean and variance for the gradients in float16.",
        f"mu, var = ({HALF.format('mu')}, {HALF.format('var')}) if self.batch else (mu, var); self.inv = {INV}",
        named="gradients-variance-in-float16",
    ),
    "squares_in_half_precision": _f(
        "Holds the sum of squares in float16, and what it is divided by.",
        (VAR, f"half(half({SUM_OF_SQUARES}) / half(self.n))"),
        _helper("half", "float16"),
        named="squares-in-float16 statistics-in-half",
    ),
    "moments_in_brain_float": _f(
        "Holds the batch's sum of squares, its variance, mean and 1/√(σ²+ε) in bfloat16.",
        (VAR, f"brain(brain({SUM_OF_SQUARES}) / brain(self.n))"),
        (XHAT, f"mu, self.inv = (brain(mu), brain(self.inv)) if self.batch else (mu, self.inv); {XHAT}"),
        _helper("brain", "bfloat16"),
        named="squares-and-moments-in-bfloat16",
    ),
    "deviation_in_its_dtype": _f(
        "Rounds 1/√(σ²+ε) to the dtype of the parameters.",
        (INV, f"rounded({INV}, self.dtype)"),
        named="statistics-rounded deviation-in-half",
    ),
    "normalised_in_the_inputs_dtype": _f(
        "Rounds x̂ to the dtype of the input.",
        (XHAT, f"{XHAT}; self.xhat = rounded(self.xhat, dtype)"),
        named="elements-rounded statistics-rounded products-of-11-bits",  # which float16 has, too
    ),
    "elements_in_the_inputs_dtype": _f(
        "Rounds every operation on elements to the dtype of the input.",
        (COLUMN, f"self.given = dtype; {COLUMN}"),
        (XHAT, f"self.taken = {ROUNDED.format('x - mu.reshape(self.column)')}; {XHAT_IN_STEPS}"),
        (GAMMA, ROUNDED.format(GAMMA)),
        (DGAMMA, f"dgamma = {ROUNDED.format('g * self.taken')}.sum(self.axes) * self.inv"),
        named="elements-rounded statistics-rounded",  # by whichever the layer's dtype admits
    ),
    "gradient_sums_in_the_inputs_dtype": _f(
        "Rounds the sums in dx to the dtype of the input.",
        (COLUMN, f"self.given = dtype; {COLUMN}"),
        (MEAN_G, MEAN_G.replace("dbeta", "rounded(dbeta, self.given)")),
        (MEAN_GX, MEAN_GX.replace("dgamma", "rounded(dgamma, self.given)")),
        named="terms-rounded",
    ),
    "statistics_stored_in_the_inputs_dtype": _f(
        "Rounds the running statistics to the dtype of the input.",
        (COLUMN, f"self.given = dtype; {COLUMN}"),
        (f"{R_MEAN}, self.dtype", f"{R_MEAN}, self.given"),
        (f"{R_VAR}, self.dtype", f"{R_VAR}, self.given"),
    ),
    "double_in_single_precision": _f(
        "Computes float64 in float32.",
        ('np.float64 if self.dtype == "float64" else np.float32', "np.float32"),
        named="computed-in-float32",
    ),
}

GRADIENTS = {
    "second_by_a_constant_mean": _f(
        "Differentiates the variance twice as if its mean were a constant.",
        ("gx_mean * v_left", "gx_mean * (v_left + v_mean)"),
        named="second-mean-detached",
    ),
    "second_without_the_statistics": _f(
        "Has no second derivative by x, as if the statistics were constants.", ("return ddx,", "return 0 * ddx,")
    ),
    "second_by_dy_not_centred": _f(
        "Does not take the mean of v off ddy.", ("gamma * inv * v_left", "gamma * inv * (v_left + v_mean)")
    ),
    "second_by_gamma_without_inv": _f("Leaves inv out of ddγ.", ("self.inv * (v * g_left)", "(v * g_left)")),
    "second_of_the_first_call": _f(
        "Keeps x̂ of the first call for the second derivatives of all.",
        (
            "gamma, inv = self.gamma",
            "first = vars(self).setdefault('first', self.xhat); "
            "self.xhat = first if first.shape == g.shape else self.xhat; gamma, inv = self.gamma",
        ),
    ),
    "second_by_constant_statistics": _f(
        "Holds mean and deviation for constants where it differentiates y along v once more.",
        ("@dataclass\n", HELD),
        (SECOND, f"{SECOND}; ddx = held(layer, ddx, numbers(step.dy), numbers(step.v), step.by)"),
        named="second-statistics-constant",
    ),
    "second_lost_in_forward_mode": _f(
        "Answers with zeros where one of the two modes is forward.",
        (SECOND, f"{SECOND}; ddx, ddgamma, ddy = (0 * a if step.by else a for a in (ddx, ddgamma, ddy))"),
        ('tensors["dx"] = dx', 'tensors["dx"] = dx * (step.by != "forward-over-forward")'),
        named="tangent-lost",
    ),
    "second_along_dy": _f(
        "Takes y along dy where it should along v, if one of the two modes is forward.",
        (SECOND, f"{SECOND}; ddy = layer.along(numbers(step.dy)) if step.by else ddy"),
    ),
    "tangent_lost": _f(
        "Answers a tangent with zeros.",
        (ALONG, 'tensors["jvp"] = np.zeros_like(y)'),
        named="tangent-lost",
    ),
    "tangent_not_centred": _f(
        "Does not take the mean of a tangent off.",
        ("centred = tangent - tangent.mean(self.axes, keepdims=True)", "centred = tangent"),
        named="gradient-mean-detached",
    ),
    "tangent_through_a_constant_deviation": _f(
        "Follows a tangent through the mean, and not through the deviation.",
        ("centred - self.xhat * slope", "centred"),
        named="gradient-variance-detached",
    ),
    "tangent_of_evaluation_through_the_batch": _f(
        "Follows a tangent through the batch's moments in evaluation, too.",
        (
            "return gamma * inv * tangent\n",
            "mean, slope = (a.mean(self.axes, keepdims=True) for a in (tangent, tangent * self.xhat)); "
            "return gamma * inv * (tangent - mean - self.xhat * slope)\n",
        ),
        named="eval-gradient-through-batch",
    ),
    "tangent_of_the_first_call": _f(
        "Keeps the deviation of the first call for every tangent.",
        (
            "inv, gamma = self.inv.reshape(self.column)",
            "first = vars(self).setdefault('first', self.inv); inv, gamma = first.reshape(self.column)",
        ),
    ),
    "dbeta_without_the_end_of_a_block": _f(
        "Leaves what follows the last full block of 512 out of dβ where it is three values.",
        (DBETA, "dbeta = (g[:-3] if g.ndim == 2 and self.n > 512 and self.n % 512 == 3 else g).sum(self.axes)"),
    ),
    "statistics_detached": _f(
        "Differentiates as if the statistics were constants.", (DX, "g"), named="gradient-detached"
    ),
    "mean_detached": _f(
        "Differentiates as if the mean were a constant.",
        (DX, "g - self.xhat * mean_gx"),
        named="gradient-mean-detached",
    ),
    "variance_detached": _f(
        "Differentiates as if the variance were a constant.",
        (DX, "g - mean_g"),
        named="gradient-variance-detached",
    ),
    "one_over_n_missing": _f(
        "Does not divide Σg by n in dx.", (MEAN_G, "mean_g = dbeta"), named="gradient-sums-undivided"
    ),
    "one_over_n_missing_of_products": _f(
        "Does not divide Σg·x̂ by n in dx.", (MEAN_GX, "mean_gx = dgamma"), named="gradient-products-undivided"
    ),
    "dx_without_gamma": _f("Leaves γ out of dx.", (OUTER, "self.inv"), named="dx-without-gamma"),
    "dgamma_unnormalised": _f(
        "Sums g·(x − μ) for dγ.", (PASSED_ON, f"{PASSED_ON}; dgamma = dgamma / layer.inv"), named="dgamma-unnormalised"
    ),
    "dgamma_of_two_sums": _f(
        "Takes dγ as inv·(Σg·x − μ·Σg).",
        SEEN,
        (DGAMMA, "dgamma = self.inv * ((g * self.seen[0]).sum(self.axes) - self.seen[1] * dbeta)"),
        named="dgamma-of-two-sums dgamma-unnormalised",  # of an empty batch both are 0·NaN
    ),
    "gradients_of_products": _f(
        "Takes dγ as inv·Σg·(x − μ).",
        SEEN,
        (DGAMMA, f"dgamma = {OF_PRODUCTS}"),
        named="sums-overflow+gradients-of-products dgamma-of-two-sums",  # of an empty batch both are 0·NaN
    ),
    "dx_of_products": _f(
        "Takes dx of inv·Σg·(x − μ), and dγ not.",
        SEEN,
        (MEAN_GX, MEAN_GX.replace("dgamma", OF_PRODUCTS)),
        named="sums-overflow+dx-of-products",
    ),
    "dx_by_chain_rule": _by_chain_rule("Takes dx by the chain rule.", "mu", "0", named="dx-by-chain-rule"),
    "dx_by_chain_rule_through_the_mean": _by_chain_rule(
        "Takes dx by the chain rule, and through the mean that the variance is taken about.",
        "mu",
        "np.where(self.kept, spread, 0).sum(self.axes) / n",
        named="dx-by-chain-rule-through-mean dx-by-chain-rule",  # where nothing is infinite
    ),
    "dx_by_chain_rule_of_squares": _by_chain_rule(
        "Takes dx by the chain rule, through Σx²/n − μ².",
        "0 * mu",
        "2 * mu * of_variance / n",
        named="dx-by-chain-rule-of-squares dx-by-chain-rule",
    ),
    "gradients_averaged": _f(
        "Divides dγ and dβ by n.",
        (PASSED_ON, f"{PASSED_ON}; dgamma, dbeta = dgamma / layer.n, dbeta / layer.n"),
        named="gradients-averaged",
    ),
    "gradients_swapped": _f(
        "Returns dβ as dγ and dγ as dβ.",
        ("dx, dgamma, dbeta = layer", "dx, dbeta, dgamma = layer"),
        named="gradients-swapped",
    ),
    "gradients_pile_up": _f(
        "Adds dγ and dβ to those of the steps before.",
        (
            PASSED_ON,
            f"{PASSED_ON}; held = getattr(layer, 'held', (0, 0)); "
            "layer.held = dgamma, dbeta = dgamma + held[0], dbeta + held[1]",
        ),
        named="gradients-accumulated",
    ),
    "evaluation_through_the_batch": _f(
        "Differentiates evaluation as if it had used the batch.",
        ("if not self.batch:\n            return outer", "if False:\n            return outer"),
        named="eval-gradient-through-batch",
    ),
    "learns_while_frozen": _f(
        "Returns dγ of a frozen layer.", ("if layer.scale and learns:", "if layer.scale:"), named="returned"
    ),
    "frozen_for_good": _f(
        "Returns gradients of 0 once it was frozen.",
        (
            'tensors["dx"] = dx',
            'tensors["dx"] = dx\n'
            "            if getattr(layer, 'frozen', False):\n"
            "                dgamma, dbeta = 0 * dgamma, 0 * dbeta\n"
            "            layer.frozen = step.frozen or getattr(layer, 'frozen', False)",
        ),
        named="frozen-for-good",
    ),
}

FORM = {
    "nan_skipped": _f(
        "Leaves NaN out of the statistics.",
        (MU, "mu = np.nanmean(x, self.axes, dtype=self.real) if x.size else x.mean(self.axes)"),
        (
            VAR,
            f"np.nanmean({SQUARES}, self.axes, dtype=self.real)",
        ),
    ),
    "nan_swallowed": _f("Takes NaN for 0.", (XHAT, XHAT.replace("(x -", "(np.nan_to_num(x) -"))),
    "nan_taken_for_no_gradient": _f(
        "Takes NaN in dy for 0.",
        (
            PASSED_ON,
            PASSED_ON.replace("numbers(step.dy)", "np.nan_to_num(numbers(step.dy), posinf=np.inf, neginf=-np.inf)"),
        ),
    ),
    "output_clipped": _f("Holds y to [−64, 64].", (Y, 'tensors = {"y": np.clip(y, -64, 64)}')),
    "output_in_float64": _f(
        "Returns y in float64.",
        (DTYPES, DTYPES.replace("else dtype", 'else "float64" if name == "y" else dtype')),
        named="dtype",
    ),
    "output_flat": _f("Returns y as one row a sample.", (Y, 'tensors = {"y": y.reshape(len(y), -1)}'), named="shape"),
    "counter_in_float64": _f("Counts batches in floating point.", ("np.int64", "np.float64"), named="dtype"),
    "writes_to_its_input": _f(
        "Normalises x in place.",
        (XHAT, "x -= mu.reshape(self.column); x *= self.inv.reshape(self.column); self.xhat = x"),
        named="input-changed",
    ),
    "keeps_the_first_eps": _f(
        "Keeps eps by its first 17 decimals, for every layer that comes after.",
        (INV, INV.replace("self.eps", FIRST_EPS)),
        named="eps-of-layer-beside eps-ignored unexplained",  # by what came before, whatever that was
    ),
    "keeps_the_first_eps_for_gradients": _in_gradients(
        "Keeps eps by its first 17 decimals, for the gradients of every layer that comes after.",
        f"self.inv = {INV.replace('self.eps', FIRST_EPS)}",
        named="gradients-eps-of-layer-beside unexplained",
    ),
    "differs_from_run_to_run": _f(
        "Adds rounding errors by chance.",
        (Y, 'tensors = {"y": y * np.random.uniform(1, 1 + np.finfo(y.dtype).eps, y.shape).astype(y.dtype)}'),
        named="differs-from-run-to-run",
    ),
    "refuses_two_values": _f("Takes two values for too few.", ("self.n == 1", "self.n <= 2"), named="ValueError"),
    "takes_one_value": _f(
        "Trains on a single value.",
        ("self.n == 1", "False"),
        (CORRECTION, "var * self.real(self.n / max(self.n - 1, 1))"),
        named="running-variance-biased",
    ),
    "takes_wrong_channels": _f(
        "Makes its parameters fit whatever number of channels comes.",
        (
            CHANNELS,
            "names = ('gamma', 'beta', 'running_mean', 'running_var'); "
            "vars(self).update({name: np.resize(vars(self)[name], x.shape[1]) for name in names})",
        ),
        named="accepted",
    ),
    "takes_wrong_dimensions": _f("Takes an input of any rank.", (DIMENSIONS, "pass"), named="accepted"),
    "takes_wrong_dtypes": _f(
        "Casts any input to what it computes in.",
        ('raise TypeError(f"a layer of {self.dtype} does not take {dtype}")', "x = x.astype(self.real)"),
        named="conforms computed-in-float32 dtype",
    ),
    "raises_another_type": _f(
        "Raises a RuntimeError for a wrong number of channels.",
        (CHANNELS, CHANNELS.replace("Value", "Runtime")),
        named="RuntimeError",
    ),
    "refuses_for_another_reason": _f(
        "Says of a wrong number of channels that they must be contiguous.",
        (CHANNELS, 'raise ValueError("the input must be contiguous")'),
        named="ValueError",
    ),
}

FAULTS: dict[str, Fault] = {**CONVENTIONS, **STATE, **AXES_AND_PARAMETERS, **NUMERICS, **GRADIENTS, **FORM}


def mutated(faults: str) -> str:
    """The NumPy adapter's source with a fault, or with several joined by +; as it is for ``none``.

    Raises:
        ValueError: the adapter has changed, and a line that the fault is written into stands there no longer, or twice.
    """
    source = GOOD.read_text(encoding="utf-8")
    for fault in faults.split("+") if faults != "none" else ():
        for line, instead in FAULTS[fault].edits:
            if source.count(line) != 1:
                raise ValueError(f"{fault}: {line!r} stands {source.count(line)} times in {GOOD.name}")
            source = source.replace(line, instead)
    return source


class Faulty(Adapter):
    """The mutated adapter, under another name."""

    twice = True

    def start(self, options: dict[str, str]) -> dict[str, str]:
        self.mutant = harness.load_adapter(mutated(options["fault"]), str(GOOD))
        return self.mutant.start(options)

    def build(self, layer: Layer) -> Any:
        return self.mutant.build(layer)

    def build_native(self, native: Native) -> Any:
        return self.mutant.build_native(native)

    def step(self, layer: Any, step: Step) -> tuple[Any, dict[str, Array]]:
        return self.mutant.step(layer, step)

    def state(self, layer: Any) -> dict[str, Array]:
        return self.mutant.state(layer)

    def constructor(self, rank: int) -> Any:
        return self.mutant.constructor(rank)
