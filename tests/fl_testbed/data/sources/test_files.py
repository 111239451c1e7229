import gzip

import pytest

from fl_testbed.data import DataError
from fl_testbed.data.sources.files import find_files, read_text


def test_the_first_folder_that_has_all_files_is_taken(tmp_path):
    for name in ("one/a.csv", "two/a.csv", "two/b.csv.gz", "three/a.csv", "three/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_files("X", ("a.csv", "b.csv"), tmp_path, ("one", "two", "three"), "get it")
    assert found == [tmp_path / "two" / "a.csv", tmp_path / "two" / "b.csv.gz"]


def test_missing_files_are_named_with_where_they_were_looked_for(tmp_path):
    with pytest.raises(DataError) as error:
        find_files("X", ("a.csv",), tmp_path, ("one", "two"), "get it at home")
    assert str(error.value) == (
        f"X needs a.csv (plain or .gz), looked for in {tmp_path / 'one'} and "
        f"{tmp_path / 'two'}; get it at home"
    )
    with pytest.raises(DataError, match=r"X needs a data folder with a.csv .* in one or two: pass"):
        find_files("X", ("a.csv",), None, ("one", "two"), "get it at home")


def test_text_is_utf_8_with_or_without_a_mark_plain_or_gzipped(tmp_path):
    (tmp_path / "marked").write_bytes("\ufeffé".encode())
    (tmp_path / "zipped.gz").write_bytes(gzip.compress("é".encode()))
    assert read_text(tmp_path / "marked") == read_text(tmp_path / "zipped.gz") == "é"


def test_other_text_is_refused_with_its_line(tmp_path):
    (tmp_path / "latin").write_bytes("a\nb\né".encode("latin-1"))
    with pytest.raises(DataError, match="latin:3: is not UTF-8 text"):
        read_text(tmp_path / "latin")
