"""A user's own code: found beside the scenario, and refused in one line where it does not fit."""

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from pretended_device import ELSEWHERE, PretendedDevice

from clients.local import LocalRound
from clients.shard import Role, Shard
from fl_testbed.scenario import Scenario, ScenarioError, load_scenarios
from fl_testbed.scenario.own_specs import own_specs, users_modules
from fl_testbed.scenario.users_code import OwnCodeError, described, digest_of
from strategies.aggregation import Aggregate, TooFewClientsError
from strategies.pipeline import Pipeline

SCENARIO = """\
name: small
rounds: 6
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 5, honest_minority: 2, poisoned: 1, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy:
  aggregation: {KIND}
"""
FACTS = ", ".join(sorted(Pipeline.AGGREGATE_FACTS))
RULE = """\
import torch
from strategies.aggregation import Aggregate


def first_only(updates, prior, n_malicious, scale=1.0):
    weights = torch.zeros(len(updates))
    weights[0] = 1
    return Aggregate(updates[0] * scale, weights, torch.zeros(len(updates)))


limit = 3
"""


def load(folder: Path, kind: str, code: str = RULE) -> Scenario:
    (folder / "mine.py").write_text(code)
    (folder / "own.yaml").write_text(SCENARIO.replace("KIND", kind))
    (scenario,) = load_scenarios(folder / "own.yaml")
    return scenario


GOOD = "kind: 'mine.py:first_only', args: {n_malicious: 0.25, scale: 2.0}"


def test_a_file_is_found_beside_the_scenario_and_its_arguments_are_bound(tmp_path):
    rule = load(tmp_path, GOOD).strategy.aggregation.build(8)
    update = rule(torch.ones(8, 3), prior=torch.ones(8) / 8).update
    assert update.tolist() == [2, 2, 2]
    assert rule.keywords["n_malicious"] == 2  # a quarter of the sample


def test_a_rule_can_say_by_its_traits_what_is_to_be_known_of_it(tmp_path):
    marked = (
        "from strategies.aggregation import Bound, Traits, mean\n"
        "from strategies.aggregation.traits import traits_of\n"
        "@Traits(Bound('mine', 2, 3), selects=True, compares_pairs=True,\n"
        "        row_by_row=traits_of(mean).row_by_row)\n"
        "def first_only"
    )
    strategy = load(tmp_path, GOOD, RULE.replace("def first_only", marked)).strategy
    assert strategy.selects
    strategy.check(8)
    with pytest.raises(TooFewClientsError, match=r"mine needs n >= 2f \+ 3 clients"):
        strategy.check(4)
    pipeline = Pipeline(strategy.aggregation.build(8))
    assert pipeline.compares_pairs
    assert pipeline.row_by_row is None  # then it would not be called


def test_a_file_is_relative_to_the_file_that_names_it(tmp_path):
    (tmp_path / "base").mkdir()
    load(tmp_path / "base", GOOD)
    variant = "{strategy.aggregation: {kind: 'mine.py:last_only', args: {n_malicious: 1}}}"
    text = f"extends: base/own.yaml\nvariants: {{a: {{}}, b: {variant}}}\n"
    (tmp_path / "mine.py").write_text(RULE.replace("first_only", "last_only"))
    (tmp_path / "top.yaml").write_text(text)
    a, b = load_scenarios(tmp_path / "top.yaml", ["strategy.aggregation.args.scale=3.0"])
    assert a.strategy.aggregation.kind == "mine.py:first_only"
    assert a.strategy.aggregation.args["scale"] == 3.0
    assert b.strategy.aggregation.kind == "mine.py:last_only"


def test_on_the_command_line_a_file_is_relative_to_where_one_is(tmp_path, monkeypatch):
    (tmp_path / "base").mkdir()
    load(tmp_path / "base", GOOD)
    (tmp_path / "here.py").write_text(RULE.replace("first_only", "last_only"))
    monkeypatch.chdir(tmp_path)
    rule = "strategy.aggregation={kind: 'here.py:last_only', args: {n_malicious: 1}}"
    (scenario,) = load_scenarios(Path("base") / "own.yaml", [rule])
    assert scenario.strategy.aggregation.kind == "here.py:last_only"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder beside which Python looks for packages during the test alone."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write_package(folder: Path, name: str, rules: str = RULE) -> Path:
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "rules.py").write_text(rules)
    return package


