"""The round loop of one run, and the rows that it adds to the tables."""

from collections.abc import Iterator, Sequence
from time import perf_counter

from flwr.app import ArrayRecord, ConfigRecord, Message

from clients.app import CONFIG, LEARNT, PERSONAL
from fl_testbed.data import Federation
from fl_testbed.data.federation import NOTHING, Learnt
from fl_testbed.engine.assembly import build_strategy
from fl_testbed.engine.attackers import with_attackers
from fl_testbed.engine.evaluation import Evaluation, Evaluator, Figures
from fl_testbed.engine.grid import DROPPED_OUT, ClientGrid
from fl_testbed.engine.models import buffers_of, build_model
from fl_testbed.engine.placement import server_device
from fl_testbed.engine.recorded_updates import Recorder
from fl_testbed.engine.run_folder import ARRAYS, Record, Row, State
from fl_testbed.engine.sampling import Sampler
from fl_testbed.engine.threads import limit_threads
from fl_testbed.scenario import Scenario
from strategies.flower_arrays import Layout, in_types_of, records_in, state_dict_of
from strategies.ledger import OK, ClientEntry, RoundLedger
from strategies.observed import Observed
from strategies.robust import RobustFedAvg

COLUMNS: dict[str, tuple[str, ...]] = {
    "rounds.csv": (
        "round",
        *Figures._fields,
        "n_usable",
        "n_unusable",
        "restarted",
        "skipped",
        "weight_residual",
    ),
    "groups.csv": ("round", "group", "is_minority", "n_examples", "accuracy"),
    "attacks.csv": (
        "round",
        "poison",
        "n_examples",
        "attack_success_rate",
        "flip_rate",
        "accuracy",
    ),
    "clients.csv": (
        "round",
        "client",
        "role",
        "n_examples",
        "status",
        "prior_weight",
        "weight",
        "contribution",
        "suspicion",
        "update_norm",
        "train_loss",
        "lift",
        "believed_loss",
        "believed_confidence",
        "influence",
    ),
    "holdings.csv": ("client", "role", "group", "n_examples"),
    "accuracies.csv": ("round", "client", "role", "accuracy"),
    "personal.csv": ("round", "client", "role", "accuracy", "attack_success_rate"),
    "timings.csv": ("round", "train_s", "evaluate_s"),
}
"""The tables of a run, and their columns."""


