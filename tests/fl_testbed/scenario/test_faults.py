"""Wrong input: one readable line for each fault, with file, key and remedy."""

import os
import pickle

import pytest

from fl_testbed.scenario import ScenarioError, load_scenarios
from fl_testbed.scenario.catalogue import CATALOGUE

GOOD = """\
name: small
rounds: 6
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 5, honest_minority: 2, poisoned: 1, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy:
  aggregation: {kind: krum, n_malicious: 1}
"""
BACKDOOR = "poison: {kind: dirty_label_backdoor, trigger: {kind: patch, size: 2}, target: 3}\n"
DATASETS = ", ".join(CATALOGUE["datasets"])


@pytest.fixture
def faults_of(tmp_path):
    """Write a scenario and return the lines it is refused with, without the folder's name."""

    def faults_of(text: str | bytes) -> list[str]:
        path = tmp_path / "wrong.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        with pytest.raises(ScenarioError) as error:
            load_scenarios(path)
        return str(error.value).replace(f"{tmp_path}{os.sep}", "").splitlines()

    return faults_of


def with_change(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        pytest.param(
            "hidden: [4]",
            "hidden: [4], dept: 2",
            "wrong.yaml:4: model.dept: unknown key; known keys: kind, hidden, dropout, normalise",
            id="a key that does not exist",
        ),
        pytest.param(
            "strategy:\n  aggregation: {kind: krum, n_malicious: 1}\n",
            "",
            "wrong.yaml: strategy: is missing and has no default: write, for instance, "
            "strategy: {aggregation: {kind: mean}}",
            id="a mapping that is needed",
        ),
        pytest.param(
            "rounds",
            "ronds",
            "wrong.yaml:2: ronds: unknown key, did you mean 'rounds'?",
            id="a typo in a needed key",
        ),
        pytest.param(
            "batch_size: 5",
            "batch_size: 5, momentun: 0.9",
            "wrong.yaml:6: training.momentun: unknown key, did you mean 'momentum'?",
            id="a typo in an optional key",
        ),
        pytest.param(
            "rounds: 6",
            "yes: 1\nrounds: 6",
            "wrong.yaml:2: yes: unknown key; known keys: name, variant, seed, rounds, "
            "torch_threads, dataset, model, init, clients, partition, sampling, training, "
            "local_method, poison, training_attack, attack, reported_loss, schedule, attackers, "
            "server_data, strategy, evaluation, record_updates, engine, extends, variants, sweep",
            id="a key that YAML takes for a truth value",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nsweeps: {seed: [0, 1]}",
            "wrong.yaml:3: sweeps: unknown key, did you mean 'sweep'?",
            id="a typo in a key of files",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\naggregation: {kind: mean}",
            "wrong.yaml:3: aggregation: unknown key here, did you mean strategy.aggregation?",
            id="a key that belongs further in",
        ),
        pytest.param(
            "krum, n",
            "mean, n",
            "wrong.yaml:8: strategy.aggregation.n_malicious: unknown key; known keys: kind",
            id="a key of another kind",
        ),
        pytest.param(
            "  aggregation",
            "  pre_aggregation: [{kind: bucketing, n_malicious: 1}]\n  aggregation",
            "wrong.yaml:8: strategy.pre_aggregation.0.n_malicious: unknown key; known keys: kind, "
            "size",
            id="a key of another kind in a list",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nattackers: [{poison: {kind: label_flip, source: 3}}]",
            "wrong.yaml:3: attackers.0.poison.source: unknown key; known keys: kind, "
            "relabel, fraction",
            id="a key of another kind among attackers",
        ),
        pytest.param(
            "poisoned: 1",
            "poisoned: 1, fraction: 0.5",
            "wrong.yaml:5: clients.fraction: unknown key here, did you mean sampling.fraction or "
            "poison.fraction?",
            id="a key of other mappings",
        ),
        pytest.param(
            "batch_size: 5",
            "batch_size: 5, seed: 3",
            "wrong.yaml:6: training.seed: unknown key here, did you mean seed at the top?",
            id="a key that belongs further out",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nschedule: {start: 2}",
            "wrong.yaml:3: schedule.start: unknown key; known keys: first, last, every",
            id="a key that is known deeper in another mapping",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\ntraining.cohort: 3",
            "wrong.yaml:3: training.cohort: unknown key: keys with dots are for variants, sweep "
            "and --set; here write training: {cohort: …}",
            id="a key with dots where there are mappings",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nvariants.jtt.training.lr: 3",
            "wrong.yaml:3: variants.jtt.training.lr: unknown key: keys with dots are for variants, "
            "sweep and --set; here write variants: {jtt: {training: {lr: …}}}",
            id="a variant's key with dots outside of variants",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nsweep: {lr: [0.1, 0.2]}",
            "wrong.yaml:3: sweep.lr: unknown key here, did you mean training.lr?",
            id="a swept key without its mapping",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nsweep: {training: {lr: [0.1, 0.2]}}",
            "wrong.yaml:3: sweep.training: needs the swept key written with dots: training.lr",
            id="a swept key inside of its mapping",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: many",
            "wrong.yaml:2: rounds: needs a whole number, got 'many'",
            id="text for a number",
        ),
        pytest.param(
            "lr: 0.1",
            "lr: [0.1, 0.2]",
            "wrong.yaml:6: training.lr: needs a number, got [0.1, 0.2]: to run with several "
            "values, list them under sweep.training.lr",
            id="several values for one",
        ),
        pytest.param(
            "  aggregation: {kind: krum, n_malicious: 1}",
            "  aggregation: {kind: krum, n_malicious: 1}\n   order: lift_then_filter",
            "wrong.yaml:9: is not YAML: the line is indented differently from those around it",
            id="an indentation of its own",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6.0",
            "wrong.yaml:2: rounds: needs a whole number, got 6.0",
            id="a fraction for a count",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nattack: {kind: gaussian, std: 1.0, relative: somewhat}",
            "wrong.yaml:3: attack.relative: needs true or false, got 'somewhat'",
            id="text for a truth value",
        ),
        pytest.param(
            "poisoned: 1",
            "poisoned: true",
            "wrong.yaml:5: clients.poisoned: needs a whole number, got True",
            id="a truth value for a count",
        ),
        pytest.param(
            "lr: 0.1",
            "lr: '1e-5'",
            "wrong.yaml:6: training.lr: needs a number, got '1e-5'",
            id="a number in quotes",
        ),
        pytest.param(
            "lr: 0.1",
            "lr: nan",
            "wrong.yaml:6: training.lr: needs a number, got 'nan'",
            id="text for a number that is none",
        ),
        pytest.param(
            "lr: 0.1",
            "lr: 1e400",
            "wrong.yaml:6: training.lr: needs a finite number, got inf",
            id="a number that is too large",
        ),
        pytest.param(
            "lr: 0.1",
            "lr: .inf",
            "wrong.yaml:6: training.lr: needs a finite number, got inf",
            id="an infinite number",
        ),
        pytest.param(
            "poisoned: 1",
            "poisoned: -1",
            "wrong.yaml:5: clients.poisoned: needs a number >= 0, got -1",
            id="a negative count",
        ),
        pytest.param(
            "n_malicious: 1",
            "n_malicious: 3",
            "wrong.yaml:8: strategy.aggregation: krum needs n >= 2f + 3 clients, got n=8 and f=3: "
            "sample at least 9 clients or lower n_malicious",
            id="more attackers than the rule can bear",
        ),
        pytest.param(
            "n_malicious: 1",
            "n_malicious: 2.5",
            "wrong.yaml:8: strategy.aggregation.n_malicious: needs a count (0, 1, 2, …) or a "
            "fraction of the sample below 1 or 'oracle', got 2.5",
            id="neither a count nor a fraction",
        ),
        pytest.param(
            ", n_malicious: 1",
            "",
            "wrong.yaml:8: strategy.aggregation.n_malicious: is missing and has no default",
            id="a needed key that is missing",
        ),
        pytest.param(
            "digits",
            "digit",
            "wrong.yaml:3: dataset.kind: unknown kind 'digit', did you mean 'digits'?",
            id="a typo in a kind",
        ),
        pytest.param(
            "digits",
            "MNIST",
            "wrong.yaml:3: dataset.kind: unknown kind 'MNIST', did you mean 'mnist'?",
            id="a kind in capitals",
        ),
        pytest.param(
            "krum, n_malicious: 1",
            "jtt, factor: 5",
            "wrong.yaml:8: strategy.aggregation.kind: unknown kind 'jtt' here: it is a kind of "
            "strategy.reweighting",
            id="a kind that belongs elsewhere",
        ),
        pytest.param(
            "krum, n_malicious: 1",
            "median",
            "wrong.yaml:8: strategy.aggregation.kind: unknown kind 'median', did you mean "
            "'coordinate_median' or 'mean_around_median' or 'geometric_median'?",
            id="a part of a kind",
        ),
        pytest.param(
            "  aggregation: {kind: krum, n_malicious: 1}",
            "  - aggregation: {kind: krum, n_malicious: 1}",
            "wrong.yaml:7: strategy: needs a mapping (key: value), got "
            "[{'aggregation': {'kind': 'krum', 'n_malicious': 1}}]",
            id="a list where a mapping with or without a kind belongs",
        ),
        pytest.param(
            "digits",
            "voc",
            f"wrong.yaml:3: dataset.kind: unknown kind 'voc'; known kinds: {DATASETS}",
            id="a dataset that does not exist",
        ),
        pytest.param(
            "{kind: digits}",
            "digits",
            "wrong.yaml:3: dataset: needs a mapping, such as {kind: digits}, got 'digits'",
            id="a name where a kind belongs",
        ),
        pytest.param(
            "{kind: digits}",
            "{}",
            f"wrong.yaml:3: dataset: needs a mapping with a kind ({DATASETS}), got {{}}",
            id="no kind",
        ),
        pytest.param(
            "{lr: 0.1, batch_size: 5}",
            "[0.1, 5]",
            "wrong.yaml:6: training: needs a mapping (key: value), got [0.1, 5]",
            id="a list where a mapping belongs",
        ),
        pytest.param(
            "{lr: 0.1, batch_size: 5}",
            "",
            "wrong.yaml:6: training: needs a mapping (key: value), got nothing",
            id="nothing where a mapping belongs",
        ),
        pytest.param(
            "hidden: [4]",
            "hidden: 4",
            "wrong.yaml:4: model.hidden: needs a list, got 4",
            id="a number where a list belongs",
        ),
        pytest.param(
            "hidden: [4]",
            "hidden: [4, 0]",
            "wrong.yaml:4: model.hidden.1: needs a number > 0, got 0",
            id="a wrong entry of a list",
        ),
        pytest.param(
            "  aggregation",
            "\taggregation",
            "wrong.yaml:8: is not YAML: a line is indented with tabs, use spaces",
            id="a tab",
        ),
        pytest.param(
            "name: small",
            "name: a: b",
            "wrong.yaml:1: is not YAML: a key cannot stand here, check the indentation, or quote "
            "text that has a colon",
            id="not YAML",
        ),
        pytest.param(
            "rounds: 6",
            "rounds:6",
            "wrong.yaml:2: is not YAML: expected a key, a colon and a space, such as rounds: 10",
            id="no space after a colon",
        ),
        pytest.param(
            "lr: 0.1",
            "lr:0.1",
            "wrong.yaml:6: training.lr: needs a space after the colon: write lr: 0.1",
            id="no space after a colon in braces",
        ),
        pytest.param(
            "name: small",
            "name: @small",
            "wrong.yaml:1: is not YAML: found character '@' where text begins, quote it",
            id="text that needs quotes",
        ),
        pytest.param(
            "name: small",
            'name: "small',
            "wrong.yaml:9: is not YAML: in a text in quotes that begins in line 1, found the end",
            id="a quote that is not closed",
        ),
        pytest.param(
            "name: small",
            "name: !secret small",
            "wrong.yaml:1: is not YAML: could not determine a constructor for the tag '!secret'",
            id="an unknown YAML tag",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nrounds: 7",
            "wrong.yaml:3: rounds: is given twice",
            id="a key given twice",
        ),
        pytest.param(
            "name: small",
            "? [name]\n: small",
            "wrong.yaml:1: needs text as key, got a list or a mapping",
            id="a list as a key",
        ),
        pytest.param(
            "{kind: digits}",
            "&me {kind: *me}",
            "wrong.yaml:3: dataset.kind: contains itself: write its values out",
            id="a mapping inside itself",
        ),
        pytest.param(
            "rounds: 6",
            "rounds: 6\nengine: {workers: four}",
            "wrong.yaml:3: engine.workers: needs a whole number or 'auto', got 'four'",
            id="none of several types",
        ),
        pytest.param(
            "name: small",
            "name: ..",  # would put the run outside its folder
            "wrong.yaml:1: name: needs letters, digits and . _ = , -, beginning with a letter or "
            "digit, got '..'",
            id="a name that is no folder's",
        ),
        pytest.param(
            "name: small",
            f"name: {'s' * 256}",
            f"wrong.yaml:1: name: needs at most 255 characters, got '{'s' * 56}...",
            id="a name that is too long for a folder's",
        ),
        pytest.param(
            "name: small",
            "name: small\nengine: {ray_address: head}",
            "wrong.yaml:2: engine.ray_address: needs HOST:PORT of a running cluster, auto, or "
            "local, got 'head'",
            id="a cluster's address without a port",
        ),
        pytest.param(
            "name: small",
            "name: small\nvariants: [a]",
            "wrong.yaml:2: variants: needs a mapping (key: value), got ['a']",
            id="a list of variants",
        ),
        pytest.param(
            "name: small",
            "name: small\nvariants: {a: 3}",
            "wrong.yaml:2: variants.a: needs a mapping (key: value), got 3",
            id="a variant that is a number",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(faults_of, old, new, fault):
    assert faults_of(with_change(old, new)) == [fault]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "wrong.yaml: is empty: a scenario needs at least a name"),
        (b"# later\n", "wrong.yaml: is empty: a scenario needs at least a name"),
        (b"- a\n- b\n", "wrong.yaml:1: needs a mapping (key: value), got a list"),
        (b"small\n", "wrong.yaml:1: needs a mapping (key: value), got a single value"),
        (b"name: \xff\n", "wrong.yaml: is not UTF-8 text (byte 6): save it as UTF-8"),
        (b"a:\n" + b"- " * 1000, "wrong.yaml: is nested too deeply"),
        (
            b"a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (k, k, b", ".join([b"*%c" % (k - 1)] * 10)) for k in b"bcdefgh"
            ),
            "wrong.yaml: has more than 1,000,000 values, counting those that aliases (*NAME) "
            "repeat",
        ),
        (b"name: a\nrounds: 0x_\n", "wrong.yaml:2: is not YAML: '0x_' is not a valid int"),
        (b"rounds: !!bool maybe\n", "wrong.yaml:1: is not YAML: 'maybe' is not a valid bool"),
        (b"rounds: !!map [1]\n", "wrong.yaml:1: is not YAML: this is no mapping"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_one_line(faults_of, content, fault):
    assert faults_of(content) == [fault]


def test_a_file_that_is_missing_is_told_beside_those_that_are_there(tmp_path):
    (tmp_path / "quickstart.yaml").write_text(GOOD)
    with pytest.raises(ScenarioError) as error:
        load_scenarios(tmp_path / "quikstart.yaml")
    assert str(error.value) == (
        f"{tmp_path / 'quikstart.yaml'}: no such file; {tmp_path} has quickstart.yaml"
    )


def test_files_of_a_like_name_are_told_first(tmp_path):
    for name in ("small", "smaller", *map(str, range(12))):
        (tmp_path / f"{name}.yaml").write_text(GOOD)
    with pytest.raises(
        ScenarioError,
        match=r"no such file; .* has small.yaml, smaller.yaml, 0.yaml, .* and 2 more$",
    ):
        load_scenarios(tmp_path / "smal.yaml")
    with pytest.raises(ScenarioError, match=r"has 0.yaml, 1.yaml, .*, 9.yaml and 2 more$"):
        load_scenarios(tmp_path / "quickstart.yml")


@pytest.mark.parametrize(
    ("key", "name", "fault"),
    [
        ("extends", r"a\0b\nc", r"a\x00b\nc: no such file"),
        ("extends", "a" * 300, f"{'a' * 300}: no such file"),
        ("init", "a" * 300, f"{'a' * 300} cannot be read: File name too long"),
    ],
)
def test_a_name_that_no_file_can_have_is_one_readable_line(faults_of, key, name, fault):
    (line,) = faults_of(f'{key}: "{name}"\n{GOOD}')
    assert line.startswith(f"wrong.yaml:1: {key}: {fault}")


def test_more_clients_than_could_ever_be_is_one_readable_line(faults_of):
    (fault,) = faults_of(GOOD + "attackers: [{count: 2000000000}]\n")
    assert fault == "wrong.yaml:9: attackers.0.count: needs a number <= 10000000, got 2000000000"


def test_more_threads_than_a_system_gives_are_one_readable_line(faults_of):
    (fault,) = faults_of(GOOD + "torch_threads: 100000\n")
    assert fault == "wrong.yaml:9: torch_threads: needs a number <= 1024, got 100000"


def test_a_folder_is_no_scenario(tmp_path):
    with pytest.raises(ScenarioError) as error:
        load_scenarios(tmp_path)
    assert str(error.value) == f"{tmp_path}: is a folder: name a YAML file in it"


def test_a_path_through_a_file_cannot_be_read(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    with pytest.raises(ScenarioError, match="cannot be read: Not a directory"):
        load_scenarios(tmp_path / "a.yaml" / "b.yaml")


def test_a_file_without_permission_cannot_be_read(tmp_path):
    path = tmp_path / "locked.yaml"
    path.write_text(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(ScenarioError, match=r"locked.yaml: cannot be read: Permission denied"):
        load_scenarios(path)


def test_a_file_linked_to_itself_cannot_be_read(tmp_path):
    path = tmp_path / "loop.yaml"
    path.symlink_to(path)
    with pytest.raises(ScenarioError, match=r"loop.yaml: cannot be read: "):
        load_scenarios(path)


def test_every_fault_of_a_file_is_told(faults_of):
    text = with_change("rounds", "ronds").replace("digits", "digts").replace("lr: 0.1", "lr: 0")
    assert sorted(faults_of(text)) == [
        "wrong.yaml:2: ronds: unknown key, did you mean 'rounds'?",
        "wrong.yaml:3: dataset.kind: unknown kind 'digts', did you mean 'digits'?",
        "wrong.yaml:6: training.lr: needs a number > 0, got 0",
    ]


def test_what_a_file_lacks_is_forgiven_where_a_typo_keeps_its_base_from_it(faults_of):
    (fault,) = faults_of("name: small\nextend: base.yaml\ntraining: {lr: 0.1}\n")
    assert fault == "wrong.yaml:2: extend: unknown key, did you mean 'extends'?"


def test_a_key_that_is_missing_and_another_that_is_unknown_are_two_faults(faults_of):
    faults = faults_of(with_change("rounds", "colour"))
    assert [fault.split(": ")[1] for fault in faults] == ["rounds", "colour"]


def test_a_fault_inside_a_kind_names_the_key_without_the_kind(faults_of):
    (fault,) = faults_of(GOOD + BACKDOOR.replace("size: 2", "size: 2, corner: left"))
    assert fault == (
        "wrong.yaml:9: poison.trigger.corner: needs 'top_left', 'top_right', 'bottom_left' or "
        "'bottom_right', got 'left'"
    )


@pytest.mark.parametrize(
    ("patch", "fault"),
    [
        ("size: [1, 2, 3]", "size: needs at most 2 entries, got [1, 2, 3]"),
        ("size: [1]", "size: needs at least 2 entries, got [1]"),
        ("size: 2, value: [0.5, 2]", "value.1: needs a number <= 1, got 2"),
        ("size: 2, value: red", "value: needs a number or a list, got 'red'"),
    ],
)
def test_a_list_where_one_value_would_do_is_judged_as_a_list(faults_of, patch, fault):
    (told,) = faults_of(GOOD + BACKDOOR.replace("size: 2", patch))
    assert told == f"wrong.yaml:9: poison.trigger.{fault}"


def test_a_fault_in_a_variant_names_the_variant_s_line(faults_of):
    variant = "variants:\n  worse:\n    strategy.aggregation: {kind: krum, n_malicious: -1}\n"
    assert faults_of(GOOD + variant) == [
        "wrong.yaml:11: strategy.aggregation.n_malicious: needs a number >= 0 or 'oracle', got -1"
    ]


def test_a_fault_inside_a_list_or_a_variant_s_mapping_names_the_key_s_own_line(faults_of):
    text = """\
attackers:
  - count: 1
    attack:
      kind: sign_flip
      scale: 0
variants:
  worse:
    training:
      momentum: 2
sweep:
  rounds:
    few: 1
    none: 0
"""
    assert sorted(faults_of(GOOD + text)) == [
        "wrong.yaml:13: attackers.0.attack.scale: needs a number > 0, got 0",
        "wrong.yaml:17: training.momentum: needs a number < 1, got 2",
        "wrong.yaml:21: rounds: needs a number > 0, got 0",
    ]


def test_a_fault_in_the_base_names_the_base(faults_of, tmp_path):
    (tmp_path / "base.yaml").write_text(with_change("rounds: 6", "rounds: 0"))
    assert faults_of("extends: base.yaml\n") == ["base.yaml:2: rounds: needs a number > 0, got 0"]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("5, honest_minority: 2, poisoned: 1", "0, honest_minority: 0, poisoned: 0", "clients"),
        ("{kind: krum, n_malicious: 1}", "{kind: fltrust}", "server_data.n_examples"),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  reweighting: {kind: jtt, n_flagged: 9, factor: 5}",
            "strategy.reweighting.n_flagged",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  reweighting: {kind: jtt, n_flagged: 2, factor: 5, warm_up_rounds: 6}",
            "strategy.reweighting.warm_up_rounds",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  reweighting: {kind: jtt, factor: 5}",
            "strategy.reweighting",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  reweighting: {kind: jtt, factor: 5, n_flagged: 2, threshold: 1.0}",
            "strategy.reweighting",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  oracle: {lifting: ideal}",
            "strategy.oracle.lifting",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: krum, n_malicious: 0.25}\n  oracle: {removing: shielded}",  # of all
            "strategy.oracle.removing",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  losses: measured",
            "server_data.n_examples",
        ),
        (
            "kind: digits",
            "kind: digits, minority: {kind: none}",
            "clients.honest_minority",
        ),
        (
            "examples_each: 10",
            "examples_each: 10, minority_mix: {inverted: 1}",
            "clients.minority_mix",
        ),
        ("examples_each: 10", "overlap: true", "clients.overlap"),
        (
            "examples_each: 10}",
            "examples_each: 10, overlap: true}\npartition: {kind: pathological}",
            "clients.overlap",
        ),
        (
            "examples_each: 10}",
            "overlap: false}\npartition: {kind: natural, merge: true}",
            "partition.merge",
        ),
        (
            "kind: digits}\nmodel: {kind: mlp, hidden: [4]}\nclients: {",
            "kind: digits, minority: {kind: attributes, by: [label]}}\n"
            "model: {kind: mlp, hidden: [4]}\npartition: {kind: natural}\n"
            "clients: {minority_concentration: 0.5, ",
            "clients.minority_concentration",
        ),
        (
            "rounds: 6",
            "rounds: 6\nevaluation: {split: validation}",
            "evaluation.n_validation",
        ),
        (
            "[4]}\nclients: {honest_majority: 5, honest_minority: 2, poisoned: 1, "
            "examples_each: 10}\ntraining: {",
            "[4], dropout: 0.5}\nclients: {honest_majority: 5, honest_minority: 2, poisoned: 1, "
            "examples_each: 10}\ntraining: {cohort: 2, ",
            "training.cohort",
        ),
        (
            "rounds: 6",
            "rounds: 6\nlocal_method: {kind: example_jtt, n_copies: 2, warm_up_rounds: 6}",
            "local_method.warm_up_rounds",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: mean}\n  reweighting: {kind: jtt, n_flagged: 2, factor: 1, warm_up_rounds: 4}\n"
            "local_method: {kind: example_jtt, n_copies: 2, warm_up_rounds: 5}",
            "local_method.warm_up_rounds",
        ),
        (
            "rounds: 6",
            "rounds: 6\nlocal_method: {kind: ditto}\nengine: {kind: flower}",
            "engine.kind",
        ),
        (
            "rounds: 6",
            "rounds: 6\nlocal_method: {kind: ditto}\nattack: {kind: minority_mimic}\n" + BACKDOOR,
            "local_method",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: foolsgold}\n  pre_aggregation: [{kind: bucketing}]",
            "strategy.pre_aggregation",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: fldetector}\n  server_optimizer: {kind: adam, lr: 0.1}",
            "strategy.server_optimizer",
        ),
        (
            "{kind: krum, n_malicious: 1}",
            "{kind: fldetector}\n  reweighting: {kind: q_fedavg, q: 1}",
            "strategy.reweighting",
        ),
        (
            "batch_size: 5}\nstrategy:\n  aggregation: {kind: krum, n_malicious: 1}",
            "batch_size: 5, lr_decay: 0.9}\nstrategy:\n  aggregation: {kind: mean}\n"
            "  reweighting: {kind: q_fedavg, q: 1}",
            "strategy.reweighting.lipschitz",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(faults_of, old, new, key):
    (fault,) = faults_of(with_change(old, new))
    assert fault.split(": ")[1] == key


@pytest.mark.parametrize(
    ("classes", "fault"),
    [
        (
            "source: 3, target: 3",
            "poison.source: needs another class than the target, got 3 for both",
        ),
        ("source: 10, target: 3", "poison.source: needs a class from 0 to 9, got 10"),
        ("target: 10", "poison.target: needs a class from 0 to 9, got 10"),
    ],
)
def test_a_backdoor_between_impossible_classes_is_refused(faults_of, classes, fault):
    assert faults_of(GOOD + BACKDOOR.replace("target: 3", classes)) == [f"wrong.yaml:9: {fault}"]


def test_server_data_biased_to_a_class_that_there_is_not_are_refused(faults_of):
    (fault,) = faults_of(GOOD + "server_data: {n_examples: 10, bias: {label: 10, share: 0.5}}\n")
    assert fault == "wrong.yaml:9: server_data.bias.label: needs a class from 0 to 9, got 10"


def test_the_bound_of_a_rule_is_that_of_the_sample_and_not_of_the_population(faults_of):
    (fault,) = faults_of(GOOD + "sampling: {fraction: 0.5}\n")
    assert "needs n >= 2f + 3 clients, got n=4 and f=1" in fault


def test_faults_say_the_same_in_another_process(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(GOOD.replace("rounds: 6", "rounds: no").replace("hidden", "hiden"))
    with pytest.raises(ScenarioError) as error:
        load_scenarios(path)
    again = pickle.loads(pickle.dumps(error.value))
    assert again.faults == error.value.faults
    assert str(again) == str(error.value)
    assert len(again.faults) == 2
