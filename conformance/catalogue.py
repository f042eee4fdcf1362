"""The catalogue of causes: what a BatchNorm may do otherwise, as a name, a sentence and a change of conventions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.conventions import (
    STAGES,
    Affine,
    Channels,
    Differentiating,
    Modes,
    Moments,
    Normalising,
    Precision,
    Updating,
)
from conformance.layer import DERIVATIVES

_OTHERS = ("ddx", "ddgamma", "ddy", "jvp")

#: Stage → the tensors that a change of it can move.
_REACH = {
    Channels: {"y", "dx", "dgamma", "dbeta", "running_mean", "running_var", *_OTHERS},
    Modes: {"y", "dx", "dgamma", "running_mean", "running_var", "num_batches_tracked", *_OTHERS},
    Moments: {"y", "dx", "dgamma", "dbeta", "running_mean", "running_var", *_OTHERS},
    Normalising: {"y", "dx", "dgamma", *_OTHERS},
    Updating: {"y", "dx", "dgamma", "running_mean", "running_var", "num_batches_tracked", *_OTHERS},
    Affine: {"y", "dx", "ddx", "ddy", "jvp"},
    Differentiating: {"dx", "dgamma", "dbeta", *_OTHERS},
    Precision: {"y", "dx", "dgamma", "dbeta", "running_mean", "running_var", *_OTHERS},
}


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A named alternative: a sentence for people, and what it changes of the conventions."""

    name: str
    sentence: str
    changes: Mapping[str, Any]

    @property
    def reach(self) -> set[str]:
        """The tensors that it can move, without their steps."""
        taken_back = dict(self.changes.get("backward", ()))  # where y is not: derivatives alone move
        moved = set().union(*(_REACH[STAGES[field]] for field in self.changes))
        return moved.union(
            name for field in taken_back for name in _REACH[STAGES[field]] if name.startswith(DERIVATIVES)
        )


def _h(name: str, sentence: str, **changes: Any) -> Hypothesis:
    return Hypothesis(name, sentence, changes)


#: They move no number, but where something is infinite: besides another cause they may make another one of that.
OF_INFINITE = (
    _h(
        "output-folded",
        "y is x·a + b with a = γ/√(σ²+ε) and b = β − μ·a, of which something is infinite",
        output="folded",
    ),
    _h(
        "dgamma-of-two-sums",
        "dγ is (Σg·x − μ·Σg)/√(σ²+ε), of which something is infinite",
        dgamma="of two sums",
    ),
    _h(
        "gradients-of-products",
        "dγ and dx are made of Σg·(x−μ)/√(σ²+ε), of which something is infinite",
        products="of x−μ",
    ),
    _h(
        "dx-of-products",
        "dx is made of Σg·(x−μ)/√(σ²+ε), of which something is infinite",
        products="of x−μ for dx",
    ),
)

