"""What a scenario file means: extends, variants, sweeps, the command line."""

from pathlib import Path

import pytest

from fl_testbed.scenario import Scenario, ScenarioError, load_files, load_scenarios

BASE = """\
name: small
rounds: 3
dataset: {kind: digits}
model: {kind: mlp, hidden: [4]}
clients: {honest_majority: 5, honest_minority: 2, poisoned: 1, examples_each: 10}
training: {lr: 0.1, batch_size: 5}
strategy:
  aggregation: {kind: krum, n_malicious: 1}
"""


@pytest.fixture
def load(tmp_path):
    """Write a scenario and load it; other files by keyword, ``base`` for base.yaml."""

    def load(text: str, *settings: str, **others: str) -> list[Scenario]:
        for name, content in {"scenario": text, **others}.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        return load_scenarios(tmp_path / "scenario.yaml", settings)

    return load


def the_one(scenarios: list[Scenario]) -> Scenario:
    (scenario,) = scenarios
    return scenario


def lines_of(error: pytest.ExceptionInfo[ScenarioError]) -> list[str]:
    return str(error.value).splitlines()


def test_a_file_without_variants_is_one_run_named_default(load):
    scenario = the_one(load(BASE))
    assert (scenario.variant, scenario.seed, scenario.rounds) == ("default", 0, 3)


class TestExtends:
    def test_mappings_merge_with_the_base(self, load):
        scenario = the_one(load("extends: base.yaml\ntraining: {lr: 0.5}\n", base=BASE))
        assert (scenario.training.lr, scenario.training.batch_size) == (0.5, 5)

    def test_a_mapping_that_names_its_kind_replaces_the_base_s(self, load):
        # Merged, mean would inherit Krum's n_malicious and be refused.
        text = "extends: base.yaml\nstrategy: {aggregation: {kind: mean}}\n"
        assert the_one(load(text, base=BASE)).strategy.aggregation.kind == "mean"

    def test_a_list_replaces_the_base_s(self, load):
        text = "extends: base.yaml\nmodel: {hidden: [2, 3]}\n"
        assert the_one(load(text, base=BASE)).model.hidden == [2, 3]

    def test_the_base_is_looked_for_beside_the_file_that_names_it(self, tmp_path, monkeypatch):
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "base.yaml").write_text(BASE)
        (tmp_path / "shared" / "middle.yaml").write_text("extends: base.yaml\nrounds: 8\n")
        (tmp_path / "top.yaml").write_text("extends: shared/middle.yaml\nseed: 9\n")
        monkeypatch.chdir("/")
        scenario = the_one(load_scenarios(tmp_path / "top.yaml"))
        assert (scenario.name, scenario.rounds, scenario.seed) == ("small", 8, 9)

    def test_variants_and_sweep_are_the_file_s_own_where_it_has_any(self, load):
        base = BASE + "variants: {a: {rounds: 5}}\nsweep: {seed: [1, 2]}\n"
        scenarios = load("extends: base.yaml\nvariants: {b: {rounds: 6}}\n", base=base)
        assert [(s.variant, s.rounds, s.seed) for s in scenarios] == [("b", 6, 1), ("b", 6, 2)]
        scenarios = load("extends: base.yaml\nsweep: {rounds: [1]}\n", base=base)
        assert [(s.variant, s.rounds, s.seed) for s in scenarios] == [("a,rounds=1", 1, 0)]

    @pytest.mark.parametrize("other", ["scenario.yaml", "base.yaml"])
    def test_a_circle_is_refused(self, load, other):
        with pytest.raises(ScenarioError, match=r"yaml:1: extends: a file cannot extend itself"):
            load(f"extends: {other}\n", base="extends: scenario.yaml\n")

    def test_a_base_that_is_missing_is_named_with_the_line_that_names_it(self, load):
        with pytest.raises(ScenarioError) as error:
            load("name: x\nextends: bsae.yaml\n", base=BASE)
        (line,) = lines_of(error)
        assert "scenario.yaml:2: extends: " in line
        assert "bsae.yaml: no such file" in line
        assert "has base.yaml" in line

    def test_of_several_files_each_is_laid_over_those_before_it(self, load, tmp_path):
        (tmp_path / "methods.yaml").write_text("rounds: 8\nvariants: {a: {seed: 1}}\n")
        text = "extends: [base.yaml, methods.yaml]\ntraining: {lr: 0.5}\n"
        (scenario,) = load(text, base=BASE + "variants: {b: {}, c: {}}\n")
        assert (scenario.variant, scenario.seed, scenario.rounds) == ("a", 1, 8)
        assert (scenario.training.lr, scenario.training.batch_size) == (0.5, 5)

    @pytest.mark.parametrize("value", ["[base.yaml, 3]", "[]", "3", "''"])
    def test_only_a_file_name_can_be_extended(self, load, value):
        with pytest.raises(ScenarioError, match="extends: needs the name of a file"):
            load(f"extends: {value}\n", base=BASE)


