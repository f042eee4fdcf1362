"""From a case as it is written to the cases that run: defaults laid under it, its matrix multiplied out.

Everything happens on the document's nodes, so a value still knows where it was written after it has moved.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from conformance.document import Entry, Fault, Mark, Node, plain
from conformance.fields import GENERATORS
from conformance.schema import Keys, exists, nearest_path

#: No file may expand to more cases than this.
MAX_CASES = 100_000
#: Nor to more values in all its cases together, which bounds time and memory.
MAX_VALUES = 2_000_000

MAX_AXES = 20

KINDS = ("layer", "native", "signature")
#: A dotted path that may stand in an id.
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SAFE = re.compile(r"[A-Za-z0-9_.+-]{1,40}")


@dataclass(frozen=True)
class Expansion:
    """One test: a case's body with one value of each axis put in.

    Attributes:
        suffix: what the id says of the axes: ``[momentum=0.1,dtype=float16]``, empty where there are none.
        matrix: dotted path → value.
    """

    suffix: str
    body: Node
    matrix: dict[str, Any]


def merge(base: Node, over: Node, at: Keys = ()) -> Node:
    """`over` laid upon `base`: mappings merge key by key, everything else replaces, null included.

    What contradicts a key of `over` is not inherited: another kind of case, another generator of an input. And an
    expectation is replaced whole, since half of one result and half of another is neither.
    """
    if not isinstance(base.value, dict) or not isinstance(over.value, dict) or at[:-1] == ("expect",):
        return over
    dropped = _rivals(at, over.value)
    if at == ("input",) and any(_given(over.value, key) for key in ("shape", "values")):
        dropped.add("replace")  # its indices were meant for another shape
    merged = {key: entry for key, entry in base.value.items() if key not in dropped}
    for key, entry in over.value.items():
        below = merged.get(key)
        merged[key] = entry if below is None else Entry(entry.key, merge(below.node, entry.node, (*at, key)))
    return Node(merged, over.mark)


def _given(entries: dict[str, Entry], key: str) -> bool:
    return key in entries and entries[key].node.value is not None


def _alternatives(at: Keys) -> tuple[str, ...]:
    """The keys of which the mapping at this path has one."""
    match at:
        case ():
            return KINDS
        case ("input",) | ("steps" | "beside", *_, "input") | (*_, "layer", "initial", _):
            return GENERATORS
    return ()


def _rivals(at: Keys, over: dict[str, Entry]) -> set[str]:
    """The keys that cannot stand beside those of `over`."""
    named = {key for key in _alternatives(at) if _given(over, key)}
    rivals = set(_alternatives(at)) - named if named else set()
    return rivals | {"shape"} if "values" in named else rivals


@dataclass(frozen=True)
class Axis:
    """One line of a matrix: where its values go, and what ids call it."""

    path: str
    key: Mark
    values: tuple[Node, ...]

    @property
    def keys(self) -> Keys:
        """The path's parts."""
        return tuple(self.path.split("."))


def with_defaults(defaults: Node, body: Node) -> Node:
    """A case's body upon the file's defaults; an axis of the defaults that the case speaks against is not inherited."""
    said = body.entries.get("matrix")
    own = {path: entry for path, entry in body.entries.items() if path != "matrix"}
    axes = said.node.entries if said else {}
    kinds = {kind for kind in KINDS if _given(own, kind) or any(path.split(".")[0] == kind for path in axes)}
    others = set(KINDS) - kinds if kinds else set()
    inherited = {key: entry for key, entry in defaults.entries.items() if key not in others}
    if "matrix" in inherited and isinstance(inherited["matrix"].node.value, dict):
        matrix = inherited["matrix"]
        kept = {
            path: entry
            for path, entry in matrix.node.entries.items()
            if path.split(".")[0] not in others and not _contradicts(body, tuple(path.split(".")))
        }
        inherited["matrix"] = Entry(matrix.key, Node(kept, matrix.node.mark))
    return merge(Node(inherited, defaults.mark), body)


def _contradicts(body: Node, keys: Keys) -> bool:
    """Whether the body itself says what stands at this path, so that no inherited axis may."""
    node = body
    for depth, part in enumerate(keys):
        if not isinstance(node.value, dict) or part in _rivals(keys[:depth], node.value):
            return True
        if part not in node.value:
            return False
        node = node.value[str(part)].node
    return True


