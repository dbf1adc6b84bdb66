"""An agent from question to answer, with a model that returns what the test wants and a real server, file and queue."""

import os
import pathlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cloud.drain import Drained
from edge_agent.core.config.settings import DEFAULT_LIMITS
from edge_agent.core.errors import BadQuestion, CloudUnavailable, ModelMissing, ModelRefused
from edge_agent.core.question import Question
from edge_agent.model.catalog import ModelFiles
from edge_agent.store.store import Store
from tests.support.cloud_server import LoopbackCloud
from tests.support.paths import DEMO
from tests.support.spoken_model import SURE, UNSURE, SpokenModel, agent


def test_sure_answer_is_kept_and_recalled_without_the_model(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url) as first:
        decision = first.ask(question)
    assert (decision.answer, decision.answer_text, decision.route, decision.reason) == ("A", "18", "local", "confident")
    assert not decision.deferred and not decision.recalled and decision.persisted
    never = SpokenModel(UNSURE)
    with agent(home, never, cloud.url) as second:
        again = second.ask(question)
    assert again.recalled and never.opened == 0 and cloud.requests == []
    assert (again.answer, again.level_probs, again.format_mass) == (decision.answer, decision.level_probs, decision.format_mass)
    assert again.decision_id != decision.decision_id and again.timings.n_forward == 0


