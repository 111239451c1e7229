"""Wrong input through the real command: exit status 2, one readable line per fault."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from commands import SCENARIO, patches, run, succeed
from typer.testing import CliRunner

from fl_testbed import __main__, cli
from fl_testbed.engine.options import Options
from fl_testbed.scenario import Fault, Scenario, ScenarioError

FAULTS = {
    "in the file": (
        ("rounds: 4", "ronds: 4"),
        "scenario.yaml:3: ronds: unknown key, did you mean 'rounds'?",
    ),
    "in what is there": (
        ("kind: digits", "kind: fashion_mnist"),
        "scenario.yaml:4: dataset: Fashion-MNIST needs a data folder with train-images-idx3-ubyte",
    ),
    "in what the data allow": (
        ("size: 2", "size: 9"),
        "scenario.yaml:8: poison: a 9 × 9 patch with margin 0 does not fit into 8 × 8 pixels",
    ),
}


@pytest.mark.parametrize(("change", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_scenario_exits_with_2_and_says_what_is_needed(
    change: tuple[str, str], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO.replace(*change))
    done = run("run", "scenario.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", ["out", "out/small/default"])
def test_a_file_where_run_folders_go_exits_with_2_and_is_named(file: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO + "\nsweep: {seed: [0, 1]}\n")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    done = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}: is a file, but a folder is needed")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("link", ["out", "out/small"])
def test_a_link_to_a_missing_folder_exits_with_2_and_says_where_it_leads(
    link: str, tmp_path: Path
) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "scratch")  # such as a disk that is not mounted
    done = run("run", "scenario.yaml", "--out", "out", cwd=tmp_path)
    fault = f"{link}: is a link to {tmp_path / 'scratch'}, which is missing: choose another --out\n"
    assert (done.returncode, done.stderr) == (2, fault)


def test_a_removed_current_folder_exits_with_2_and_is_named_as_the_reason(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    done = CliRunner().invoke(cli.app, ["list"])
    assert done.exit_code == 2
    assert done.stderr == "the current folder has been removed: change to one that exists\n"


@pytest.mark.parametrize(
    "room", [20, -1]
)  # enough for the folder, but not for its files; too little
def test_a_path_too_long_for_a_run_exits_with_2_before_any_run_begins(
    room: int, tmp_path: Path
) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    longest = os.pathconf(tmp_path, "PC_PATH_MAX") - 1 - len("/small/default/seed-0")
    out = ("b" * 199 + "/" + "b" * 55) * 16
    out = out[: longest - room]
    done = run("run", "scenario.yaml", "--out", out, cwd=tmp_path)
    assert done.returncode == 2
    fault = "cannot be a run's folder (File name too long): choose another --out or shorter names"
    assert done.stderr == f"{out}/small/default/seed-0: {fault}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.yaml"]


def test_a_missing_file_exits_with_2_and_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    done = run("run", "scenaro.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("scenaro.yaml: no such file")
    assert "scenario.yaml" in done.stderr


def test_a_file_that_cannot_be_written_is_named_and_nothing_said_of_rounds(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    done = run("show", "scenario.yaml", "--out", "nowhere/sheet.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "nowhere/sheet.png: No such file or directory\n")


def test_a_fault_before_any_run_began_says_nothing_of_rounds(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fl_testbed.engine.launch.launch", MagicMock(side_effect=OSError("full")))
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    done = run("run", "scenario.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "full\n")


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ([], "inline"),
        (["--workers", "2"], "ray"),
        (["--ray-address", "auto"], "ray"),
        (["--workers", "2", "--engine", "inline"], "inline"),
    ],
)
def test_whoever_asks_for_ray_s_workers_asks_for_ray(
    options: list[str], engine: str, tmp_path: Path, monkeypatch
) -> None:
    def chosen(scenarios: list[Scenario], *_: object) -> None:
        raise ScenarioError(Fault("", "", scenarios[0].engine.kind))

    monkeypatch.setattr("fl_testbed.engine.launch.launch", chosen)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    assert run("run", "scenario.yaml", *options, cwd=tmp_path).stderr == f"{engine}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variant", "b"], "b,lr=0.1 b,lr=0.2"),
        (["--variant", "b,lr=0.2", "--variant", "aa"], "aa,lr=0.1 aa,lr=0.2 b,lr=0.2"),
        (["--variant", "a"], "scenario.yaml: --variant: needs one of aa, b, b,c, got a"),
        (
            ["--variant", "b", "--variant", "a"],
            "--variant: a: there is no such variant: fl-testbed validate lists them",
        ),
    ],
)
def test_a_command_may_run_some_variants(options, said: str, tmp_path: Path, monkeypatch) -> None:
    def chosen(scenarios: list[Scenario], *_: object) -> None:
        raise ScenarioError(Fault("", "", " ".join(s.variant for s in scenarios)))

    monkeypatch.setattr("fl_testbed.engine.launch.launch", chosen)
    sweep = "\nvariants: {aa: {}, b: {}, 'b,c': {}}\nsweep: {training.lr: [0.1, 0.2]}\n"
    (tmp_path / "scenario.yaml").write_text(SCENARIO + sweep)
    assert run("run", "scenario.yaml", *options, cwd=tmp_path).stderr == f"{said}\n"


@pytest.mark.parametrize(
    ("settings", "is_part"),
    [
        (["--set", "rounds=1"], False),
        (["--set", "seed = 1"], True),
        (["--variant", "default"], True),
    ],
)
def test_a_command_for_one_seed_or_variant_is_a_part_of_a_sweep(
    settings: list[str], is_part: bool, tmp_path: Path, monkeypatch
) -> None:
    def chosen(scenarios: list[Scenario], options: Options, *_: object) -> None:
        raise ScenarioError(Fault("", "", str(options.is_part)))

    monkeypatch.setattr("fl_testbed.engine.launch.launch", chosen)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    assert run("run", "scenario.yaml", *settings, cwd=tmp_path).stderr == f"{is_part}\n"


def test_clients_that_hold_nothing_to_show_are_a_fault(tmp_path: Path) -> None:
    nobody = "honest_majority: 0, honest_minority: 0"
    text = SCENARIO.replace("honest_majority: 8, honest_minority: 2", nobody)
    (tmp_path / "scenario.yaml").write_text(text)
    done = run("show", "scenario.yaml", "--set", "poison={kind: none}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("scenario.yaml: clients: hold nothing to show")


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    done = run("show", "scenario.yaml", "--out", "sheet.xyz", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("--out: needs a name that ends in one of ")
    assert done.stderr.endswith(", got sheet.xyz\n")


def test_examples_of_a_table_are_no_picture(tmp_path: Path) -> None:
    rows = [f"{row % 7},{row % 2}" for row in range(600)]
    (tmp_path / "table.csv").write_text("\n".join(["age,label", *rows]))
    table = "dataset={kind: csv, file: table.csv, minority: {kind: none}}"
    settings = [table, "poison={kind: none}", "clients.honest_minority=0"]
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    arguments = [word for setting in settings for word in ("--set", setting)]
    done = run("show", "scenario.yaml", *arguments, "--data-dir", ".", "--out=a.png", cwd=tmp_path)
    assert done.stderr == "--out: needs a name that ends in one of csv, got a.png\n"


def test_a_table_may_be_called_like_a_key(tmp_path: Path) -> None:
    (tmp_path / "clients.csv").write_text("age\n4\n")
    table = "dataset={kind: csv, file: clients.csv, minority: {kind: none}}"
    settings = ("--set", table, "--set", "poison={kind: none}", "--set=clients.honest_minority=0")
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    done = run("validate", "scenario.yaml", *settings, "--data-dir", ".", cwd=tmp_path)
    assert done.stderr.startswith("--set: dataset: clients.csv: has no column 'label'")


def test_validate_shows_variants_groups_and_memory(tmp_path: Path) -> None:
    swept = "\nvariants: {mine: {}, other: {rounds: -1}}\nsweep: {seed: [3, 5]}\n"
    (tmp_path / "scenario.yaml").write_text(SCENARIO + swept)
    elsewhere = ("--set", "engine.device=cuda:99")  # a login node has no such GPU
    said = succeed("validate", "scenario.yaml", "--variant=mine", *elsewhere, cwd=tmp_path)
    assert "cannot run on this machine: --set: engine.device: cuda:99 is not there" in said
    assert "3, 5" in said
    assert "1,210" in said  # 64 × 16 + 16 + 16 × 10 + 10 parameters
    rows = [line.split("│")[1:-1] for line in said.splitlines() if line.startswith("│")]
    table = [[cell.strip() for cell in row] for row in rows][-3:]
    assert table[0] == ["plain", "80.0%", "320", "0", "80", "400"]
    assert table[1] == ["inverted (minority)", "20.0%", "0", "80", "0", "400"]
    assert table[2] == ["one client", "", "40", "40", "40", ""]
    assert "classes:" not in said  # digits are called by their numbers


def test_validate_checks_all_files_and_says_what_is_wrong_with_any(tmp_path: Path) -> None:
    for name, rounds in {"bad.yaml": -1, "good.yaml": 2, "worse.yaml": -2}.items():
        (tmp_path / name).write_text(SCENARIO.replace("rounds: 4", f"rounds: {rounds}"))
    done = run("validate", "bad.yaml", "good.yaml", "worse.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["bad.yaml", "worse.yaml"]
    assert "1 run" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["mnist"], "data fetch: needs a folder for the files: pass --data-dir DIR"),
        (["adult", "--data-dir", "d"], "data fetch: adult cannot be downloaded automatically: get"),
        (["minst", "--data-dir", "d"], "data fetch: there is nothing to download for 'minst'"),
    ],
)
def test_what_cannot_be_fetched_says_what_to_do(arguments, expected, tmp_path: Path) -> None:
    done = run("data", "fetch", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(expected)
    assert len(done.stderr.splitlines()) == 1


def test_list_names_every_rule(tmp_path: Path) -> None:
    said = succeed("list", "rules", cwd=tmp_path)
    for kind in ("mean", "krum", "multi_krum", "trimmed_mean", "norm_clipping", "fltrust"):
        assert f" {kind} " in said
    krum = said.split(" krum ")[1].split(" multi_krum ")[0]
    assert "n_malicious" in krum
    assert "n >= 2f + 3" in krum
    assert "NeurIPS" in krum


def test_list_shows_defaults_as_a_scenario_would_give_them(tmp_path: Path) -> None:
    said = "".join(succeed("list", cwd=tmp_path).replace("│", " ").split())
    assert "attributes=[]" in said  # of image_folder
    assert "filters=[32,64]" in said
    assert "harden={kind:perturbed," in said


def test_run_prints_a_table_and_draws_a_figure_for_every_file(tmp_path: Path) -> None:
    short = SCENARIO.replace("rounds: 4", "rounds: 1")
    (tmp_path / "scenario.yaml").write_text(short)
    (tmp_path / "other.yaml").write_text(short.replace("name: small", "name: other"))
    said = succeed("run", "scenario.yaml", "other.yaml", cwd=tmp_path)
    for heading in ("accuracy", "worst", "group", "ASR", "minority", "poisoned"):
        assert said.count(heading) >= 2
    for name in ("small", "other"):
        folder = tmp_path / "runs" / name
        assert (folder / "tension.png").read_bytes().startswith(b"\x89PNG")
        assert len(json.loads((folder / "sweep.json").read_text())["runs"]) == 1


def module(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "fl_testbed", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, check=False
    )


def test_ctrl_c_while_libraries_are_loaded_ends_without_a_traceback(tmp_path: Path) -> None:
    press = "def patch(module):\n    raise KeyboardInterrupt\n"
    done = module("list", PYTHONPATH=f"{patches(tmp_path, 'torch', press)}:{Path().absolute()}")
    assert (done.returncode, done.stderr) == (130, b"interrupted\n")


def test_ctrl_c_when_all_is_done_ends_without_a_traceback() -> None:
    text = """
