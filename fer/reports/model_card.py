"""``model_card.md``, the model card of a network beside its evaluation.

It has the network, its data, its metrics, and the uses to keep away from. The file opens with Hugging Face's metadata
(``model-index``), so that it serves as a repository's README.md there (https://huggingface.co/docs/hub/model-cards).
Its parts follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from collections.abc import Mapping
from pathlib import Path

from fer.config.conf import as_yaml
from fer.data.faces import bad_rows_in_words
from fer.inference.exported import is_exported
from fer.metrics.results import (
    THESE_FACES,
    Annotators,
    BaselineComparison,
    Results,
    Scores,
    SetsRecord,
    Value,
)
from fer.metrics.table import METRICS, PERCENT, TEMPERED
from fer.reports.summary import (
    CHANCE,
    SET_HEADS,
    absent_in_words,
    answering_in_words,
    difference_rows,
    ensemble_in_words,
    errors_by_vote,
    if_any,
    if_predicted,
    metric_rows,
    metric_text,
    others,
    same_views,
    seen_by_baseline,
    seen_by_content_in_words,
    seen_in_choice_in_words,
    set_rows,
    sets_in_words,
    stated,
    teachers_in_words,
    training_in_words,
)
from fer.runs import zoo
from fer.system.files import written_whole
from fer.system.text import code_span, in_markdown, markdown_table, sentence, times

# metric of Hugging Face's hub -> metric of metrics.json
HUB_METRICS = {"accuracy": "accuracy", "f1": "macro_f1", "roc_auc": "roc_auc"}
LIMITS = Path(__file__).with_suffix(".md")  # what is true of every network of this kind


def write(results: Results, file: Path) -> None:
    """Write the card of an evaluation.

    Raises:
        OSError: the file cannot be written.
    """
    with written_whole(file) as stream:
        stream.write(f"---\n{as_yaml(metadata(results))}---\n\n{body(results)}")


# --- metadata -------------------------------------------------------------------------------------------------------


def metadata(results: Results) -> Mapping[str, object]:
    """Return the card's metadata, as Hugging Face's hub reads them."""
    dataset = results.dataset
    scored = {"type": dataset.name, "name": f"{dataset.name} ({dataset.labels})", "split": results.split}
    measured = [*_measured(results.scores, "", results.tta)]
    if results.clean:
        measured += _measured(results.clean, ", clean", results.tta)
    return {
        "library_name": "fer-lightning",
        "pipeline_tag": "image-classification",
        "tags": ["facial-emotion-recognition", "pytorch-lightning", *results.architecture.split(" + ")],
        "datasets": [dataset.name],
        "metrics": list(HUB_METRICS),
        "model-index": [
            {
                "name": results.architecture,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Facial-emotion recognition"},
                        "dataset": scored,
                        "metrics": measured,
                    }
                ],
            }
        ],
    }


def _measured(scores: Scores, faces: str, tta: str) -> list[dict[str, str | float]]:
    """Return the hub's metrics; their names state the faces and the views, which are not the network's own metric."""
    views = "" if tta == "none" else f", {tta}"
    return [
        {"type": hub, "name": f"{METRICS[name].title}{faces}{views}", "value": round(value, 4)}
        for hub, name in HUB_METRICS.items()
        if (value := scores.metrics[name].value) is not None
    ]


# --- text -----------------------------------------------------------------------------------------------------------


def body(results: Results) -> str:
    """Return the card's text."""
    parts = {
        f"{in_markdown(results.architecture)}, facial-emotion recognition": about(results),
        "Metrics": metrics(results),
        "Emotion by emotion": by_emotion(results),
        "Calibration": calibration(results),
        "FER+ annotators": annotators(results.annotators) if results.annotators else "",
        "Prediction sets": prediction_sets(results.sets) if results.sets else "",
        "Comparison with a baseline": comparison(results, results.comparison) if results.comparison else "",
    }
    texts = [f"{'##' if index else '#'} {title}\n\n{text}" for index, (title, text) in enumerate(parts.items()) if text]
    return "\n".join([*texts, LIMITS.read_text(encoding="utf-8"), f"## How it was made\n\n{provenance(results)}"])