def from_package(name: str) -> str:
    return f"kind: '{name}.rules:first_only', args: {{n_malicious: 1}}"


def test_a_package_is_found_beside_the_scenario(folder):
    package = write_package(folder, "a_package_of_mine")
    before = load(folder, from_package(package.name))
    (package / "inner").mkdir()
    (package / "inner" / "helpers.py").write_text("x = 1\n")
    after = load(folder, from_package(package.name))
    assert before.identity() != after.identity()  # any of its files may matter


def test_what_moves_from_one_file_of_a_package_to_another_changes_its_hash():
    one, other = {"p/a.py": b"x = 1\n", "p/b.py": b""}, {"p/a.py": b"", "p/b.py": b"x = 1\n"}
    assert digest_of(one) == digest_of(dict(reversed(one.items()))) != digest_of(other)


@pytest.mark.parametrize("file", ["rules.py", "__init__.py"])
def test_a_package_that_is_not_what_was_imported_is_refused(folder, file):
    package = write_package(folder, f"edited_{file[:-3]}")
    load(folder, from_package(package.name))
    before = (package / file).read_text()
    for change in (lambda: (package / file).write_text("x = 2\n"), (package / file).unlink):
        change()
        with pytest.raises(ScenarioError) as error:
            load(folder, from_package(package.name))
        text = f"{package / file} has changed since it was imported: restart Python"
        assert str(error.value).endswith(f": strategy.aggregation: {text}")
    (package / file).write_text(before)
    load(folder, from_package(package.name))


def test_two_packages_of_one_name_in_one_process_are_refused(folder):
    for there in ("one", "other"):
        write_package(folder / there, "twice")
    load(folder / "one", from_package("twice"))
    with pytest.raises(ScenarioError) as error:
        load(folder / "other", from_package("twice"))
    assert str(error.value).endswith(
        f"'twice' lies beside the scenario, but that of {folder / 'one'} has been imported: "
        "restart Python, or rename one"
    )
    load(folder / "one", from_package("twice"))


def test_a_changed_file_is_another_experiment(tmp_path):
    before = load(tmp_path, GOOD)
    after = load(tmp_path, GOOD, RULE.replace("1.0", "1.5"))
    assert before.identity() != after.identity()
    insists = f"{GOOD}, sha256: {before.strategy.aggregation.sha256}"
    assert load(tmp_path, insists).identity() == before.identity()
    with pytest.raises(ScenarioError, match=r"mine.py has changed since the scenario was resolved"):
        load(tmp_path, insists, RULE.replace("1.0", "1.5"))


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text("def net(n_classes): ...\n")
    text = SCENARIO.replace("KIND", GOOD).replace(
        "kind: mlp, hidden: [4]", "kind: 'sub/mine.py:net'"
    )
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ScenarioError, match=r"mine.py is the name of two files of yours"):
        load_scenarios(tmp_path / "own.yaml")


