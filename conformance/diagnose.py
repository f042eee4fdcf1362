"""The cause of a mismatch: named alternatives are supposed, one by one and then in pairs, until one explains it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.compare import TensorResult
from conformance.reference import Conventions

#: Pairs are tried on tensors up to this size; hundreds of evaluations of a larger one would outlast the run.
PAIR_ELEMENTS = 100_000


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A named alternative: a sentence for people, and what it changes of the conventions."""

    name: str
    sentence: str
    changes: Mapping[str, Any]


def _h(name: str, sentence: str, **changes: Any) -> Hypothesis:
    return Hypothesis(name, sentence, changes)


#: The catalogue, the likelier first: where two explain a mismatch equally well, the earlier one is named.
HYPOTHESES: tuple[Hypothesis, ...] = (
    _h(
        "running-variance-biased", "running_var is stored biased, without the n/(n−1) factor", running_variance="biased"
    ),
    _h(
        "running-variance-unbiased",
        "running_var is stored unbiased, with the n/(n−1) factor",
        running_variance="unbiased",
    ),
    _h("batch-variance-unbiased", "the batch is normalised by its unbiased variance", batch_variance="unbiased"),
    _h("batch-variance-biased", "the batch is normalised by its biased variance", batch_variance="biased"),
    _h("momentum-weighs-old", "momentum weighs the old statistics, not the new batch", momentum_weighs="old"),
    _h("momentum-weighs-new", "momentum weighs the new batch, not the old statistics", momentum_weighs="new"),
    _h("default-mode-eval", "the layer infers unless told to train", default_mode="eval"),
    _h("default-mode-train", "the layer trains unless told to infer", default_mode="train"),
    _h(
        "mode-per-call",
        "a call that names no mode runs in the default one, whatever the last one was",
        mode_lasts=False,
    ),
    _h("frozen-infers", "a frozen layer infers, even in training mode", frozen="eval"),
    _h("frozen-trains", "a frozen layer still normalises by the batch in training mode", frozen="mode"),
    _h("unlearned-applied", "γ and β are applied where they are not learned", unlearned="applied"),
    _h("unlearned-absent", "γ and β are not applied where they are not learned", unlearned="absent"),
    _h("mask-count-padded", "sums over what a mask keeps are divided by its count and 1e-7", mask_count="padded"),
    _h("eps-1e-3", "eps is 1e-3, whatever was asked for", eps=1e-3),
    _h("eps-1e-5", "eps is 1e-5, whatever was asked for", eps=1e-5),
    _h("eps-outside-root", "eps is added to the standard deviation, outside the root", eps_added_to="deviation"),
    _h("eps-ignored", "eps is not added at all", eps_added_to="nothing"),
    _h("exponential-average", "the running statistics are an exponential average", averaging="exponential"),
    _h("momentum-0.1", "momentum is 0.1, whatever was asked for", momentum=0.1),
    _h("momentum-0.01", "momentum is 0.01, whatever was asked for", momentum=0.01),
    _h("statistics-not-updated", "the running statistics are not updated", updates=0),
    _h("statistics-updated-twice", "the running statistics are updated twice per step", updates=2),
    _h("statistics-updated-in-eval", "the running statistics are updated in evaluation too", update_in_eval=True),
    _h("variance-not-updated", "running_var is not updated", variance_updated=False),
    _h("mean-not-updated", "running_mean is not updated", mean_updated=False),
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
    _h("gradient-detached", "no gradient flows through the batch's statistics", gradient="detached"),
    _h("gradient-mean-detached", "no gradient flows through the batch's mean", gradient="mean detached"),
    _h("gradient-variance-detached", "no gradient flows through the batch's variance", gradient="variance detached"),
    _h("sums-overflow", "sums beyond float32's range are infinite, and what is divided by them 0", sums="overflow"),
    _h("empty-batch-averaged", "a batch of no values is averaged, and 0/0 is NaN", empty="averaged"),
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
    _h("sums-sequential", "a channel's values are added one after another", summation="sequential"),
    _h("variance-one-pass", "the variance is E[x²] − E[x]², which cancels", variance="one-pass"),
    _h("subnormals-flushed", "numbers below the smallest normal one are taken for zero", subnormals="flushed"),
    _h("computed-in-float32", "float64 is rounded to float32 and computed there", precision="float32"),
)

#: What `conformance.cancellation` finds.
CANCELLED = _h(
    "variance-cancelled", "the variance is lost to cancellation, and all else follows from what is left of it"
)

CATALOGUE = (*HYPOTHESES, *PRECISION, CANCELLED)

_BY_CHANGE = {tuple(h.changes.items()): h for h in CATALOGUE if len(h.changes) == 1}


@dataclass(frozen=True)
class Diagnosis:
    """The simplest explanation found, and its evidence: the worst ratio with it and without it."""

    name: str
    sentence: str
    ratio: float
    without: float

    def __str__(self) -> str:
        return f"{self.sentence}: within {self.ratio:.2g} of the bound (off by {self.without:.2g} bounds without)"


#: Compares a target's tensors with the reference under the conventions given.
Check = Callable[[Conventions], Mapping[str, TensorResult]]


def diagnose(
    base: Conventions, check: Check, at_once: int, catalogue: Sequence[Hypothesis] = HYPOTHESES
) -> Diagnosis | None:
    """The first combination of hypotheses under which every tensor is within its strict bound; None if none is.

    A hypothesis that moves no tensor explains nothing, and a combination must move every tensor that is out of bound;
    the others are not tried. Nor does one that changes values and takes less than half of the error away: where
    rounding alone is a little over its bound, some small change always brings it back.

    Args:
        base: the conventions the target was held to.
        at_once: how many hypotheses are supposed at once.
    """
    start = check(base)
    failing = {name for name, result in start.items() if not result.ok}
    moved = {}
    for hypothesis in catalogue:
        if any(getattr(base, field) != value for field, value in hypothesis.changes.items()):
            results = check(base.but(**hypothesis.changes))
            names = {name for name, result in results.items() if result != start.get(name)}
            if names:
                moved[hypothesis] = names
    for combined in itertools.combinations(moved, at_once):
        fields = [field for hypothesis in combined for field in hypothesis.changes]
        contradictory = len(fields) != len(set(fields))
        if contradictory or not failing <= set().union(*(moved[hypothesis] for hypothesis in combined)):
            continue
        results = check(base.but(**{f: value for hypothesis in combined for f, value in hypothesis.changes.items()}))
        widening = set(combined) <= set(PRECISION)
        if all(result.ok for result in results.values()) and (widening or worst(results) <= worst(start) / 2):
            name = "+".join(hypothesis.name for hypothesis in combined)
            sentence = ", and ".join(hypothesis.sentence for hypothesis in combined)
            return Diagnosis(name, sentence, worst(results), worst(start))
    return None


def worst(results: Mapping[str, TensorResult]) -> float:
    """The largest error as a fraction of its bound, infinite where something else is wrong."""
    return max((result.off for result in results.values()), default=0.0)


def name_change(field: str, value: Any) -> tuple[str, str]:
    """Name and sentence of one declared convention, as the catalogue has it."""
    found = _BY_CHANGE.get(((field, value),))
    if found is not None:
        return found.name, found.sentence
    return f"{field.replace('_', '-')}-{value:g}", f"{field.replace('_', ' ')} is {value:g}"
