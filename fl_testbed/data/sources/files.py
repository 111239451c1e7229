"""Finding a dataset's files in the data folder, and reading the text in them."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from fl_testbed.data.dataset import DataError


class MissingFilesError(DataError):
    """A dataset's files are not there."""


def read_bytes(path: Path) -> bytes:
    """Return a file's content, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: If it cannot be read or is broken.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise DataError(f"{path}: broken gzip file ({fault}): copy it again") from fault
    except OSError as fault:
        raise DataError(f"{path}: cannot be read: {fault.strerror}") from fault


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: If it cannot be read, is broken, or is not UTF-8.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content[: fault.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: is not UTF-8 text: save it as UTF-8") from fault


def find_files(
    title: str, names: Sequence[str], data_dir: Path | None, folders: Sequence[str], remedy: str
) -> list[Path]:
    """Return the path of each file, plain or gzipped, from the first folder that has them all.

    Args:
        title: The dataset's name.
        names: The files, without ``.gz``.
        data_dir: The folder of datasets.
        folders: The folders in it that may hold the files.
        remedy: How to get the files, as the end of a sentence.

    Raises:
        MissingFilesError: If no folder has them all.
    """
    what = ", ".join(names)
    if data_dir is None:
        raise MissingFilesError(
            f"{title} needs a data folder with {what} (plain or .gz) in {' or '.join(folders)}: "
            f"pass --data-dir DIR or set FL_TESTBED_DATA; {remedy}"
        )
    for folder in folders:
        found = [_plain_or_gzipped(data_dir / folder / name) for name in names]
        if all(found):
            return [path for path in found if path is not None]
    looked = " and ".join(str(data_dir / folder) for folder in folders)
    text = f"{title} needs {what} (plain or .gz), looked for in {looked}; {remedy}"
    raise MissingFilesError(text)


def _plain_or_gzipped(path: Path) -> Path | None:
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.is_file():
            return candidate
    return None