#: The catalogue, the likelier first: where two explain a mismatch equally well, the earlier one is named.
HYPOTHESES: tuple[Hypothesis, ...] = (
    _h("sums-overflow", "sums beyond float32's range are infinite, and what is divided by them 0", sums="overflow"),
    _h(
        "sums-of-squares-overflow",
        "sums beyond float32's range are infinite, Σx² among them, and Σx²/n − μ² is no number",
        sums="overflow, of squares too",
    ),
    _h(
        "running-variance-biased", "running_var is stored biased, without the n/(n−1) factor", running_variance="biased"
    ),
    _h(
        "running-variance-unbiased",
        "running_var is stored unbiased, with the n/(n−1) factor",
        running_variance="unbiased",
    ),
    _h(
        "running-variance-corrected-twice",
        "running_var is stored with the n/(n−1) factor squared",
        running_variance="corrected twice",
    ),
    _h("deviation-stored", "running_var averages standard deviations", stored="deviation"),
    _h("eps-stored", "running_var averages variances with eps added", stored="variance and eps"),
    _h("batch-variance-unbiased", "the batch is normalised by its unbiased variance", batch_variance="unbiased"),
    _h("batch-variance-biased", "the batch is normalised by its biased variance", batch_variance="biased"),
    _h("momentum-weighs-old", "momentum weighs the old statistics, not the new batch", momentum_weighs="old"),
    _h("momentum-weighs-new", "momentum weighs the new batch, not the old statistics", momentum_weighs="new"),
    _h("momentum-clipped", "momentum is held to [0, 1]", momentum_range="clipped"),
    _h("default-mode-eval", "the layer infers unless told to train", default_mode="eval"),
    _h("default-mode-train", "the layer trains unless told to infer", default_mode="train"),
    _h(
        "mode-per-call",
        "a call that names no mode runs in the default one, whatever the last one was",
        mode_lasts=False,
    ),
    _h(
        "mode-of-first-tangent",
        "differentiated along a tangent, the layer runs in the mode in which it first was for this shape",
        tangent_mode="of the first of its shape",
    ),
    _h("frozen-infers", "a frozen layer infers, even in training mode", frozen="eval"),
    _h("frozen-trains", "a frozen layer still normalises by the batch in training mode", frozen="mode"),
    _h(
        "assignment-ignored",
        "eps and momentum are those that the layer was made with, whatever is assigned to its attributes",
        assigned="ignored",
    ),
    _h(
        "assignment-ignored-once-compiled",
        "eps and momentum are those of the first call of its kind, whatever is assigned to the layer since",
        assigned="captured",
    ),
    _h("unlearned-applied", "γ and β are applied where they are not learned", unlearned="applied"),
    _h("unlearned-absent", "γ and β are not applied where they are not learned", unlearned="absent"),
    _h("mask-ignored", "what a mask leaves out counts as well", mask="ignored"),
    _h(
        "mask-multiplied",
        "what a mask leaves out is multiplied by 0, which is NaN where it is no number",
        mask="multiplied",
    ),
    _h("mask-count-padded", "sums over what a mask keeps are divided by its count and 1e-7", mask_count="padded"),
    _h("eps-1e-3", "eps is 1e-3, whatever was asked for", eps=1e-3),
    _h("eps-1e-5", "eps is 1e-5, whatever was asked for", eps=1e-5),
    _h("eps-in-float32", "eps is rounded to float32", eps_held="float32"),
    _h(
        "eps-in-float32-for-output",
        "eps is rounded to float32 for y, and not for the gradients",
        eps_held="float32",
        backward=(("eps_held", "as given"),),
    ),
    _h("eps-of-layer-beside", "eps is that of the layer that was called before", eps_of="the layer beside"),
    _h(
        "gradients-eps-of-layer-beside",
        "the gradients are taken with the eps of the layer that was called before",
        backward=(("eps_of", "the layer beside"),),
    ),
    _h("eps-ignored", "eps is not added at all", eps_added_to="nothing"),
    _h("eps-outside-root", "eps is added to the standard deviation, outside the root", eps_added_to="deviation"),
    _h("eps-added-twice", "eps is added to the variance twice", eps_added_to="variance twice"),
    _h("eps-as-floor", "the variance is raised to eps where it is smaller", eps_added_to="variance as a floor"),
    _h("root-forgotten", "x − μ is divided by the variance, not by its root", divisor="variance"),
    _h("exponential-average", "the running statistics are an exponential average", averaging="exponential"),
    _h("momentum-0.1", "momentum is 0.1, whatever was asked for", momentum=0.1),
    _h("momentum-0.01", "momentum is 0.01, whatever was asked for", momentum=0.01),
    _h("statistics-not-updated", "the running statistics are not updated", updates=0),
    _h(
        "statistics-updated-in-backward",
        "the running statistics are updated again as the backward pass recomputes the layer",
        updates_in_backward=1,
    ),
    _h(
        "statistics-updated-along-tangent",
        "the running statistics are updated again as y is differentiated along a tangent",
        updates_along_tangent=1,
    ),
    _h("statistics-updated-twice", "the running statistics are updated twice per step", updates=2),
    _h("statistics-updated-thrice", "the running statistics are updated three times per step", updates=3),
    _h("statistics-updated-in-eval", "the running statistics are updated in evaluation too", update_in_eval=True),
    _h("variance-not-updated", "running_var is not updated", variance_updated=False),
    _h("mean-not-updated", "running_mean is not updated", mean_updated=False),
    _h("statistics-begin-anew", "every update starts from a mean of 0 and a variance of 1", begins="anew"),
    _h("counter-stops", "batches are counted to one", counting="to one"),
    _h("statistics-not-loaded", "a checkpoint loses the running statistics", loaded="parameters"),
    _h("cumulative-average", "the running statistics are a cumulative average", averaging="cumulative"),
    _h("running-statistics-in-train", "training normalises by the running statistics", train_statistics="running"),
    _h("batch-statistics-in-eval", "evaluation normalises by the batch's statistics", eval_statistics="batch"),
    _h(
        "updated-before-normalising",
        "training normalises by the running statistics, updated first",
        train_statistics="running",
        update_first=True,
    ),
    _h("gamma-ignored", "γ is not applied", gamma="ignored"),
    _h("beta-ignored", "β is not applied", beta="ignored"),
    _h("gamma-beta-swapped", "γ and β are swapped", gamma="swapped"),
    _h("gamma-reversed", "γ is applied in the order of the channels reversed", gamma="reversed"),
    _h("gamma-of-first-channel", "the first γ is applied to every channel", gamma="of the first channel"),
    *(
        _h(f"channels-on-axis-{axis}", f"axis {axis} of x is taken for the channels, not axis 1", axis=axis)
        for axis in (2, 3, 4, 0)
    ),
    _h("mean-of-all-channels", "one mean is taken over all channels", shared="mean"),
    _h("statistics-of-all-channels", "one mean and one variance are taken over all channels", shared="both"),
    _h("samples-counted", "n is the number of samples, whatever their size", count="samples"),
    _h("count-saturates", "n is counted up to 255", count="values up to 255"),
    *OF_INFINITE,
    *(
        _h(
            f"dx-by-chain-rule{suffix}",
            f"derivatives by x go by the chain rule{through}, where γ·Σg, Σg·x, inv³ or more is infinite or too small",
            derivation=derivation,
        )
        for suffix, through, derivation in (
            ("", "", "chain"),
            ("-through-mean", ", through the mean that the variance is taken about, too", "chain through the mean"),
            ("-of-squares", " through σ² = Σx²/n − μ²", "chain of squares"),
        )
    ),
    _h(
        "gradients-by-running-statistics",
        "the gradients of training are taken by the running statistics, updated first",
        backward=(("train_statistics", "running"), ("update_first", True)),
    ),
    _h("tangent-lost", "the derivative along a tangent is 0, as if x had none", tangent="lost"),
    _h("gradient-detached", "no gradient flows through the batch's statistics", gradient="detached"),
    _h("gradient-mean-detached", "no gradient flows through the batch's mean", gradient="mean detached"),
    _h("gradient-variance-detached", "no gradient flows through the batch's variance", gradient="variance detached"),
    _h("gradient-sums-undivided", "Σg is not divided by n in dx", gradient="sums of g undivided"),
    _h("gradient-products-undivided", "Σg·x̂ is not divided by n in dx", gradient="sums of g·x̂ undivided"),
    _h("eval-gradient-through-batch", "dx of evaluation is that of training", eval_gradient="through the batch"),
    _h("dx-without-gamma", "dx is taken without γ", dx_scale="ignored"),
    _h("dgamma-unnormalised", "dγ is Σg·(x−μ), not Σg·x̂", dgamma="unnormalised"),
    _h("gradients-averaged", "dγ and dβ are divided by n", parameter_gradients="averaged"),
    _h("gradients-swapped", "dγ and dβ are swapped", parameter_gradients="swapped"),
    _h("frozen-for-good", "γ and β have gradients of 0 once they were frozen", thawed="stays frozen"),
    _h("gradients-accumulated", "dγ and dβ are added to those of earlier steps", parameter_gradients="accumulated"),
    _h(
        "second-mean-detached",
        "second derivatives hold the mean that the variance is taken about for a constant",
        second="variance about a constant",
    ),
    _h(
        "second-statistics-constant",
        "what differentiates y along v once more holds the mean and the deviation in its derivative for constants",
        second_over_forward="statistics constant",
    ),
    _h("empty-batch-averaged", "a batch of no values is averaged, and 0/0 is NaN", empty="averaged"),
    _h("momentum-in-float32", "momentum is rounded to float32", momentum_held="float32"),
    _h("momentum-in-half", "momentum is rounded to half precision", momentum_held="float16"),
    _h("eps-in-half", "eps is rounded to half precision", eps_held="float16"),
    _h("deviation-in-half", "1/√(σ²+ε) is rounded to half precision", coarse="deviation"),
    _h(
        "moments-in-float16",
        "mean and 1/√(σ²+ε) are rounded to float16 before use",
        saved="deviation in float16",
    ),
    _h(
        "squares-in-float16",
        "Σ(x−μ)² is infinite beyond float16's range, and σ² with it",
        squares="in range of float16",
    ),
    *(
        _h(
            f"squares-and-moments-in-{dtype}",
            f"Σ(x−μ)², n, variance, mean and 1/√(σ²+ε) are rounded to {dtype} before use",
            squares=f"in {dtype}",
            saved=f"deviation in {dtype}",
        )
        for dtype in ("float16", "bfloat16")
    ),
    *(
        _h(
            f"gradients-{what}-in-{dtype}",
            f"for the gradients mean and {symbol} are rounded to {dtype}",
            backward=(("saved", f"{what} in {dtype}"),),
        )
        for what, symbol, dtype in (
            ("variance", "variance", "float16"),
            ("deviation", "1/√(σ²+ε)", "float16"),
            ("deviation", "1/√(σ²+ε)", "bfloat16"),
        )
    ),
    _h("products-of-11-bits", "the factors of γ·x̂ and g·x̂ are rounded to 11 bits, as TF32 does", coarse="factors"),
    _h("output-in-half", "every y is a number of half precision", coarse="output"),
)

