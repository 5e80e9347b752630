"""The figures of a result.

They are curves, confusion matrix, reliability diagram, figures per class, and sheets of faces. Each function takes
plain values and returns a ``matplotlib.figure.Figure``; call them, and save, within ``fer.reports.plotting.style``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from fer.metrics.calibration import bins_of, risk_by_coverage
from fer.metrics.results import PerClass, SelectionRecord
from fer.metrics.statistics import wilson
from fer.reports.plotting import WIDTH, PerCent, bare, canvas
from fer.reports.theme import PAPER

LARGEST = 96  # pixels, the side of a face in a page or figure
MOST_OPAQUE = 0.52  # of a cell's colour: dark text on white and light text on black stay readable
FEW, PALE = 10, 0.35  # faces of a bar that is drawn pale, and its opacity
GAP = 4  # pixels of a face between the faces of a sheet


def curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> Figure:
    """Draw loss and accuracy of train and val by epoch, and the learning rate below.

    Args:
        history: a row for each epoch: epoch (from 1), loss/train, loss/val, accuracy/train, accuracy/val,
            learning_rate.
        best_epoch: the chosen epoch, from 1.
    """
    figure, rows = canvas(5.0, 3, sharex=True, height_ratios=[3, 3, 1.3])
    loss, accuracy, rate = rows[:, 0]
    epochs = [row["epoch"] for row in history]
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        for split in ("train", "val"):
            values = [row[f"{name}/{split}"] for row in history]
            axes.plot(epochs, values, color=PAPER[split], label=split, marker="o", markersize=_dot(len(epochs)))
        axes.set_title(name.capitalize())
    loss.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    accuracy.yaxis.set_major_formatter(PerCent())
    rates = [row["learning_rate"] for row in history]
    rate.plot(epochs, rates, color=PAPER["soft"], marker="o", markersize=_dot(len(epochs)))
    rate.set_title("Learning rate at the epoch's end")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("epoch")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, prune="lower") if len(epochs) > 1 else FixedLocator(epochs))
    rate.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    for axes in (loss, accuracy, rate):
        axes.axvline(best_epoch, color=PAPER["good"], linewidth=1, linestyle=(0, (2, 2)))
    chosen = next(row for row in history if row["epoch"] == best_epoch)
    accuracy.plot([best_epoch], [chosen["accuracy/val"]], marker="o", markersize=5, color=PAPER["good"])
    title = f"chosen: epoch {best_epoch}, val {100 * chosen['accuracy/val']:.1f} %"
    accuracy.set_title(title, loc="right", color=PAPER["good"], fontsize=8, fontweight="normal")
    return figure


def _dot(epochs: int) -> float:
    """Return the size of an epoch's dot; 0 for many epochs, which form a visible line without dots."""
    return 3.0 if epochs <= 15 else 0.0


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: a row for each label, in each cell the share of the row and the count.

    Args:
        matrix: (C, C) counts, rows are labels, columns are predictions.
        classes: C names.
    """
    counts = np.asarray(matrix)
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    size = len(classes)
    figure, axes = canvas(WIDTH * 0.94)
    grid = bare(axes[0, 0])
    for row, column in np.ndindex(size, size):
        _cell(grid, row, column, float(shares[row, column]), int(counts[row, column]))
    grid.set_xlim(0, size)
    grid.set_ylim(size, 0)
    grid.set_aspect("equal")
    middles = np.arange(size) + 0.5
    grid.set_xticks(middles, classes, rotation=35, ha="right", rotation_mode="anchor")
    grid.set_yticks(middles, [f"{name}\n{total:,}" for name, total in zip(classes, counts.sum(1), strict=True)])
    grid.set_xlabel("predicted")
    grid.set_ylabel("labelled")
    return figure


def _cell(axes: Axes, row: int, column: int, share: float, count: int) -> None:
    _square(axes, row, column, share, PAPER["val"] if row == column else PAPER["bad"])
    for y, words, size in ((0.42, f"{100 * share:.0f} %", 8.5), (0.75, f"{count:,}", 7)):
        axes.text(column + 0.5, row + y, words, ha="center", va="center", fontsize=size)


def _square(axes: Axes, row: int, column: int, share: float, colour: str) -> None:
    corner = (column + 0.02, row + 0.02)
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=PAPER["faint"], linewidth=0))
    axes.add_patch(Rectangle(corner, 0.96, 0.96, facecolor=colour, alpha=MOST_OPAQUE * share, linewidth=0))


def disagreement(matrix: Sequence[Sequence[float]]) -> Figure:
    """Draw the share of faces on which each two of M networks disagree, (M, M), with the networks numbered from 1."""
    size = len(matrix)
    largest = max(max(row) for row in matrix) or 1.0
    figure, axes = canvas(min(WIDTH, 1.2 + 0.45 * size))
    grid = bare(axes[0, 0])
    for row, column in np.ndindex(size, size):
        share = matrix[row][column]
        _square(grid, row, column, share / largest, PAPER["bad"])
        if row != column:
            grid.text(column + 0.5, row + 0.5, f"{100 * share:.0f} %", ha="center", va="center", fontsize=8)
    grid.set_xlim(0, size)
    grid.set_ylim(size, 0)
    grid.set_aspect("equal")
    names = [str(index + 1) for index in range(size)]
    grid.set_xticks(np.arange(size) + 0.5, names)
    grid.set_yticks(np.arange(size) + 0.5, names)
    grid.set_xlabel("network")
    grid.set_ylabel("network")
    return figure


def selection(selection: SelectionRecord) -> Figure:
    """Draw an ensemble's val accuracy and NLL by the networks added; the accuracies of the best alone and of all."""
    figure, rows = canvas(3.6, rows=2, sharex=True)
    axes, below = rows[:, 0]
    added = range(1, len(selection.steps) + 1)
    accuracies, nlls = ([step.accuracy_val for step in selection.steps], [step.nll_val for step in selection.steps])
    for plot, values, label in ((axes, accuracies, "chosen"), (below, nlls, None)):
        plot.plot(added, values, marker="o", markersize=4, color=PAPER["val"], label=label)
    axes.axhline(selection.best_alone_val, color=PAPER["soft"], linestyle=":", label="best alone")
    axes.axhline(selection.all_equal_val, color=PAPER["train"], linestyle="--", label="all, equal weights")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PerCent())
    axes.set_ylabel("val accuracy")
    below.set_xlabel("networks added, some more than once")
    below.set_ylabel("val NLL")
    figure.align_ylabels()
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def reliability(
    probabilities: NDArray[np.floating[Any]],
    targets: NDArray[np.integer[Any]],
    ece: tuple[float, float],
    temperature: float | None = None,
) -> Figure:
    """Draw accuracy against confidence in bins with 95 % intervals, and below the number of faces in each bin.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
        ece: expected calibration error, and the 95th percentile of a calibrated network's error, to print.
        temperature: temperature that the logits were divided by; None for unchanged logits.
    """
    bins = bins_of(probabilities, targets)
    figure, rows = canvas(4.3, 2, sharex=True, height_ratios=[3.2, 1])
    main, counts = rows[:, 0]
    width = bins.edges[1] - bins.edges[0]
    filled = bins.faces > 0
    left = bins.edges[:-1][filled]
    main.plot([0, 1], [0, 1], color=PAPER["soft"], linewidth=1, linestyle=(0, (4, 3)), label="perfect", zorder=3)
    _accuracies(main, left, 0.94 * width, bins.accuracy[filled], bins.faces[filled])
    main.hlines(
        bins.confidence[filled], left, left + 0.94 * width, color=PAPER["train"], linewidth=2.2, label="confidence"
    )
    main.set_ylim(0, 1)
    main.set_xlim(0, 1)
    of = "uncalibrated" if temperature is None else f"temperature {temperature:.3f}"
    error, chance = ece
    main.set_title(f"ECE {error:.3f} (chance ≤ {chance:.3f}), {of}")
    main.set_ylabel("share correct, 95 % interval")
    figure.legend(loc="outside upper left", ncols=4, columnspacing=1.2, handlelength=1.6)
    counts.bar(bins.edges[:-1], bins.faces, 0.94 * width, align="edge", color=PAPER["soft"])
    counts.set_ylabel("faces")
    counts.set_xlabel("confidence: probability of the predicted emotion")
    for axes in (main.xaxis, main.yaxis, counts.xaxis):
        axes.set_major_formatter(PerCent())
    return figure


