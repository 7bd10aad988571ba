"""``gtft``: finds the noun, loads its file, turns errors into words and exit codes."""

from __future__ import annotations

import importlib
import json
import sys

import click

from gtft import __version__
from gtft.errors import GtftError, InternalError, translate_os_error

# noun or verb -> (file under gtft.cli, one-line help). The file exports ``command``.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run a recipe, or a bead of a run, up to where somebody must decide."),
    "plan": ("plan", "What a training will need, and whether it fits on this box."),
    "dispatch": ("dispatch", "Create the beads of a run; workers claim them."),
    "work": ("work", "Claim ready training beads and carry them out."),
    "status": ("status", "What runs, what waits, and for whom."),
    "runs": ("runs", "Runs: list, show, page, logs, pause, resume, cancel."),
    "review": ("review", "Evidence that waits for a witness: list, show, blind, approve, reject."),
    "recipe": ("recipe", "Recipes: list, show, lint, explain, new."),
    "corpus": ("corpus", "Corpora: list, show, health, preview."),
    "eval": ("eval", "Evaluations: run, list, show, compare, items."),
    "model": ("model", "Models: list, show, card, compare, export, serve, alias, prune, why."),
    "advise": ("advise", "What a role's model would do, as advice to the agent that decides."),
    "deploy": ("deploy", "Put a model into the service of a role: shadow, advise, live."),
    "rollback": ("rollback", "A role back on what ran it before, in a second."),
    "swarm": ("swarm", "Train one adapter with peers: id, create, invite, join, status, leave."),
    "sweep": ("sweep", "Deliver, resume, mend, watch, retrain, expire: for a dog or cron."),
    "town": ("town", "The town around gtft: status, install, uninstall."),
    "hook": ("hook", "What the installed hooks call; not for people."),
    "history": ("history", "What happened in a run; in a town also Dolt's versions of it."),
    "store": ("store", "Where the state is: show, move it into a town."),
    "doctor": ("doctor", "What is installed, what would fail, and how to mend it."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gtft.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{e.message} Did you mean: gtft {near[0]}?", ctx) from e
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start here: gtft run mol-gtft-quickstart    (docs/tutorial.md)",
)
@click.version_option(__version__, prog_name="gtft")
@click.option(
    "--workspace",
    metavar="DIR",
    envvar="GTFT_WORKSPACE",
    help="Where gtft keeps its state.  [default: .gtft under the current folder]",
)
@click.pass_context
def main(ctx: click.Context, workspace: str | None) -> None:
    """Fine-tuning for Gas Town, as bead-tracked jobs."""
    ctx.obj = workspace


def run(argv: list[str] | None = None) -> None:
    """The console entry point: the exit code is the error's own (docs/errors.md)."""
    args = sys.argv[1:] if argv is None else argv
    try:
        # Without standalone mode click returns what ``ctx.exit(code)`` was given.
        result = main.main(args=args, prog_name="gtft", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.ClickException as e:
        _report(GtftErrorView(e.format_message(), 2, "usage"), args, e)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; nothing acknowledged is lost (gtft status)", err=True)
        code = 130
    except BrokenPipeError:
        code = 0
    except GtftError as e:
        _report_error(e, args)
        code = e.exit_code
    except OSError as e:
        error = translate_os_error(e, "running this command")
        _report_error(error, args)
        code = error.exit_code
    sys.exit(code)


class GtftErrorView:
    """A usage error of the command line, in the same JSON shape as ours."""

    def __init__(self, what: str, exit_code: int, kind: str) -> None:
        self.what, self.exit_code, self.kind = what, exit_code, kind


def _report(view: GtftErrorView, args: list[str], error: click.ClickException) -> None:
    if "--json" in args:
        body = {"kind": view.kind, "exit_code": view.exit_code, "what": view.what}
        click.echo(json.dumps({"ok": False, "error": body}))
    else:
        error.show()


def _report_error(error: GtftError, args: list[str]) -> None:
    if "--json" in args:
        click.echo(json.dumps({"ok": False, "error": error.as_dict()}))
        return
    label = "bug in gtft" if isinstance(error, InternalError) else f"error ({error.kind})"
    click.echo(f"{label}: {error}", err=True)


if __name__ == "__main__":
    run()
