"""The page of a search: ``tune.html``, and ``figures/``: the same, fit for papers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from fer.config.settings import worded
from fer.metrics.statistics import Difference
from fer.reports import html, plotting
from fer.reports.html import Section, card, joined, paragraph, tag
from fer.reports.tuning import figures
from fer.reports.tuning.figures import Axis
from fer.runs.trials import Share, State, Trial, best, counts, ranked
from fer.system.text import clock

RELIABLE = 10  # complete trials, of which five are the better half; fewer say little of importance
LEADERS = 5  # trials beside the history
WORDS: Mapping[State, str] = {"complete": "", "pruned": "pruned", "failed": "failed", "running": "to go on"}


@dataclass(frozen=True)
class Found:
    """What the page of a search tells.

    Args:
        subject: network and data.
        trials: in order.
        monitor: the figure that was searched for.
        parameters: key -> what it was varied over, in words.
        configured: key -> the value that it would have had.
        axes: key -> the axis of its values.
        baseline: trial 0 has the configured values, as far as the space holds them.
        shares: key -> how much it mattered; empty where too few trials tell.
        top: how many of the best trials ``shares`` asks for.
        interval: 95 %, of the best trial's accuracy, for other faces; None for another figure.
        gain: of the best trial over trial 0, in accuracy; None where there is none.
        seconds: that the search took.
        about: name -> text: command, budget, versions and what else is needed to do it again.
        lines: name -> command that goes on from here.
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


def write(found: Found, folder: Path) -> Path:
    """Write ``figures/`` and ``tune.html`` to ``folder``, and return the page.

    Raises:
        OSError: the folder may not be written.
    """
    file = folder / "tune.html"
    count = len(found.trials)
    title = f"{count} trial{'' if count == 1 else 's'} of {found.subject}"
    foot = "All figures are of val, on which epochs are chosen too; no trial has seen a face of test."
    html.write(file, title, lead(found), sections(found, draw(found, folder / "figures")), foot)
    return file


def draw(found: Found, folder: Path) -> dict[str, str]:
    """Write the figures, and return name -> SVG; none where no trial is complete."""
    made = {}
    with plotting.style():
        if best(found.trials, found.monitor) is not None:
            made["history"] = figures.history(found.trials, found.monitor, baseline=found.baseline)
            made["parameters"] = figures.slices(found.trials, found.axes, found.monitor)
        if found.shares:
            made["importance"] = figures.importance(found.shares)
    return {name: plotting.save(figure, folder, name) for name, figure in made.items()}


# --- the top --------------------------------------------------------------------------------------------------------


def lead(found: Found) -> Markup:
    """Return what stands below the title: the best trial, what it is worth, how many trials there were."""
    chosen = best(found.trials, found.monitor)
    if chosen is None:
        return html.note("No trial is complete: there is nothing to choose from.")
    told = paragraph(f"Searched for the best {found.monitor}.", class_="soft")
    picked = (
        "The best of several trials is picked by the very figure that stands here, which flatters it: on other faces, "
        "and with other seeds, it is worth a little less. Test is the judge, once, after everything is chosen."
    )
    return joined(told, html.cards([*headline(found, chosen), effort(found)]), html.note(picked))


def headline(found: Found, chosen: Trial) -> list[Markup]:
    """Return the cards of the best trial, and of what it gains."""
    value = chosen.value or 0.0
    interval = "mean of its seeds" if len(chosen.values) > 1 else "of its best epoch"
    place = None
    if found.interval is not None:
        low, high = found.interval
        interval, place = f"{100 * low:.1f} to {100 * high:.1f} (95 %, other faces)", (low, value, high)
    made = [card(f"Best: trial {chosen.number}", worded(found.monitor, value), interval, found.monitor, place)]
    first = found.trials[0]
    if found.baseline and first.state == "complete" and first.value is not None and first is not chosen:
        told = "the values without the search, as far as the space holds them"
        made.append(card("Configured: trial 0", worded(found.monitor, first.value), found.monitor, told))
    if found.gain is not None:
        low, high = (100 * end for end in found.gain.interval)
        told = "on the same faces; for other faces" + (" and other seeds" if found.gain.seeds else ", not other seeds")
        points = f"{100 * found.gain.value:+.2f} points"
        made.append(card("Best against configured", points, f"{low:+.1f} to {high:+.1f} (95 %)", told))
    return made


def effort(found: Found) -> Markup:
    """Return the card of how many trials there were, and how long they took."""
    held = counts(found.trials)
    epochs = sum(trial.epochs for trial in found.trials if trial.same_as is None)
    words = ", ".join(f"{held[state]} {WORDS[state] or state}" for state in WORDS if held[state])
    return card("Trials", str(len(found.trials)), words, f"{epochs:,} epochs in {clock(found.seconds)}")