def test_unsure_question_reaches_the_cloud_once(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        decision = one.ask(question)
        assert (decision.answer, decision.route, decision.deferred, decision.reason) == ("B", "cloud", True, "unsure")
        assert decision.cloud and decision.cloud.model == "big" and decision.queue_id is None
    cloud.stop()
    with agent(home, SpokenModel(UNSURE), cloud.url) as two:
        again = two.ask(question)
    assert (again.answer, again.route, again.recalled) == ("B", "cloud", True)
    assert len(cloud.requests) == 1


def test_refresh_asks_again(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        one.ask(question)
        cloud.reply = lambda body: "C"
        assert one.ask(question).answer == "B"
        assert one.ask(question, refresh=True).answer == "C"
        assert one.ask(question).answer == "C"


def test_refreshed_reading_is_recalled_later(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(SURE)) as one:
        one.ask(question)
    with agent(home, SpokenModel(UNSURE)) as two:
        assert two.ask(question).confidence == 1.0
        assert two.ask(question, refresh=True).confidence == 0.25
        assert two.ask(question).confidence == 0.25


def test_cloud_answer_settles_the_question_that_waits_for_it(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    """Asked offline, then online: nothing is left to drain, and the first decision has ended."""
    with agent(home, SpokenModel(UNSURE)) as offline:
        assert offline.ask(question).provisional
    with agent(home, SpokenModel(UNSURE), cloud.url) as online:
        assert online.ask(question).route == "cloud"
        assert [row.state for row in online.outbox.list()] == ["done"]
        assert [row["ending"] for row in online.store.log(5)] == [None, "overturned"]
        assert list(online.drain())[-1] == Drained(0, 0, 0, None)
    assert len(cloud.requests) == 1


def test_only_cloud_does_not_show_a_stored_reading(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE)) as one:
        one.ask(question)
    with agent(home, SpokenModel(SURE), cloud.url, policy="only_cloud") as two:
        assert two.ask(question).confidence is None


def test_with_missing_tables_the_answer_is_stored_in_a_new_file(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(SURE)) as one:
        with one.store.transaction() as db:
            db.execute("DROP TABLE decisions")
            db.execute("DROP TABLE readings")
        decision = one.ask(question)
    assert decision.answer == "A" and decision.persisted and list(home.glob("edge-agent.db.damaged-*"))


def test_another_tau_plans_again_from_stored_facts(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(UNSURE)) as strict:
        assert strict.ask(question).provisional
    never = SpokenModel(SURE)
    with agent(home, never, tau=0.25) as lenient:
        decision = lenient.ask(question)
    assert decision.reason == "confident" and decision.recalled and never.opened == 0


@pytest.mark.parametrize(("reply", "ending"), [("A", "upheld"), ("C", "overturned")])
def test_offline_question_is_queued_once_and_settled_when_the_cloud_is_back(
    home: pathlib.Path, question: Question, cloud: LoopbackCloud, reply: str, ending: str
) -> None:
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1") as offline:
        decisions = [offline.ask(question) for _ in range(3)]
        assert [(d.route, d.reason, d.cause, d.provisional) for d in decisions] == [("local", "offline", "unsure", True)] * 3
        assert len({d.queue_id for d in decisions}) == 1
        *_, drained = offline.drain()
        assert isinstance(drained, Drained) and drained.waiting == 1 and drained.stopped
        assert offline.outbox.list()[0].attempts == 0  # being offline costs no attempt
    cloud.reply = lambda body: reply
    with agent(home, SpokenModel(UNSURE), cloud.url) as online:
        assert list(online.drain())[-1] == Drained(answered=1, failed=0, waiting=0, stopped=None)
        rows = online.store.log(10)
        assert [(r["ending"], r["answer"], r["final_answer"]) for r in rows] == [(ending, "A", reply)] * 3
        assert online.ask(question).answer == reply
    assert len(cloud.requests) == 1


def test_queue_continues_after_a_question_that_the_cloud_cannot_answer(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        for stem in ("first", "second", "third"):
            one.ask(Question(stem, ("x", "y", "z")))
    cloud.reply = lambda body: "no idea" if "second" in body["messages"][0]["content"] else "B"
    with agent(home, SpokenModel(UNSURE), cloud.url) as two:
        assert list(two.drain())[-1] == Drained(answered=2, failed=1, waiting=1, stopped=None)
        assert [(row.state, row.attempts) for row in two.outbox.list()] == [("done", 1), ("ready", 1), ("done", 1)]
        assert [row["ending"] for row in two.store.log(3)] == ["overturned", None, "overturned"]
        for _ in range(2):  # before its time, by hand: that costs no attempt
            assert list(two.drain())[-1].failed == 1
        assert [(row.state, row.attempts) for row in two.outbox.list()] == [("done", 1), ("ready", 1), ("done", 1)]


def test_refused_key_stops_the_drain(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        for stem in ("first", "second"):
            one.ask(Question(stem, ("x", "y", "z")))
    cloud.status = 401
    with agent(home, SpokenModel(UNSURE), cloud.url) as two:
        *_, drained = two.drain()
    assert drained.waiting == 2 and "key" in drained.stopped and len(cloud.requests) == 1


def test_model_that_does_not_speak_the_format_is_deferred(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(replace(SURE, format_mass=0.01))) as one:
        decision = one.ask(question)
    assert (decision.cause, decision.reason, decision.provisional) == ("no_confidence", "no_cloud", True)


def test_only_cloud_without_an_answer_is_an_error_and_leaves_no_decision(home: pathlib.Path, question: Question) -> None:
    for url in (None, "http://127.0.0.1:9/v1"):
        model = SpokenModel(SURE)
        with agent(home, model, url, policy="only_cloud") as one:
            with pytest.raises(CloudUnavailable):
                one.ask(question)
            assert one.store.log(10) == [] and model.opened == 0


def test_only_cloud_answers_without_loading_the_model(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    model = SpokenModel(SURE)
    with agent(home, model, cloud.url, policy="only_cloud") as one:
        decision = one.ask(question)
    assert (decision.answer, decision.confidence, decision.level_probs, decision.reason) == ("B", None, None, "only_cloud")
    assert model.opened == 0


def test_prefer_cloud_keeps_both_answers(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(SURE), cloud.url, policy="prefer_cloud") as one:
        decision = one.ask(question)
    assert (decision.answer, decision.route, decision.cause, decision.confidence) == ("B", "cloud", "prefer_cloud", 1.0)


def test_answer_is_returned_even_if_it_cannot_be_stored(home: pathlib.Path, question: Question) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        with one.store.transaction() as db:
            db.execute("CREATE TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        decision = one.ask(question)
        assert decision.answer == "A" and not decision.persisted
        assert decision.queue_id is None and one.outbox.list() == []  # and it does not claim to be queued


def test_threads_share_an_agent(home: pathlib.Path) -> None:
    """Every answer is stored and every unsure question queued while many threads ask."""
    with agent(home, SpokenModel(UNSURE)) as shared, ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(shared.ask, (Question(f"{n}?", ("x", "y", "z")) for n in range(40))))
        assert all(decision.persisted for decision in decisions)
        assert len({decision.queue_id for decision in decisions}) == len(shared.outbox.list()) == 40


def test_refreshed_question_is_not_settled_by_an_older_answer(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE), cloud.url) as one:
        one.ask(question)
        cloud.status = 500
        assert one.ask(question, refresh=True).provisional
        cloud.status = 200
        cloud.reply = lambda body: "C"
        assert one.ask(question).recalled  # the old answer is shown, but settles nothing
        assert [row.state for row in one.outbox.list()] == ["ready"]
        assert list(one.drain())[-1].answered == 1
        assert one.ask(question).answer == "C"
    assert len(cloud.requests) == 3


def test_reading_is_stored_under_the_file_that_was_read(home: pathlib.Path, tmp_path: pathlib.Path, question: Question) -> None:
    """A model file that is replaced before the first reading is identified again."""
    path = tmp_path / "m.gguf"
    path.write_bytes(DEMO.read_bytes())
    with Agent(ModelFiles(path), Store(home / "edge-agent.db"), open_model=SpokenModel(SURE).open) as one:
        before = one.model.sha256
        path.write_bytes(DEMO.read_bytes() + b"\0" * 32)
        assert one.ask(question).model.sha256 != before
        assert one.store.database.rows("SELECT model_sha256 FROM readings") == [{"model_sha256": one.model.sha256}]


def test_deleted_model_file_is_reported_missing(home: pathlib.Path, tmp_path: pathlib.Path, question: Question) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(DEMO.read_bytes())
    with Agent(ModelFiles(path), Store(home / "edge-agent.db")) as one:
        path.unlink()
        with pytest.raises(ModelMissing):
            one.ask(question)


def test_model_file_is_hashed_once(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Same path, size, time and inode: the stored facts hold, even for a file that could not be read again."""
    path = tmp_path / "m.gguf"
    path.write_bytes(DEMO.read_bytes())
    Agent(ModelFiles(path), Store(home / "edge-agent.db")).close()
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"XXXX")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    Agent(ModelFiles(path), Store(home / "edge-agent.db")).close()
    os.utime(path)
    with Store(home / "edge-agent.db") as store, pytest.raises(ModelRefused):
        Agent(ModelFiles(path), store)


def test_cloud_is_called_while_the_letter_is_still_being_read(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    arrived = threading.Event()
    cloud.reply = lambda body: arrived.set() or "B"
    model = SpokenModel(UNSURE, before_letter=lambda: arrived.wait(5) or pytest.fail("the cloud was not asked before the letter"))
    with agent(home, model, cloud.url) as one:
        decision = one.ask(question)
    assert (decision.route, decision.answer, len(cloud.requests)) == ("cloud", "B", 1)
    assert decision.answer_probs is not None  # the letter was read too


def test_sure_level_does_not_call_the_cloud(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    """The letter's own format mass may still send the question there later."""
    with agent(home, SpokenModel(SURE), cloud.url) as one:
        assert one.ask(question).route == "local" and not cloud.requests


def test_full_queue_returns_the_local_answer_and_says_why(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(UNSURE), queue=DEFAULT_LIMITS.queue._replace(max_rows=2)) as one:
        decisions = [one.ask(Question(f"Q{n}", ("x", "y", "z"))) for n in range(3)]
        assert [(d.reason, d.provisional, d.queue_id, d.persisted) for d in decisions] == [
            ("no_cloud", True, 1, True), ("no_cloud", True, 2, True), ("queue_full", False, None, True),
        ]  # fmt: skip
        assert decisions[2].answer == "A" and decisions[2].cause == "unsure"
        assert one.ask(Question("Q0", ("x", "y", "z"))).queue_id == 1  # joining a row needs no room


def test_ask_never_drains(home: pathlib.Path, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as one:
        one.ask(Question("first", ("x", "y", "z")))
    with agent(home, SpokenModel(UNSURE), cloud.url) as two:
        two.ask(Question("second", ("x", "y", "z")))
        assert [row.state for row in two.outbox.list()] == ["ready"] and len(cloud.requests) == 1


def test_cloud_that_never_answers_is_not_called_after_five_failures(home: pathlib.Path) -> None:
    with agent(home, SpokenModel(UNSURE), "http://127.0.0.1:9/v1") as one:
        decisions = [one.ask(Question(f"Q{n}", ("x", "y", "z"))) for n in range(8)]
    errors = [d.cloud_error for d in decisions]
    assert [error == errors[0] for error in errors] == [True] * 5 + [False] * 3  # afterwards the breaker's words
    assert {d.reason for d in decisions} == {"offline"} and all(d.queue_id for d in decisions)
    assert "will not be called for" in decisions[-1].cloud_error


def test_caller_can_poll_or_wait_for_an_ending(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    with agent(home, SpokenModel(UNSURE)) as offline, agent(home, SpokenModel(UNSURE), cloud.url) as online:
        decision = offline.ask(question)
        first = offline.wait(decision.decision_id, timeout_s=0.05)
        assert first.waits and (first.answer, first.final_answer, first.ended_at) == ("A", None, None)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(offline.wait, decision.decision_id, 30)
            assert list(online.drain())[-1].answered == 1
            ended = waiting.result()
        assert (ended.ending, ended.answer, ended.final_answer) == ("overturned", "A", "B") and not ended.waits
        assert ended.ended_at >= ended.created_at == first.created_at
        sure = online.ask(question)
        assert not online.wait(sure.decision_id).waits  # final from the start
        with pytest.raises(BadQuestion, match="no decision 'nothing'"):
            online.ending("nothing")


def test_stored_answer_with_a_flipped_bit_is_asked_again(home: pathlib.Path, question: Question, cloud: LoopbackCloud) -> None:
    model = SpokenModel(UNSURE)
    with agent(home, model, cloud.url) as one:
        one.ask(question)
        with one.store.transaction() as db:
            db.execute("""UPDATE readings SET reading = replace(replace(reading, '"ABC"', '"ABQ"'), '"letter": "A"', '"letter": "Q"')""")
            db.execute("""UPDATE cloud_answers SET answer = replace(answer, '"answer": "B"', '"answer": "b"')""")
            db.execute("UPDATE model_files SET facts = replace(facts, 'levels', 'lev_ls')")
    with agent(home, model, cloud.url) as two:
        assert two.ask(question).answer == "B" and (model.ran, len(cloud.requests)) == (2, 2)
