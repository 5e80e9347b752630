"""README's picture, drawn from the files in ``docs/results``: ``python docs/draw_accuracy.py``.

The left half is the confusion matrix of ``best_cpu``, the right half the accuracy of each network over its number of
parameters. Everything is of FER2013's test split (3,589 faces); bars are 95 % intervals for other faces.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
BLUE, INK, RULE = "#2455c3", "#1b1f27", "#d5dae1"
SHOWN = {  # folder of docs/results -> file, label, and the label's offset in points and its alignment
    "mlp_seed0": ("test", "mlp", (-8, -3), "right"),
    "tiny": ("test_ten_crop", "tiny", (8, -3), "left"),
    "best_cpu": ("test_ten_crop", "best/cpu", (-8, -3), "right"),
    "cpu_ensemble": ("test_ten_crop", "ensemble", (-14, 16), "center"),
}


def evaluation(folder: str, name: str) -> dict[str, Any]:
    """Return the metrics of one kept evaluation."""
    return json.loads((DOCS / "results" / folder / f"{name}.json").read_text())


def draw_confusion(axes: Axes, counts: list[list[int]]) -> None:
    """Draw a confusion matrix (7, 7), each row as shares of its true emotion."""
    shares = [[count / sum(row) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            colour = "white" if share > 0.5 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS, rotation=40, ha="right")
    axes.set_yticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set(xlabel="predicted", ylabel="label", title="best/cpu: predictions per label, in %")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_accuracies(axes: Axes) -> None:
    """Draw the test accuracy of each network over its parameters, with 95 % intervals."""
    for folder, (name, label, offset, side) in SHOWN.items():
        found = evaluation(folder, name)
        accuracy, (low, high) = (100 * found["accuracy"], [100 * end for end in found["accuracy_ci95"]])
        error = [[accuracy - low], [high - accuracy]]
        axes.errorbar(found["parameters"], accuracy, error, marker="o", color=BLUE, capsize=2, markersize=5)
        position = {"xytext": offset, "textcoords": "offset points", "ha": side}
        axes.annotate(f"{label}: {accuracy:.2f} %", (found["parameters"], accuracy), **position)
    axes.set_xscale("log")
    axes.set(xlim=(2.5e5, 3e7), ylim=(45, 78), xlabel="parameters", ylabel="test accuracy, %")
    axes.set_title("accuracy over size (ten crops; mlp: one view)")
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw(file: Path) -> None:
    """Write the picture as SVG, the same bytes at each call."""
    fixed = {"svg.hashsalt": "fer", "font.size": 9, "axes.titlesize": 9, "text.color": INK, "axes.labelcolor": INK}
    with matplotlib.rc_context(fixed):
        figure = Figure(figsize=(8.4, 3.7), layout="constrained", facecolor="#fefefe")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
        draw_confusion(left, evaluation("best_cpu", "test_ten_crop")["confusion"])
        draw_accuracies(right)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(DOCS / "pictures" / "accuracy.svg")
