"""What tests of whole searches share."""

import pytest

from atom_nas.search import Progress, SearchSettings, run_search


def interrupt(settings: SearchSettings, ran: list[tuple[str, str]], *, after: int) -> None:
    """Search until so many trials have run, one of them told of, and stop it as Ctrl-C does."""

    def stop(progress: Progress) -> None:
        if len(ran) == after and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(settings, progress=stop)
