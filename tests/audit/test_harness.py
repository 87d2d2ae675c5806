import json
import random
from pathlib import Path

import pytest
import torch
from lm_eval.loggers.utils import get_git_commit_hash

from tests import chats
from tests.pico import pico
from unlearn.audit.harness import read_result, run_task
from unlearn.audit.tasks import read_task, task_files
from unlearn.errors import AuditError, ModelError
from unlearn.model.editable import EditableModel


@pytest.fixture(scope="module")
def model() -> EditableModel:
    return pico("llama")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks of six items: one of choices, one of generated text."""
    rows = [
        {"text": f"What colour is item {i}?", "choices": ["green", "wet stone"], "label": i % 2}
        for i in range(6)
    ]
    (tmp_path / "pick.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "say.jsonl").write_text(
        "\n".join(json.dumps({"text": row["text"], "answer": "x"}) for row in rows)
    )
    head = "dataset_path: json\ntest_split: test\n"
    head += "dataset_kwargs: {data_files: {test: %s.jsonl}}\ndoc_to_text: '{{text}}'\n"
    metric = (
        "metric_list: [{metric: %s, aggregation: mean, higher_is_better: %s}]\nmetadata: {version: 1%s}\n"
    )
    choices = "doc_to_choice: '{{choices}}'\ndoc_to_target: label\n"
    pick = head % "pick" + choices + "output_type: multiple_choice\n"
    (tmp_path / "pick.yaml").write_text("task: pick\n" + pick + metric % ("acc", "true", ""))
    (tmp_path / "worse.yaml").write_text("task: worse\n" + pick + metric % ("acc", "false", ""))
    say = head % "say" + "doc_to_target: '{{answer}}'\noutput_type: generate_until\n"
    say += "generation_kwargs: {until: ['<|end|>'], max_gen_toks: 4, do_sample: false}\n"
    (tmp_path / "say.yaml").write_text("task: say\n" + say + metric % ("exact_match", "true", ", chat: true"))
    (tmp_path / "absent.yaml").write_text("task: absent\n" + head % "absent" + choices)
    (tmp_path / "code.yaml").write_text("task: code\n")
    return tmp_path


def choice_reference(model: EditableModel, folder: Path) -> list[float]:
    """What lm-eval should find: the summed log-probability of each choice after the text, in float64."""
    right = []
    for line in (folder / "pick.jsonl").read_text().splitlines():
        row = json.loads(line)
        sums = []
        for choice in row["choices"]:
            context = model.tokenizer(row["text"])["input_ids"]
            whole = model.tokenizer(f"{row['text']} {choice}")["input_ids"]
            logits = torch.log_softmax(model.model(torch.tensor([whole])).logits[0].double(), -1)
            sums.append(sum(float(logits[i - 1, whole[i]]) for i in range(len(context), len(whole))))
        right.append(float(sums[row["label"]] == max(sums)))
    return right


def test_local_tasks_give_what_a_plain_computation_gives(model: EditableModel, folder: Path) -> None:
    state = random.getstate(), torch.random.get_rng_state()
    pick, say = (run_task(model, name, local=task_files(folder)) for name in ("pick", "say"))
    assert list(pick.items.values()) == choice_reference(model, folder)
    assert pick.value == pytest.approx(sum(pick.items.values()) / 6) and pick.binary and pick.metric == "acc"
    assert say.metric == "exact_match" and len(say.items) == 6
    assert random.getstate() == state[0] and torch.equal(torch.random.get_rng_state(), state[1])


def test_weights_and_tokenizer_are_left_alone(model: EditableModel, folder: Path) -> None:
    before = model.identity(), model.tokenizer.padding_side, model.tokenizer.pad_token
    run_task(model, "pick", local=task_files(folder))
    assert (model.identity(), model.tokenizer.padding_side, model.tokenizer.pad_token) == before


def test_a_tokenizer_that_closes_texts_gives_the_scores_of_one_that_does_not(folder: Path) -> None:
    """The ids that lm-eval feeds are compared, since a pico model's scores may be equal by chance."""

    def fed(end: tuple[str, ...]) -> list[list[int]]:
        tokenizer = chats.tokenizer(chats.Kind("bytes", (chats.BOS,), end, template=chats.MARKUP))
        own = EditableModel(pico("llama").model, tokenizer, "pico")
        seen: list[list[int]] = []
        hook = own.model.register_forward_pre_hook(
            lambda _m, args, kwargs: seen.extend((kwargs.get("input_ids", *args)).tolist()), with_kwargs=True
        )
        for name in ("pick", "say"):
            run_task(own, name, local=task_files(folder))
        hook.remove()
        return seen

    closed, control = fed(("<|end|>",)), fed(())
    assert closed == control
    picked = [row for row in control if row[0] == 0]
    assert picked and all(row[1] != 0 for row in picked)
    # A chat that is rendered without a start token is fed without one.
    assert any(row[0] == 2 for row in control)


