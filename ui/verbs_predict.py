"""predict, evaluate, learn: the cost model alone, judged, retrained."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError
from ui.command import Answer, Parser


def predict_options(parser: Parser) -> None:
    parser.value("--batch", "IN.csv", "rows to predict (columns: docs/cost-model.md)", required=True)
    parser.value("--out", "OUT.csv", "the same rows with low, mid, high, basis and note added", required=True)


def predict(arguments: argparse.Namespace) -> Answer:
    from executors.batch import predict_file

    document = predict_file(Path(arguments.batch), Path(arguments.out))

    def show() -> None:
        print(f"{document['answered']} of {document['rows']} rows answered: {document['out']}")
        for note, count in document["notes"].items():
            print(f"  {count} x {note}")

    return Answer(document, show)


def evaluate_options(parser: Parser) -> None:
    parser.value("--data", "CSV", "judge the installed model on these rows instead of by cross-validation")
    parser.value("--plots", "DIR", "write a calibration curve and the errors of each metric there, as SVG")


def evaluate(arguments: argparse.Namespace) -> Answer:
    from executors.training import evaluate as judge

    answers, left_out = _answers(arguments.data)
    if not answers:
        raise AdvisorError("bad-data", "No row of the data can be judged.", "name a CSV with a metric and a value")
    document = judge.report(answers, left_out)
    if arguments.plots:
        from executors.training.plots import write_plots

        document["plots"] = write_plots(document, answers, Path(arguments.plots))

    def show() -> None:
        from ui.view_predict import show_accuracy

        show_accuracy(document)

    return Answer(document, show)


def _answers(data: str | None) -> tuple[list[Any], dict[str, int]]:
    from executors.training import evaluate as judge
    from executors.training.dataset import load_dataset

    try:
        if data is not None:
            return judge.answered_as_installed(_given(Path(data))), {}
        dataset = load_dataset()
        return judge.cross_validated(dataset.samples), dataset.left_out
    except ImportError as error:
        hint = "pip install 'edge-advisor[learn]'; with --data, numpy is enough"
        raise AdvisorError("learn-missing", f"Judging needs {error.name}, which is not installed.", hint) from error


def _given(path: Path) -> list[Any]:
    import csv

    from knowledge.measurements import read_measurements

    try:
        return read_measurements(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AdvisorError("unreadable", f"Cannot read {path}: {reason}.", "name a CSV file in UTF-8") from error


def learn_options(parser: Parser) -> None:
    parser.value("--out", "DIR", "write the model there, as the knowledge base ships it, instead of for this user")
    parser.value("--card", "FILE", "write the accuracy table of this model card anew")
    parser.flag("--no-history", "leave out what runs measured on this machine")


def learn(arguments: argparse.Namespace) -> Answer:
    from executors.training.learn import learn as train

    folder, card = (Path(path) if path else None for path in (arguments.out, arguments.card))
    document = train(folder, history=not arguments.no_history, card=card)

    def show() -> None:
        print(f"Learned from {document['rows']} published and {document['own_rows']} own measurements.")
        for name, target in document["targets"].items():
            print(f"  {name}: {target['rows']} rows, {target['engines']} engines")
        print(f"Written to {document['folder']}")

    return Answer(document, show)
