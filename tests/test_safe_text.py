"""Texts from outside: what acts in them is taken away or spelled out, and nothing else is touched."""

from __future__ import annotations

import doctest
import re

import pytest

from conformance import safe_text
from conformance.safe_text import clean, markdown, markdown_cell, markdown_code, one_line, shorten


def test_markdown_escapes_what_acts_within_a_line() -> None:
    assert markdown("a|b\n*c* <b> & [x](y) `d` http://e www.f @g #1") == (
        "a\\|b \\*c\\* &lt;b&gt; &amp; \\[x\\](y) \\`d\\` http\\://e www\\.f @\u200bg #\u200b1"
    )


@pytest.mark.parametrize("text", ["", "`", "``", "a`", "`a", "a `` b ` c"])
def test_a_code_span_outlasts_the_backticks_within(text: str) -> None:
    span = markdown_code(text)
    fence = re.match("`+", span)
    assert fence is not None
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", span[len(fence[0]) : -len(fence[0])])


def test_a_pipe_ends_no_cell_even_in_code() -> None:
    assert markdown_cell(markdown_code("a|b")) == "`a\\|b`"


def test_terminal_sequences_are_dropped_whole() -> None:
    assert clean("\x1b[1;31mred\x1b[0m \x1b]0;title\x07end") == "red end"


def test_ordinary_text_of_any_script_is_left_alone() -> None:
    text = "γ·x̂ + β, 批归一化, ½ ≤ |f| < 1\n\ttab"
    assert clean(text) == text


def test_long_texts_keep_beginning_and_end() -> None:
    assert shorten("x" * 50 + "end", 20) == "x" * 14 + "…xxend"
    assert len(one_line("word " * 100, 40)) <= 40


def test_the_examples_hold() -> None:
    failed, tried = doctest.testmod(safe_text)
    assert (failed, tried > 0) == (0, True)