@pytest.mark.parametrize(
    ("kind", "code", "fault"),
    [
        (
            "kind: 'mime.py:first_only'",
            RULE,
            "mime.py cannot be read: No such file or directory; FOLDER has mine.py",
        ),
        ("kind: 'mine.py:'", RULE, "needs file.py:name or package.module:name, got 'mine.py:'"),
        (
            "kind: 'mine.py:firstonly'",
            RULE,
            "mine.py has no 'firstonly', did you mean 'first_only'?",
        ),
        ("kind: 'mine.py:limit'", RULE, "mine.py has a 'limit', but not a function"),
        (
            "kind: 'mime:first_only'",
            RULE,
            "there is no module 'mime', neither beside the scenario nor installed (a file is named "
            "with its ending, file.py:name)",
        ),
        (
            "kind: 'subprocess:run', args: {args: exit, shell: true}",
            RULE,
            "subprocess is part of Python: name a function of yours or of an installed package",
        ),
        (
            "kind: '__main__:first_only'",
            RULE,
            "a function in a notebook's cell or a script cannot be sent to other processes: write "
            "it to a file (in a notebook with %%writefile my_rule.py), my_rule.py:name",
        ),
        (
            "kind: 'mime.rules:first_only'",
            RULE,
            "there is no module 'mime', neither beside the scenario nor installed (a file is named "
            "with its ending, file.py:name)",
        ),
        (GOOD, RULE.replace(")))", "))"), "mine.py:8: SyntaxError: '(' was never closed"),
        (
            GOOD,
            RULE.replace("limit = 3", "limit = 1 / 0"),
            "mine.py:11: ZeroDivisionError: division by zero",
        ),
        (GOOD, RULE.replace("limit = 3", "raise SystemExit(0)"), "mine.py:11: SystemExit: 0"),
        (
            GOOD,
            RULE.replace("import torch\n", "import torhc\n"),
            "mine.py:1: ModuleNotFoundError: No module named 'torhc'",
        ),
        (
            "kind: 'mine.py:first_only'",
            RULE,
            "mine.py:5: first_only needs 'n_malicious': give it in args (handed over by name: "
            f"{FACTS})",
        ),
        (
            "kind: 'mine.py:first_only', args: {n_malicious: 1, scael: 2}",
            RULE,
            "mine.py:5: first_only has no parameter 'scael' for args, it has n_malicious, scale",
        ),
        (
            "kind: 'mine.py:first_only', args: {n_malicious: 1, prior: 2}",
            RULE,
            "mine.py:5: first_only cannot have 'prior' in args: it is handed over by name "
            f"({FACTS})",
        ),
        (
            GOOD,
            "def first_only(): ...\n",
            "mine.py:1: first_only needs a first parameter, for the updates",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_users_line(tmp_path, kind, code, fault):
    for _ in range(2):  # nor does half a module stay behind
        with pytest.raises(ScenarioError) as error:
            load(tmp_path, kind, code)
        said = str(error.value).replace(f"{tmp_path}{os.sep}", "").replace(str(tmp_path), "FOLDER")
        assert said == f"own.yaml:8: strategy.aggregation: {fault}"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("kind: mine.py", "kind: needs the function's name too: mine.py:name"),
        (
            "kind: 'mine.py:first_only', tau: 2",
            "tau: unknown key: write arguments of your own function as args: {tau: …}",
        ),
        (
            "kind: krum, n_malicious: 1, args: {n_malicious: 1}",
            "args: unknown key: args are for code of your own; known keys: n_malicious, kind",
        ),
        (
            "kind: 'mine.py:first_only', schedule: {first: 2}",
            "schedule: unknown key here, did you mean schedule at the top?",
        ),
    ],
)
def test_what_is_in_the_wrong_place_is_told_where_it_belongs(tmp_path, kind, fault):
    with pytest.raises(ScenarioError) as error:
        load(tmp_path, kind, RULE)
    assert str(error.value).endswith(f"own.yaml:8: strategy.aggregation.{fault}")


def test_a_function_may_take_whatever_args_give(tmp_path):
    code = RULE.replace("prior, n_malicious, scale=1.0", "*rest, scale=1.0, **others")
    scenario = load(tmp_path, "kind: 'mine.py:first_only', args: {scale: 2.0, other: 3}", code)
    rule = scenario.strategy.aggregation.build(2)
    assert rule(torch.ones(2, 3)).update.tolist() == [2, 2, 2]


def test_arguments_are_handed_over_as_they_are_written(tmp_path):
    given = {"kind": "other.py:name", "path": "a:b"}  # the function's own business
    kind = f"kind: 'mine.py:first_only', args: {{n_malicious: 1, scale: [{given}]}}"
    assert load(tmp_path, kind).strategy.aggregation.args["scale"] == [given]


def test_a_users_rule_may_ask_for_more_clients(tmp_path):
    code = RULE.replace("return", "raise TooFewClientsError('needs 9')\n    return", 1)
    code = f"from strategies.aggregation import TooFewClientsError\n{code}"
    rule = load(tmp_path, GOOD, code).strategy.aggregation.build(8)
    with pytest.raises(TooFewClientsError, match="needs 9"):
        rule(torch.ones(8, 3), prior=torch.ones(8) / 8)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "updates[0] * scale",
            "updates[9]",
            "8: first_only raised IndexError: index 9 is out of b",
        ),
        ("return Aggregate", "return list", "8: first_only raised TypeError: list expected at mos"),
        (
            "updates[0] * scale",
            "updates",
            "5: first_only must return update as a tensor of shape (3,), retur",
        ),
        ("return", "return 1 or", "5: first_only must return Aggregate, returned int"),
        (
            "weights[0] = 1",
            "weights[0] = 2",
            "5: first_only must return weights >= 0 that sum to 1 or",
        ),
        (
            "return",
            "return Aggregate(updates[0], weights, weights, pulls=weights[:1]) or",
            "5: first_only must return pulls as a tensor of shape (8,), returned (1,)",
        ),
        ("return", "exit(0); return", "8: first_only raised SystemExit: 0"),
        ("* scale", "/ 0", "5: first_only must return a finite update"),
        ("weights[0] = 1", "weights.requires_grad_()", "5: first_only must return weights without"),
        (
            "return",
            "return Aggregate(updates[0], weights, weights, {'t': 1}) or",
            "5: first_only must return tensors in memory, returned int as 't'",
        ),
        ("weights[0] = 1", "weights[0] = 1; updates -= 1", "5: first_only wrote to 'updates', wh"),
        ("weights[0] = 1", "weights[0] = 1; prior[0] = 0", "5: first_only wrote to 'prior', whi"),
    ],
)
def test_what_goes_wrong_inside_is_told_with_the_users_line(tmp_path, old, new, fault):
    rule = load(tmp_path, GOOD, RULE.replace(old, new, 1)).strategy.aggregation.build(8)
    with pytest.raises(OwnCodeError) as error:
        rule(torch.ones(8, 3), prior=torch.ones(8) / 8)
    said = str(error.value).replace(f"{tmp_path}{os.sep}", "")
    assert said.startswith(f"mine.py:{fault}")


