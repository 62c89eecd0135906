"""Inputs that hypothesis makes up of the words that matter to each format, in every run of the tests."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

_LINES = rb'a b x 1 , ; | " "" \n \r \r\n a,b\n ann,1\n \0 \xff \xc3\xa9 \xef\xbb\xbf \\ true 12345678'
_JSON = (
    rb'{ } [ ] : , " \n \\u0000 \\ud800 1 1.50 1e999 null true {"a":"x"}\n {"a":"y","b":1} "a": "b": \xff '
    rb'{"userName":"a","attributes":{} }'
)
_ANSWERS = (
    rb'{"results":[ {"userName":"a","resultCode": 0 "1" 7 {"value":2} } ]} , "message":"x" null {"token":"x" '
    rb'"expires_in": 1e999 } \n\n'
)
_SETTINGS = (
    rb"limits. export. mapping. target. target.auth. network. concurrency= path= user= types= proxy= ca_file= scheme= "
    rb'secret= api= base_url= 4 -1 nan "" "env:" "file:~x" "http://u:p@h:1" true { } a=1 ] \n = . \xff'
)

_WORDS = {
    **dict.fromkeys(("split", "csv", "gzip", "bzip2", "zstd", "parquet", "arrow"), _LINES),
    **dict.fromkeys(("ndjson", "json"), _JSON),
    **dict.fromkeys(("token", "answer"), _ANSWERS),
    "settings": _SETTINGS,
}

#: So many bytes at the beginning choose the options.
_OPTIONS = {"split": 3, "token": 2, "answer": 2, "settings": 1}


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    """What must hold of a target holds for each input."""
    words = [word.decode("unicode_escape").encode("latin-1") for word in _WORDS[name].split()]
    count = _OPTIONS.get(name, 4)
    content = st.lists(st.sampled_from(words) | st.binary(max_size=3), max_size=25).map(b"".join)

    @settings(max_examples=60)
    @given(st.binary(min_size=count, max_size=count), content)
    def check(options: bytes, content: bytes) -> None:
        TARGETS[name](options + content, folder)

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        check()
