"""The `medtune` command: what it offers, and what each part prints.

A part is imported when it is called: torch and DVC take seconds to load, and `medtune --help` needs neither.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from medtune.commands.command_help import ANYWHERE, NOWHERE, SHELLS, Parser, describe_groups, parsed
from medtune.commands.reader import ending_with_the_reader
from medtune.commands.repository import enter, from_here, path_from_here, side_from_here
from medtune.commands.waiting import waiting
from medtune.core.errors import MedtuneError, run
from medtune.run.libraries import forget_stale_bytecode, keep_out

if TYPE_CHECKING:
    from medtune.export.places import Format
    from medtune.verify.remotes import RemoteObject


def main() -> None:
    """Entry point of the console script."""
    # The outer one for what `run` says of an error.
    with ending_with_the_reader():
        run(_main)


def _main() -> None:
    with ending_with_the_reader():
        forget_stale_bytecode()
        keep_out()
        parser = _parser()
        arguments = parsed(parser, sys.argv[1:])
        if arguments.command not in NOWHERE:
            enter(needed=arguments.command not in ANYWHERE)
        arguments.call(arguments)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="medtune",
        usage="%(prog)s COMMAND ...",
        description="Reproducible LoRA fine-tuning on medical questions.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="medtune")
    ask = commands.add_parser("ask", help="answer a question with the adapter")
    ask.add_argument("question", help='such as "What is arachnodactyly?"')
    ask.add_argument("--context", help="text shown to the model before the question")
    which = ask.add_mutually_exclusive_group()
    which.add_argument("--base", action="store_true", help="ask the untuned model instead")
    which.add_argument(
        "--adapter", type=path_from_here, default=Path("models/adapter"), help="default: %(default)s"
    )
    ask.set_defaults(call=_ask)
    chat = commands.add_parser("chat", help="a conversation with the adapter, answers as they come")
    chat.add_argument(
        "--context", type=path_from_here, metavar="FILE", help="a text shown before the first question"
    )
    which = chat.add_mutually_exclusive_group()
    which.add_argument("--base", action="store_true", help="talk to the untuned model instead")
    which.add_argument(
        "--adapter", type=path_from_here, default=Path("models/adapter"), help="default: %(default)s"
    )
    chat.set_defaults(call=_chat)
    serve = commands.add_parser("serve", help="an OpenAI-compatible server for what `medtune export` made")
    serve.add_argument("--base", action="store_true", help="serve the untuned model instead")
    serve.add_argument("--precision", choices=["f16", "q8_0"], default="f16", help="default: %(default)s")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s, loopback)")
    serve.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0: a free one")
    serve.add_argument("--threads", type=int, metavar="N", help="of the CPU (default: compute.threads)")
    serve.set_defaults(call=_serve)
    demo = commands.add_parser("demo", help="a page on which the base and the adapter answer side by side")
    demo.add_argument(
        "--adapter", type=path_from_here, default=Path("models/adapter"), help="default: %(default)s"
    )
    demo.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s, loopback)")
    demo.add_argument("--port", type=int, default=7860, help="default: %(default)s; 0: a free one")
    demo.set_defaults(call=_demo)
    add = commands.add_parser("add", help="a file of questions: tracked by DVC, named in params.yaml")
    add.add_argument(
        "files",
        nargs="*",
        type=from_here,
        metavar="FILE",
        help="or a pattern (default: what params.yaml names)",
    )
    add.set_defaults(call=_add)
    use = commands.add_parser("use", help="put a profile's model and settings into params.yaml")
    use.add_argument("name", nargs="?", help="of profiles/NAME.yaml (default: list them)")
    use.add_argument("--list", action="store_true", help="list the profiles")
    use.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    use.set_defaults(call=_use)
    pin = commands.add_parser("pin", help="write the present commits and hashes into params.yaml")
    pin.add_argument("names", nargs="*", metavar="NAME", help="model, or a source (default: all on the hub)")
    pin.add_argument("--revision", metavar="REF", help="a branch, tag or commit (default: the main branch)")
    pin.add_argument("--dry-run", action="store_true", help="show what would change, and write nothing")
    pin.set_defaults(call=_pin)
    plan = commands.add_parser("plan", help="memory and time of the stages, and what the test can show")
    plan.add_argument("profile", nargs="?", help="of profiles/NAME.yaml (default: params.yaml as it is)")
    plan.add_argument(
        "--device", choices=["cpu", "cuda"], help="the memory on one elsewhere (default: all of the one here)"
    )
    plan.add_argument("--worst", action="store_true", help="for the longest examples allowed: try none")
    plan.add_argument("--price-per-hour", type=_price, metavar="P", help="of the machine: tell the cost")
    plan.add_argument("--json", action="store_true", help="the same figures for programs")
    plan.set_defaults(call=_plan)
    check = commands.add_parser("check", help="what would make a stage fail at once, told before it runs")
    check.set_defaults(call=_check)
    show = commands.add_parser("show", help="prepared examples as the model sees them, token by token")
    show.add_argument("id", nargs="?", metavar="ID", help="of any split (default: the first of training)")
    show.add_argument("--kind", help="the first of this kind of question")
    show.add_argument("--split", help="train, validation or test (default: train; of an ID: all)")
    show.add_argument("-n", dest="count", type=int, default=1, help="the first N (default: %(default)s)")
    show.add_argument("--json", action="store_true", help="the same for programs, with the id of every token")
    show.set_defaults(call=_show)
    runs = commands.add_parser("runs", help="commits and experiments: what differs, and the headline metrics")
    runs.add_argument("revisions", nargs="*", metavar="REV", help="commits (default: the current one)")
    runs.add_argument("-n", dest="commits", type=int, default=1, help="the last N commits of each REV")
    runs.add_argument("--all-commits", action="store_true", help="every commit, and what was tried on it")
    runs.add_argument("--json", action="store_true", help="the same for programs, with full names")
    runs.set_defaults(call=_runs)
    diff = commands.add_parser("diff", help="is one run better than another, or was it luck?")
    diff.add_argument(
        "before", metavar="A", type=side_from_here, help="a commit, an experiment, or a file of predictions"
    )
    diff.add_argument(
        "after", metavar="B", type=side_from_here, nargs="?", default="workspace", help="default: %(default)s"
    )
    diff.add_argument("--common", action="store_true", help="of different test sets the questions of both")
    diff.add_argument("--examples", type=int, default=5, metavar="N", help="gained and lost ones to show")
    diff.add_argument("--fail-if-worse", action="store_true", help="exit code 1 if a loss is shown")
    form = diff.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="as Markdown, for a pull request")
    form.add_argument("--json", action="store_true", help="the same for programs, with all examples")
    diff.set_defaults(call=_diff)
    explain = commands.add_parser("explain", help="what differs between two revisions, and what of it counts")
    explain.add_argument("before", metavar="A", help="a commit, a branch, an experiment")
    explain.add_argument("after", metavar="B", nargs="?", default="workspace", help="default: %(default)s")
    explain.add_argument(
        "--steps", type=int, default=4, metavar="N", help="of training (default: %(default)s)"
    )
    explain.add_argument("--answers", type=int, default=8, metavar="N", help="to ask (default: 8)")
    explain.add_argument("--no-run", action="store_true", help="list what differs, and try nothing")
    explain.add_argument(
        "--json", action="store_true", help="the same for programs, with the ids of all rows"
    )
    explain.set_defaults(call=_explain)
    score = commands.add_parser("score", help="judge anybody's predictions by the same rules")
    score.add_argument(
        "file", type=path_from_here, help="JSONL: question, ground_truth and prediction in each line"
    )
    score.add_argument("--json", action="store_true", help="the same for programs, with every verdict")
    score.set_defaults(call=_score)
    seeds = commands.add_parser("seeds", help="this run with other seeds: how far its figures scatter")
    seeds.add_argument(
        "--n", type=int, default=5, help="runs, that of the commit among them (default: %(default)s)"
    )
    seeds.add_argument("--json", action="store_true", help="the same for programs, with every value")
    seeds.set_defaults(call=_seeds)
    without = commands.add_parser("without", help="a run that never saw some rows, and the proof of it")
    without.add_argument("ids", nargs="*", metavar="ID", help="of the rows")
    without.add_argument("--file", type=path_from_here, help="a file of ids, one a line")
    without.add_argument("--group", action="store_true", help="and all rows of the same groups")
    without.add_argument("--json", action="store_true", help="the same for programs")
    without.set_defaults(call=_without)
    search = commands.add_parser("search", help="settings of the training with a lower validation loss")
    search.add_argument("name", help="of searches/NAME.yaml, which says what may be tried")
    search.add_argument("--trials", type=int, metavar="N", help="runs in all (default: as the file says)")
    search.add_argument("--json", action="store_true", help="the same for programs, with every trial")
    search.set_defaults(call=_search)
    _add_export(commands)
    verify = commands.add_parser("verify", help="check the chain from the data to the metrics")
    verify.add_argument("--rerun", action="store_true", help="run the pipeline again, in a copy, and compare")
    verify.add_argument(
        "--tolerance",
        type=float,
        default=0.05,
        help="how far a rate or loss of the second run may be off (default: %(default)s)",
    )
    verify.add_argument(
        "--rebuilt-by", type=int, metavar="N", help="fail unless N trusted keys say they rebuilt this commit"
    )
    verify.add_argument(
        "--keys", type=path_from_here, metavar="FOLDER", help="of those (default: attestations/keys)"
    )
    verify.add_argument("--json", action="store_true", help="the same for programs")
    verify.set_defaults(call=_verify)
    _add_attest(commands)
    remote = commands.add_parser("check-remote", help="check that the DVC remote holds what the commit names")
    remote.add_argument("name", nargs="?", help="default: the default remote")
    remote.add_argument(
        "--mend", action="store_true", help="push again what is damaged or missing there and whole here"
    )
    remote.add_argument("--json", action="store_true", help="the state of every object, for programs")
    remote.set_defaults(call=_check_remote)
    push = commands.add_parser("push-runs", help="push what every stage made so far, for others to reuse")
    push.add_argument("name", nargs="?", help="default: the default remote")
    push.set_defaults(call=_push_runs)
    pull = commands.add_parser("pull", help="fetch this commit's run; says first whether the remote has it")
    pull.add_argument("name", nargs="?", help="a remote (default: the default remote)")
    pull.set_defaults(call=_pull)
    completion = commands.add_parser("completion", help="a script for your shell: TAB completes commands")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(call=_completion)
    describe_groups(parser, commands)
    return parser


def _add_attest(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    attest = commands.add_parser("attest", help="sign a statement that this commit gives these outputs")
    attest.add_argument(
        "--key", type=path_from_here, metavar="FILE", help="yours (default: $MEDTUNE_KEY, else ~/.config)"
    )
    what = attest.add_mutually_exclusive_group()
    what.add_argument(
        "--rebuild", action="store_true", help="run it anew in a clean clone first; only that counts"
    )
    what.add_argument(
        "--new-key", metavar="NAME", help="make a key; its public half is attestations/keys/NAME.pem"
    )
    what.add_argument("--public-key", metavar="NAME", help="write the public half of your key there")
    attest.set_defaults(call=_attest)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser("export", help="the adapter for other runtimes, and its drift in each")
    export.add_argument(
        "formats", nargs="*", metavar="FORMAT", help="of merged, gguf and adapter (default: all)"
    )
    export.add_argument("--questions", type=int, metavar="N", help="ask so many (default: export.questions)")
    export.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="of merged (default: that of the base)"
    )
    export.add_argument("--foreign", action="store_true", help="an adapter that was not trained here")
    export.add_argument("--stage", action="store_true", help="let `dvc repro` do it: a stage in dvc.yaml")
    export.add_argument(
        "--publish",
        metavar="ORG/NAME",
        help="push one that has passed: without --yes, show what",
    )
    export.add_argument("--yes", action="store_true", help="with --publish: really push it")
    export.add_argument("--public", action="store_true", help="with --publish: for everybody to read")
    export.add_argument("--anyway", action="store_true", help="with --publish: also if it was asked little")
    form = export.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="as Markdown")
    form.add_argument("--json", action="store_true", help="the same for programs")
    export.set_defaults(call=_export)


def _ask(arguments: argparse.Namespace) -> None:
    if not arguments.question.strip():
        raise MedtuneError("the question is empty")
    with waiting("loading the model") as now:
        from medtune.answer.answerer import Answerer

        answerer = Answerer.load(adapter=None if arguments.base else arguments.adapter)
        now("answering")
        answer = answerer.ask_in_full(arguments.question, arguments.context)
    print(answer.text)
    if answer.truncated:
        print(f"cut off at {answer.tokens} tokens (answer.max_new_tokens in params.yaml)", file=sys.stderr)


def _chat(arguments: argparse.Namespace) -> None:
    with waiting("loading"):
        from medtune.commands.chat import chat

    chat(None if arguments.base else arguments.adapter, arguments.context)


def _serve(arguments: argparse.Namespace) -> None:
    from medtune.commands.serve import serve

    serve(
        base=arguments.base,
        precision=arguments.precision,
        host=arguments.host,
        port=arguments.port,
        threads=arguments.threads,
    )


def _demo(arguments: argparse.Namespace) -> None:
    from medtune.commands.demo import demo

    demo(arguments.adapter, arguments.host, arguments.port)


def _add(arguments: argparse.Namespace) -> None:
    from medtune.commands.add import add

    print(add(arguments.files))


def _use(arguments: argparse.Namespace) -> None:
    from medtune.commands.pin import unpinned_names
    from medtune.commands.profiles import apply_profile, declare_sources, list_profiles, touches_data

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
        if touches_data(arguments.name) and declare_sources():
            print("\ndvc.yaml: code and prepare depend on other files now")
        unpinned = unpinned_names()
        pin = f"medtune pin {' '.join(unpinned)} && " if unpinned else ""
        print(f"\nparams.yaml is profile {arguments.name}; run: {pin}dvc repro")


def _pin(arguments: argparse.Namespace) -> None:
    from medtune.commands.pin import pin

    difference = pin(arguments.names, arguments.revision, write=not arguments.dry_run)
    if not difference:
        print("params.yaml has the present commits and hashes already: nothing changes")
        return
    print(difference)
    print("\nnothing was written" if arguments.dry_run else "\nparams.yaml is pinned; run: dvc repro")


def _price(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (price := float(text)) < math.inf:
            return price
    raise argparse.ArgumentTypeError(f"'{text}' is no price; accepted: a number from 0 on")


def _plan(arguments: argparse.Namespace) -> None:
    from medtune.commands.plan import make_plan

    with waiting("planning; what is here is tried, which takes about half a minute"):
        plan = make_plan(arguments.profile, kind=arguments.device, worst=arguments.worst)
    print(plan.as_json() if arguments.json else plan.describe(arguments.price_per_hour))


def _check(_: argparse.Namespace) -> None:
    with waiting("checking"):
        from medtune.commands.check import describe_check

        described = describe_check()
    print(described)


def _show(arguments: argparse.Namespace) -> None:
    from medtune.commands.show import describe_shown, show_examples, shown_as_json, takes_colour

    with waiting("reading the tokenizer and the questions"):
        found = show_examples(arguments.id, arguments.kind, arguments.split, arguments.count)
    print(shown_as_json(found) if arguments.json else describe_shown(found, colour=takes_colour(sys.stdout)))


def _runs(arguments: argparse.Namespace) -> None:
    with waiting("reading commits and experiments"):
        from medtune.commands.runs import describe_runs, find_runs, runs_as_json

        runs = find_runs(arguments.revisions, commits=arguments.commits, all_commits=arguments.all_commits)
    print(runs_as_json(runs) if arguments.json else describe_runs(runs))


def _diff(arguments: argparse.Namespace) -> None:
    from medtune.commands.diff import describe_diff, diff_as_json, make_diff, require_no_loss

    if arguments.examples < 0:
        raise MedtuneError(f"--examples is {arguments.examples}: must be 0 or more")
    with waiting("reading both sides") as now:
        diff = make_diff(arguments.before, arguments.after, common=arguments.common, watch=now)
    if arguments.json:
        print(diff_as_json(diff))
    else:
        print(describe_diff(diff, markdown=arguments.md, examples=arguments.examples))
    if arguments.fail_if_worse:
        require_no_loss(diff)


def _explain(arguments: argparse.Namespace) -> None:
    from medtune.commands.explain import describe_explanation, explained, explanation_as_json

    found = explained(
        arguments.before,
        arguments.after,
        steps=arguments.steps,
        answers=arguments.answers,
        run=not arguments.no_run,
    )
    print(explanation_as_json(found) if arguments.json else describe_explanation(found))


def _score(arguments: argparse.Namespace) -> None:
    with waiting("judging"):
        from medtune.commands.score import describe_score, score_as_json, score_file

        scored = score_file(arguments.file)
    print(score_as_json(scored) if arguments.json else describe_score(scored))


def _seeds(arguments: argparse.Namespace) -> None:
    from medtune.commands.seeds import describe_seeds, seeds_as_json, train_seeds

    found = train_seeds(arguments.n)
    print(seeds_as_json(found) if arguments.json else describe_seeds(found))


def _without(arguments: argparse.Namespace) -> None:
    from medtune.commands.without import describe_withdrawal, require_proven, withdraw, withdrawal_as_json

    found = withdraw(arguments.ids, arguments.file, group=arguments.group)
    print(withdrawal_as_json(found) if arguments.json else describe_withdrawal(found))
    require_proven(found)


def _search(arguments: argparse.Namespace) -> None:
    from medtune.commands.search import describe_search, search, search_as_json

    found = search(arguments.name, arguments.trials)
    print(search_as_json(found) if arguments.json else describe_search(found))


def _export(arguments: argparse.Namespace) -> None:
    from medtune.commands.export import chosen_formats, describe_export, export_as_json

    formats = chosen_formats(arguments.formats)
    if arguments.questions is not None and arguments.questions < 1:
        raise MedtuneError(f"--questions is {arguments.questions}: must be 1 or more")
    if arguments.publish is not None:
        _publish(arguments, formats)
        return
    if arguments.yes or arguments.public or arguments.anyway:
        raise MedtuneError("--yes, --public and --anyway go with --publish ORG/NAME")
    if arguments.stage:
        from medtune.export.stage_file import declare

        changed = declare(formats)
        said = f"dvc.yaml: the stage export makes {', '.join(formats)}" if changed else "nothing changes"
        print(f"{said}; run: dvc repro")
        return
    from medtune.export.exporting import Options, export
    from medtune.export.places import require_passed

    found = export(formats, Options(arguments.questions, arguments.dtype, arguments.foreign))
    if arguments.json:
        print(export_as_json(found))
    else:
        print(describe_export(found, formats, markdown=arguments.md))
    require_passed(found, formats)


def _publish(arguments: argparse.Namespace, formats: "Sequence[Format]") -> None:
    from medtune.export.publish import describe_publication, planned, publish

    if len(formats) != 1:
        raise MedtuneError(f"--publish takes one format: medtune export {formats[0]} --publish ORG/NAME")
    publication = planned(formats[0], arguments.publish, anyway=arguments.anyway)
    if arguments.yes:
        print(f"pushed: {publish(publication, public=arguments.public)}")
        return
    print(describe_publication(publication))
    seen = "everybody reads it" if arguments.public else "private"
    print(f"\nnothing was pushed ({seen}); --yes pushes it")


def _verify(arguments: argparse.Namespace) -> None:
    with waiting("loading"):
        from medtune.verify.chain import describe_broken, describe_links, require_own_code, verify_chain
        from medtune.verify.rerun import rerun
        from medtune.verify.uncommitted import uncommitted

    if arguments.keys is not None and arguments.rebuilt_by is None:
        raise MedtuneError("--keys goes with --rebuilt-by N")
    require_own_code()
    with waiting("verifying") as now:
        links, changed = verify_chain(now), uncommitted()
    broken = describe_broken(links)
    found = {"links": [asdict(link) for link in links], "uncommitted": changed}
    if not arguments.json:
        print(describe_links(links, changed))
    comparison = None
    if arguments.rerun and not broken:
        comparison = rerun(sys.stderr if arguments.json else sys.stdout)
        found["rerun"] = asdict(comparison) | {"verdict": comparison.verdict(arguments.tolerance)}
        if not arguments.json:
            print(comparison.describe(arguments.tolerance))
    rebuilders = None
    if arguments.rebuilt_by is not None and not broken:
        _require_signing()
        from medtune.commands.attest import describe_rebuilders
        from medtune.verify.rebuilders import find_rebuilders

        rebuilders = find_rebuilders(arguments.rebuilt_by, arguments.keys)
        found["rebuilt_by"] = rebuilders.as_dict()
        if not arguments.json:
            print(describe_rebuilders(rebuilders))
    if arguments.json:
        print(json.dumps(found, indent=2))
    if broken:
        raise MedtuneError(broken)
    if comparison and comparison.verdict(arguments.tolerance) == "different":
        raise MedtuneError("the second run is another one; how much so stands above")
    if rebuilders:
        rebuilders.require_enough()


def _require_signing() -> None:
    if find_spec("securesystemslib") is None:
        raise MedtuneError("securesystemslib, which signs, is not installed; run: pip install '.[attest]'")


def _attest(arguments: argparse.Namespace) -> None:
    _require_signing()
    from medtune.commands.attest import attest
    from medtune.verify.keys import create_key, default_key, publish_key

    key = arguments.key or default_key()
    if name := arguments.new_key or arguments.public_key:
        public, identity = (create_key if arguments.new_key else publish_key)(key, name)
        print(
            f"private: {key} (keep it; nobody else may have it)\npublic:  {public}, the key {identity[:12]}"
        )
        return
    attested = attest(key, sys.stdout if arguments.rebuild else None)
    print(attested.describe())
    attested.require_same_bytes()


def _check_remote(arguments: argparse.Namespace) -> None:
    from medtune.verify.remotes import check_remote, mend_remote

    with waiting("reading the remote") as now:
        objects = check_remote(arguments.name, now)
    faults = [entry for entry in objects if entry.state != "whole"]
    said = [f"{fault.state:<9}{fault.path}" for fault in faults]
    if faults and arguments.mend:
        with waiting("mending the remote") as now:
            mend_remote(arguments.name)
            objects = check_remote(arguments.name, now)
        faults = [entry for entry in objects if entry.state != "whole"]
        said += [f"still {fault.state}: {fault.path}" for fault in faults]
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in objects], indent=2))
    elif said and not _holds_none(objects):
        print("\n".join(said))
    if _holds_none(objects) and not arguments.mend:
        raise MedtuneError(
            f"the remote has none of this commit's {len(objects)} objects; where the run was made, run "
            "`dvc push`, or this with --mend if they were pushed once"
        )
    if faults:
        hint = "run `dvc repro` to make them here, then this again" if arguments.mend else "try --mend"
        raise MedtuneError(f"{len(faults)} of {len(objects)} objects are missing or damaged; {hint}")
    if not arguments.json:
        print(f"all {len(objects)} objects are whole")


def _holds_none(objects: "Sequence[RemoteObject]") -> bool:
    return bool(objects) and all(entry.state == "missing" for entry in objects)


def _push_runs(arguments: argparse.Namespace) -> None:
    from medtune.verify.remotes import push_runs

    print(f"{push_runs(arguments.name)} runs of stages are in the remote")


def _pull(arguments: argparse.Namespace) -> None:
    from medtune.commands.pull import pull

    print(pull(arguments.name))


def _completion(arguments: argparse.Namespace) -> None:
    from medtune.commands.command_help import completion

    print(completion(_parser(), arguments.shell))


if __name__ == "__main__":
    main()
