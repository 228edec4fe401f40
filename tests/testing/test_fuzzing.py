"""The search itself: seeds, names, time, and what it says."""

import importlib.util
import sys

import msgspec
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from headwater.definitions.repositories import repository_plan
from headwater.errors import DefectsFound, MissingExtra, UsageError
from headwater.expressions.parse import parse
from headwater.plans.plan import Plan
from headwater.repository import load_repository
from headwater.rows import layout, table
from headwater.testing import assert_views_agree
from headwater.testing.cases import Case, Delivery, Record
from headwater.testing.comparison import Comparison
from headwater.testing.fuzzing import fuzz
from headwater.testing.generation import cases, one
from headwater.testing.paths import batches
from headwater.testing.pools import pools_of
from headwater.testing.shrinking import cut
from tests.history.log_factory import FIELDS, SOURCE, make_feature, make_view
from tests.history.test_windows_at_any_time import EVERYTHING
from tests.testing.fuzzed_shop import DEFINITIONS, run_test


@pytest.fixture(scope="module")
def shop(make_repository):
    return make_repository(definitions=DEFINITIONS, servers=False)


@pytest.fixture(scope="module")
def plan(shop):
    return repository_plan(load_repository(shop))


def drawn(strategy, number):
    found = []

    @seed(number)
    @settings(max_examples=15, database=None, deadline=None, phases=[Phase.generate])
    @given(strategy)
    def draw(value):
        found.append(repr(value))

    draw()
    return found


def test_a_seed_draws_the_same_cases(plan):
    strategy = cases(plan.view("spend"), plan.source("lines"))
    first = drawn(strategy, 3)
    assert drawn(strategy, 3) == first
    assert drawn(strategy, 4) != first


def test_what_a_seed_draws_does_not_depend_on_what_else_is_loaded(tmp_path, monkeypatch):
    strategy = st.lists(one(range(500)), min_size=40, max_size=40)
    first = drawn(strategy, 3)
    file = tmp_path / "of_the_user.py"
    file.write_text(f"NUMBERS = {[*range(100, 400)]}\n")
    spec = importlib.util.spec_from_file_location("of_the_user", file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "of_the_user", module)
    spec.loader.exec_module(module)
    assert drawn(strategy, 3) == first


def test_every_function_type_and_window_agrees():
    """One view with all of them; what a second of search finds here, hours would find elsewhere."""
    view = make_view(*EVERYTHING, where=parse("price >= 0 OR price IS NULL", FIELDS, place="where"))
    (result,) = fuzz(Plan("p", (SOURCE,), (view,)), seconds=3)
    assert result.failure is None, result.failure
    assert result.cases > 1
    assert result.compared > len(view.features)


def test_keys_of_two_columns_and_a_lifetime_window_agree():
    view = make_view(
        make_feature("last", "raw", None), make_feature("count", window=None), keys=("product", "customer")
    )
    (result,) = fuzz(Plan("p", (SOURCE,), (view,)), seconds=1)
    assert result.failure is None, result.failure


def test_a_source_in_another_format_is_fuzzed_by_its_columns(plan):
    avro = msgspec.structs.replace(plan.source("lines"), format="avro")
    (result,) = fuzz(msgspec.structs.replace(plan, sources=(avro,)), seconds=0.1)
    assert (result.failure, result.cases >= 1) == (None, True)


def test_values_beside_the_definitions_constants_are_tried():
    derive = [("amount", parse("price * quantity", FIELDS, place="derive"))]
    where = parse("quantity > 7 AND amount < 99.5", {**FIELDS, "amount": "float64"}, place="where")
    pools = pools_of(make_view(make_feature("count"), where=where, derive=derive), SOURCE)
    assert {6, 7, 8, 99, 100} <= set(pools.plain["quantity"])
    assert {99.5, 99.49999999999999, 99.50000000000001} <= set(pools.plain["price"])
    assert all(row["quantity"] > 7 for row in pools.rows)