def about(results: Results) -> str:
    """Return what the network is, in a few lines."""
    classes = list(results.scores.per_class)
    ensemble = ensemble_in_words(results)
    several = f"{sentence(ensemble)} " if ensemble else ""
    views = "" if results.tta == "none" else f" Test-time augmentation: {results.tta}."
    use = _use(zoo.called(Path(results.evaluation.checkpoint if results.evaluation else "")))
    alone = results.members[0].network if len(results.members) == 1 else None
    return (
        f"{several}Predicts one of {len(classes)} labels ({in_markdown(', '.join(classes))}) from a face. "
        f"Network: {in_markdown(results.architecture)}, {results.parameters:,} parameters.{views}\n\n"
        f"{use if alone and alone.weights_sha256 else ''}"
    )


def _use(network: str) -> str:
    """Return the code that computes probabilities with a network, Markdown."""
    made = f'import fer\n\nmodel = fer.load("{network}")', 'model.hparams["classes"]'
    if is_exported(network):
        opened = f'model = ExportedNetwork(Path("{network}"))'
        made = (
            f"from pathlib import Path\n\nfrom fer.inference.exported import ExportedNetwork\n\n{opened}",
            "model.emotions",
        )
    code, order = made
    return (
        f"```python\n{code}\n"
        "# faces (B, model.in_channels, model.image_size, model.image_size), uint8 or float in [0, 1]\n"
        f"probabilities = model.probabilities(faces)  # (B, C), in the order of {order}\n```\n"
    )


def metrics(results: Results) -> str:
    """Return the protocol and the table of metrics."""
    clean = results.clean
    heads = ["metric", f"{results.split}, {results.scores.n:,} faces", *([f"clean, {clean.n:,}"] if clean else [])]
    notes = in_markdown("\n".join(f"- {note}" for note in (*_protocol(results), *_choices(results))))
    return f"{notes}\n\n{markdown_table(heads, metric_rows(results))}\n"


def _protocol(results: Results) -> list[str]:
    """Return in words the data, the split and the clean faces."""
    dataset = results.dataset
    clean = "without the faces that were trained on, which are found by exact duplicates and by content"
    if not results.clean:
        clean = "not known" if results.seen_in_training is None else "none, all were trained on"
    notes = [
        f"Data: {dataset.name} ({dataset.layout}), labels: {dataset.labels}, split: {dataset.split}; "
        f"scored: {results.split}.",
        "Whatever was chosen (epoch, temperature, weights of an ensemble) was chosen on val.",
        f"95 % intervals are not for other seeds, but for {others(results.scores)}. Clean: {clean}. {CHANCE}",
        *(f"Of the data: {note}." for note in dataset.notes),
    ]
    return [*notes, f"Skipped: {bad_rows_in_words(dataset.skipped)}."] if dataset.skipped else notes


def _choices(results: Results) -> list[str]:
    """Return in words what has shaped the network, and how often test was opened."""
    notes = []
    if results.temperature_fitted_on == THESE_FACES:
        notes.append("The epoch was chosen on these very faces, which flatters the metrics a little.")
    if results.test_opened:
        network = "this network" if len(results.members) == 1 else "at least one of these networks"
        notes.append(f"The test split had been opened {times(results.test_opened)} for {network} by then.")
    notes += [copies for words in (seen_by_content_in_words, seen_in_choice_in_words) if (copies := words(results))]
    if teachers := teachers_in_words(results):
        notes.append(f"Learnt from {teachers}.")
    return [*notes, f"Pretrained weights: {results.pretrained.name if results.pretrained else 'none'}."]


def by_emotion(results: Results) -> str:
    """Return the table of the classes."""
    heads = ["emotion", "faces", "precision", "recall", "F1", "ROC AUC"]
    rows = [_class_row(results.scores, name) for name in results.scores.per_class]
    absent = [f"There is {words}." for words in absent_in_words(results)]
    return "\n\n".join([markdown_table(heads, rows), *absent]) + "\n"