class TestVariants:
    def test_each_changes_the_base_and_not_the_others(self, load):
        text = BASE + "variants:\n  long: {rounds: 9}\n  wide: {model.hidden: [8]}\n  plain: {}\n"
        scenarios = {s.variant: s for s in load(text)}
        assert list(scenarios) == ["long", "wide", "plain"]
        assert [s.rounds for s in scenarios.values()] == [9, 3, 3]
        assert [s.model.hidden for s in scenarios.values()] == [[4], [8], [4]]

    def test_a_dotted_key_leaves_its_neighbours_alone(self, load):
        text = BASE + "variants: {fast: {training.lr: 0.9}}\n"
        assert the_one(load(text)).training.batch_size == 5

    def test_naming_a_kind_replaces_the_whole_mapping(self, load):
        text = BASE + "variants: {none: {strategy.aggregation: {kind: mean}}}\n"
        assert the_one(load(text)).strategy.aggregation.kind == "mean"

    def test_a_key_without_kind_keeps_the_kind(self, load):
        text = BASE + "variants: {more: {strategy.aggregation: {n_malicious: 2}}}\n"
        rule = the_one(load(text)).strategy.aggregation
        assert rule.model_dump() == {"kind": "krum", "n_malicious": 2}

    @pytest.mark.parametrize("key", ["sweep", "sweep.seed", "variants", "extends"])
    def test_what_is_a_whole_file_s_is_refused_in_one(self, load, key):
        with pytest.raises(ScenarioError) as error:
            load(BASE + f"variants:\n  a: {{{key}: x}}\n")
        (fault,) = lines_of(error)
        key = key.partition(".")[0]
        assert fault.endswith(
            f"yaml:10: variants.a.{key}: belongs to the whole file: move it to the top level"
        )

    def test_a_fault_in_the_base_is_told_once_however_many_variants_there_are(self, load):
        text = BASE.replace("lr: 0.1", "lr: -1") + "variants: {a: {}, b: {}, c: {rounds: 0}}\n"
        with pytest.raises(ScenarioError) as error:
            load(text)
        assert [line.split("yaml:")[1] for line in lines_of(error)] == [
            "6: training.lr: needs a number > 0, got -1",
            "9: rounds: needs a number > 0, got 0",
        ]


