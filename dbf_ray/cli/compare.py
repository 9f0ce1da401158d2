"""Draw studies as one page: what they found, every trial, and what was frozen when."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dbf_ray.cli.options import make_parser, parse, print_json, run_command
from dbf_ray.config import Config, load_config
from dbf_ray.errors import ConfigError, DataError
from dbf_ray.files import write_text
from dbf_ray.reports.page import MADE_BY, Source, study_page
from dbf_ray.tracking import resolve_uri
from dbf_ray.tracking.studies import RESULT, is_run, is_study, read_study

ABOUT = """Draw one study, or several side by side, as one HTML page that needs no network: the answer in
words with its uncertainty, the trade-off, what was frozen when, costs, seeds, and a table of all trials with
the command that trains each. Studies may still be running. A search leaves this page as pareto.html."""
EPILOG = """A study is a folder, or the name of one in --search.studies_dir, or else one in MLflow.

examples:
  a study in studies/, opened in the browser:
    dbf compare --study my-rho --open
  two, one of which is in another machine's MLflow alone:
    dbf compare --study my-rho --study other --tracking.uri http://HOST:5000 --out both.html
  deliver to MLflow what it has missed while it was away, of all runs and studies here:
    dbf compare --sync"""
KEYS = {
    "search.studies_dir": ("DIR", "folder of the studies (default: studies)"),
    "runs_dir": ("DIR", "folder of the runs, for --sync (default: runs)"),
    "tracking.uri": ("URI", "MLflow's store (default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)"),
}


def main(arguments: Sequence[str] | None = None, prog: str = "dbf compare") -> int:
    """Run the command and return its exit status."""
    return run_command(partial(command, prog=prog), arguments)


def command(arguments: Sequence[str] | None = None, prog: str = "dbf compare") -> dict[str, Any]:
    """Find the studies, draw them, and say where the page is."""
    parser = make_parser(prog, ABOUT, EPILOG)
    parser.add_argument(
        "--study", action="append", default=[], metavar="NAME|PATH", help="to show; once for each"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("compare.html"), metavar="FILE.html", help="(default: %(default)s)"
    )
    for key, (metavar, about) in KEYS.items():
        parser.add_argument(f"--{key}", dest=key, metavar=metavar, help=about)
    parser.add_argument(
        "--sync",
        action="store_true",
        help="first deliver to MLflow what these studies have for it that it missed; without --study all "
        "runs and studies",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options, overrides = parse(parser, arguments)
    config = load_config(None, overrides)
    if not options.study and not options.sync:
        raise ConfigError(f"--study must be given, got none; {_here(config.search.studies_dir)}")
    if options.study:
        check_out(options.out)
    folders = [_local(text, config.search.studies_dir) for text in options.study]
    result: dict[str, Any] = {}
    if options.sync:
        all_of_them = [config.search.studies_dir, config.runs_dir]
        found = [folder for folder in folders if folder is not None] if options.study else all_of_them
        result["sync"] = sync(found, config.tracking.uri, bool(options.study))
    if options.study:
        result |= draw(options, folders, config)
    if options.json:
        print_json(result)
    return result


def draw(options: argparse.Namespace, folders: Sequence[Path | None], config: Config) -> dict[str, Any]:
    """Write the page; returns what is on it, and where it is."""
    uri = resolve_uri(config.tracking.uri)
    sources: list[Source] = []
    for text, folder in zip(options.study, folders, strict=True):
        source = (
            _from_mlflow(text, uri, config.search.studies_dir) if folder is None else _from_folder(folder)
        )
        sources.append(source)
    names = [source.result["study"] for source in sources]
    for place, text in enumerate(options.study):
        if names.count(names[place]) > 1:  # studies of several folders have the same name
            sources[place] = sources[place]._replace(name=text)
    page = study_page(sources)
    write_text(options.out, page)
    shown = [_summary(source, folder, uri) for source, folder in zip(sources, folders, strict=True)]
    for one in shown:
        print(f"{one['study']}: {one['complete']} of {one['trials']} trials complete, from {one['from']}")
        if not one["timelines"] and one["trials"]:
            print(f"warning: {one['study']}: no trial's epochs.jsonl is there: no timelines", file=sys.stderr)
    print(f"page: {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")
    if options.open and not webbrowser.open(options.out.resolve().as_uri()):
        print(f"warning: no browser could be started; open {options.out} in one", file=sys.stderr)
    return {"out": str(options.out), "studies": shown}


def sync(folders: Sequence[Path], uri: str | None, goes_on: bool) -> dict[str, Any]:
    """Deliver what waits in ``folders``. Where the store fails that is an error, unless ``goes_on``: then it
    is said.
    """
    from dbf_ray.tracking import deliver

    done = [deliver(folder, uri) for folder in folders if folder.is_dir()]
    runs, pending = sum(one.runs for one in done), sum(one.pending for one in done)
    failure = next((one.failure for one in done if one.failure), None)
    if failure and not goes_on:
        raise DataError(
            f"{pending} runs wait for MLflow, which failed: {failure}; call this again once it answers"
        )
    print(f"MLflow: {runs} runs delivered" + (f", {pending} wait" if pending else ""))
    if failure:
        print(f"warning: MLflow failed: {failure}; call this again once it answers", file=sys.stderr)
    return {"runs": runs, "pending": pending, "failure": failure}


def check_out(out: Path) -> None:
    """Refuse a place for the page that is none, or has something else in it.

    Raises:
        ConfigError: it is so.
    """
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out must be an HTML file, got {out}; give {out}.html")
    if out.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"--out must be a file that can be written, got {out}; give another one")
    if out.exists() and MADE_BY not in out.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise ConfigError(f"--out is there and is no page of a study, got {out}; give another or remove it")


def _local(text: str, studies_dir: Path) -> Path | None:
    """The folder of a study; None where it can only be one of MLflow's.

    Raises:
        DataError: it is a path, and there is no study.
    """
    named = studies_dir / text
    if "/" not in text and named.is_dir():
        return named
    path = Path(text).parent if Path(text).name == RESULT else Path(text)
    if path.is_dir():
        return path
    if "/" in text or text in ("", ".", ".."):
        raise DataError(
            f"--study must be a study, got {text}, where no folder is; {_here(studies_dir, text)}"
        )
    return None


def _from_folder(folder: Path) -> Source:
    """Raises:
    DataError: there is no whole study of this version.
    """
    if not (folder / RESULT).is_file():
        if is_run(folder):
            raise DataError(
                f"--study must be a study, got {folder}, a single run; give a folder that a search made"
            )
        if not is_study(folder):
            raise DataError(
                f"--study must be a study, got {folder}, which has no {RESULT}; {_here(folder.parent)}"
            )
        raise DataError(
            f"the study in {folder} has no {RESULT} yet, which comes when its first trial ends; wait for it, "
            "or call the dbf search that began it again"
        )
    try:
        return Source(*read_study(folder))
    except DataError as error:
        raise DataError(
            f"{error}; call the dbf search that made it again, which trains nothing more"
        ) from error


def _from_mlflow(name: str, uri: str, studies_dir: Path) -> Source:
    """Raises:
    DataError: neither the folder of studies nor MLflow has it.
    """
    here = f"--study {name} is not in {studies_dir}; {_here(studies_dir, name)}"
    try:
        from dbf_ray.tracking.fetch import fetch_study
    except ImportError:
        raise DataError(f"{here}; MLflow, where it could be, is not installed") from None
    with tempfile.TemporaryDirectory(prefix="dbf-ray-compare-") as folder:
        try:
            return Source(*read_study(fetch_study(uri, name, Path(folder))))
        except DataError as error:
            raise DataError(f"{here}; {error}".replace(f"{folder}/", "")) from error


def _here(studies_dir: Path, name: str = "") -> str:
    """The studies that a folder has, the nearest to a name first."""
    folders = studies_dir.iterdir() if studies_dir.is_dir() else ()
    names = sorted(folder.name for folder in folders if is_study(folder))
    if not names:
        return f"{studies_dir} has no studies"
    close = difflib.get_close_matches(name, names, 1)
    text = f"{studies_dir} has {', '.join(names)}"
    return f"did you mean {close[0]}? {text}" if close else text


def _summary(source: Source, folder: Path | None, uri: str) -> dict[str, Any]:
    result = source.result
    states = [str(trial["state"]) for trial in result["trials"]]
    return {
        "study": source.name or result["study"],
        "from": str(folder or f"MLflow at {uri}"),
        "trials": len(states),
        "complete": states.count("COMPLETE"),
        "timelines": len(source.epochs),
        "front": result["front"],
        "recommended": result["answer"].get("number"),
    }