def _class_row(scores: Scores, name: str) -> list[str]:
    values = scores.per_class[name]
    area = values.roc_auc.value if values.roc_auc else None
    return [
        name,
        f"{values.support:,}",
        if_predicted(scores, name, _with_ends(values.precision)),
        if_any(values, _with_ends(values.recall)),
        if_any(values, f"{100 * values.f1.number:.1f} %"),
        "none" if area is None else f"{area:.3f}",
    ]


def _with_ends(share: Value) -> str:
    low, high = (100 * end for end in share.ci95 or (0.0, 1.0))
    return f"{100 * share.number:.1f} % [{low:.1f}, {high:.1f}]"


def calibration(results: Results) -> str:
    """Return what the temperature changes, and the error where only confident answers count."""
    lines = []
    if results.calibrated:
        before, after = results.metrics, results.calibrated
        names = stated(TEMPERED, after)
        rows = [[METRICS[name].title, metric_text(name, before), metric_text(name, after)] for name in names]
        heads = ["", "without temperature", f"temperature {results.temperature:.3f}"]
        kept = len(results.members) == 1 and results.tta == "none" and results.temperature_kept
        used = (
            "`model.probabilities` uses it"
            if kept
            else "for these metrics alone: `model.probabilities` uses what its checkpoint keeps"
        )
        lines += [markdown_table(heads, rows), "", f"Fitted on {results.temperature_fitted_on}; {used}."]
    if results.selective:
        errors = results.selective.error_at_coverage.items()
        surest = ", ".join(f"{100 * float(coverage):.0f} %: {100 * error:.1f} %" for coverage, error in errors)
        lines += ["", f"Wrong among the most confident answers, by the share of faces answered: {surest}."]
    if results.answering:
        lines += ["", answering_in_words(results.answering)]
    return "\n".join(lines).lstrip("\n") + "\n"


def prediction_sets(found: SetsRecord) -> str:
    """Return coverage and size of the prediction sets."""
    return f"{sets_in_words(found)}\n\n{markdown_table(SET_HEADS, set_rows(found))}\n"


def annotators(found: Annotators) -> str:
    """Return the agreement with FER+'s annotators."""
    shares = found.annotator
    rows = [[words, count] for words, count, _ in errors_by_vote(found.errors)]
    table = markdown_table([f"of its {found.errors.all:,} errors", "faces"], rows)
    return (
        f"One of FER+'s ten annotators, drawn at random, gives the network's answer in {100 * shares.network:.1f} % of "
        f"the faces, the label in {100 * shares.labels:.1f} %, and the answer that most give in "
        f"{100 * shares.best:.1f} %.\n\n{table}\n"
    )


def comparison(results: Results, found: BaselineComparison) -> str:
    """Return the paired differences to a baseline."""
    return (
        f"This minus {code_span(found.name)}, on the same faces{same_views(results)}, "
        f"in points for {', '.join(PERCENT)}.\n\n"
        f"{markdown_table(['metric', 'difference', '95 %'], difference_rows(found.paired))}\n"
        + (f"\n{seen}\n" if (seen := seen_by_baseline(found)) else "")
    )


def provenance(results: Results) -> str:
    """Return how the network was trained and scored, code, versions and machine."""
    machine = results.machine
    trained = [words for member in results.members if (words := training_in_words(member.trained))]
    rows = [
        *(["trained by", code_span(words)] for words in trained),
        ["scored by", code_span(results.command)],
        ["data's fingerprint", code_span(results.dataset.fingerprint)],
        ["code that scored", f"`{machine.commit or 'the installed package'}`"],
        ["versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())],
        ["machine", machine.hardware.gpu or machine.hardware.cpu],
        ["finished", str(machine.finished)],
    ]
    return markdown_table(["", ""], rows) + "\n"