def _accuracies(
    axes: Axes,
    left: NDArray[np.float64],
    width: float,
    accuracy: NDArray[np.float64],
    faces: NDArray[np.int64],
) -> None:
    """Draw a bar a bin with its 95 % interval; the bar of a handful of faces is pale, since it says little."""
    for few, label in ((False, "accuracy"), (True, f"of < {FEW} faces")):
        drawn = (faces < FEW) == few
        if drawn.any():
            opacity = PALE if few else 1.0
            axes.bar(left[drawn], accuracy[drawn], width, align="edge", color=PAPER["val"], alpha=opacity, label=label)
    low, high = np.transpose(
        [wilson(round(share * count), count) for share, count in zip(accuracy, faces, strict=True)]
    )
    axes.vlines(left + width / 2, low, high, color=PAPER["ink"], linewidth=0.9)


def risk_coverage(
    probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]], chosen: tuple[float, float] | None
) -> Figure:
    """Draw the error rate against coverage: the share of faces answered, the most confident first.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices.
        chosen: coverage and error rate of the chosen confidence, which is marked; None for no mark.
    """
    coverage, risk = risk_by_coverage(probabilities, targets)
    figure, rows = canvas(2.6)
    axes = rows[0, 0]
    axes.plot(coverage, risk, color=PAPER["val"])
    axes.plot([1], [risk[-1]], marker="o", markersize=4, color=PAPER["val"], clip_on=False)
    if chosen is not None:
        axes.plot(*chosen, marker="o", markersize=5, color=PAPER["good"], zorder=3)
        title = f"chosen on val: answers {100 * chosen[0]:.0f} %, errs in {100 * chosen[1]:.1f} %"
        axes.set_title(title, loc="right", color=PAPER["good"], fontsize=8, fontweight="normal")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("coverage: share of the faces answered")
    axes.set_ylabel("error rate among them")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PerCent())
    return figure