def test_limit_and_silence(model: EditableModel, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = run_task(model, "pick", limit=3, local=task_files(folder))
    assert len(found.items) == 3
    out, err = capfd.readouterr()
    assert out == "" and err == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [("absent", "data of task absent"), ("worse", "more is better"), ("code", "names no data")],
)
def test_a_task_that_cannot_be_run_gives_its_reason(
    model: EditableModel, folder: Path, name: str, reason: str
) -> None:
    with pytest.raises(AuditError, match=reason):
        run_task(model, name, limit=2, local=task_files(folder))
    assert run_task(model, "pick", limit=2, local=task_files(folder)).items, "the control"


@pytest.mark.slow
def test_hub_tasks_fail_in_a_sentence_without_a_network(model: EditableModel, folder: Path) -> None:
    for name, reason in (("arc_easy", "could not run arc_easy"), ("no_such", "no lm-eval task 'no_such'")):
        with pytest.raises(AuditError, match=reason):
            run_task(model, name, limit=2, local=task_files(folder))


def test_a_task_file_that_calls_code_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("task: bad\nprocess_docs: !function evil.run\n")
    with pytest.raises(AuditError, match="bad.yaml:2"):
        read_task(task_files(tmp_path)["bad"])


def test_shipped_tasks_have_enough_items() -> None:
    found = task_files()
    assert len(found) >= 4
    for path in found.values():
        assert len((path.parent / f"{path.stem}.jsonl").read_text().splitlines()) >= 150


def result(row: dict[str, object], **rest: object) -> dict[str, object]:
    return {"results": {"t": row}, "higher_is_better": {"t": {"acc": True, "ppl": False, "f1": True}}, **rest}


def test_the_metric_is_chosen_by_preference_and_direction() -> None:
    row = {"f1,none": 0.3, "f1_stderr,none": 0.01, "acc,none": 0.5, "acc_stderr,none": 0.02, "ppl,none": 9.0}
    found = read_result(result(row), "t")
    assert (found.metric, found.value, found.stderr) == ("acc", 0.5, 0.02)
    assert read_result(result({"acc,none": 0.5, "acc_stderr,none": "N/A"}), "t").stderr is None
    with pytest.raises(AuditError, match="no metric"):
        read_result(result({"ppl,none": 9.0}), "t")
    with pytest.raises(AuditError, match="finite"):
        read_result(result({"acc,none": float("nan")}), "t")
    with pytest.raises(AuditError, match="no result"):
        read_result(result({}), "other")


def test_groups_pool_the_items_of_their_tasks() -> None:
    samples = {
        "a": [{"doc_id": 0, "acc": 1.0, "filter": "none"}, {"doc_id": 0, "acc": 0.0, "filter": "strict"}],
        "b": [{"doc_id": 0, "acc": 0.0, "filter": "none"}],
    }
    higher = {"a": {"acc": True}, "b": {"acc": True}}
    found = read_result(
        {"results": {}, "groups": {"g": {"acc,none": 0.5}}, "samples": samples, "higher_is_better": higher},
        "g",
    )
    assert found.items == {"a/0": 1.0, "b/0": 0.0}


def test_a_model_of_nan_has_no_score() -> None:
    model = pico("llama")
    model.weight(model.anatomy.weight_name(0)).fill_(torch.nan)
    for name in ("unlearn_kept_facts", "unlearn_instructions"):
        with pytest.raises(ModelError, match="logits that are not finite"):
            run_task(model, name, 2)


def test_outside_of_a_checkout_git_says_nothing_on_the_terminal(
    model: EditableModel,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    run_task(model, "pick", 2, task_files(folder))
    assert capfd.readouterr().err == ""
    get_git_commit_hash()  # the control: what lm-eval does by itself
    assert "not a git repository" in capfd.readouterr().err