class TestSweep:
    def test_it_is_the_grid_of_its_lists_times_the_variants(self, load):
        text = (
            BASE + "variants: {a: {}, b: {rounds: 5}}\nsweep: {seed: [1, 2], rounds: [7, 8, 9]}\n"
        )
        runs = [(s.variant, s.seed, s.rounds) for s in load(text)]
        assert len(set(runs)) == len(runs) == 12
        assert runs[:3] == [("a,rounds=7", 1, 7), ("a,rounds=8", 1, 8), ("a,rounds=9", 1, 9)]

    def test_seeds_share_the_name_of_their_variant(self, load):
        scenarios = load(BASE + "sweep: {seed: [3, 4]}\n")
        assert [(s.variant, s.seed) for s in scenarios] == [("default", 3), ("default", 4)]

    def test_it_wins_over_a_variant(self, load):
        text = BASE + "variants: {a: {rounds: 5}}\nsweep: {rounds: [7]}\n"
        assert the_one(load(text)).rounds == 7

    def test_lists_can_be_swept(self, load):
        scenarios = load(BASE + "sweep: {model.hidden: [[4], [8, 2], []]}\n")
        assert [s.variant for s in scenarios] == ["hidden=4", "hidden=8-2", "hidden=none"]
        assert [s.model.hidden for s in scenarios] == [[4], [8, 2], []]

    def test_mappings_merge_with_what_is_there(self, load):
        scenarios = load(BASE + "sweep: {training: [{lr: 0.2}, {batch_size: 3}]}\n")
        trained = [(s.variant, s.training.lr, s.training.batch_size) for s in scenarios]
        assert trained == [("training=0.2", 0.2, 5), ("training=3", 0.1, 3)]

    def test_two_settings_of_one_kind_get_two_names(self, load):
        # With one name they would write into the same run folder.
        rules = "[{kind: krum, n_malicious: 1}, {kind: krum, n_malicious: 2}, {kind: mean}]"
        scenarios = load(BASE + f"sweep: {{strategy.aggregation: {rules}}}\n")
        names = [s.variant for s in scenarios]
        assert names == ["aggregation=krum-1", "aggregation=krum-2", "aggregation=mean"]

    def test_a_value_given_twice_is_refused(self, load):
        with pytest.raises(
            ScenarioError, match=r"yaml:9: sweep: makes two runs of default with seed 4"
        ):
            load(BASE + "sweep: {seed: [4, 5, 4]}\n")

    @pytest.mark.parametrize(
        ("sweep", "fault"),
        [
            (
                "{seed: 3}",
                "sweep.seed: needs a list of values, or a mapping of names to values, got 3",
            ),
            (
                "{seed: []}",
                r"sweep.seed: needs a list of values, or a mapping of names to values, got \[\]",
            ),
            ("{sed: [1]}", "sweep.sed: unknown key, did you mean 'seed'?"),
            ("{1: [1]}", "sweep.1: unknown key"),
            ("{training.lrr: [1]}", "training.lrr: unknown key, did you mean 'lr'?"),
            ("{extends: [a.yaml]}", "sweep.extends: belongs to the whole file, not to a sweep"),
            (
                "{poison: {täter: {kind: none}}}",
                "sweep.poison: needs names of letters, digits and . _ = , -, got 'täter'",
            ),
            ("[1]", r"sweep: needs a mapping \(key: value\), got \[1\]"),
        ],
    )
    def test_a_wrong_sweep_is_one_readable_line(self, load, sweep, fault):
        with pytest.raises(ScenarioError, match=rf"scenario.yaml:9: {fault}") as error:
            load(BASE + f"sweep: {sweep}\n")
        assert len(lines_of(error)) == 1

    @pytest.mark.parametrize("name", ["sweep.json", "tension.png", "report.html"])
    def test_no_variant_is_named_as_a_file_beside_it(self, load, name):
        with pytest.raises(ScenarioError, match=r"scenario.yaml:9: variant: needs another name: "):
            load(BASE + f"variants: {{{name}: {{}}}}\n")

    def test_a_variants_name_is_refused_once(self, load):
        fault = r"scenario.yaml:9: variants.a\+b: needs a name of letters, digits and . _ = , -"
        with pytest.raises(ScenarioError, match=fault) as error:
            load(BASE + "variants: {a+b: {}}\nsweep: {seed: [0, 1], training.lr: [0.1, 0.2]}\n")
        assert len(lines_of(error)) == 1