class Run:
    """One scenario on one grid. It only computes; the consumer of :meth:`rounds` writes."""

    def __init__(self, scenario: Scenario, federation: Federation, grid: ClientGrid) -> None:
        limit_threads(scenario.torch_threads)
        self._scenario, self._federation = scenario, federation
        device, where = server_device(scenario, federation.dataset)
        model = build_model(scenario, federation.dataset)
        buffers = buffers_of(model)
        self._grid = with_attackers(grid, scenario, buffers, device)
        self._grid.notes += [where] if where else []
        self._strategy: RobustFedAvg | Observed = build_strategy(
            scenario, federation, buffers, device
        )
        self._sampler = Sampler(scenario, federation)
        self._evaluate = Evaluator(scenario, federation, device)
        if untested := self._evaluate.untested:
            names = ", ".join(untested)
            text = f"no test example of {names}: worst group and accuracy are of the other groups"
            self._grid.notes.append(text)
        self._learnt: Learnt = NOTHING
        self._device = device
        self._recorder: Recorder | None = None  # of the last round, if updates are recorded
        self._arrays = ArrayRecord(model.state_dict())
        self._n_parameters = Layout.of(self._arrays).size
        self._has_complained = False
        self._unread: set[str] = set()

    def rounds(self, done: int = -1, state: State | None = None) -> Iterator[Record]:
        """Yield a record for each round; round 0 is the initial model.

        Args:
            done: The last round that is recorded already; -1 if there is none.
            state: The state of that round's record.

        Raises:
            TooFewClientsError: If a round has too few usable replies and the scenario says to stop.
        """
        if state is not None:
            self._load_state(state)
        for round_ in range(done + 1, self._scenario.rounds + 1):
            began = perf_counter()
            if round_ > 0:
                self._train(round_)
            trained = perf_counter()
            evaluation = (
                self._evaluate(self._arrays, self._learnt) if self._is_evaluated(round_) else None
            )
            tables = self._tables(round_, evaluation)
            tables["timings.csv"] = [(round_, trained - began, perf_counter() - trained)]
            updates = b"" if self._recorder is None else self._recorder.content()
            notes = (*self._grid.notes, *self._complaints(round_))
            self._grid.notes.clear()
            yield Record(round_, tables, self._state(), evaluation, updates, notes)

    def _state(self) -> State:
        state = {f"{ARRAYS}{k}": v for k, v in state_dict_of(self._arrays).items()}
        state |= {f"strategy/{k}": v for k, v in self._strategy.state_dict().items()}
        state |= {f"learnt/{k}": v for k, v in self._learnt.items()}
        state |= {f"sampling/{k}": v for k, v in self._sampler.state_dict().items()}
        return state | {f"client/{k}": v for k, v in self._grid.state_dict().items()}

    def _load_state(self, state: State) -> None:
        names = ("arrays", "strategy", "learnt", "sampling", "client")
        parts: dict[str, State] = {name: {} for name in names}
        for name, tensor in state.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = tensor
        self._arrays = ArrayRecord({name: parts["arrays"][name] for name in self._arrays})
        self._strategy.load_state_dict(parts["strategy"])
        self._learnt = parts["learnt"]
        self._sampler.load_state_dict(parts["sampling"])
        self._grid.load_state_dict(parts["client"])

    def _train(self, round_: int) -> None:
        grid = self._grid
        grid.sample = self._sampler.sample(round_)
        grid.dropouts = self._sampler.dropouts(round_)
        grid.keep_order = self._strategy.keeps_running_sum(len(grid.sample), self._n_parameters)
        recording = self._scenario.record_updates
        # A rule that a replay applies to the recorded replies may need losses.
        config = ConfigRecord({} if recording is None else {"report-loss": True})
        messages = list(self._strategy.configure_train(round_, self._arrays, config, grid))
        self._note_unread(config)
        self._learn(round_, messages)
        replies = grid.send_and_receive(messages)
        if recording is not None:
            self._recorder = Recorder(recording.dtype, self._arrays)
            replies = self._recorder.passing(replies)
        arrays, _ = self._strategy.aggregate_train(round_, replies)
        grid.end_round()
        self._sampler.note(self._strategy.ledger or RoundLedger(round_))
        if arrays is not None:
            # Clients are not asked to test the model: the engine tests it itself.
            self._arrays = in_types_of(self._arrays, arrays)

    def _note_unread(self, config: ConfigRecord) -> None:
        """Note, the first time only, that the strategy sends settings that our clients ignore."""
        if unread := set(config) - CONFIG - self._unread:
            self._unread |= unread
            where = f"{self._scenario.variant} seed {self._scenario.seed}"
            keys = ", ".join(sorted(unread))
            self._grid.notes.append(
                f"{where}: the strategy sends clients {keys}, which they ignore (what FedProx asks "
                "of clients is a local_method here)"
            )

    def _learn(self, round_: int, messages: Sequence[Message]) -> None:
        """Let attackers learn from the model in the messages, and add what they learnt to all
        messages, unseen by the strategy."""
        there = [client for client in self._grid.sample if client not in self._grid.dropouts]
        received = state_dict_of(self._arrays)
        self._learnt = self._federation.poison.learn(
            round_, there, received, self._learnt, self._device
        )
        if self._learnt:
            told = ArrayRecord(dict(self._learnt))
            for message in messages:
                message.content[LEARNT] = told

    def _complaints(self, round_: int) -> list[str]:
        """Say, the first time only, that clients failed or a round left the model unchanged."""
        ledger = self._strategy.ledger
        if ledger is None or self._has_complained:
            return []
        expected = (OK, f"failed: {DROPPED_OUT}")
        unusable = [entry for entry in ledger.clients if entry.status not in expected]
        if not unusable and not ledger.skipped:
            return []
        self._has_complained = True
        where = f"{self._scenario.variant} seed {self._scenario.seed}, round {round_}"
        if not unusable:
            return [f"{where} left the model unchanged: {ledger.skipped}"]
        first, n = unusable[0], len(ledger.clients)
        what = f"client {first.client} {first.status}"
        return [f"{where}: {len(unusable)} of {n} replies were rejected or failed, {what}"]

    def _is_evaluated(self, round_: int) -> bool:
        return round_ % self._scenario.evaluation.every == 0 or round_ == self._scenario.rounds

    def _tables(self, round_: int, evaluation: Evaluation | None) -> dict[str, list[Row]]:
        ledger = self._strategy.ledger or RoundLedger(round_)
        evaluated = ("groups.csv", "attacks.csv", "accuracies.csv", "personal.csv")
        tables: dict[str, list[Row]] = {name: [] for name in evaluated}
        figures = Figures()
        if evaluation is not None:
            figures, groups = evaluation.figures, evaluation.groups
            names, minority = self._federation.group_names, self._federation.groups.minority
            rows = zip(names, groups.n_examples, groups.accuracies, strict=True)
            tables["groups.csv"] = [
                (round_, name, int(group in minority), *row)
                for group, (name, *row) in enumerate(rows)
            ]
            tables["attacks.csv"] = [
                (round_, name, *success) for name, success in evaluation.attacks.items()
            ]
            tables["accuracies.csv"] = [
                (round_, client, self._role(client), accuracy)
                for client, accuracy in evaluation.by_client.items()
            ]
            tables["personal.csv"] = [
                (round_, client, self._role(client), *self._evaluate.of_client(client, model))
                for client, kept in sorted(self._grid.states.items())
                if (model := records_in(kept, ArrayRecord).get(PERSONAL)) is not None
            ]
        if round_ == 0:
            tables["holdings.csv"] = holding_rows(self._federation)
        usable = sum(entry.status == OK for entry in ledger.clients)
        counts = (usable, len(ledger.clients) - usable, int(ledger.restarted), ledger.skipped)
        tables["rounds.csv"] = [(round_, *figures, *counts, ledger.residual)]
        tables["clients.csv"] = [
            client_row(self._federation, round_, entry) for entry in ledger.clients
        ]
        return tables

    def _role(self, client: int) -> str:
        return self._federation.population.role(client).value


def holding_rows(federation: Federation) -> list[Row]:
    """Return the lines of ``holdings.csv``, group by group."""
    held = federation.holdings()
    return [
        (client, federation.population.role(client).value, name, count)
        for group, name in enumerate(federation.group_names)
        for client, count in enumerate(held[:, group].tolist())
        if count
    ]


def client_row(federation: Federation, round_: int, entry: ClientEntry) -> Row:
    """Return a line of ``clients.csv``."""
    role = federation.population.role(entry.client).value
    known = {"round": round_, "role": role, **vars(entry)}
    return tuple(known[name] for name in COLUMNS["clients.csv"])
