"""`completion`."""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App

from .names import SHELLS, Shell


def completion_of(app: App) -> Callable[[str], None]:
    """The verb that prints the script of a command line."""

    def completion(shell: Shell, /):
        """Print a script that completes verbs, options and names in bash, zsh or fish.

        Examples:

          nasaug completion bash > ~/.local/share/bash-completion/completions/nasaug

          nasaug completion zsh > ~/.zfunc/_nasaug

          nasaug completion fish > ~/.config/fish/completions/nasaug.fish

        A new shell has it. zsh needs `fpath+=~/.zfunc` before `compinit` in ~/.zshrc. Print it again after an update.

        :param shell: bash, zsh or fish.
        """
        from ..core.errors import unknown

        if shell not in SHELLS:
            raise unknown("shell", shell, SHELLS)
        print(app.generate_completion(shell=shell))  # type: ignore[arg-type]  # it is one of them

    return completion