class TestSettings:
    def test_values_are_yaml(self, load):
        scenario = the_one(
            load(BASE, "rounds=7", "model.hidden=[2, 3]", "strategy.aggregation={kind: mean}")
        )
        assert (scenario.rounds, scenario.model.hidden) == (7, [2, 3])
        assert scenario.strategy.aggregation.kind == "mean"

    @pytest.mark.parametrize(
        "sweep",
        ["", "sweep: {training.lr: [0.3, 0.4]}\n", "sweep: {training: [{batch_size: 3}]}\n"],
    )
    def test_a_mapping_is_its_keys_one_by_one(self, load, sweep):
        # The mean has no n_malicious, and a sweep of the key gives way, as with dotted keys.
        text = BASE + "variants: {krum: {}, mean: {strategy.aggregation: {kind: mean}}}\n" + sweep
        settings = "training={lr: 0.2}", "strategy={aggregation: {n_malicious: 2}}"
        scenarios = load(text, *settings)
        assert [(s.training.lr, s.training.batch_size) for s in scenarios] == [(0.2, 5)] * 2
        assert scenarios[0].strategy.aggregation.n_malicious == 2

    def test_they_win_over_the_file_a_variant_and_a_sweep(self, load):
        text = BASE + "variants: {a: {rounds: 5}, b: {}}\nsweep: {rounds: [8, 9]}\n"
        assert [s.rounds for s in load(text, "rounds=2")] == [2, 2]

    def test_a_variant_that_replaced_the_mapping_is_spared(self, load):
        # The mean has no n_malicious: the setting is Krum's.
        text = BASE + "variants: {krum: {}, mean: {strategy.aggregation: {kind: mean}}}\n"
        rules = [s.strategy.aggregation for s in load(text, "strategy.aggregation.n_malicious=2")]
        assert [rule.model_dump() for rule in rules] == [
            {"kind": "krum", "n_malicious": 2},
            {"kind": "mean"},
        ]

    def test_the_base_is_spared_what_only_a_variant_s_method_has(self, load):
        krum = "{kind: krum, n_malicious: 1}"
        variants = f"variants: {{mean: {{}}, krum: {{strategy.aggregation: {krum}}}}}\n"
        text = BASE.replace(krum, "{kind: mean}") + variants
        rules = [s.strategy.aggregation for s in load(text, "strategy.aggregation.n_malicious=2")]
        assert [rule.model_dump() for rule in rules] == [
            {"kind": "mean"},
            {"kind": "krum", "n_malicious": 2},
        ]

    def test_a_variant_that_is_not_asked_for_does_not_spare_the_base(self, load, tmp_path):
        load(BASE + "variants: {a: {}, b: {training.local_epochs: 3}}\n")
        path, settings = tmp_path / "scenario.yaml", ["training.local_epochs=2"]
        assert the_one(load_scenarios(path, settings, ["a"])).training.local_epochs == 2

    def test_variants_can_be_taken_away_and_added(self, load):
        text = BASE + "variants: {a: {}, b: {}}\n"
        assert [s.variant for s in load(text, "variants={}")] == ["default"]
        assert [s.variant for s in load(text, "variants.c={rounds: 1}")] == ["a", "b", "c"]

    def test_they_reach_into_what_is_swept_and_its_name_says_so(self, load):
        rules = "[{kind: krum, n_malicious: 1}, {kind: mean}]"
        text = BASE + f"sweep: {{strategy.aggregation: {rules}}}\n"
        krum, mean = load(text, "strategy.aggregation.n_malicious=2")
        assert krum.strategy.aggregation.model_dump() == {"kind": "krum", "n_malicious": 2}
        assert (krum.variant, mean.variant) == ("aggregation=krum-2", "aggregation=mean")
        with pytest.raises(ScenarioError) as error:
            load(text, "strategy.aggregation.n_malicious=-1")
        (fault,) = lines_of(error)
        assert (
            fault
            == "--set: strategy.aggregation.n_malicious: needs a number >= 0 or 'oracle', got -1"
        )

    @pytest.mark.parametrize(
        ("expansion", "setting"),
        [
            ("variants: {a: {strategy.aggregation: {kind: mean}}}", "strategy.aggregation.n=2"),
            ("sweep: {strategy.aggregation: [{kind: mean}]}", "strategy.aggregation.n=2"),
            ("variants: {a: {}}", "variant=b"),
        ],
    )
    def test_one_that_no_run_would_have_is_refused(self, load, expansion, setting):
        with pytest.raises(ScenarioError) as error:
            load(BASE + expansion + "\n", setting)
        key = setting.partition("=")[0]
        (fault,) = lines_of(error)
        assert fault.startswith(f"--set: {key}: is in no run: variants, a sweep or a later --set")

    def test_a_sweep_of_a_key_inside_a_mapping_can_be_added(self, load):
        scenarios = load(BASE, "sweep.training.lr=[0.1, 0.2]")
        assert [s.training.lr for s in scenarios] == [0.1, 0.2]

    @pytest.mark.parametrize("sweep", ["sweep.seed=[1, 2]", "sweep={seed: [1, 2]}"])
    def test_one_beside_a_sweep_of_its_key_is_refused(self, load, sweep):
        with pytest.raises(ScenarioError) as error:
            load(BASE, "seed=5", sweep)
        (fault,) = lines_of(error)
        assert fault == "--set: seed: is both set and swept (by sweep.seed): leave one out"

    def test_one_of_a_key_that_the_file_sweeps_takes_the_place_of_the_sweep(self, load):
        assert the_one(load(BASE + "sweep: {seed: [1, 2]}\n", "seed=5", "seed=6")).seed == 6

    def test_a_later_one_wins(self, load):
        assert the_one(load(BASE, "rounds=7", "rounds=8")).rounds == 8

    @pytest.mark.parametrize(
        ("setting", "fault"),
        [
            ("rounds", "--set: rounds: needs KEY=VALUE, such as rounds=10"),
            ("=3", "--set: =3: needs KEY=VALUE, such as rounds=10"),
            ("rounds=", "--set: rounds: needs a whole number, got nothing"),
            ("rounds=x", "--set: rounds: needs a whole number, got 'x'"),
            ("rounds.x=3", "--set: rounds: needs a whole number, got {'x': 3}"),
            ("ronds=3", "--set: ronds: unknown key, did you mean 'rounds'?"),
            ("sweep=3", "--set: sweep: needs a mapping (key: value), got 3"),
            (
                "extends=other.yaml",
                "--set: extends: cannot be set here: write a scenario file that extends others, "
                "and run that",
            ),
        ],
    )
    def test_a_wrong_one_is_one_readable_line(self, load, setting, fault):
        with pytest.raises(ScenarioError) as error:
            load(BASE, setting)
        assert lines_of(error) == [fault]

    def test_a_value_that_is_not_yaml_is_one_readable_line(self, load):
        with pytest.raises(ScenarioError) as error:
            load(BASE, "rounds=[1", "seed={a: 1, a: 2}", "name=!x y")
        starts = [line.split(" is ")[0].split(" could")[0] for line in lines_of(error)]
        assert [start.split(":")[1].strip() for start in starts] == ["rounds", "a", "name"]

    def test_a_fault_in_a_replaced_mapping_is_the_command_line_s_and_not_the_file_s(self, load):
        with pytest.raises(ScenarioError) as error:
            load(BASE, "strategy.aggregation={kind: krum, n_malicious: -1}")
        expected = (
            "--set: strategy.aggregation.n_malicious: needs a number >= 0 or 'oracle', got -1"
        )
        assert lines_of(error) == [expected]


