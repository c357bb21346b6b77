"""Words are found however they were written, and nothing else is."""

import ast
import html
import json
import pickle
import quopri
import re
import sys
from base64 import b64encode, encodebytes, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Final
from unicodedata import normalize
from urllib.parse import quote, quote_plus
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import trace_words
from tasks.trace_words import ENCODINGS, FOLDED, Finder, WordsError, finders, fold, forms_of, unfolded

TASKS: Final = Path(trace_words.__file__).parent
WORDS: Final = (
    "jane.doe@example.org",
    "Jürgen Müller-Lüdenscheidt",
    'O\'Brien & "Söhne" <GmbH>',
    "\\Photos\\Straße 5\\a+b.jpg",
    "李小龍李小龍",
    "🏠 Hauptstraße 🏠",
    "Žižek/ﬁnal/Ārija",
    "+49 (30) 901820",
    "100%25 sure=yes",
    "two\nlines\tand a tab",
    "Tom & Söhne/Süd?x=1",
    normalize("NFD", "Zoë Ångström"),
)
SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "as given": str,
    "lower": str.lower,
    "upper": str.upper,
    "casefolded": str.casefold,
    "NFC": lambda word: normalize("NFC", word),
    "NFD": lambda word: normalize("NFD", word),
    "upper NFD": lambda word: normalize("NFD", word.upper()),
}


def _units(word: str, digits: str) -> str:
    """Write what is not ASCII as UTF-16 units, by hand."""
    pairs = [word.encode("utf-16-be")[at : at + 2] for at in range(0, len(word.encode("utf-16-be")), 2)]
    units = [int.from_bytes(pair, "big") for pair in pairs]
    return "".join(chr(unit) if unit < 128 else f"\\u{unit:{digits}}" for unit in units)


def _dot_net(word: str) -> str:
    """Escape as System.Text.Json does by default."""
    text = word.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return "".join(f"\\u{ord(sign):04X}" if sign in "<>&'\"+" else _units(sign, "04X") for sign in text)


# Bytes around the word, so that base64 meets it at every alignment.
WRITERS: Final[dict[str, Callable[[bytes, str, bytes], bytes]]] = {
    "UTF-8": lambda a, word, b: a + word.encode() + b,
    "UTF-16 LE": lambda a, word, b: a + word.encode("utf-16-le") + b,
    "UTF-16 BE": lambda a, word, b: a + word.encode("utf-16-be") + b,
    "pickle": lambda a, word, b: pickle.dumps([a, {"word": word}, b]),
    "JSON of Python": lambda a, word, b: a + json.dumps({"word": word}).encode() + b,
    "JSON as it is": lambda a, word, b: a + json.dumps([word], ensure_ascii=False).encode() + b,
    "JSON of PHP": lambda a, word, b: a + json.dumps(word).replace("/", "\\/").encode() + b,
    "JSON in capitals": lambda a, word, b: a + _units(json.dumps(word, ensure_ascii=False), "04X").encode() + b,
    "JSON of .NET": lambda a, word, b: a + _dot_net(word).encode() + b,
    "JSON in JSON": lambda a, word, b: a + json.dumps(json.dumps({"word": word})).encode() + b,
    "JSON as it is in JSON": lambda a, word, b: (
        a + json.dumps(json.dumps([word], ensure_ascii=False)).encode() + b
    ),
    "URL": lambda a, word, b: a + quote(word).encode() + b,
    "URL component": lambda a, word, b: a + quote(word, safe="").encode() + b,
    "URL by encodeURI": lambda a, word, b: a + quote(word, safe="!#$&'()*+,/:;=?@").encode() + b,
    "URL in lower case": lambda a, word, b: (
        a + re.sub("[^A-Za-z0-9_.~-]", lambda sign: quote(sign[0], safe="").lower(), word).encode() + b
    ),
    "form": lambda a, word, b: a + quote_plus(word).encode() + b,
    "XML": lambda a, word, b: a + escape(word).encode() + b,
    "XML by ElementTree": lambda a, word, b: a + _element(word) + b,
    "HTML": lambda a, word, b: a + html.escape(word).encode() + b,
    "HTML in ASCII": lambda a, word, b: a + html.escape(word).encode("ascii", "xmlcharrefreplace") + b,
    "quoted-printable": lambda a, word, b: a + quopri.encodestring(word.encode()).replace(b"=\n", b"") + b,
    "repr": lambda a, word, b: a + repr([word]).encode() + b,
    "ascii": lambda a, word, b: a + ascii([word]).encode() + b,
    "repr of bytes": lambda a, word, b: a + repr(word.encode()).encode() + b,
    "SQL": lambda a, word, b: a + word.replace("'", "''").encode() + b,
    "CSV": lambda a, word, b: a + word.replace('"', '""').encode() + b,
    "hexadecimal": lambda a, word, b: (a + word.encode() + b).hex().encode(),
    "HEXADECIMAL": lambda a, word, b: (a + word.encode() + b).hex().upper().encode(),
    "spaced hexadecimal": lambda a, word, b: (a + word.encode() + b).hex(" ").encode(),
    "base64": lambda a, word, b: b64encode(a + word.encode() + b),
    "base64 for URLs": lambda a, word, b: urlsafe_b64encode(a + word.encode() + b),
    "base64 in lines": lambda a, word, b: encodebytes(a + word.encode() + b).replace(b"\n", b"\r\n"),
    "base64 in lines in JSON": lambda a, word, b: json.dumps(encodebytes(a + word.encode() + b).decode()).encode(),
    "base64 of PHP": lambda a, word, b: b64encode(a + word.encode() + b).replace(b"/", b"\\/"),
    "base64 in UTF-16": lambda a, word, b: b64encode(a + word.encode() + b).decode().encode("utf-16-le"),
    "base64 of UTF-16 LE": lambda a, word, b: b64encode(a + word.encode("utf-16-le") + b),
    "base64 of UTF-16 LE in lines": lambda a, word, b: encodebytes(a + word.encode("utf-16-le") + b),
    "base64 of UTF-16 BE": lambda a, word, b: b64encode(a + word.encode("utf-16-be") + b),
}