#: Causes that take precision, not meaning: what they explain is inaccurate where the weak grade admits it.
PRECISION: tuple[Hypothesis, ...] = (
    _h("statistics-rounded", "mean and deviation are rounded to the layer's dtype before use", statistics="rounded"),
    _h("terms-rounded", "the sums in the gradients are rounded to the input's half dtype", terms="rounded"),
    _h(
        "statistics-rounded-for-gradients",
        "mean and deviation are rounded to half before gradients are taken with them",
        statistics="rounded for gradients",
    ),
    _h(
        "elements-rounded",
        "every operation is rounded to the input's half dtype: x−μ, x̂, γ·x̂, g·(x−μ), and the sums in the gradients",
        terms="rounded, elements too",
    ),
    _h(
        "sums-in-eight-lanes",
        "a channel's values are added in eight lanes, in each one after another",
        summation="eight lanes",
    ),
    _h("sums-sequential", "a channel's values are added one after another", summation="sequential"),
    _h("variance-one-pass", "the variance is E[x²] − E[x]², which cancels", variance="one-pass"),
    _h("subnormals-flushed", "numbers below the smallest normal one are taken for zero", subnormals="flushed"),
    _h("computed-in-float32", "float64 is rounded to float32 and computed there", precision="float32"),
)

#: What `conformance.recovery` finds.
CANCELLED = _h(
    "variance-cancelled", "the variance is lost to cancellation, and all else follows from what is left of it"
)
IN_HALF = _h(
    "statistics-in-half",
    "mean or variance of the batch are as coarse as sums in half precision, and all else follows from them",
)

