"""The `medtune` command."""

import argparse
from pathlib import Path

from medtune.core.errors import MedtuneError, run


def main() -> None:
    """Entry point of the console script."""
    run(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="medtune", description="Reproducible LoRA fine-tuning on medical questions."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser("ask", help="answer a question with the adapter")
    ask.add_argument("question", help='such as "What is arachnodactyly?"')
    ask.add_argument("--context", help="text shown to the model before the question")
    ask.add_argument("--base", action="store_true", help="ask the untuned model instead")
    ask.add_argument("--adapter", type=Path, default=Path("models/adapter"), help="default: %(default)s")
    ask.set_defaults(call=_ask)
    use = commands.add_parser("use", help="put a profile's model and settings into params.yaml")
    use.add_argument("name", nargs="?", help="of profiles/NAME.yaml (default: list them)")
    use.add_argument("--list", action="store_true", help="list the profiles")
    use.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    use.set_defaults(call=_use)
    plan = commands.add_parser("plan", help="how much memory the stages need, and whether it is there")
    plan.add_argument("profile", nargs="?", help="of profiles/NAME.yaml (default: params.yaml as it is)")
    plan.add_argument(
        "--device", choices=["cpu", "cuda"], help="plan for one elsewhere (default: the one here)"
    )
    plan.add_argument(
        "--worst", action="store_true", help="for the longest examples allowed, not those of data/prepared"
    )
    plan.add_argument("--json", action="store_true", help="the same figures for programs")
    plan.set_defaults(call=_plan)
    verify = commands.add_parser("verify", help="check the chain from the data to the metrics")
    verify.add_argument("--rerun", action="store_true", help="run the pipeline again, in a copy, and compare")
    verify.add_argument(
        "--tolerance",
        type=float,
        default=0.05,
        help="how far a rate or loss of the second run may be off (default: %(default)s)",
    )
    verify.set_defaults(call=_verify)
    remote = commands.add_parser("check-remote", help="check that the DVC remote holds what the commit names")
    remote.add_argument("name", nargs="?", help="default: the default remote")
    remote.add_argument(
        "--mend", action="store_true", help="push again what is damaged or missing there and whole here"
    )
    remote.set_defaults(call=_check_remote)
    runs = commands.add_parser("push-runs", help="push what every stage made so far, for others to reuse")
    runs.add_argument("name", nargs="?", help="default: the default remote")
    runs.set_defaults(call=_push_runs)
    arguments = parser.parse_args()
    arguments.call(arguments)


def _ask(arguments: argparse.Namespace) -> None:
    if not arguments.question.strip():
        raise MedtuneError("the question is empty")
    # Imported here: torch takes seconds to load, and `medtune --help` does not need it.
    from medtune.answer.answerer import Answerer

    answerer = Answerer.load(adapter=None if arguments.base else arguments.adapter)
    print(answerer.ask(arguments.question, arguments.context))


def _use(arguments: argparse.Namespace) -> None:
    from medtune.commands.profiles import apply_profile, list_profiles

    if arguments.list or arguments.name is None:
        profiles = list_profiles()
        width = max(map(len, profiles), default=0)
        for name, description in profiles.items():
            print(f"{name:<{width}}  {description}")
        return
    difference = apply_profile(arguments.name, write=not arguments.dry_run)
    if not difference:
        print(f"params.yaml is profile {arguments.name} already: nothing changes")
        return
    print(difference)
    if arguments.dry_run:
        print("\nnothing was written")
    else:
        print(f"\nparams.yaml is profile {arguments.name}; run: dvc repro")


def _plan(arguments: argparse.Namespace) -> None:
    from medtune.commands.plan import describe

    print(describe(arguments.profile, kind=arguments.device, worst=arguments.worst, as_json=arguments.json))


def _verify(arguments: argparse.Namespace) -> None:
    from medtune.commands.verify import uncommitted, verify_chain

    links = verify_chain()
    for link in links:
        print(f"{'BROKEN' if link.broken else 'holds ':<7}{link.name}")
        if link.broken:
            print(f"       {link.broken}")
    if changed := uncommitted():
        print(f"note: not as committed: {', '.join(changed)}")
    if broken := sum(link.broken is not None for link in links):
        raise MedtuneError(f"{broken} of {len(links)} links are broken")
    if arguments.rerun:
        _rerun(arguments.tolerance)


def _rerun(tolerance: float) -> None:
    from medtune.commands.rerun import rerun

    comparison = rerun()
    verdict = comparison.verdict(tolerance)
    print(f"\nrun again: {verdict}")
    if verdict == "identical":
        return
    print(f"other outputs: {', '.join(comparison.outputs)}")
    name, largest = max(comparison.metrics.items(), key=lambda item: item[1])
    print(
        f"largest difference: {largest:.3g} in a metric ({name}), "
        f"{comparison.weights:.3g} in a weight of the adapter"
    )
    for difference in comparison.environment:
        print(f"may be why: {difference}")
    if not comparison.environment:
        print("the recorded environments are the same")
    if verdict == "different":
        raise MedtuneError(f"the metrics of the second run are more than {tolerance:g} off")


def _check_remote(arguments: argparse.Namespace) -> None:
    from medtune.commands.remotes import check_remote, mend_remote

    objects = check_remote(arguments.name)
    faults = [entry for entry in objects if entry.state != "whole"]
    for fault in faults:
        print(f"{fault.state:<9}{fault.path}")
    if faults and arguments.mend:
        mend_remote(arguments.name)
        objects = check_remote(arguments.name)
        faults = [entry for entry in objects if entry.state != "whole"]
        for fault in faults:
            print(f"still {fault.state}: {fault.path}")
    if faults:
        hint = "run `dvc repro` to make them here, then this again" if arguments.mend else "try --mend"
        raise MedtuneError(f"{len(faults)} of {len(objects)} objects are missing or damaged; {hint}")
    print(f"all {len(objects)} objects are whole")


def _push_runs(arguments: argparse.Namespace) -> None:
    from medtune.commands.remotes import push_runs

    print(f"{push_runs(arguments.name)} runs of stages are in the remote")


if __name__ == "__main__":
    main()
