"""Words to look for in bytes, in every encoding that a store may keep them in; shares no code with the deleter."""

import binascii
import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html.entities import codepoint2name
from typing import Final, NamedTuple
from unicodedata import normalize
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick, Implementation

CHARACTERS_MIN: Final = 6
CHARACTERS_MAX: Final = 1_000
FORM_BYTES_MIN: Final = 6
# Building takes about 30 bytes of memory for each byte of a form.
FORM_BYTES_SUM_MAX: Final = 48 << 20
# So few are found twice as fast by a table of up to 35 MB.
_FEW_FORM_BYTES: Final = 1 << 17

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
# What is left as it is in URLs: nothing; by Python's `quote`; by `encodeURIComponent`; in a path; by `encodeURI`.
_KEPT_IN_URLS: Final = ("", "/", "!'()*", "!$&'()*+,;=:@", "!$&'()*+,;=:@/?#")
_QUOTES_IN_XML: Final = (
    ('"', "'"),
    ("&quot;", "'"),
    ("&quot;", "&apos;"),
    ("&quot;", "&#39;"),
    ("&quot;", "&#x27;"),
    ("&#34;", "&#39;"),
)
_NOISE: Final = b"\0 \t\r\n\\"
_ESCAPE: Final = re.compile(rb"\\[nr]")
_NOISY: Final = re.compile(rb"(?:\\[nr]|[\0 \t\r\n\\])+")


class WordsError(ValueError):
    """The words cannot be looked for; the text says which by its place in the list, never by itself."""


class Find(NamedTuple):
    """A form of a word that stands in the bytes; `word` is its place in the list, counted from 0."""

    word: int
    encoding: str
    start: int
    end: int


def checked(words: Sequence[str]) -> list[str]:
    """Refuse words that cannot be looked for.

    Returns:
        The words without white space around them, in their order.

    Raises:
        WordsError: there are none, or one is too short, too long or no text.
    """
    if not words:
        raise WordsError("there are no words to look for; give at least one")
    return [_checked(place, word) for place, word in enumerate(words)]


def _checked(place: int, word: str) -> str:
    which = f"word {place} (the first is 0)"
    word = word.strip()
    if "\0" in word:
        raise WordsError(f"{which} holds a NUL, which no text column can; give the text without it")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise WordsError(f"{which} holds half a surrogate pair; read it again from its source as UTF-8") from None
    if len(normalize("NFC", word)) < CHARACTERS_MIN:
        raise WordsError(
            f"{which} is shorter than {CHARACTERS_MIN} characters, and would be found by chance; "
            "give more of the text around it, or leave it out"
        )
    if len(word) > CHARACTERS_MAX:
        raise WordsError(f"{which} is longer than {CHARACTERS_MAX:,} characters; give a part of it")
    return word


def forms_of(word: str) -> dict[bytes, str]:
    """Write a word in every encoding: as given, lower case, upper case and casefolded; NFC and NFD.

    Args:
        word: 6 to 1,000 characters; white space around it is not looked for.

    Returns:
        form -> name of its encoding. A form that several encodings give goes by the first; no form is shorter
        than 6 bytes.
    """
    spellings = _spellings(word.strip())
    forms: dict[bytes, str] = {}
    for encoding, write in ENCODINGS.items():
        for spelling in spellings:
            for form in write(spelling):
                if len(form) >= FORM_BYTES_MIN:
                    forms.setdefault(form, encoding)
    return forms


def _spellings(word: str) -> list[str]:
    cases = (word, word.lower(), word.upper(), word.casefold())
    return list(
        dict.fromkeys(text for case in cases for text in (case, normalize("NFC", case), normalize("NFD", case)))
    )


def _little(word: str) -> bytes:
    """UTF-16 LE without its last byte if that is 0, so that what is left of a Latin word is UTF-16 BE as well."""
    return word.encode("utf-16-le").removesuffix(b"\0")


def _big(word: str) -> bytes:
    return word.encode("utf-16-be").removeprefix(b"\0")