@pytest.mark.parametrize(
    ("update", "said", "known"),
    [
        ("updates[0] * scale", "", True),
        ("updates[1]", "", False),
        ("updates[1]", ", multipliers=prior", True),
        ("updates[1]", ", pulls=prior", True),
    ],
)
def test_contributions_are_unknown_where_nothing_explains_the_update(tmp_path, update, said, known):
    code = RULE.replace("updates[0] * scale", update)
    code = code.replace("zeros(len(updates)))\n\n", f"zeros(len(updates)){said})\n\n")
    assert said in code
    rule = load(tmp_path, GOOD, code).strategy.aggregation.build(8)
    result = rule(torch.eye(8), prior=torch.ones(8) / 8)
    assert result.update.any()
    assert (result.pulls is None or not result.pulls.isnan().any()) == known


def test_what_a_rule_returns_must_lie_where_the_updates_do(tmp_path):
    rule = load(tmp_path, GOOD).strategy.aggregation.build(8)
    with PretendedDevice():
        updates = torch.ones(8, 3).to(ELSEWHERE)
        with pytest.raises(OwnCodeError, match="must return weights on meta, where the updates"):
            rule(updates, prior=torch.ones(8) / 8)


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("prior * 2", "weights >= 0 that sum to 1, returned a sum of 2"),
        ("prior * float('nan')", "weights >= 0 that sum to 1, returned a sum of nan"),
        (
            "prior - 2 * prior[0] * torch.eye(8)[0]",
            "weights >= 0 that sum to 1, returned a weight of -0.125",
        ),
        ("prior[:3]", "weights as a tensor of shape (8,), returned (3,)"),
        ("prior, {'t': 1}", "tensors in memory, returned int as 't'"),
        ("prior, {}, lengths=prior[:3]", "lengths as a tensor of shape (8,), returned (3,)"),
    ],
)
def test_a_users_lift_that_is_none_is_told_with_its_line(tmp_path, returned, fault):
    returned = returned if "{" in returned else f"{returned}, {{}}"
    imports = "import torch\nfrom strategies.reweighting import Lift\n\n\n"
    (tmp_path / "lift.py").write_text(f"{imports}def lift(prior):\n    return Lift({returned})\n")
    scenario = load(tmp_path, f"{GOOD}}}\n  reweighting: {{kind: 'lift.py:lift'")
    reweight = scenario.strategy.reweighting.build(scenario.training.build(), lambda: None)
    with pytest.raises(OwnCodeError) as error:
        reweight(prior=torch.ones(8) / 8)
    said = str(error.value).replace(f"{tmp_path}{os.sep}", "")
    assert said.startswith(f"lift.py:5: lift must return {fault}")