def axes_of(body: Node) -> tuple[list[Axis], list[Fault]]:
    """The axes of a case's matrix, in the order written, and what is wrong with them."""
    entry = body.entries.get("matrix")
    if entry is None or entry.node.value is None:
        return [], []
    if not isinstance(entry.node.value, dict):
        return [], [Fault(entry.mark, "matrix", "should be a mapping of dotted paths to lists of values")]
    if len(entry.node.value) > MAX_AXES:
        return [], [Fault(entry.mark, "matrix", f"has more than {MAX_AXES} axes")]
    axes: list[Axis] = []
    faults: list[Fault] = []
    for path, written in entry.node.value.items():
        if written.node.value is None:  # an axis of the defaults, declined
            continue
        fault = _axis_fault(path, written)
        if fault is None:
            values = written.node.value
            assert isinstance(values, tuple)  # _axis_fault
            axes.append(Axis(path, written.key, values))
        else:
            faults.append(fault)
    return axes, [*faults, *_conflicts(axes), *_repeats(axes)]


def _axis_fault(path: str, written: Entry) -> Fault | None:
    if not exists(tuple(path.split("."))) or path.split(".")[0] == "matrix":
        return Fault(written.key, f"matrix.{path}", "names no field of a case", nearest_path(path))
    if _PATH.fullmatch(path) is None:
        return Fault(written.key, f"matrix.{path}", "cannot vary: ids have letters, digits, _ and - only")
    if not isinstance(written.node.value, tuple):
        return Fault(written.mark, f"matrix.{path}", "should be a list of values", "write it in brackets")
    if not written.node.value:
        return Fault(written.mark, f"matrix.{path}", "has no values, so no case would run")
    return None


def _conflicts(axes: list[Axis]) -> Iterator[Fault]:
    """Axes of which one would overwrite the other's values."""
    for one, other in itertools.combinations(axes, 2):
        shared = next((n for n, pair in enumerate(zip(one.keys, other.keys, strict=False)) if pair[0] != pair[1]), None)
        if shared is None:
            yield Fault(other.key, f"matrix.{other.path}", f"overlaps with {one.path}, which the matrix sets too")
        elif {one.keys[shared], other.keys[shared]} <= set(_alternatives(one.keys[:shared])):
            yield Fault(other.key, f"matrix.{other.path}", f"cannot stand beside {one.path}, which the matrix sets too")


def _repeats(axes: list[Axis]) -> Iterator[Fault]:
    for axis in axes:
        labels: dict[str, Mark] = {}
        for index, node in enumerate(axis.values):
            text = label(plain(node), index)
            if text in labels:
                yield Fault(node.mark, f"matrix.{axis.path}", f"another value is called {text} too; ids would repeat")
            labels.setdefault(text, node.mark)


def count(axes: list[Axis]) -> int:
    """How many cases the axes multiply to."""
    return math.prod(len(axis.values) for axis in axes)


def expand(body: Node, axes: list[Axis], report: Callable[[Fault], None]) -> Iterator[Expansion]:
    """The cross product, the first axis slowest. A value that cannot be put where its axis says is reported."""
    bare = Node({key: entry for key, entry in body.entries.items() if key != "matrix"}, body.mark)
    names = _short_names(axes)
    choices = [
        [(value, plain(value), f"{names[axis.path]}={label(plain(value), n)}") for n, value in enumerate(axis.values)]
        for axis in axes
    ]
    for combination in itertools.product(*choices):
        node = bare
        try:
            for axis, (value, _, _) in zip(axes, combination, strict=True):
                node = _put(node, axis, value)
        except _PlacingError as error:
            report(error.fault)
            continue
        suffix = ",".join(called for _, _, called in combination)
        matrix = {axis.path: said for axis, (_, said, _) in zip(axes, combination, strict=True)}
        yield Expansion(f"[{suffix}]" if suffix else "", _settled(node), matrix)


def _short_names(axes: list[Axis]) -> dict[str, str]:
    """Path → its last key, or all of it where two paths end alike."""
    last = [axis.path.rpartition(".")[2] for axis in axes]
    return {axis.path: name if last.count(name) == 1 else axis.path for axis, name in zip(axes, last, strict=True)}


class _PlacingError(Exception):
    def __init__(self, axis: Axis, message: str) -> None:
        self.fault = Fault(axis.key, f"matrix.{axis.path}", message)


