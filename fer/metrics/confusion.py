"""Metrics that a confusion matrix gives."""

from fer.metrics.arrays import Array, library


def from_confusion(confusion: Array) -> dict[str, Array]:
    """Return accuracy, macro-F1, balanced accuracy (...) and precision, recall, F1 (..., C) of matrices (..., C, C).

    All in float64. A class that was never predicted has precision 0. A class without faces has recall and F1 0, and
    both means leave it out, predicted or not. A face predicted as an absent class lowers the recall of its own class.
    Macro-F1 is scikit-learn's ``f1_score(labels=present, average="macro")``.
    """
    lib = library(confusion)

    def double(values: Array) -> Array:
        return lib.asarray(values, dtype=lib.float64)

    hits = double(lib.diagonal(confusion, 0, -2, -1))  # (..., C)
    support, predicted = double(confusion.sum(-1)), double(confusion.sum(-2))
    recall = hits / support.clip(1)
    precision = hits / predicted.clip(1)
    f1 = 2 * hits / (support + predicted).clip(1)
    present = double(support > 0)
    classes = present.sum(-1).clip(1)  # classes with faces
    return {
        "accuracy": hits.sum(-1) / support.sum(-1).clip(1),
        "macro_f1": (f1 * present).sum(-1) / classes,
        "balanced_accuracy": (recall * present).sum(-1) / classes,
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