def test_a_users_lift_may_look_at_the_updates_and_not_write_to_them(tmp_path):
    text = "from strategies.reweighting import Lift\n\n\ndef lift(updates):\n    {}\n"
    text += "    return Lift(updates.square().sum(dim=1) / updates.square().sum(), {{}})\n"

    def lifted(how: str) -> list[float]:
        (tmp_path / "lift.py").write_text(text.format(how))
        scenario = load(tmp_path, f"{GOOD}}}\n  reweighting: {{kind: 'lift.py:lift'")
        reweight = scenario.strategy.reweighting.build(scenario.training.build(), lambda: None)
        return reweight(updates=torch.diag(torch.tensor([1.0, 2.0]))).weights.tolist()

    assert lifted("pass") == pytest.approx([0.2, 0.8])
    with pytest.raises(OwnCodeError, match="wrote to 'updates', which is read again later"):
        lifted("updates.mul_(2)")


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        ("Move(update[:2], {})", "must return update as a tensor of shape (3,), returned (2,)"),
        ("Move(update / 0, {})", "must return a finite update, returned one with NaN or infinity"),
        ("update", "must return Move, returned Tensor"),
    ],
)
def test_a_users_server_optimizer_is_told_of_the_round(tmp_path, returned, fault):
    text = "from strategies.server_optimizers import Move\n\n\ndef decayed(update, round_, rate):\n"
    text += f"    return Move(update / round_**rate, {{}}) if round_ > 1 else {returned}\n"
    (tmp_path / "own.py").write_text(text)
    with_one = f"{GOOD}}}\n  server_optimizer: {{kind: 'own.py:decayed', args: {{rate: 2}}"
    optimize = load(tmp_path, with_one).strategy.server_optimizer.bind()
    assert optimize(torch.ones(3), round_=2).update.tolist() == [0.25] * 3
    with pytest.raises(OwnCodeError) as error:
        optimize(torch.ones(3), round_=1)
    said = str(error.value).replace(f"{tmp_path}{os.sep}", "")
    assert said == f"own.py:4: decayed {fault}"


def test_a_lift_that_a_users_rule_would_not_hear_is_refused(tmp_path):
    deaf = RULE.replace("prior, ", "")
    with_lift = f"{GOOD}}}\n  reweighting: {{kind: agnostic, step_size: 0.1"
    load(tmp_path, with_lift)
    load(tmp_path, f"{with_lift}}}\n  order: lift_then_filter\n  oracle: {{", deaf)
    with pytest.raises(ScenarioError) as error:
        load(tmp_path, with_lift, deaf)
    fault = (
        "strategy.reweighting: would change nothing: mine.py:first_only has no parameter 'prior'"
    )
    assert fault in str(error.value)


def test_the_innermost_of_the_users_lines_is_named_and_no_text_is_endless(tmp_path):
    code = f"def inner():\n    raise ValueError('x' * 9999)\n\n\n{RULE}"
    code = code.replace("return", "inner()\n    return")
    rule = load(tmp_path, GOOD, code).strategy.aggregation.build(8)
    with pytest.raises(OwnCodeError) as error:
        rule(torch.ones(8, 3), prior=torch.ones(8) / 8)
    said = str(error.value).replace(f"{tmp_path}{os.sep}", "")
    assert said.startswith("mine.py:2: first_only raised ValueError: xxx")
    assert len(said) < 1100
    assert error.value.__cause__ is not None
    assert described(error.value.__cause__).endswith("xxx … (mine.py:2)")


def test_an_exception_whose_text_fails_is_named_all_the_same():
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert described(MuteError()) == "MuteError: (it has no text)"


def test_code_in_a_list_is_the_users_too(tmp_path):
    (tmp_path / "mine.py").write_text("def whole(rows): ...\n")
    text = SCENARIO.replace("KIND", "kind: mean") + "  pre_aggregation: [{kind: 'mine.py:whole'}]\n"
    (tmp_path / "own.yaml").write_text(text)
    (scenario,) = load_scenarios(tmp_path / "own.yaml")
    assert [own.kind for own in own_specs(scenario)] == ["mine.py:whole"]
    assert [hasattr(module, "whole") for module in users_modules(scenario)] == [True]