CATALOGUE = (*HYPOTHESES, *PRECISION, CANCELLED, IN_HALF)

#: Names of what is plain to see, and needs no hypothesis.
PLAIN = (
    *("shape", "dtype", "missing", "returned", "device"),
    *("input-changed", "parameters-changed", "differs-from-run-to-run"),
    *("accepted", "document-contradicted", "unexplained"),
)
#: How a signature may differ from a documented one; a diagnosis names all that it does, after ``signature-``.
SIGNATURE = ("added", "removed", "changed", "reordered")

#: Every name that a diagnosis may be made of.
NAMES = frozenset({*(h.name for h in CATALOGUE), *PLAIN, *(f"signature-{kind}" for kind in SIGNATURE)})


def misnamed(diagnosis: str) -> str | None:
    """The part of a diagnosis that no diagnosis is made of; None where all are names.

    >>> misnamed("sums-overflow+gama-ignored")
    'gama-ignored'
    """
    first, *others = diagnosis.split("+")
    known = SIGNATURE if first.startswith("signature-") else NAMES
    return next((part for part in others if part not in known), None) if first in NAMES else first


_BY_CHANGE = {tuple(h.changes.items()): h for h in CATALOGUE if len(h.changes) == 1}


def name_change(field: str, value: Any) -> tuple[str, str]:
    """Name and sentence of one declared convention, as the catalogue has it."""
    found = _BY_CHANGE.get(((field, value),))
    if found is not None:
        return found.name, found.sentence
    return f"{field.replace('_', '-')}-{value:g}", f"{field.replace('_', ' ')} is {value:g}"
