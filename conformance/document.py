"""One YAML document as plain data in which every key and value knows where it stands.

The tree is built from ruamel.yaml's event stream, not by its composer or constructor, for two reasons. A document is
data: no tag may construct anything, and scalars are read by YAML 1.2's core schema and nothing else (1e-5 is a
float, `no` and 2024-01-01 are text). And a hostile document is refused while it streams in: nesting, nodes and
aliases are counted before anything grows with them.

Where libyaml is installed (ruamel.yaml.clib), it reads what is plainly written, some fifteen times as fast. What is
unusual or wrong is left to the parser in Python, so that no document means something else, and no error stands
elsewhere, for what is installed.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

#: No document may be longer than this.
MAX_BYTES = 10**6
#: Nodes written out, which bounds the time to parse (about 40 µs each).
MAX_WRITTEN = 20_000
#: Nodes after aliases are followed, which bounds what a few nested aliases may grow into.
MAX_NODES = 200_000
#: Levels of nesting.
MAX_DEPTH = 50

Scalar = bool | int | float | str | None

_LIBYAML = importlib.util.find_spec("_ruamel_yaml") is not None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a document, where, and what to do about it.

    Attributes:
        path: keys down to the place, dotted, as the file writes them; empty where the place says it all.
        hint: empty where there is nothing to advise.
    """

    mark: Mark
    path: str
    message: str
    hint: str = ""


