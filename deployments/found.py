"""`drivepost find-traces`: what was found, for people and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console

from flows.find_traces import search_for
from models.errors import RequestError

_TOLD_MAX: Final = 50
_FOUND: Final = 3
_NOT_ALL_SEARCHED: Final = 4


def look_for_words(console: Console, words: Sequence[str], json_file: Path | None) -> int:
    """Look for words everywhere and tell what was found.

    Returns:
        The exit code: 0 nothing found, 3 something, 4 nothing, but not everything could be searched.

    Raises:
        TraceWordsError: the words cannot be looked for.
        RequestError: the JSON file has no folder.
    """
    if json_file and not json_file.absolute().parent.is_dir():
        raise RequestError([("json", "there is no folder for that file")])
    report = search_for(words)
    for hit in report.hits[:_TOLD_MAX]:
        where = hit.place if hit.offset is None else f"{hit.place}, byte {hit.offset:,}"
        console.print(f"word {hit.word} as {hit.encoding}: {where}", style="red", markup=False, soft_wrap=True)
    if report.hits_total > _TOLD_MAX:
        console.print(f"… and {report.hits_total - _TOLD_MAX:,} more", style="red")
    for place, why in report.not_searched:
        console.print(f"not searched: {place}: {why}", style="yellow", markup=False, soft_wrap=True)
    if report.not_searched_total > len(report.not_searched):
        console.print(f"… and {report.not_searched_total - len(report.not_searched):,} more", style="yellow")
    console.print(
        f"{report.files:,} files with {report.bytes_searched:,} bytes searched for {len(words):,} words: "
        f"{report.hits_total:,} traces of {report.words_found:,} words"
    )
    if json_file:
        told = {
            "words": len(words),
            "wordsFound": report.words_found,
            "traces": report.hits_total,
            "hits": [asdict(hit) for hit in report.hits],
            "notSearched": report.not_searched,
            "files": report.files,
            "bytes": report.bytes_searched,
        }
        json_file.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    if report.hits_total:
        return _FOUND
    return _NOT_ALL_SEARCHED if report.not_searched else 0
