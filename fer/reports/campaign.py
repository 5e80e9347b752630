"""The page of a campaign, ``best.html``, and its figures as files for papers in ``figures/``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from fer.metrics.results import SelectionRecord
from fer.reports import figures, html, plotting
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.plotting import WIDTH, PerCent, canvas
from fer.reports.theme import PAPER
from fer.system.text import clock, text_table

ROLES: Mapping[str, str] = {"member": "soft", "student": "val", "small": "train", "ensemble": "good"}  # role -> colour
VIEWS: Mapping[str, str] = {"none": "single", "ten_crop": "ten crops"}
HEADS = (
    "network",
    "parameters",
    "split",
    "view",
    "accuracy, 95 %",
    "macro-F1",
    "clean",
    "NLL",
    "ECE after temperature",
)


@dataclass(frozen=True)
class Row:
    """A row of the table of results.

    Args:
        name: name of the network or ensemble, or of a mean: "3 students, mean".
        role: key of ``ROLES``.
        parameters: number of parameters; 0 if unknown.
        split: "val" or "test".
        views: key of ``VIEWS``.
        accuracy: 0 to 1.
        interval: 95 % interval of the accuracy for other faces; None for a mean.
        sd: standard deviation over seeds; None for a single network.
        macro_f1: 0 to 1.
        clean: accuracy over the faces without an exact duplicate in train; None if unknown.
        nll: negative log-likelihood, after calibration if there is a temperature.
        ece: expected calibration error, likewise.
        chance: ECE below which a calibrated network stays in 95 % of samples; None if unknown.
    """

    name: str
    role: str
    parameters: int
    split: str
    views: str
    accuracy: float
    interval: tuple[float, float] | None
    sd: float | None
    macro_f1: float
    clean: float | None
    nll: float
    ece: float
    chance: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        spread = "" if self.interval is None else "  [{:.2f}, {:.2f}]".format(*(100 * end for end in self.interval))
        spread = spread if self.sd is None else f" ± {100 * self.sd:.2f}"
        clean = "" if self.clean is None else f"{100 * self.clean:.2f} %"
        verdict = "" if self.chance is None else (", within chance" if self.ece <= self.chance else ", above chance")
        return (
            self.name,
            f"{self.parameters:,}" if self.parameters else "",
            self.split,
            VIEWS[self.views],
            f"{100 * self.accuracy:.2f}{' %' if self.sd is None else ''}{spread}{' %' if self.sd is not None else ''}",
            f"{100 * self.macro_f1:.2f} %",
            clean,
            f"{self.nll:.4f}",
            f"{self.ece:.4f}{verdict}",
        )


@dataclass(frozen=True)
class Span:
    """Planned and actual times of a training or phase, in seconds of the campaign's clock.

    Args:
        name: name of the training or phase.
        role: key of ``ROLES``; "phase" for a phase.
        planned: planned start and end.
        actual: actual start and end; None if it did not start.
        epochs: planned and finished epochs; None for a phase.
        state: state of the training, in a word.
        accuracy: val accuracy of the best epoch, single view.
        taught_by: names of the teachers.
    """

    name: str
    role: str
    planned: tuple[float, float]
    actual: tuple[float, float] | None
    epochs: tuple[int, int] | None = None
    state: str = ""
    accuracy: float | None = None
    taught_by: Sequence[str] = ()


@dataclass(frozen=True)
class Summary:
    """Contents of the page of a campaign.

    Args:
        title: title of the page.
        lead: sentences below the title.
        rows: rows of the table, the most important first.
        spans: times of trainings and phases.
        hours: time limit.
        seconds: time used.
        curves: network -> val accuracy of each epoch.
        roles: network -> its role.
        selection: how the ensemble was chosen; None where there is none.
        weights: network of the ensemble -> (weight, temperature).
        calibration: probabilities (N, C), targets (N,), (ECE, the 95th percentile of a calibrated network's ECE) and
            temperature of the ensemble, or of the best network.
        calibrated: name, split and view of that ensemble or network, in words.
        cost: name -> text.
        notes: warnings.
        about: name -> text: command, versions, hardware.
    """

    title: str
    lead: Sequence[str]
    rows: Sequence[Row]
    spans: Sequence[Span]
    hours: float
    seconds: float
    curves: Mapping[str, Sequence[float]]
    roles: Mapping[str, str]
    selection: SelectionRecord | None = None
    weights: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]], tuple[float, float], float] | None = None
    calibrated: str = ""
    cost: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    about: Mapping[str, str] = field(default_factory=dict)


def write(summary: Summary, folder: Path) -> Path:
    """Write ``figures/`` and ``best.html`` to ``folder``, and return the page.

    Raises:
        OSError: the folder is not writable.
    """
    file = folder / "best.html"
    drawn = draw(summary, folder / "figures")
    opened = any(row.split == "test" for row in summary.rows)
    test = "evaluated at the end, once for each network and view of the table" if opened else "not opened"
    foot = f"Everything was chosen on val. Test was {test}."
    html.write(file, summary.title, lead(summary), sections(summary, drawn), foot)
    return file


def text(rows: Sequence[Row]) -> str:
    """Return the table of results as text for a terminal."""
    return text_table(HEADS, [row.cells for row in rows]) if rows else "no network was evaluated"


# --- figures --------------------------------------------------------------------------------------------------------


def draw(summary: Summary, folder: Path) -> dict[str, str]:
    """Write the figures, and return name -> SVG."""
    made = {}
    with plotting.style():
        if summary.spans:
            made["times"] = times(summary.spans)
        if summary.curves:
            made["curves"] = curves(summary.curves, summary.roles)
        if summary.selection is not None:
            made["selection"] = figures.selection(summary.selection)
        if summary.calibration is not None:
            made["calibration"] = figures.reliability(*summary.calibration)
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


def times(spans: Sequence[Span]) -> Figure:
    """Draw the planned and the actual times of each training and phase."""
    figure, rows = canvas(0.9 + 0.27 * len(spans))
    plot = rows[0, 0]
    for index, span in enumerate(spans):
        begin, end = span.planned
        plot.barh(index, end - begin, 0.72, left=begin, color=PAPER["rule"], label="planned" if index == 0 else None)
        if span.actual is not None:
            begin, end = span.actual
            plot.barh(index, end - begin, 0.36, left=begin, color=PAPER[ROLES.get(span.role, "ink")])
    plot.set_yticks(range(len(spans)), [span.name for span in spans])
    plot.tick_params(axis="y", labelsize=7.5)
    plot.set_ylim(len(spans) - 0.4, -0.6)
    plot.grid(axis="y", visible=False)
    plot.xaxis.set_major_locator(MaxNLocator(5))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    plot.set_xlim(left=0)
    plot.set_xlabel("time; wide grey bars: planned")
    return figure


def curves(values: Mapping[str, Sequence[float]], roles: Mapping[str, str]) -> Figure:
    """Draw val accuracy by epoch of every network, coloured by its role."""
    figure, rows = canvas(WIDTH * 0.72)
    plot = rows[0, 0]
    named: set[str] = set()
    for name, accuracies in values.items():
        role = roles[name]
        label = None if role in named else {"member": "members", "student": "students"}.get(role, role)
        named.add(role)
        epochs = range(1, len(accuracies) + 1)
        plot.plot(epochs, accuracies, color=PAPER[ROLES[role]], linewidth=1.2, label=label,
                  marker="o" if len(accuracies) <= 3 else "", markersize=3)  # fmt: skip
    plot.yaxis.set_major_formatter(PerCent())
    plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    plot.set_xlabel("epoch")
    plot.set_ylabel("val accuracy")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


# --- the page -------------------------------------------------------------------------------------------------------


def lead(summary: Summary) -> Markup:
    """Return the part below the title: sentences, and the cards of the main results and the time."""
    sentences = [paragraph(text, class_="soft") for text in summary.lead]
    return joined(*sentences, html.cards([*map(headline, _headlines(summary.rows)), effort(summary)]))


def _headlines(rows: Sequence[Row]) -> list[Row]:
    """Return a row for the ensemble, the students and the small network: ten crops, on test if there, else on val."""
    chosen = []
    for role in ("ensemble", "student", "small"):
        candidates = [row for row in rows if row.role == role and row.views == "ten_crop"]
        candidates.sort(key=lambda row: (row.split != "test", row.sd is None))
        chosen += candidates[:1]
    return chosen or list(rows[:1])


def headline(row: Row) -> Markup:
    """Return the card of a row."""
    ends, interval = None, "" if row.sd is None else f"± {100 * row.sd:.2f}, standard deviation of the seeds"
    if row.interval is not None:
        low, high = row.interval
        interval, ends = f"{100 * low:.2f} to {100 * high:.2f} (95 %, other faces)", (low, row.accuracy, high)
    return card(
        row.name.capitalize(), f"{100 * row.accuracy:.2f} %", interval, f"of {row.split}, {VIEWS[row.views]}", ends
    )


def effort(summary: Summary) -> Markup:
    """Return the card of the time used, the networks and the epochs."""
    trained = [span for span in summary.spans if span.epochs is not None and span.actual is not None]
    epochs = sum(span.epochs[1] for span in trained if span.epochs)
    limit = f"limit: {clock(3600 * summary.hours)}"
    return card("Time", clock(summary.seconds), limit, f"{len(trained)} networks, {epochs:,} epochs")


def sections(summary: Summary, drawn: Mapping[str, str]) -> list[Section]:
    """Return the sections of the page, in order."""
    parts = [
        Section("results", "Results", lines(summary)),
        Section("plan", "Plan and actual times", plan(summary, drawn.get("times"))),
        Section("curves", "Curves", html.drawing(drawn["curves"], "val accuracy by epoch", large=True))
        if "curves" in drawn
        else None,
        Section("ensemble", "The ensemble", ensemble(summary, drawn.get("selection"))) if summary.weights else None,
        Section("calibration", "Calibration", calibration(summary, drawn["calibration"]))
        if "calibration" in drawn
        else None,
        Section("cost", "Cost", html.table((), list(summary.cost.items()), stack=True)),
        Section("provenance", "Provenance", html.table((), list(summary.about.items()), stack=True)),
    ]
    return [part for part in parts if part is not None]


def lines(summary: Summary) -> Markup:
    """Return the section with the table of results, its legend and the warnings."""
    explained = (
        "Brackets: 95 % intervals for other faces. ±: standard deviation over the students' seeds. Clean: accuracy "
        "without the faces that have an exact duplicate in train. NLL and ECE: after temperature scaling, fitted on "
        "val. Within chance: a perfectly calibrated network with these confidences would have such an ECE on as many "
        "faces."
    )
    notes = [html.note(text) for text in summary.notes]
    table = html.named(html.table(HEADS, [row.cells for row in summary.rows], (1, 5, 6, 7)))
    return joined(table, paragraph(explained, class_="soft"), *notes)


def plan(summary: Summary, svg: str | None) -> Markup:
    """Return the section on the plan: planned and actual times and epochs of each phase and training."""
    heads = (
        "phase or network",
        "planned",
        "took",
        "epochs",
        "planned epochs",
        "state",
        "val, single view",
        "taught by",
    )
    rows = [
        (
            span.name,
            clock(span.planned[1] - span.planned[0]),
            "" if span.actual is None else clock(span.actual[1] - span.actual[0]),
            "" if span.epochs is None else str(span.epochs[1]),
            "" if span.epochs is None else str(span.epochs[0]),
            span.state,
            "" if span.accuracy is None else f"{100 * span.accuracy:.2f} %",
            ", ".join(span.taught_by),
        )
        for span in summary.spans
    ]
    picture = html.drawing(svg, "planned and actual times of each training", large=True) if svg else ""
    return joined(picture, html.named(html.table(heads, rows, (1, 2, 3, 4, 6))))


def ensemble(summary: Summary, svg: str | None) -> Markup:
    """Return the section on the ensemble: its networks, and its val accuracy by the number of networks."""
    rows = [(name, f"{weight:.3f}", f"{temperature:.3f}") for name, (weight, temperature) in summary.weights.items()]
    table = html.table(("network", "weight", "temperature"), rows, (1, 2))
    explained = paragraph(
        "Networks were added one by one, each time the one that gives the best NLL on val; a network may be added "
        "again. Each network's logits are divided by its temperature first.", class_="soft",
    )  # fmt: skip
    growth = html.drawing(svg, "val accuracy and NLL by the networks added") if svg else Markup("")
    return html.columns(growth, joined(table, explained)) if svg else joined(table, explained)


def calibration(summary: Summary, svg: str) -> Markup:
    """Return the section on calibration: accuracy against confidence."""
    return joined(
        html.drawing(svg, "accuracy against confidence"), paragraph(tag("span", summary.calibrated), class_="soft")
    )
