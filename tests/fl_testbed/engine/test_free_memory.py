from pathlib import Path

import psutil
import pytest

from fl_testbed.engine.free_memory import free_memory


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used", "prefix"),
    [
        ("0::/job/step", "job", "memory.max", "memory.current", ""),
        (
            "4:memory:/job/step",
            "memory/job",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_",
        ),
    ],
)
def test_what_is_left_of_a_job_s_limit_is_free_with_the_files_that_it_keeps(
    tmp_path: Path, line: str, folder: str, limit: str, used: str, prefix: str
) -> None:
    own, job = tmp_path / "own", tmp_path / folder
    own.write_text(f"2:cpuset:/\n{line}\n")
    (job / "step").mkdir(parents=True)
    (job / "step" / limit).write_text("max\n")  # a step's is the job's
    (job / limit).write_text("1000\n")
    (job / used).write_text("700\n")
    (job / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file 20\n{prefix}active_file 3\n")
    assert free_memory(own, tmp_path) == 1000 - 700 + 20 + 3
    (job / used).write_text("1200\n")
    assert free_memory(own, tmp_path) == 0


def test_without_a_limit_the_machine_s_memory_is_free(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    assert free_memory(tmp_path / "own", tmp_path) == pytest.approx(free, rel=0.5)