def test_a_broken_product_is_a_finding_and_a_broken_search_is_not(plan, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(table.RowTable, "encode", lambda self, rows: [][0])
        (result,) = fuzz(plan, seconds=5)
    (value,) = {str(d.values["stream"]) for d in result.failure.outcome.differences}
    assert value == "failed with IndexError: list index out of range"
    monkeypatch.setattr(Comparison, "run", lambda self, case: [][0])
    with pytest.raises(IndexError):
        fuzz(plan, seconds=1)


def test_bytes_of_rows_that_differ_are_found_where_values_are_equal(plan, monkeypatch):
    fold = table.RowTable.fold

    def born_by_batch(self, rows, events, **born):
        return fold(self, rows, events, born=len(events))

    monkeypatch.setattr(table.RowTable, "fold", born_by_batch)
    (result,) = fuzz(plan, seconds=5)
    assert {d.feature for d in result.failure.outcome.differences} == {"(row)"}


def test_the_rest_of_a_log_comes_in_one_last_batch():
    records = [Record(p, o, 0, {}) for p, o in ((0, 0), (1, 0), (0, 1), (0, 2))]
    case = Case(tuple(records), (Delivery(1, 0, 2), Delivery(0, 2, 1), Delivery(0, 0, 1, again=1, forgets=True)), (0,))
    found = [(worker, forgets, [(r.partition, r.offset) for r in batch]) for worker, forgets, batch in batches(case)]
    assert found == [(1, False, [(0, 0), (0, 1)]), (0, True, [(0, 1), (0, 2)]), (0, False, [(1, 0)])]


def test_a_case_is_cut_to_what_it_fails_with():
    records = tuple(Record(0, i, 0, {"a": i, "b": i}, "sparse") for i in range(40))
    case = Case(records, (Delivery(0, 0, 1), Delivery(1, 0, 1, again=3)), (5, 6, 7))

    def fails(smaller):
        return {7, 21} <= {r.values["a"] for r in smaller.records} and 6 in smaller.reads

    def plainer(record):
        return [Record(0, record.offset, 0, {**record.values, "b": 0}), Record(0, record.offset, 0, {"a": 0, "b": 0})]

    left = cut(case, plainer, fails)
    assert left == Case((Record(0, 7, 0, {"a": 7, "b": 0}), Record(0, 21, 0, {"a": 21, "b": 0})), (), (6,))


def test_unknown_views_and_batch_views_are_refused(plan):
    with pytest.raises(UsageError, match=r"No view 'spent' to test\. Did you mean 'spend'"):
        fuzz(plan, ["spent"])
    with pytest.raises(UsageError, match="'profile' is a BatchView; only windowed views"):
        fuzz(plan, ["profile"])


def test_without_hypothesis_the_message_names_the_extra(plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'headwater\[test\]'"):
        fuzz(plan)


def test_a_repository_without_windowed_views_has_nothing_to_test(make_repository):
    repository = make_repository(definitions=DEFINITIONS.split("spend = ")[0], servers=False)
    assert run_test(repository) == (False, "Nothing to test: the repository has no windowed view.\n")


def test_the_one_line_test_passes_and_fails_with_the_table(shop, monkeypatch):
    assert_views_agree(shop, seconds=0.2)
    monkeypatch.setattr(layout.Group, "tile", lambda self, time: time * 0)
    monkeypatch.setattr(table, "library", lambda: None)  # which has a tile of its own
    with pytest.raises(AssertionError) as failed:
        assert_views_agree(shop, ["spend"], seconds=30)
    message = str(failed.value)
    assert "✗ spend: the paths disagree" in message
    assert "values that differ:" in message
    assert "again: headwater test spend --seed " in message


def test_the_command_says_what_it_ran_and_its_error_gives_exit_code_1(headwater_cli, shop):
    answer = headwater_cli("test", "--seconds", "0.5", repo=shop)
    assert answer.stdout.startswith("✓ spend: ")
    assert answer.stdout.endswith(" values agree on every path\n")
    assert DefectsFound.exit_code == 1
    assert (shop / ".headwater" / "hypothesis").is_dir() or not (shop / ".hypothesis").exists()