# --- the parts ------------------------------------------------------------------------------------------------------


def sections(found: Found, drawn: Mapping[str, str]) -> list[Section]:
    """Return the parts of the page, in order."""
    chosen = best(found.trials, found.monitor)
    parts = [
        Section("best", "The best trial", best_trial(found, chosen)) if chosen else None,
        Section("history", "How the search went", course(found, drawn["history"])) if chosen else None,
        Section("importance", "What mattered", importances(found, drawn.get("importance"))),
        Section("parameters", "Parameter by parameter", slices(drawn["parameters"])) if chosen else None,
        Section("trials", "All trials", table(found)),
        Section("provenance", "Provenance", provenance(found)),
    ]
    return [part for part in parts if part is not None]


def best_trial(found: Found, chosen: Trial) -> Markup:
    """Return what the best trial was told, beside what is configured, and how to go on."""
    rows = [
        (
            joined(whole(tag("code", key)), tag("div", words, class_="soft")),
            whole(chosen.texts.get(key, "-")),
            whole(found.configured.get(key, "-")),
        )
        for key, words in found.parameters.items()
    ]
    lines = [joined(tag("h3", name.capitalize()), tag("pre", line)) for name, line in found.lines.items()]
    return joined(html.table(("parameter, and where it was searched", "best", "configured"), rows), *lines)


def whole(text: object) -> Markup:
    """Return what is not to be broken over lines."""
    return tag("span", text, class_="whole")


def course(found: Found, svg: str) -> Markup:
    """Return the history, and the leading trials."""
    told = (
        "A dot is a complete trial at its best epoch, a cross one that was ended early, at the best that it had "
        "reached by then; an arrow at the edge lies beyond it. Trials ended early took part in choosing what to try."
    )
    leaders = [
        (trial.number, whole(worded(found.monitor, trial.value or 0.0)), trial.told)
        for trial in ranked(found.trials, found.monitor)[:LEADERS]
    ]
    leading = html.table(("trial", "value", "parameters"), leaders, (0,))
    return html.columns(html.drawing(svg, "value by trial"), joined(paragraph(told, class_="soft"), leading))


def importances(found: Found, svg: str | None) -> Markup:
    """Return which parameters mattered, and how much that is to be trusted."""
    complete = len([trial for trial in found.trials if trial.state == "complete" and trial.same_as is None])
    if svg is None:
        return html.note(f"{complete} complete trials are too few to tell which parameters mattered.")
    told = (
        f"By how much the values of the best {found.top} of {complete} complete trials differ from those of all of "
        "them (PED-ANOVA, Watanabe et al. 2023), as shares of 100 %. Thin lines: the middle 95 % of 200 samples of "
        "the trials, drawn with replacement. It tells of this space and these trials: a parameter that was searched "
        "where all of its values are good has none."
    )
    few = f"{complete} complete trials say little: take this as a hint, and look at the lines before the bars."
    notes = [html.note(few)] if complete < RELIABLE else []
    drawn = html.drawing(svg, "importance of each parameter")
    return joined(*notes, html.columns(drawn, paragraph(told, class_="soft")))


def slices(svg: str) -> Markup:
    """Return each parameter against the monitored figure."""
    told = "Dots are complete trials, crosses were ended early, green is the best. Parameters varied together."
    return joined(paragraph(told, class_="soft"), html.drawing(svg, "value by each parameter", large=True))


def table(found: Found) -> Markup:
    """Return a row a trial, in order."""
    heads = ("trial", found.monitor, "", "epochs", "time", *found.parameters)
    rows = [
        (
            trial.number,
            "" if trial.value is None else worded(found.monitor, trial.value),
            whole(f"as trial {trial.same_as}" if trial.same_as is not None else WORDS[trial.state]),
            trial.epochs or "",
            clock(trial.seconds),
            *(whole(trial.texts.get(key, "")) for key in found.parameters),
        )
        for trial in found.trials
    ]
    failed = [(f"trial {trial.number}", trial.reason) for trial in found.trials if trial.reason]
    reasons = joined(tag("h3", "Failed"), html.table((), failed, stack=True)) if failed else ""
    return joined(html.table(heads, rows, (0, 1, 3, 4)), reasons)


def provenance(found: Found) -> Markup:
    """Return what is needed to do the search again."""
    return html.table((), [(name, text) for name, text in found.about.items() if text], stack=True)
