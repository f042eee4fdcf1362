"""Text that comes from cases and frameworks, made harmless: whoever writes a message must not get to write a report.

Escaping for HTML and XML is left to the libraries that write them. Here is what they do not do: characters that move
a terminal's cursor, reverse the reading direction or are illegal in XML, and the punctuation that Markdown acts on.
"""

from __future__ import annotations

import re
from typing import TypeVar, cast

T = TypeVar("T")

#: A whole terminal sequence, such as a change of colour: it carries nothing to read.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
#: Control characters but newline and tab, separators of lines, changes of direction, invisible tags, lone surrogates
#: and the code points that are no characters.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff"
    "\U000e0000-\U000e007f]"
)
#: JSON's escapes but those of a quotation mark, a slash of either kind, newline and tab.
_ESCAPE = re.compile(rb'\\[^"\\/nt]')
#: What acts within a line of GitHub's Markdown. Its line starts are the template's.
_MARKUP = re.compile(r"[\\`*_\[\]|~$]|:(?=//)|(?<=www)\.")


def clean(text: str) -> str:
    r"""A text in which no character acts: terminal sequences are dropped, other harmful characters are spelled out.

    >>> clean("\x1b[31mred\x1b[0m\r\nbell\x07")
    'red\nbell\\x07'
    """
    if text.isascii() and text.isprintable():
        return text
    text = _TERMINAL.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return _HARMFUL.sub(lambda found: _spelled(ord(found[0])), text)


def harmless(line: bytes) -> bool:
    r"""Whether `clean_all` surely has nothing to change in what a line of JSON says.

    >>> harmless(b'{"a": "b \\n"}'), harmless(b'{"a": "\\u001b[31m"}')
    (True, False)
    """
    if b"\\" in line and _ESCAPE.search(line):
        return False
    return b"\x7f" not in line if line.isascii() else not _HARMFUL.search(line.decode("utf-8", "surrogateescape"))


def _spelled(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean_all(value: T) -> T:
    """JSON data with every text in it cleaned, keys included."""
    if isinstance(value, str):
        return cast(T, clean(value))
    if isinstance(value, dict):
        return cast(T, {clean_all(key): clean_all(item) for key, item in value.items()})
    if isinstance(value, list):
        return cast(T, [clean_all(item) for item in value])
    return value


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; of what is too long, the beginning and the end, where messages say most."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 1].rstrip()}…{text[len(text) - tail :].lstrip()}"


def one_line(text: str, limit: int = 200) -> str:
    """Cleaned, all white space runs as one blank, and shortened."""
    return shorten(" ".join(clean(text).split()), limit)


def markdown(text: str, limit: int = 200) -> str:
    r"""A text as prose in GitHub's Markdown: no markup, HTML, table cell, link, mention or reference comes of it.

    >>> markdown("a|b <i>c</i> @team #12")
    'a\\|b &lt;i&gt;c&lt;/i&gt; @\u200bteam #\u200b12'
    """
    text = one_line(text, limit)
    text = _MARKUP.sub(lambda found: "\\" + found[0], text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"[@#](?=\w)", "\\g<0>\u200b", text)  # the entity &#64; would still mention: it is decoded first


def markdown_code(text: str, limit: int = 200) -> str:
    r"""A text as a code span, fenced by more backticks than it holds in a row.

    >>> markdown_code("a `b`")
    '`` a `b` ``'
    """
    text = one_line(text, limit)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def markdown_cell(text: str) -> str:
    """A code span as a table's cell: there a bare pipe ends the cell even within code."""
    return text.replace("|", "\\|")
