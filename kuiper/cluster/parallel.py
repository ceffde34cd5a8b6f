"""Work on many hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kuiper.cluster.host import AT_ONCE
from kuiper.errors import KuiperError


def in_parallel(work: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
    """What `work` returns for each, at most 32 at once.

    Raises:
        KuiperError: some failed, after all have been tried; says it of each of them.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        begun = [pool.submit(work, thing) for thing in things]
    failures = [error for done in begun if (error := done.exception()) is not None]
    unforeseen = next((error for error in failures if not isinstance(error, KuiperError)), None)
    if failures:
        raise unforeseen or together(failures)
    return [done.result() for done in begun]


def together(errors: Sequence[KuiperError]) -> KuiperError:
    """Several errors as one, of the kind of the first; a remedy that several share is said once."""
    *others, last = errors
    said = [each.message if each.remedy == last.remedy else str(each) for each in others]
    return type(errors[0])("\n".join(dict.fromkeys([*said, last.message])), last.remedy)
