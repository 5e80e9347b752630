"""``model_card.md`` beside an evaluation: what a network is, on what it was scored, how well, and what it is not for.

Its opening is Hugging Face's metadata (``model-index``), so that the file serves as a repository's README.md there
(https://huggingface.co/docs/hub/model-cards); its parts follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer.config.conf import as_yaml
from fer.metrics.table import METRICS, PERCENT, TEMPERED
from fer.reports.summary import (
    WHOSE_ERRORS,
    absent_in_words,
    answering_in_words,
    difference_rows,
    ensemble_in_words,
    if_any,
    metric_rows,
    same_views,
    seen_in_choice_in_words,
    stated,
    taught_in_words,
    training_in_words,
    worded,
)
from fer.system.files import CHANCE, written_whole
from fer.system.text import markdown_table, sentence, times

# metric of Hugging Face's hub -> figure of metrics.json
HUB_METRICS = {"accuracy": "accuracy", "f1": "macro_f1", "roc_auc": "roc_auc"}

LIMITS = Path(__file__).with_suffix(".md")  # what is true of every network of this kind


def write(results: Mapping[str, Any], file: Path) -> None:
    """Write the card of an evaluation.

    Args:
        results: as in ``metrics.json``.
        file: to write.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(file) as stream:
        stream.write(f"---\n{as_yaml(metadata(results))}---\n\n{body(results)}")