def test_code_that_a_file_names_once_and_repeats_by_an_alias_is_found(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def whole(rows): ...\n")
    steps = "  pre_aggregation: [&mine {kind: 'mine.py:whole'}, *mine]\n"
    (tmp_path / "own.yaml").write_text(SCENARIO.replace("KIND", "kind: mean") + steps)
    monkeypatch.chdir(tmp_path.parent)
    (scenario,) = load_scenarios(Path(tmp_path.name) / "own.yaml")
    assert [own.kind for own in own_specs(scenario)] == ["mine.py:whole"] * 2


def test_a_users_module_of_a_library_s_name_hides_none(tmp_path):
    (tmp_path / "random.py").write_text(RULE)
    scenario = load(tmp_path, GOOD.replace("mine.py", "random.py"))
    assert scenario.strategy.aggregation.kind == "random.py:first_only"
    assert "Random" in vars(sys.modules["random"])


def test_an_installed_function_needs_no_file(tmp_path):
    scenario = load(tmp_path, "kind: 'strategies.aggregation:trimmed_mean', args: {n_malicious: 1}")
    assert not users_modules(scenario)  # nor do workers need it by value
    rule = scenario.strategy.aggregation.build(8)
    result = rule(torch.arange(8.0)[:, None])
    assert isinstance(result, Aggregate)
    assert result.update.tolist() == [3.5]


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        ("misspelt", "import torhc", "ModuleNotFoundError: No module named 'torhc'"),
        ("divided", "1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_keeps_a_package_from_being_imported_is_told_with_its_line(folder, name, line, fault):
    package = write_package(folder, name, f"{line}\n{RULE}")
    with pytest.raises(ScenarioError) as error:
        load(folder, from_package(name))
    assert str(error.value).endswith(f" {package / 'rules.py'}:1: {fault}")


@pytest.mark.parametrize("neighbour", ["a_file_beside.py", "a_package_beside/__init__.py"])
def test_what_lies_beside_and_is_not_in_the_hash_cannot_be_imported(folder, neighbour):
    (folder / neighbour).parent.mkdir(exist_ok=True)
    (folder / neighbour).write_text("x = 1\n")
    name = neighbour.split("/")[0].removesuffix(".py")
    imports = f"from {name} import x\n{RULE}"
    sys.path.append(str(folder))  # as in a notebook, so that Python would find it
    package = write_package(folder, f"importer_of_{name}", imports)
    for kind in (GOOD, from_package(package.name)):
        with pytest.raises(ScenarioError) as error:
            load(folder, kind, imports)
        assert f"py:1: imports {name!r} beside it" in str(error.value)


@pytest.mark.parametrize("name", ["time", "numpy"])
def test_what_python_finds_before_what_lies_beside_can_be_imported(tmp_path, name):
    (tmp_path / f"{name}.py").write_text("x = 1\n")
    assert load(tmp_path, GOOD, f"import {name}\n{RULE}").strategy.aggregation.code.sha256


def test_a_package_may_import_its_own_parts(folder):
    package = write_package(
        folder,
        "of_parts",
        f"from .helpers import x\nfrom of_parts.helpers import x\n{RULE}",
    )
    (package / "helpers.py").write_text("x = 1\n")
    (folder / "helpers.py").write_text("x = 2\n")  # another
    assert load(folder, from_package(package.name)).strategy.aggregation.code.sha256


def test_a_trigger_that_writes_to_what_it_is_handed_leaves_the_clean_examples_alone(tmp_path):
    code = "def stripe(images):\n    images[:, :, -1] = 1\n    return images\n"
    (tmp_path / "look.py").write_text(code)
    poison = "poison: {kind: dirty_label_backdoor, trigger: {kind: 'look.py:stripe'}, target: 0}"
    (tmp_path / "mine.py").write_text(RULE)
    (tmp_path / "own.yaml").write_text(SCENARIO.replace("KIND", GOOD) + poison)
    (scenario,) = load_scenarios(tmp_path / "own.yaml")
    clean = torch.zeros(2, 1, 3, 3)
    spec: Any = scenario.poison
    trigger = spec.trigger.build(None, None)  # it asks for neither data nor groups
    assert trigger(clean)[:, :, -1].eq(1).all()
    assert clean.eq(0).all()
    assert spec.trigger.flaw_of(clean + 1.5, clean) == (
        "must return images in [0, 1], returned 1.5 to 1.5"
    )
    assert not spec.trigger.flaw_of(clean[:, 0] + 9, clean[:, 0])  # of a table: in its units


@pytest.mark.parametrize(("label", "fault"), [(9, ""), (10, "returned 10"), (-1, "returned -1")])
def test_a_users_poison_keeps_to_the_classes(tmp_path, label, fault):
    code = f"def relabel(shard):\n    shard.labels[0] = {label}\n    return shard\n"
    (tmp_path / "flip.py").write_text(code)
    kind = "kind: mean}\npoison: {kind: 'flip.py:relabel'"
    plan = cast(Any, load(tmp_path, kind).poison).build(MagicMock(**{"dataset.n_classes": 10}))
    none = torch.zeros(2)
    shard = Shard(torch.zeros(2, 3), none.long(), none.long(), none.bool(), Role.POISONED)
    with pytest.raises(OwnCodeError, match=fault) if fault else nullcontext():
        plan.poisoned(shard, 0, np.random.default_rng(0))


RNG = np.random.default_rng(0)
LOCAL = """\
from clients.local import Lesson
from clients.shard import Shard


def lesson(shard, model, round_, memory, rng):
    return Lesson(shard)
"""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("Lesson(shard)", ""),
        ("shard", "must return Lesson, returned Shard"),
        ("Lesson([])", "must return Shard, returned list"),
        ("Lesson(Shard(*(c[:0] for c in shard[:4]), shard.role))", "must return a shard with exam"),
        (
            "Lesson(shard._replace(groups=shard.groups[1:]))",
            r"must return groups as a tensor of shape (2,), re",
        ),
        (
            "Lesson(shard, objective=len)",
            "must return objective as an object with begin and loss, returned buil",
        ),
        ("Lesson(shard, kept={})", "must return kept as a function, returned dict"),
        (
            "Lesson(shard._replace(labels=shard.labels - 100))",
            "must return labels >= 0, returned -100",
        ),
        ("[shard.inputs.add_(1), Lesson(shard)][1]", "wrote to 'shard', which is read again"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_users_method_inside_clients_gives_lessons_and_what_is_none_is_told(
    tmp_path, change, fault
):
    (tmp_path / "local.py").write_text(LOCAL.replace("Lesson(shard)", change))
    scenario = load(tmp_path, "kind: mean}\nlocal_method: {kind: 'local.py:lesson'")
    method = cast(Any, scenario.local_method).build()
    shard = Shard(torch.ones(2, 3), *torch.zeros(2, 2).long(), torch.zeros(2), Role.POISONED)
    if not fault:
        assert method.lesson(LocalRound(torch.nn.Identity(), shard, 1, {}, RNG)).shard is shard
        return
    with pytest.raises(OwnCodeError) as error:
        method.lesson(LocalRound(torch.nn.Identity(), shard, 1, {}, RNG))
    assert re.match(rf"local.py:[56]: lesson {re.escape(fault)}", described(error.value))


def test_a_users_method_with_personal_models_or_groups_says_so(tmp_path):
    code = LOCAL.replace("Lesson(shard)", "Lesson(shard, personal=PulledTowards(1.0))")
    (tmp_path / "local.py").write_text("from clients.local import PulledTowards\n" + code)
    shard = Shard(torch.ones(2, 3), *torch.zeros(2, 2).long(), torch.zeros(2), Role.POISONED)
    for told, fault in (("", "set has_personal: true"), (", has_personal: true", "")):
        kind = f"kind: mean}}\nlocal_method: {{kind: 'local.py:lesson', uses_groups: true{told}"
        method = cast(Any, load(tmp_path, kind))
        assert method.is_oracle
        assert method.local_method.is_personal == bool(told)
        with pytest.raises(OwnCodeError, match=fault) if fault else nullcontext():
            method.local_method.build().lesson(LocalRound(torch.nn.Identity(), shard, 1, {}, RNG))