class TestYaml:
    def test_a_merge_key_may_be_overridden(self, load):
        text = BASE.replace("training: {", "training: &usual {")
        text += "variants: {fast: {training: {<<: *usual, lr: 0.7}}}\n"
        training = the_one(load(text)).training
        assert (training.lr, training.batch_size) == (0.7, 5)

    @pytest.mark.parametrize("number", ["1e-3", "0.1E-2", ".1e-2", "10e-4", "+1e-03"])
    def test_a_number_needs_no_dot_and_no_sign_in_its_exponent(self, load, number):
        text = BASE.replace("lr: 0.1", f"lr: {number}")
        assert [s.training.lr for s in load(text)] == [0.001]
        assert [s.training.lr for s in load(BASE, f"training.lr={number}")] == [0.001]

    def test_what_looks_like_a_number_stays_text_in_quotes_and_as_a_key(self, load):
        scenario = the_one(load(BASE.replace("small", "'1e5'") + "variants: {1e3: {}}\n"))
        again = the_one(load(scenario.to_yaml()))
        assert (again.name, again.variant) == (scenario.name, scenario.variant) == ("1e5", "1e3")

    def test_a_date_is_a_name_like_any_other(self, load):
        assert the_one(load(BASE.replace("small", "2020-12-25"))).name == "2020-12-25"