def _put(node: Node, axis: Axis, value: Node, at: Keys = ()) -> Node:
    """`node` with `value` in the place of the axis. Generators beside it go, mappings on the way are made."""
    rest = axis.keys[len(at) :]
    if not rest:
        return value
    part = str(rest[0])
    if isinstance(node.value, tuple):
        if not part.isdecimal() or int(part) >= len(node.value):
            raise _PlacingError(axis, f"{_dotted(at)} is a list of {len(node.value)}, so {part} is no place in it")
        index = int(part)
        item = _put(_step(node.value[index], at), axis, value, (*at, part))
        return Node((*node.value[:index], item, *node.value[index + 1 :]), node.mark)
    if not isinstance(node.value, dict) and node.value is not None:
        raise _PlacingError(axis, f"{_dotted(at)} is no mapping in this case, so it has no {part}")
    below = node.entries.get(part)
    inner = _put(below.node if below else Node(None, axis.key), axis, value, (*at, part))
    entry = Entry(value.mark if len(rest) == 1 else below.key if below else axis.key, inner)
    dropped = _rivals(at, {part: entry}) if at else set()
    kept = {key: one for key, one in node.entries.items() if key not in dropped}
    return Node(kept | {part: entry}, node.mark)


def _step(node: Node, at: Keys) -> Node:
    """A step in its long form, so that an axis can reach into it."""
    if at == ("steps",) and isinstance(node.value, str):
        return Node({"mode": Entry(node.mark, node)}, node.mark)
    return node


def _dotted(at: Keys) -> str:
    return ".".join(map(str, at)) or "the case"


def _settled(body: Node) -> Node:
    """The body with inherited answers declined by null gone; inputs of steps, and what runs beside, upon the case's."""
    entries = dict(body.entries)
    for name in ("expect", "documented"):
        if name in entries:
            kept = {key: entry for key, entry in entries[name].node.entries.items() if _given({key: entry}, key)}
            if isinstance(entries[name].node.value, dict):
                entries[name] = Entry(entries[name].key, Node(kept, entries[name].node.mark))
            elif entries[name].node.value is None:
                del entries[name]
    if _given(entries, "input") and "steps" in entries and isinstance(entries["steps"].node.value, tuple):
        steps = tuple(_inheriting(step, "input", entries["input"].node) for step in entries["steps"].node.value)
        entries["steps"] = Entry(entries["steps"].key, Node(steps, entries["steps"].node.mark))
    if _given(entries, "beside"):
        beside = entries["beside"]
        entries["beside"] = Entry(beside.key, _neighbour(beside, entries))
    return Node(entries, body.mark)


def _inheriting(over: Node, key: str, inherited: Node) -> Node:
    """`over` with what it says at `key` laid upon `inherited`; as it is where it says nothing there."""
    if not _given(over.entries, key):
        return over
    own = over.entries[key]
    return Node({**over.entries, key: Entry(own.key, merge(inherited, own.node, (key,)))}, over.mark)


def _neighbour(beside: Entry, case: dict[str, Entry]) -> Node:
    """What runs beside: the case's own layer, without its initial values, and its input, but for what it says."""
    node = beside.node
    if _given(case, "input"):
        node = _inheriting(node, "input", case["input"].node)
    if not _given(case, "layer") or not isinstance(node.value, dict):
        return node
    layer = case["layer"].node
    plain_layer = Node({key: one for key, one in layer.entries.items() if key != "initial"}, layer.mark)
    if _given(node.entries, "layer"):
        return _inheriting(node, "layer", plain_layer)
    return Node({**node.entries, "layer": Entry(beside.key, plain_layer)}, node.mark)


def label(value: Any, index: int) -> str:
    """What an id calls a matrix value, the `index`-th of its axis: short, and safe in shells, file names and links.

    >>> [label(value, 0) for value in (1e-5, None, "float16", [4, 3, 5, 5], ["train", "eval"], {"mean": 3})]
    ['1e-05', 'null', 'float16', '4x3x5x5', 'train+eval', 'mean:3']
    >>> label([[1.0, 2.0]], 4)
    'item5'
    """
    text = _scalar_label(value)
    if isinstance(value, list) and value:
        whole = all(type(item) is int for item in value)
        text = _joined([_scalar_label(item) for item in value], "x" if whole else "+")
    elif isinstance(value, dict) and value:
        pairs = [(_scalar_label(key), _scalar_label(item)) for key, item in value.items()]
        text = _joined([f"{key}:{item}" if key and item else None for key, item in pairs], "+")
    return text if text is not None and len(text) <= 40 else f"item{index + 1}"


def _joined(parts: list[str | None], between: str) -> str | None:
    known = [part for part in parts if part is not None]
    return between.join(known) if len(known) == len(parts) else None


def _scalar_label(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    return value if isinstance(value, str) and _SAFE.fullmatch(value) and ".." not in value else None
