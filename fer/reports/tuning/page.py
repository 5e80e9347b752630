"""The page of a search, ``tune.html``, and its figures as files for papers in ``figures/``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from fer.config.settings import mode, worded
from fer.metrics.statistics import Difference
from fer.reports import html, plotting
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.tuning import figures
from fer.reports.tuning.figures import Axis
from fer.runs.trials import Share, State, Trial, best, counts, ranked
from fer.system.text import clock

RELIABLE = 10  # complete trials below which importance is unreliable: its better half has fewer than five
LEADERS = 5  # best trials listed beside the history
WORDS: Mapping[State, str] = {"complete": "", "pruned": "pruned", "failed": "failed", "running": "unfinished"}


@dataclass(frozen=True)
class SearchResults:
    """Contents of the page of a search.

    Args:
        subject: network and data.
        trials: all trials in order.
        monitor: metric that the search optimises.
        parameters: key -> its range or choices, in words.
        configured: key -> its value without the search.
        axes: key -> the axis of its values.
        baseline: whether trial 0 has the configured values, as far as the space holds them.
        shares: key -> its share of the importance; empty if there are too few trials.
        top: number of best trials that ``shares`` compares with all.
        interval: 95 % interval of the best trial's accuracy, for other faces; None if the monitor is another metric.
        gain: difference in accuracy between the best trial and trial 0; None if there is none.
        seconds: duration of the search.
        about: name -> text: command, budget, versions and whatever else is needed to repeat the search.
        lines: name -> command for a next step.
    """

    subject: str
    trials: Sequence[Trial]
    monitor: str
    parameters: Mapping[str, str]
    configured: Mapping[str, str]
    axes: Mapping[str, Axis]
    baseline: bool
    shares: Mapping[str, Share]
    top: int
    interval: tuple[float, float] | None
    gain: Difference | None
    seconds: float
    about: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)


def write(results: SearchResults, folder: Path) -> Path:
    """Write ``figures/`` and ``tune.html`` to ``folder``, and return the page.

    Raises:
        OSError: the folder may not be written.
    """
    file = folder / "tune.html"
    count = len(results.trials)
    title = f"{count} trial{'' if count == 1 else 's'} of {results.subject}"
    foot = "All metrics are of val; the epoch of each trial was chosen on val, too. No trial has used a test face."
    html.write(file, title, lead(results), sections(results, draw(results, folder / "figures")), foot)
    return file


def draw(results: SearchResults, folder: Path) -> dict[str, str]:
    """Write the figures, and return name -> SVG; none where no trial is complete."""
    made = {}
    with plotting.style():
        if best(results.trials, results.monitor) is not None:
            made["history"] = figures.history(results.trials, results.monitor, baseline=results.baseline)
            made["parameters"] = figures.slices(results.trials, results.axes, results.monitor)
        if results.shares:
            made["importance"] = figures.importance(results.shares)
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


# --- the top --------------------------------------------------------------------------------------------------------


def lead(results: SearchResults) -> Markup:
    """Return the part below the title: the best trial, its gain, and the number of trials."""
    chosen = best(results.trials, results.monitor)
    if chosen is None:
        return html.note("No trial is complete, so there is no best trial.")
    intro = paragraph(f"Optimised metric: {results.monitor}.", class_="soft")
    worse = "more" if mode(results.monitor) == "min" else "less"
    bias = (
        f"The best trial was chosen by the value shown here, which makes this value too good: expect a little {worse} "
        "on other faces and with other seeds. Evaluate on test once, after everything is chosen."
    )
    return joined(intro, html.cards([*headline(results, chosen), effort(results)]), html.note(bias))


def headline(results: SearchResults, chosen: Trial) -> list[Markup]:
    """Return the cards of the best trial, the configured values, and the difference between them."""
    value = chosen.value or 0.0
    interval = "mean of its seeds" if len(chosen.values) > 1 else "of its best epoch"
    span = None
    if results.interval is not None:
        low, high = results.interval
        interval, span = f"{100 * low:.1f} to {100 * high:.1f} (95 %, other faces)", (low, value, high)
    made = [card(f"Best: trial {chosen.number}", worded(results.monitor, value), interval, results.monitor, span)]
    first = results.trials[0]
    if results.baseline and first.state == "complete" and first.value is not None and first is not chosen:
        meaning = "the values without a search, as far as the space holds them"
        made.append(card("Configured: trial 0", worded(results.monitor, first.value), results.monitor, meaning))
    if results.gain is not None:
        low, high = (100 * end for end in results.gain.interval)
        meaning = "on the same faces; for other faces" + (
            " and other seeds" if results.gain.seeds else ", not other seeds"
        )
        points = f"{100 * results.gain.value:+.2f} points"
        made.append(card("Best minus configured", points, f"{low:+.1f} to {high:+.1f} (95 %)", meaning))
    return made


def effort(results: SearchResults) -> Markup:
    """Return the card of the number of trials and their duration."""
    by_state = counts(results.trials)
    epochs = sum(trial.epochs for trial in results.trials if trial.same_as is None)
    words = ", ".join(f"{by_state[state]} {WORDS[state] or state}" for state in WORDS if by_state[state])
    return card("Trials", str(len(results.trials)), words, f"{epochs:,} epochs in {clock(results.seconds)}")


# --- the parts ------------------------------------------------------------------------------------------------------


def sections(results: SearchResults, drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    chosen = best(results.trials, results.monitor)
    parts = [
        Section("best", "The best trial", best_trial(results, chosen)) if chosen else None,
        Section("history", "History of the search", course(results, drawn["history"])) if chosen else None,
        Section("importance", "Importance of the parameters", importances(results, drawn.get("importance"))),
        Section("parameters", "Values by parameter", slices(drawn["parameters"])) if chosen else None,
        Section("trials", "All trials", table(results)),
        Section("provenance", "Provenance", provenance(results)),
    ]
    return [part for part in parts if part is not None]


def best_trial(results: SearchResults, chosen: Trial) -> Markup:
    """Return the section on the best trial: its parameters beside the configured ones, and commands for next steps."""
    rows = [
        (
            joined(whole(tag("code", key)), tag("div", words, class_="soft")),
            whole(chosen.texts.get(key, "-")),
            whole(results.configured.get(key, "-")),
        )
        for key, words in results.parameters.items()
    ]
    lines = [joined(tag("h3", name.capitalize()), tag("pre", line)) for name, line in results.lines.items()]
    return joined(html.table(("parameter and its range", "best", "configured"), rows), *lines)


def whole(text: object) -> Markup:
    """Return a text that is not broken over lines."""
    return tag("span", text, class_="whole")


def course(results: SearchResults, svg: str) -> Markup:
    """Return the section on the history: its figure beside the best trials."""
    intro = (
        "A dot is a complete trial at its best epoch. A cross is a pruned trial, ended early, at its best epoch so "
        "far. An arrow at the edge stands for a value beyond the axis. The search used pruned trials, too, to choose "
        "the parameters of later trials."
    )
    leaders = [
        (trial.number, whole(worded(results.monitor, trial.value or 0.0)), trial.parameters)
        for trial in ranked(results.trials, results.monitor)[:LEADERS]
    ]
    leading = html.table(("trial", "value", "parameters"), leaders, (0,))
    return html.columns(html.drawing(svg, "value by trial"), joined(paragraph(intro, class_="soft"), leading))


def importances(results: SearchResults, svg: str | None) -> Markup:
    """Return the section on importance: a bar for each parameter, the method, and a warning if trials are few."""
    complete = len([trial for trial in results.trials if trial.state == "complete" and trial.same_as is None])
    if svg is None:
        return html.note(f"{complete} complete trials are too few to estimate which parameters mattered.")
    intro = (
        f"How far the parameters of the best {results.top} of {complete} complete trials differ from those of all "
        "complete trials (PED-ANOVA, Watanabe et al. 2023), as shares of 100 %. Thin lines are 95 % intervals from "
        "200 bootstrap samples of the trials. Importance depends on the space: a parameter whose range holds good "
        "values only has none."
    )
    few = f"Only {complete} trials are complete, so importance is uncertain: see the intervals."
    notes = [html.note(few)] if complete < RELIABLE else []
    drawn = html.drawing(svg, "importance of each parameter")
    return joined(*notes, html.columns(drawn, paragraph(intro, class_="soft")))


def slices(svg: str) -> Markup:
    """Return the section on the monitored metric by each parameter."""
    intro = "Dots are complete trials, crosses pruned ones; green is the best. All parameters varied at once."
    return joined(paragraph(intro, class_="soft"), html.drawing(svg, "value by each parameter", large=True))


def table(results: SearchResults) -> Markup:
    """Return the table of all trials in order, and the reasons of failed ones."""
    heads = ("trial", results.monitor, "", "epochs", "time", *results.parameters)
    rows = [
        (
            trial.number,
            "" if trial.value is None else worded(results.monitor, trial.value),
            whole(f"same as trial {trial.same_as}" if trial.same_as is not None else WORDS[trial.state]),
            trial.epochs or "",
            clock(trial.seconds),
            *(whole(trial.texts.get(key, "")) for key in results.parameters),
        )
        for trial in results.trials
    ]
    failed = [(f"trial {trial.number}", trial.reason) for trial in results.trials if trial.reason]
    reasons = joined(tag("h3", "Failed"), html.table((), failed, stack=True)) if failed else ""
    return joined(html.table(heads, rows, (0, 1, 3, 4)), reasons)


def provenance(results: SearchResults) -> Markup:
    """Return the table of everything needed to repeat the search."""
    return html.table((), [(name, text) for name, text in results.about.items() if text], stack=True)