def metadata(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card's metadata, as Hugging Face's hub reads them."""
    dataset = results["dataset"]
    views = "" if results["tta"] == "none" else f", {results['tta']}"  # one network's figure is not that of its views
    measured = [
        {"type": metric, "name": f"{METRICS[figure].title}{_clean_name(where)}{views}", "value": round(held[figure], 4)}
        for where, held in (("", results), ("clean", results.get("clean")))
        if held
        for metric, figure in HUB_METRICS.items()
        if held[figure] is not None
    ]
    scored = {"type": dataset["name"], "name": f"{dataset['name']} ({dataset['labels']})", "split": results["split"]}
    return {
        "library_name": "fer-lightning",
        "pipeline_tag": "image-classification",
        "tags": ["facial-emotion-recognition", "pytorch-lightning", *results["architecture"].split(" + ")],
        "datasets": [dataset["name"]],
        "metrics": list(HUB_METRICS),
        "model-index": [
            {
                "name": results["architecture"],
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


def _clean_name(where: str) -> str:
    return ", clean" if where else ""


def body(results: Mapping[str, Any]) -> str:
    """Return the card's text."""
    parts = {
        f"{results['architecture']}, facial-emotion recognition": about(results),
        "Figures": figures(results),
        "Emotion by emotion": by_emotion(results),
        "Calibration": calibration(results),
        "The crowd": crowd(results),
        "Against another": against(results),
    }
    told = [f"{'##' if place else '#'} {title}\n\n{text}" for place, (title, text) in enumerate(parts.items()) if text]
    return "\n".join([*told, LIMITS.read_text(encoding="utf-8"), f"## How it was made\n\n{provenance(results)}"])


def about(results: Mapping[str, Any]) -> str:
    """Return what it is, in a few lines."""
    emotions = ", ".join(results["per_class"])
    told = ensemble_in_words(results)
    several = f"{sentence(told)} " if told else ""
    views = "" if results["tta"] == "none" else f" Test-time augmentation: {results['tta']}."
    from fer.models.checkpoints import called  # torch comes in here

    called_so = called(Path(results["checkpoint"]))
    use = (
        "```python\nimport fer\n\n"
        f'model = fer.load("{called_so}")              # faces (B, 1, 48, 48), uint8 or float in [0, 1]\n'
        'probabilities = model.probabilities(faces) # (B, C), in the order of model.hparams["classes"]\n```\n'
    )
    return (
        f"{several}Reads one of {len(results['per_class'])} labels ({emotions}) from a grey face. "
        f"{results['parameters']:,} parameters.{views}\n\n{'' if len(results['members']) > 1 else use}"
    )


def figures(results: Mapping[str, Any]) -> str:
    """Return protocol and the table of figures."""
    dataset, clean = results["dataset"], results.get("clean")
    heads = ["figure", f"{results['split']}, {results['n']:,} faces", *([f"clean, {clean['n']:,}"] if clean else [])]
    rows = metric_rows(results)
    twins = "without the faces that have an exact twin among those trained on"
    if not clean:
        twins = "could not be told" if results.get("seen_in_training") is None else "none, all were trained on"
    notes = [
        f"Data: {dataset['name']} ({dataset['layout']}), labels: {dataset['labels']}, split: {dataset['split']}; "
        f"scored: {results['split']}.",
        "Whatever was chosen (epoch, temperature, weights of an ensemble) was chosen on val.",
        f"95 % intervals are for other faces, not for other seeds. Clean: {twins}. {CHANCE}",
    ]
    notes += [f"Of the data: {note}." for note in dataset["notes"]]
    if dataset["skipped"]:
        notes.append(f"{len(dataset['skipped']):,} bad rows or files were skipped.")
    if results.get("temperature_fitted_on") == "these faces":
        notes.append("The epoch was chosen on these very faces, which flatters the figures a little.")
    if results.get("test_opened"):
        whom = "this network" if len(results["members"]) == 1 else "at least one of these networks"
        notes.append(f"The test split had been opened {times(results['test_opened'])} for {whom} by then.")
    if copies := seen_in_choice_in_words(results):
        notes.append(copies)
    if taught := taught_in_words(results):
        notes.append(f"Learnt from {taught}.")
    notes.append(f"Pretrained weights: {(results.get('pretrained') or {}).get('name', 'none')}.")
    return " ".join(notes) + "\n\n" + markdown_table(heads, rows) + "\n"


def by_emotion(results: Mapping[str, Any]) -> str:
    """Return the table of the classes."""
    heads = ["emotion", "faces", "precision", "recall", "F1", "ROC AUC"]
    rows = [
        [
            name,
            f"{values['support']:,}",
            _with_ends(values, "precision"),
            if_any(values, _with_ends(values, "recall")),
            if_any(values, f"{100 * values['f1']:.1f} %"),
            "none" if values["roc_auc"] is None else f"{values['roc_auc']:.3f}",
        ]
        for name, values in results["per_class"].items()
    ]
    absent = [f"There is {told}." for told in absent_in_words(results)]
    return "\n\n".join([markdown_table(heads, rows), *absent]) + "\n"


def _with_ends(values: Mapping[str, Any], figure: str) -> str:
    low, high = (100 * end for end in values[f"{figure}_ci95"])
    return f"{100 * values[figure]:.1f} % [{low:.1f}, {high:.1f}]"


def calibration(results: Mapping[str, Any]) -> str:
    """Return what the temperature does, and what answering only where confident."""
    lines = []
    if warm := results.get("calibrated"):
        rows = [[METRICS[name].title, worded(name, results), worded(name, warm)] for name in stated(TEMPERED, warm)]
        heads = ["", "as it is", f"temperature {results['temperature']:.3f}"]
        alone = len(results["members"]) == 1 and results["tta"] == "none"
        kept = alone and results.get("temperature_kept")
        used = (
            "`model.probabilities` uses it"
            if kept
            else "for these figures alone: `model.probabilities` uses what its checkpoint keeps"
        )
        fitted = f"Fitted on {results['temperature_fitted_on']}; {used}."
        lines += [markdown_table(heads, rows), "", fitted]
    surest = ", ".join(
        f"{100 * float(coverage):.0f} %: {100 * error:.1f} %"
        for coverage, error in results["selective"]["error_at_coverage"].items()
    )
    lines += ["", f"Wrong among the surest answers, by the share of faces answered: {surest}."]
    if found := results.get("answering"):
        lines += ["", answering_in_words(found)]
    return "\n".join(lines).lstrip("\n") + "\n"


def crowd(results: Mapping[str, Any]) -> str:
    """Return the agreement with FER+'s annotators; empty where their votes were not given."""
    found = results.get("crowd")
    if not found:
        return ""
    annotator, errors = found["annotator"], found["errors"]
    rows = [[words, f"{errors[key]:,}"] for key, words in WHOSE_ERRORS.items()]
    shares = {who: f"{100 * share:.1f} %" for who, share in annotator.items()}
    table = markdown_table([f"of its {errors['all']:,} errors", "faces"], rows)
    return (
        f"One of FER+'s ten annotators, drawn at random, gives the network's answer in {shares['network']} of the "
        f"faces, the label in {shares['labels']}, and the answer that most give in {shares['best']}.\n\n{table}\n"
    )


def against(results: Mapping[str, Any]) -> str:
    """Return the paired differences to another network; empty where none was named."""
    found = results.get("against")
    if not found:
        return ""
    rows = difference_rows(found)
    return (
        f"This minus `{found['name']}`, on the same faces{same_views(found)}, in points for {', '.join(PERCENT)}.\n\n"
        f"{markdown_table(['figure', 'difference', '95 %'], rows)}\n"
    )


def provenance(results: Mapping[str, Any]) -> str:
    """Return how it was trained and scored, code, versions and machine."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = [
        *(["trained by", f"`{told}`"] for member in results["members"] if (told := training_in_words(member))),
        ["scored by", f"`{results['command']}`"],
        ["data's fingerprint", f"`{results['dataset']['fingerprint']}`"],
        ["code that scored", f"`{results.get('commit') or 'the installed package'}`"],
        ["versions", versions],
        ["machine", str(results["hardware"]["gpu"] or results["hardware"]["cpu"])],
        ["finished", str(results["finished"])],
    ]
    return markdown_table(["", ""], rows) + "\n"
