"""`loader completion`: what a shell needs to complete commands, options and files."""

import click
from click.shell_completion import get_completion_class

from loader.cli.endings import ends


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
@ends
def completion(context: click.Context, shell: str) -> None:
    """Write what a shell needs to complete commands, options and files with TAB.

    \b
    loader completion bash > ~/.local/share/bash-completion/completions/loader
    loader completion zsh > ~/.zfunc/_loader
    loader completion fish > ~/.config/fish/completions/loader.fish

    bash takes it from there if its package bash-completion is installed, zsh if ~/.zfunc is in fpath before compinit is
    called. Or, for the shell that is open: eval "$(loader completion bash)".
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, "loader", "_LOADER_COMPLETE")
    click.echo(script.source_template % script.source_vars())  # source() would ask this machine's bash for its version