class DocumentError(Exception):
    """Raised for bytes that are no document; carries every fault found."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A value in a mapping, and where its key stands."""

    key: Mark
    node: Node

    @property
    def mark(self) -> Mark:
        """Where to look for the value: itself, or its key where a block begins on the lines below."""
        below = isinstance(self.node.value, dict | tuple) and self.node.mark.line != self.key.line
        return self.key if below else self.node.mark


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value and where it stands. Aliases share the node that they name."""

    value: Scalar | tuple[Node, ...] | dict[str, Entry]
    mark: Mark
    _extent: tuple[int, int] | None = field(default=None, init=False, repr=False)

    @property
    def extent(self) -> tuple[int, int]:
        """Number of nodes in it, itself included and aliases followed, and levels of nesting, 0 for a scalar.

        Counted when it is asked for, once: of the nodes that a matrix multiplies, nobody asks.
        """
        if not isinstance(self.value, (dict, tuple)):
            return 1, 0
        if self._extent is None:
            extents = [node.extent for node in self.children]
            size = 1 + sum([size for size, _ in extents])
            depth = 1 + max([depth for _, depth in extents], default=0)
            object.__setattr__(self, "_extent", (size, depth))
        assert self._extent is not None
        return self._extent

    @property
    def size(self) -> int:
        """Number of nodes in it."""
        return self.extent[0]

    @property
    def children(self) -> tuple[Node, ...]:
        """The values of a mapping, the items of a list."""
        if isinstance(self.value, dict):
            return tuple(entry.node for entry in self.value.values())
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def entries(self) -> dict[str, Entry]:
        """Key → value; empty where the node is no mapping."""
        return self.value if isinstance(self.value, dict) else {}


def plain(node: Node) -> Any:
    """The value as dicts, lists and scalars, made anew."""
    if isinstance(node.value, dict):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(item) for item in node.value]
    return node.value


def parse(data: bytes) -> Node:
    """The tree of the one YAML document in `data`; a null node where it is empty.

    Raises:
        DocumentError: `data` is no UTF-8, no YAML, more than data, or over a limit.
    """
    if len(data) > MAX_BYTES:
        raise DocumentError(Fault(Mark(1, 1), "", f"the file is over the limit of {MAX_BYTES:,} bytes", "split it"))
    builder = _Builder(_decode(data))
    node = builder.document()
    if builder.faults:
        raise DocumentError(*builder.faults)
    return node


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place(data[: error.start].decode("utf-8-sig"))
        raise DocumentError(Fault(place, "", "the file is not UTF-8 text", "save it as UTF-8")) from None


def _place(before: str) -> Mark:
    """The place that follows this text."""
    return Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


#: Where the two parsers part: tabs, rare characters, trailing blanks, explicit keys, tags, directives, comments where a
#: value or a block might begin, and punctuation in the names of anchors.
_UNUSUAL = re.compile(
    r"[^\n -~\u00a1-\u1fff\u2010-\u2027\u2030-\u205e\u2070-\ud7ff]|[ ]$|(?:^|[ \[{,:-])\?(?=[ ,\]}]|$)|^%|!|[:-] +#"
    r"|[|>][-+0-9]*(?:#|\n\s*#)|(?:^|[ \[{,])[&*][A-Za-z0-9_-]*[^A-Za-z0-9_\s,\]}-]",
    re.MULTILINE,
)


#: How many levels down an event leads.
_LEVELS = {MappingStartEvent: 1, SequenceStartEvent: 1, MappingEndEvent: -1, SequenceEndEvent: -1}


def _fast(text: str) -> list[Any] | None:
    """The events as libyaml reads them; None where it is not installed, finds a fault or might read another thing."""
    if not _LIBYAML or _UNUSUAL.search(text):
        return None
    events: list[Any] = []
    depth = 0
    try:
        for event in YAML(typ="safe").parse(text):
            depth += _LEVELS.get(type(event), 0)
            if depth > MAX_DEPTH or len(events) > 3 * MAX_WRITTEN:  # over a limit, which the other names
                return None
            events.append(event)
    except YAMLError:
        return None
    return events


def _events(text: str) -> Iterator[Any]:
    """The parser's events, its complaints turned into faults."""
    fast = _fast(text)
    if fast is not None:
        yield from fast
        return
    last = Mark(1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = _mark(event)
            yield event
    except MarkedYAMLError as error:
        raise DocumentError(Fault(*_complaint(error))) from None
    except ReaderError as error:
        place, what = _place(text[: error.position]), f"U+{ord(text[error.position]):04X}"
        raise DocumentError(Fault(place, "", f"the character {what} is not allowed")) from None
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        # ruamel.yaml's own slips on malformed input, such as "\U99999999"; where, it does not say.
        raise DocumentError(Fault(last, "", f"not valid YAML from here on: {error}")) from None


def _complaint(error: MarkedYAMLError) -> tuple[Mark, str, str, str]:
    mark = error.problem_mark or error.context_mark
    place = Mark(1, 1) if mark is None else Mark(mark.line + 1, mark.column + 1)
    problem = " ".join(str(error.problem or "cannot be parsed").split())
    began = error.context_mark
    context = f"{error.context} that begins on line {began.line + 1}" if error.context and began else ""
    return place, "", f"not valid YAML: {problem}", context


class _Builder:
    """Reads events into nodes. Faults that leave the rest readable are collected in `faults`, others are raised."""

    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self._anchors: dict[str, Node | None] = {}
        self._written = 0
        self._before = Mark(1, 1)
        self.faults: list[Fault] = []

    def document(self) -> Node:
        next(self._events)  # the stream's start
        start = next(self._events)
        if isinstance(start, StreamEndEvent):
            return Node(None, Mark(1, 1))
        assert isinstance(start, DocumentStartEvent)
        if start.version not in (None, (1, 2)):
            version = ".".join(str(n) for n in start.version)
            self._raise(_mark(start), f"the file asks for YAML {version}", "drop the %YAML line; this is YAML 1.2")
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        after = next(self._events)
        if not isinstance(after, StreamEndEvent):
            self._raise(_mark(after), "a second document begins here", "write one document a file")
        return node

    def _raise(self, mark: Mark, message: str, hint: str = "") -> NoReturn:
        raise DocumentError(*self.faults, Fault(mark, "", message, hint))

    def _note(self, mark: Mark, message: str, hint: str = "") -> None:
        self.faults.append(Fault(mark, "", message, hint))

    def _node(self, event: Any, depth: int) -> Node:
        self._written += 1
        mark = _mark(event)
        if isinstance(event, ScalarEvent) and not event.value and not event.style:
            mark = self._before  # what is left out is looked for where it is missed
        self._before = mark
        if self._written > MAX_WRITTEN:
            self._raise(mark, f"the file holds more than {MAX_WRITTEN:,} values", "split it")
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, ScalarEvent):
            node = Node(self._scalar(event), mark)
        else:
            self._untagged(event)
            if depth == MAX_DEPTH:
                self._raise(mark, f"nested more than {MAX_DEPTH} levels deep")
            mapping = isinstance(event, MappingStartEvent)
            node = Node(self._entries(depth) if mapping else tuple(self._items(depth)), mark)
        if node.size > MAX_NODES:
            self._raise(mark, f"aliases expand to more than {MAX_NODES:,} values")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, anchor: str, mark: Mark, depth: int) -> Node:
        if anchor not in self._anchors:
            self._raise(mark, f"alias *{anchor} names no anchor above it")
        node = self._anchors[anchor]
        if node is None:
            self._raise(mark, f"alias *{anchor} lies inside what it names")
        if depth + node.extent[1] > MAX_DEPTH:
            self._raise(mark, f"alias *{anchor} nests more than {MAX_DEPTH} levels deep")
        return node

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _entries(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            mark = _mark(event)
            key = self._key(event, self._node(event, depth + 1))
            value = self._node(next(self._events), depth + 1)
            if key is None:
                continue
            if key in entries:
                self._note(mark, f"key {key} is given twice", f"first on line {entries[key].key.line}")
            entries[key] = Entry(mark, value)
        return entries

    def _key(self, event: Any, node: Node) -> str | None:
        """The key's text; None where it has none, which is noted."""
        if not isinstance(event, ScalarEvent):
            self._note(_mark(event), "a key must be text")
            return None
        if event.value == "<<" and not event.style:
            self._note(_mark(event), "merge keys (<<) are not supported", "put what cases share under defaults")
            return None
        if not isinstance(node.value, str):
            if not self.faults or self.faults[-1].mark != _mark(event):  # else its text was no good, which is noted
                self._note(_mark(event), f"a key must be text, and {event.value} is not", f'write "{event.value}"')
            return None
        return node.value

    def _untagged(self, event: Any) -> None:
        own = "tag:yaml.org,2002:map" if isinstance(event, MappingStartEvent) else "tag:yaml.org,2002:seq"
        if event.tag not in (None, "!", own):
            self._tag(event)

    def _tag(self, event: Any) -> None:
        tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
        self._note(_mark(event), f"the tag {tag} is not supported", "a case file is data; leave the tag out")

    def _scalar(self, event: Any) -> Scalar:
        text: str = event.value
        if bad := _CONTROL.search(text):
            self._note(_mark(event), f"text holds the character U+{ord(bad[0]):04X}, which is not allowed")
            return None
        try:
            if event.tag is None:
                return text if event.style else core(text)
            if event.tag in ("!", "tag:yaml.org,2002:str"):
                return text
            wanted = _SCALARS.get(event.tag)
            if wanted is None:
                self._tag(event)
                return None
            value = core(text)
            if wanted is float and type(value) is int:
                return float(value)
            if type(value) is not wanted:
                raise ValueError(f"{text} is no {wanted.__name__.removesuffix('Type').lower()}")
            return value
        except ValueError as error:
            self._note(_mark(event), str(error))
            return None


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


#: Escaped, YAML admits these in text; terminals, XML and UTF-8 do not.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SCALARS: dict[str, type] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
}
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **{f"{sign}.{inf}": float(f"{sign}inf") for sign in ("", "+", "-") for inf in ("inf", "Inf", "INF")},
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASES = {"0o": 8, "0x": 16}
_LONGEST_NUMBER = 400  # more digits than any float64 has, few enough for int() and float() to take


def core(text: str) -> Scalar:
    """An unquoted scalar by the core schema of YAML 1.2 (section 10.3.2).

    >>> [core(text) for text in ("1e-5", ".5", "0x10", "no", "1_000", "~")]
    [1e-05, 0.5, 16, 'no', '1_000', None]

    Raises:
        ValueError: a number that 64 bits cannot hold; rounding it to inf or 0 would run another case than is written.
    """
    if text in _WORDS:
        return _WORDS[text]
    integer = _INTEGER.fullmatch(text) is not None
    if not integer and _FLOAT.fullmatch(text) is None:
        return text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text):,} characters is too long")
    if integer:
        number = int(text.removeprefix(text[:2]), _BASES[text[:2]]) if text[:2] in _BASES else int(text)
        if not -(2**63) <= number < 2**64:
            raise ValueError(f"{_short(text)} does not fit in 64 bits")
        return number
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{_short(text)} overflows a 64-bit float; write .inf if that is meant")
    if value == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
        raise ValueError(f"{_short(text)} underflows a 64-bit float; write 0.0 if that is meant")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:30]}…"