def _base64(data: bytes) -> set[bytes]:
    """Take of the base64 of anything that holds `data` the characters that are sure, for its three alignments."""
    texts = set()
    for before in range(3):
        sure = slice(-(-before * 8 // 6), (before + len(data)) * 8 // 6)
        texts.add(b64encode(bytes(before) + data)[sure])
    return texts | {text.translate(_URL_SAFE) for text in texts}


def _hexadecimal(word: str) -> set[bytes]:
    return {word.encode().hex().encode(), word.encode().hex().upper().encode()}


def _url(word: str) -> set[bytes]:
    texts = {quote(word, safe=kept) for kept in _KEPT_IN_URLS} | {quote_plus(word)}
    texts |= {re.sub("%[0-9A-F]{2}", lambda byte: byte[0].lower(), text) for text in texts}
    return {text.encode() for text in texts}


def _upper_digits(text: str) -> str:
    return re.sub(r"(?<=\\u)[0-9a-f]{4}", lambda digits: digits[0].upper(), text)


def _json_texts(word: str) -> set[str]:
    """Write a word as Python, JavaScript and Java do, with slashes as PHP does, and marks as Go and .NET do."""
    as_it_is, ascii_only = (json.dumps(word, ensure_ascii=way)[1:-1] for way in (False, True))
    texts = {as_it_is, ascii_only, _upper_digits(ascii_only)}
    texts |= {text.replace("/", "\\/") for text in texts}
    for mark in "<>&":
        as_it_is = as_it_is.replace(mark, f"\\u{ord(mark):04x}")
    for sign, mark in (('\\"', '"'), *zip("<>&'+", "<>&'+", strict=True)):
        ascii_only = ascii_only.replace(sign, f"\\u{ord(mark):04x}")
    return texts | {as_it_is, _upper_digits(ascii_only)}


def _json(word: str) -> set[bytes]:
    return {text.encode() for text in _json_texts(word)}


def _json_in_json(word: str) -> set[bytes]:
    return {
        json.dumps(inner, ensure_ascii=way)[1:-1].encode() for inner in _json_texts(word) for way in (False, True)
    }


def _xml(word: str) -> set[bytes]:
    bare = html.escape(word, quote=False)
    return {
        written
        for double, single in _QUOTES_IN_XML
        for written in _referenced(bare.replace('"', double).replace("'", single))
    }


def _referenced(text: str) -> Iterator[bytes]:
    """Write what is not ASCII as it is, by its number in either base, and by its name."""
    yield text.encode()
    for reference in ("&#{0};", "&#x{0:x};", "&#x{0:X};", "&{1};"):
        yield "".join(
            sign if sign.isascii() else reference.format(ord(sign), codepoint2name.get(ord(sign), f"#{ord(sign)}"))
            for sign in text
        ).encode()


def _quoted_printable(word: str) -> set[bytes]:
    return {binascii.b2a_qp(word.encode(), header=header).replace(b"=\n", b"") for header in (False, True)}


def _python(word: str) -> set[bytes]:
    return {text.encode() for text in (repr(word)[1:-1], ascii(word)[1:-1], repr(word.encode())[2:-1])}


def _windows(word: str) -> set[bytes]:
    try:
        return {word.encode("cp1252")}
    except UnicodeEncodeError:
        return set()


ENCODINGS: Final[Mapping[str, Callable[[str], Iterable[bytes]]]] = {
    "UTF-8": lambda word: {word.encode()},
    "UTF-16": lambda word: {_little(word)} & {_big(word)},
    "UTF-16 LE": lambda word: {_little(word)},
    "UTF-16 BE": lambda word: {_big(word)},
    "Windows-1252": _windows,
    "JSON": _json,
    "URL": _url,
    "XML": _xml,
    "quoted-printable": _quoted_printable,
    "Python": _python,
    "quotes doubled": lambda word: {word.replace(mark, 2 * mark).encode() for mark in "'\""},
    "JSON in JSON": _json_in_json,
    "base64": lambda word: _base64(word.encode()),
    "base64 of UTF-16": lambda word: _base64(_little(word)) | _base64(_big(word)),
    "hexadecimal": _hexadecimal,
}
# Written to be read by programs alone, so that line breaks, blanks and escapes may stand anywhere within.
FOLDED: Final = frozenset({"base64", "base64 of UTF-16", "hexadecimal"})


def fold(data: bytes) -> bytes:
    r"""Take out what may stand within base64 or hexadecimal: white space, NUL, `\n`, `\r` and any backslash."""
    return _ESCAPE.sub(b"", data).translate(None, _NOISE)


def unfolded(data: bytes, places: Sequence[int]) -> list[int]:
    """Tell where in `data` the bytes stand that `fold(data)` has at `places`, which rise."""
    if not places:
        return []
    found: list[int] = []
    taken_out = 0
    noises = _NOISY.finditer(data)
    noise = next(noises, None)
    for place in places:
        while noise and noise.start() <= place + taken_out:
            taken_out += noise.end() - noise.start()
            noise = next(noises, None)
        found.append(place + taken_out)
    return found


class Finder:
    """All forms of many words at once; one word within another is found too."""

    def __init__(self, forms: Mapping[bytes, Sequence[tuple[int, str]]]) -> None:
        """Take the forms, each with the words it stands for and its encodings of them."""
        self.longest: Final = max(map(len, forms))
        self._meanings: Final = list(forms.values())
        few = sum(map(len, forms)) <= _FEW_FORM_BYTES
        self._automaton: Final = BytesAhoCorasick(forms, implementation=Implementation.DFA if few else None)

    def finds(self, data: bytes, after: int = 0) -> Iterator[Find]:
        """Find every form in `data` that ends past its first `after` bytes, by their ends."""
        for number, start, end in self._automaton.find_matches_as_indexes(data, overlapping=True):
            if end > after:
                for word, encoding in self._meanings[number]:
                    yield Find(word, encoding, start, end)

    def finds_any(self, data: bytes) -> bool:
        """Tell whether there is any form in `data`."""
        return bool(self._automaton.find_matches_as_indexes(data))


def finders(words: Sequence[str]) -> tuple[Finder, Finder]:
    """Make two finders of these words: one for bytes as they are, one for bytes that were folded.

    10,000 words of 24 characters take 7 s and 600 MB at the peak, 270 MB after; then 50 MB/s are searched, and
    15 MB/s of base64. One word takes no time, and 200 MB/s are searched.

    Raises:
        WordsError: there are none, one cannot be looked for, or they are too many.
    """
    plain: dict[bytes, tuple[tuple[int, str], ...]] = {}
    folded: dict[bytes, tuple[tuple[int, str], ...]] = {}
    size = 0
    for place, word in enumerate(checked(words)):
        for form, encoding in forms_of(word).items():
            into = folded if encoding in FOLDED else plain
            into[form] = (*into.get(form, ()), (place, encoding))
            size += len(form)
        if size > FORM_BYTES_SUM_MAX:
            raise WordsError(f"{len(words):,} words are too many to look for at once; look for them in parts")
    return Finder(plain), Finder(folded)
