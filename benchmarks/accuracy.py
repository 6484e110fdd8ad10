"""Does CFII improve segmentation? Data sets × codecs × arms × seeds, trained by the recipes and scored alike.

    python benchmarks/accuracy.py --sets wbc=DIR dsb2018=DIR --codecs resunet:widths=[16,32,64,128] \\
        --arms plain plain-half cfii --seeds 0 1 2
    python benchmarks/accuracy.py            # the tables and plots of what is there

A set is a recipe's name (cfii/recipes, or benchmarks/recipes for what two CPU cores can do) and its folder. All
arms of a set have the same epochs, batches, augmentation and order of the data; a seed fixes them, the
initialisation and what is held out for validation. Every finished run is a JSON of its own; started again, the
command goes on with what is unfinished, from its last epoch. `--jobs` runs share one machine or one GPU.
Further arguments, such as `--trainer.precision=bf16-mixed` or `--trainer.max_epochs=100`, go to `cfii fit`, for
all arms alike.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import common
from arms import ABOUT, ARMS, Run, recipe_of, settings_of, train_and_score
from tables import curves, load, markdown, scatter

from cfii.training.files import writing

RESULTS = Path(__file__).parent / "results" / "accuracy"


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="arms: " + "; ".join(f"{name}: {about}" for name, about in ABOUT.items()),
    )
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME[=DIR]")
    parser.add_argument("--codecs", nargs="+", default=["resunet"], metavar="NAME[:OPTION=VALUE,...]")
    parser.add_argument("--arms", nargs="+", default=list(ARMS)[:3], help="known ones, or NAME:OPTION=VALUE,...")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, help="of each run on a CPU")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="checkpoints and logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON of finished runs")
    return parser.parse_known_args(arguments)


def list_runs(options: argparse.Namespace, extra: list[str]) -> list[Run]:
    sets = []
    for text in options.sets:
        name, equals, root = text.partition("=")
        if equals and not Path(root).is_dir():
            raise SystemExit(f"--sets: expected NAME=FOLDER, or NAME for what needs none, got {text!r}")
        recipe_of(name)
        sets.append((name, str(Path(root).resolve()) if equals else None))
    for codec in options.codecs:
        common.parse_model(codec)
    for arm in options.arms:
        settings_of(arm)
    # Seed by seed, so that an interrupted series compares all arms over the seeds that it reached.
    return [
        Run(name, root, codec, arm, seed, tuple(extra))
        for seed, (name, root), codec, arm in itertools.product(options.seeds, sets, options.codecs, options.arms)
    ]


def run_all(runs: list[Run], options: argparse.Namespace) -> None:
    left = [run for run in runs if not (options.results / f"{run.name}.json").is_file()]
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them finished before", flush=True)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(options.jobs, spawn) as pool:
        jobs = {
            pool.submit(train_and_score, run, options.runs, options.results, options.threads): run for run in left
        }
        failed = []
        for count, job in enumerate(as_completed(jobs), 1):
            name = jobs[job].name
            try:
                record = job.result()
            except (Exception, SystemExit) as error:
                failed.append(name)
                print(f"{count}/{len(left)} {name}: {error!r}; {options.runs / name / 'log.txt'}", flush=True)
                continue
            dice = 100 * record["scores"]["strict"]["mean"]["dice"]
            print(f"{count}/{len(left)} {name}: Dice {dice:.2f}, {record['seconds']:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed)}")


def main() -> None:
    options, extra = parse()
    if extra and not options.sets:
        raise SystemExit(f"unknown arguments: {' '.join(extra)}")
    if options.sets:
        run_all(list_runs(options, extra), options)
    records = load(options.results)
    if not records:
        raise SystemExit(f"--results: expected the JSON of finished runs in {options.results}, found none")
    tables = markdown(records, list(ARMS))
    print(tables)
    with writing(options.results / "tables.md") as temporary:
        temporary.write_text(tables + "\n", encoding="utf-8")
    scatter(records, options.results / "scatter.svg")
    curves(records, options.results / "curves.svg")


if __name__ == "__main__":
    main()