import atexit, os, signal
from fl_testbed import __main__, cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
cli.main = lambda: None
atexit.register(os.kill, os.getpid(), signal.SIGINT)
__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("command", "argument"),
    [("run", "SCENARIO"), ("compare", "RUN_DIR"), ("replay", "RUN_DIR"), ("list", "WHAT")],
)
def test_help_says_what_an_argument_is(command: str, argument: str) -> None:
    # typer 0.20 loses the help of arguments where click is 8.5 or newer.
    assert f"{argument} is " in CliRunner().invoke(cli.app, [command, "--help"]).stdout


def test_help_does_not_wait_for_torch() -> None:
    text = "from fl_testbed.cli import app; app(['run', '--help'], standalone_mode=False)"
    check = "import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{text}\n{check}"], check=True, capture_output=True)


def test_garbage_is_not_looked_for_among_libraries_nor_at_a_command_s_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gc.unfreeze()
    own: list[list[object]] = []
    frozen: list[int] = []

    def command() -> None:
        for _ in range(2):
            cli.app(["list", "rules"], standalone_mode=False)
            frozen.append(gc.get_freeze_count())
            own.extend([[]] for _ in range(1_000))
        assert gc.isenabled()

    monkeypatch.setattr(signal, "signal", lambda *args: None)
    monkeypatch.setattr(cli, "main", command)
    try:
        __main__.main()
        after_imports, later = frozen
        assert after_imports > 100_000
        assert later <= after_imports
        assert gc.get_freeze_count() >= later + len(own)
    finally:
        gc.unfreeze()


def test_an_encoding_without_a_table_s_characters_gets_the_table_all_the_same() -> None:
    done = module("list", "rules", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Krum: the one update" in done.stdout
    assert b"multi_krum" in done.stdout


def test_it_says_its_version(tmp_path: Path) -> None:
    assert succeed("--version", cwd=tmp_path).startswith("fl-testbed 0.")


def test_a_mistyped_command_gets_one_suggestion() -> None:
    said = CliRunner().invoke(cli.app, ["comp"]).output
    assert said.count("Did you mean 'compare'?") == 1
