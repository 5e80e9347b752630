"""``python -m fer``: the commands, a line each."""

COMMANDS = {
    "fer.train": "fit a network, or sweep over settings with -m; chooses the best epoch on val",
    "fer.best": "train the best networks that fit a given time: an ensemble, three students, a small one",
    "fer.tune": "search for good settings; writes the best as an experiment (needs the extra tune)",
    "fer.bench": "measure speed against what is wanted of it",
    "fer.evaluate": "score a run or checkpoint on val or test; it and the end of fer.best alone open test",
    "fer.share": "write an evaluated network as one small file for others, with its card",
    "fer.compare": "lay runs side by side: leaderboard, curves, costs, paired tests, on val",
    "fer.study": "the founding study's table, beside what its experiments give here",
    "fer.audit": "look at a data set before trusting it: counts, exact twins, odd faces",
}


def main() -> None:
    """List the commands."""
    width = max(map(len, COMMANDS))
    print("fer reads the emotion on a face. Commands, each with --help:\n")
    for name, purpose in COMMANDS.items():
        print(f"  python -m {name:<{width}}  {purpose}")


if __name__ == "__main__":
    main()