def _element(word: str) -> bytes:
    element = ET.Element("word")
    element.text = word
    return ET.tostring(element)


def found(word: str, data: bytes) -> set[str]:
    """Give the encodings in which a word stands in the data, with a lure beside it."""
    plain, folded = finders(["a lure that is not there", word])
    finds = [*plain.finds(data), *folded.finds(fold(data))]
    assert {find.word for find in finds} <= {1}
    return {find.encoding for find in finds}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_word_is_found_however_it_is_written(writer: str) -> None:
    """In every spelling, at every alignment."""
    for word in WORDS:
        plain, folded = finders([word])
        for before in (b"", b"x", b"\0z", b"ab\xff"):
            for spelling, spell in SPELLINGS.items():
                data = WRITERS[writer](before, spell(word), b"~")
                assert [*plain.finds(data), *folded.finds(fold(data))], (word, spelling, before)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_differs_in_one_sign_is_not_found(writer: str) -> None:
    """Whichever sign it is."""
    for word in WORDS:
        plain, folded = finders([word])
        for at, sign in enumerate(word):
            other = word[:at] + ("#" if sign != "#" else "~") + word[at + 1 :]
            data = WRITERS[writer](b"xy", other, b"~")
            assert [*plain.finds(data), *folded.finds(fold(data))] == []


TEXT: Final = st.text(
    st.one_of(
        st.sampled_from("abcXYZ019 '\"&<>\\/+%=~_-.@äßÉñĀ李🏠"),
        st.characters(codec="utf-8", exclude_categories=["Cc"]),
    ),
    min_size=6,
    max_size=14,
).filter(lambda word: len(normalize("NFC", word.strip())) >= 6)


@settings(max_examples=200, deadline=None)
@given(
    TEXT,
    st.sampled_from(sorted(SPELLINGS)),
    st.sampled_from(sorted(WRITERS)),
    st.binary(max_size=9),
    st.binary(max_size=5),
)
def test_any_word_is_found_however_it_is_written(
    word: str, spelling: str, writer: str, before: bytes, after: bytes
) -> None:
    """Between any bytes."""
    assert found(word, WRITERS[writer](before, SPELLINGS[spelling](word.strip()), after))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3_000))
def test_chance_finds_nothing(data: bytes) -> None:
    """Neither in bytes nor in their base64."""
    for text in (data, b64encode(data), data.hex().encode()):
        for finder, searched in zip(EVERYDAY, (text, fold(text)), strict=True):
            assert list(finder.finds(searched)) == []


EVERYDAY: Final = finders([*WORDS, "Seattle", "123456"])


@pytest.mark.parametrize("writer", ["UTF-8", "UTF-16 LE", "UTF-16 BE", "base64", "hexadecimal"])
def test_the_encoding_is_told(writer: str) -> None:
    """By its name; a Latin word in UTF-16 is the same from either end but for where it begins."""
    name = {"UTF-16 LE": "UTF-16", "UTF-16 BE": "UTF-16"}.get(writer, writer)
    assert found("jane.doe@example.org", WRITERS[writer](b"..", "jane.doe@example.org", b"..")) == {name}


def test_both_ends_of_utf_16_are_told_apart_where_they_differ() -> None:
    """Words that are not Latin alone."""
    assert found("李小龍李小龍", "李小龍李小龍".encode("utf-16-be")) == {"UTF-16 BE"}
    assert found("李小龍李小龍", "李小龍李小龍".encode("utf-16-le")) == {"UTF-16 LE"}