@pytest.mark.parametrize(
    ("key", "rules", "told"),
    [
        ("n_malicious", "krum mean flame", "is swept in all variants, but b, c cannot have it: "),
        ("n_malicious", "mean", "unknown key; known keys: kind"),
        ("n_malicous", "krum krum", "unknown key, did you mean 'n_malicious'?"),
        ("args.tau", "mine.py:rule mean", "is swept in all variants, but b cannot have it: "),
    ],
)
def test_a_swept_key_that_variants_lack_is_one_fault_and_names_them_where_others_have_it(
    tmp_path, load, key, rules, told
):
    (tmp_path / "mine.py").write_text("def rule(updates, tau): ...\n")
    text = BASE + f"sweep: {{strategy.aggregation.{key}: [1, 2]}}\nvariants:\n"
    for name, rule in zip("abc", rules.split(), strict=False):
        text += f"  {name}: {{strategy.aggregation: {{kind: '{rule}'}}}}\n"
    with pytest.raises(ScenarioError) as error:
        load(text)
    (line,) = lines_of(error)
    assert f"yaml:9: strategy.aggregation.{key.partition('.')[0]}: {told}" in line


def shipped_scenarios() -> list[Path]:
    return sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
def test_a_resolved_scenario_reloads_to_itself(path, tmp_path):
    for scenario in load_scenarios(path):
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(scenario.to_yaml(), encoding="utf-8")
        again = the_one(load_scenarios(resolved))
        parts = [one.model_dump(exclude={"engine"}) for one in (again, scenario)]
        assert parts[0] == parts[1]
        assert again.to_yaml() == scenario.to_yaml()


def test_the_engine_is_no_part_of_a_run_s_identity(load):
    inline, ray = (the_one(load(BASE, f"engine.kind={kind}")) for kind in ("inline", "ray"))
    assert inline.engine != ray.engine
    assert inline.to_yaml() == ray.to_yaml()


@pytest.mark.parametrize(
    ("expansion", "where", "key", "values"),
    [
        ("variants:\n  a: {engine.kind: ray}\n  b: {}\n", 9, "engine.kind", "ray, inline"),
        ("variants: {a: {}}\nsweep: {engine.workers: [1, 2]}\n", 10, "engine.workers", "1, 2"),
        (
            "variants: {a: {}}\nsweep: {engine: [{}, {kind: ray}]}\n",
            10,
            "engine.kind",
            "inline, ray",
        ),
    ],
)
def test_runs_of_one_file_are_on_one_engine(load, expansion, where, key, values):
    with pytest.raises(ScenarioError) as error:
        load(BASE + expansion)
    (line,) = lines_of(error)
    text = f"needs to be the same in all runs of a command, got {values}: set it once, outside"
    assert line.endswith(f"scenario.yaml:{where}: {key}: {text} variants and sweep")


