"""Files of text in other encodings: read where a mark says which, else refused with the right advice."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterfit.data.loading import read
from afterfit.errors import SettingsError, SourceError
from afterfit.settings import Source
from afterfit.texts.decoding import advice, decode
from afterfit.use_case import load_use_case

SETTINGS = "name: größe\n".replace("ö", "o").replace("ß", "ss") + (
    "description: Größe und Länge\ntask: regression\ntarget: länge\nsource: {path: none.csv}\n"
)
MARKED = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@given(
    st.sampled_from(sorted(MARKED)), st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"]))
)
def test_a_text_with_a_mark_is_read_as_the_mark_says(encoding, text):
    assert decode(MARKED[encoding] + text.encode(encoding)) == text
    assert decode(text.encode()) == text


@given(st.binary(max_size=60))
def test_any_bytes_are_text_or_a_sentence_with_advice(content):
    said, advised = "", True
    try:
        said = decode(content)
    except ValueError as error:
        advised = "; convert it, for example with: iconv -f " in str(error)
    assert advised
    assert "\0" not in said


@pytest.mark.parametrize("encoding", list(MARKED))
def test_a_settings_file_with_a_mark_is_read(encoding, tmp_path):
    file = tmp_path / "marked.yaml"
    file.write_bytes(MARKED[encoding] + SETTINGS.encode(encoding))
    assert (load_use_case(file).name, load_use_case(file).target) == ("grosse", "länge")


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("latin-1", "WINDOWS-1252"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32-le", "UTF-32LE")],
)
def test_a_settings_file_or_a_table_without_a_mark_gets_the_right_advice(encoding, said, tmp_path):
    file = tmp_path / "plain.yaml"
    file.write_bytes(SETTINGS.encode(encoding))
    with pytest.raises(SettingsError, match=f"not readable as YAML: .*iconv -f {said} -t UTF-8"):
        load_use_case(file)
    table = tmp_path / "plain.csv"
    table.write_bytes("länge,b\n1,ä\n".encode(encoding))
    with pytest.raises(SourceError, match=f"not UTF-8.*iconv -f {said} -t UTF-8"):
        read(Source(path="plain.csv"), tmp_path)


def test_a_table_in_utf_16_with_its_mark_is_told_how_to_convert_it(tmp_path):
    (tmp_path / "marked.csv").write_bytes(codecs.BOM_UTF16_LE + "a,b\n1,2\n".encode("utf-16-le"))
    with pytest.raises(SourceError, match="iconv -f UTF-16 -t UTF-8"):
        read(Source(path="marked.csv"), tmp_path)
    assert "iconv -f WINDOWS-1252" in advice(b"")


def test_settings_that_are_nested_too_deeply_are_refused_in_a_sentence(tmp_path):
    file = tmp_path / "deep.yaml"
    file.write_text("a: " + "[" * 5_000)
    with pytest.raises(SettingsError, match="not readable as YAML"):
        load_use_case(file)