def per_class(classes: Mapping[str, PerClass]) -> Figure:
    """Draw precision and recall of each class, the recall with its 95 % interval."""
    figure, rows = canvas(0.62 + 0.42 * len(classes))
    axes = rows[0, 0]
    heights = np.arange(len(classes))
    recall = np.array([values.recall.number for values in classes.values()])
    low, high = np.array([values.recall.ci95 or (0.0, 1.0) for values in classes.values()]).T
    axes.barh(heights - 0.19, recall, 0.36, color=PAPER["val"], label="recall, 95 % interval")
    axes.errorbar(
        recall, heights - 0.19, xerr=[np.clip(recall - low, 0, None), np.clip(high - recall, 0, None)],
        fmt="none", ecolor=PAPER["ink"], elinewidth=0.9, capsize=2,
    )  # fmt: skip
    precision = [values.precision.number for values in classes.values()]
    axes.barh(heights + 0.19, precision, 0.36, color=PAPER["train"], label="precision")
    axes.set_yticks(heights, [f"{name}\n{values.support:,}" for name, values in classes.items()])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PerCent())
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def faces(images: NDArray[np.uint8], captions: Sequence[Sequence[str]], columns: int = 6) -> Figure:
    """Draw a sheet of faces, each with a caption.

    Args:
        images: (K, S, S) grey.
        captions: caption of each face, at most three short lines; the first is darker.
        columns: faces in a row.
    """
    images = shrunk(images)
    lines = max((len(caption) for caption in captions), default=0)
    side = images.shape[-1]
    size = 36 / columns  # points: the widest caption, "label: surprise", fills a face's width
    text = round(side * 0.19 * lines)  # room for the captions, in pixels of the faces
    rows = -(-len(images) // columns)
    height = WIDTH * rows * (side + GAP + text) / (columns * (side + GAP))
    figure = Figure(figsize=(WIDTH, max(height, 0.4)))
    axes = bare(figure.add_axes((0, 0, 1, 1)))
    axes.set_axis_off()
    sheet = mosaic(images, columns, text)
    axes.imshow(sheet, interpolation="none", aspect="auto", extent=(0, sheet.shape[1], sheet.shape[0], 0))
    for number, caption in enumerate(captions):
        row, column = divmod(number, columns)
        x = column * (side + GAP) + (side + GAP) / 2
        for line, words in enumerate(caption):
            y = row * (side + GAP + text) + GAP / 2 + side + side * (0.12 + 0.18 * line)
            ink = PAPER["ink"] if line == 0 else PAPER["soft"]
            axes.text(x, y, words, ha="center", va="center", fontsize=size, color=ink)
    return figure


def shrunk(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return faces (K, S, S), reduced to ``LARGEST`` pixels: with larger faces pages would grow to megabytes."""
    if images.shape[-1] <= LARGEST:
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((LARGEST, LARGEST))) for image in images])


def mosaic(images: NDArray[np.uint8], columns: int, text: int = 0) -> NDArray[np.uint8]:
    """Return a sheet (H, W, 4) of K faces (K, S, S) in rows; the gaps are transparent.

    Args:
        images: grey faces.
        columns: faces in a row.
        text: free pixels below each face.
    """
    images = shrunk(images)
    side = images.shape[-1]
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * (side + GAP + text), columns * (side + GAP), 4), np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (side + GAP + text) + GAP // 2, column * (side + GAP) + GAP // 2
        sheet[top : top + side, left : left + side, :3] = image[..., None]
        sheet[top : top + side, left : left + side, 3] = 255
    return sheet


def augmented(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Figure:
    """Draw faces at the left, and augmented variants of each beside them.

    Args:
        before: (K, S, S) grey faces.
        after: (K, M, T, T) grey, M random variants of each; crops get a grey frame.
    """
    count, variants = after.shape[:2]
    side = before.shape[-1]
    left = (side - after.shape[-1]) // 2
    edges = (left, side - after.shape[-1] - left)
    framed = np.pad(after, ((0, 0), (0, 0), edges, edges), constant_values=128)
    rows = shrunk(np.concatenate([before[:, None], framed], axis=1).reshape(-1, side, side))
    side = rows.shape[-1]
    height = WIDTH * count / (variants + 1)
    head = 0.24  # inches above the sheet, for its titles
    figure = Figure(figsize=(WIDTH, height + head))
    axes = bare(figure.add_axes((0, 0, 1, height / (height + head))))
    axes.set_axis_off()
    sheet = mosaic(rows, variants + 1)
    axes.imshow(sheet, interpolation="none", aspect="auto", extent=(0, sheet.shape[1], sheet.shape[0], 0))
    axes.axvline(side + GAP, color=PAPER["soft"], linewidth=1)
    titles = ((0.5, "original"), (1 + variants / 2, "augmented for training, at random in each epoch"))
    for column, title in titles:
        axes.text(column * (side + GAP), -4, title, ha="center", va="bottom", fontsize=8)
    return figure