def test_runs_of_one_file_are_of_one_kind(load):
    pooled = "{kind: centralized, training: {lr: 0.1, batch_size: 5, epochs: 1}}"
    federated = (
        "{rounds: 3, training: {lr: 0.1, batch_size: 5}, strategy: {aggregation: {kind: mean}}, "
        "clients: {honest_majority: 5, honest_minority: 2, poisoned: 0}}"
    )
    shared = "name: small\ndataset: {kind: digits}\nmodel: {kind: mlp, hidden: [4]}\n"
    with pytest.raises(ScenarioError) as error:
        load(f"{shared}variants:\n  a: {pooled}\n  b: {federated}\n")
    (line,) = lines_of(error)
    assert line.endswith(
        "yaml:4: kind: needs to be the same in all variants: "
        "federated runs need a file of their own"
    )


class TestSeveralFiles:
    @pytest.fixture
    def files(self, load, tmp_path):
        def files(*texts: str) -> list[Path]:
            names = [f"file{place}" for place in range(len(texts))]
            load(BASE, **dict(zip(names, texts, strict=True)))
            return [tmp_path / f"{name}.yaml" for name in names]

        return files

    def test_their_runs_follow_each_other_and_settings_hold_for_all(self, files):
        paths = files(BASE, BASE.replace("name: small", "name: other\nvariants: {a: {}, b: {}}"))
        found = load_files(paths, ["rounds=7"])
        assert [(run.name, run.variant) for run in found] == [
            ("small", "default"),
            ("other", "a"),
            ("other", "b"),
        ]
        assert {run.rounds for run in found} == {7}

    def test_a_variant_asked_for_may_be_one_file_s_alone(self, files):
        other = BASE.replace("name: small", "name: other\nvariants: {a: {}, b: {rounds: no}}")
        paths = files(BASE.replace("name: small", "name: one\nvariants: {c: {}, d: {}}"), other)
        found = load_files(paths, asked=["a", "c"])  # that b could not run does not matter
        assert [(run.name, run.variant) for run in found] == [("one", "c"), ("other", "a")]
        with pytest.raises(ScenarioError, match=r"file1.yaml: --variant: needs one of a, b, got c"):
            load_files(paths, asked=["c"])

    def test_the_files_of_a_sweep_s_run_folders_go_together(self, files):
        runs = load_files(files(BASE + "sweep: {seed: [0, 1]}\n"))
        resolved = [run.to_yaml() for run in runs]
        assert [run.to_yaml() for run in load_files(files(*resolved))] == resolved

    def test_faults_of_all_files_are_told(self, files):
        paths = files(BASE.replace("rounds: 3", "rounds: no"), BASE.replace("rounds: 3", "seed: x"))
        with pytest.raises(ScenarioError) as error:
            load_files(paths)
        assert [line.split(": ")[1] for line in lines_of(error)] == ["rounds", "seed", "rounds"]

    @pytest.mark.parametrize(
        ("second", "fault"),
        [
            (BASE, "name: 'small' has default with seed 0 in another file too"),
            (BASE.replace("name: small", "name: b\nengine: {kind: ray}"), "engine: differs from"),
            (
                "{kind: centralized, name: b, dataset: {kind: digits}, "
                "model: {kind: logistic_regression}, "
                "training: {epochs: 1, lr: 0.1, batch_size: 5}}",
                "kind: differs from",
            ),
        ],
    )
    def test_what_does_not_go_together_is_one_readable_line(self, files, second, fault):
        with pytest.raises(ScenarioError) as error:
            load_files(files(BASE, second))
        (line,) = lines_of(error)
        assert fault in line
        assert "file1.yaml" in line