def test_forms_are_named_and_none_is_short() -> None:
    """Every encoding is used by some word, and no form is found by chance."""
    forms = [item for word in WORDS for item in forms_of(word).items()]
    assert {encoding for _, encoding in forms} | {"Windows-1252"} == set(ENCODINGS)
    assert "Windows-1252" in forms_of("Jürgen Müller").values()
    assert min(len(form) for form, _ in forms) >= 6
    assert set(ENCODINGS) > FOLDED


def test_a_plain_word_has_few_forms() -> None:
    """What several encodings write alike is one form, by the first name."""
    forms = forms_of(" jane.doe@example.org\n")
    assert forms[b"jane.doe@example.org"] == "UTF-8"
    assert len(forms) <= 22


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["many words", "few words"])
def test_a_word_within_a_word_is_found_too(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either kind of automaton, at the start, in the middle, at the end, and the same word twice."""
    monkeypatch.setattr(trace_words, "_FEW_FORM_BYTES", few)
    words = [
        "janedoe",
        "jane.doe@example.org",
        "jane.d",
        "doe@example",
        "example.org",
        "JANE.D",
        "jane.doe@example.org",
    ]
    plain, _ = finders(words)
    finds = list(plain.finds(b"... jane.doe@example.org ..."))
    assert sorted(find.word for find in finds) == [1, 2, 3, 4, 5, 6]
    assert [find.end for find in finds] == sorted(find.end for find in finds)
    assert {(find.start, find.end) for find in finds if find.word == 3} == {(9, 20)}
    assert plain.finds_any(b"... doe@example ...")
    assert not plain.finds_any(b"... doe@exampel ...")


def test_what_ended_before_is_not_found_again() -> None:
    """One byte each side of the line."""
    finder = Finder({b"abcdef": [(0, "UTF-8")]})
    assert list(finder.finds(b"..abcdef..", 8)) == []
    assert [find.start for find in finder.finds(b"..abcdef..", 7)] == [2]


@given(st.lists(st.sampled_from([b"\\", b"n", b"r", b"\n", b"\r", b" ", b"\t", b"\0", b"A", b"/"])).map(b"".join))
def test_every_folded_byte_is_found_where_it_stood(data: bytes) -> None:
    """Folding takes out, and puts nothing in."""
    folded = fold(data)
    places = unfolded(data, range(len(folded)))
    assert bytes(data[place] for place in places) == folded
    assert places == sorted(set(places))
    assert not set(folded) & set(b"\0 \t\r\n\\")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no words to look for; give at least one"),
        (["long enough", "five5"], r"word 1 \(the first is 0\) is shorter than 6 characters"),
        (["     five5     "], "word 0 .* shorter than 6"),
        ([normalize("NFD", "äöüäö")], "word 0 .* shorter than 6"),
        (["long enough", "x" * 1_001], "word 1 .* longer than 1,000 characters; give a part"),
        (["with a\0NUL"], "word 0 .* NUL"),
        (["half a \ud83d pair"], "word 0 .* surrogate"),
    ],
)
def test_words_that_cannot_be_looked_for_are_refused(words: list[str], text: str) -> None:
    """By their place in the list, and never by themselves."""
    with pytest.raises(WordsError, match=text) as refused:
        finders(words)
    assert not any(word.strip() in str(refused.value) for word in words)
    assert refused.value.__context__ is None or refused.value.__suppress_context__


def test_words_at_the_bounds_are_taken() -> None:
    """Six characters, and a thousand."""
    long = "".join(map(str, range(1_000)))[:1_000]
    plain, _ = finders(["  sixsix\n", long])
    assert {find.word for find in plain.finds(b"-sixsix-" + long.encode())} == {0, 1}


def test_too_many_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they fill the memory; just below that they are taken."""
    words = [f"word number {number}" for number in range(50)]
    size = sum(len(form) for word in words for form in forms_of(word))
    monkeypatch.setattr(trace_words, "FORM_BYTES_SUM_MAX", size)
    finders(words)
    monkeypatch.setattr(trace_words, "FORM_BYTES_SUM_MAX", size - 1)
    with pytest.raises(WordsError, match="50 words are too many to look for at once; look for them in parts"):
        finders(words)


@pytest.mark.parametrize("module", ["traces", "trace_streams", "trace_words"])
def test_the_search_shares_no_code_with_the_deleter(module: str) -> None:
    """The standard library, one automaton, and itself."""
    tree = ast.parse((TASKS / f"{module}.py").read_text("utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {"ahocorasick_rs", "tasks.trace_words", "tasks.trace_streams"}
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} <= own
