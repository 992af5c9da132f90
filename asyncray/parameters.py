"""What arguments a method takes, small enough to travel with every handle."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, Final

_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def described(signature: inspect.Signature) -> str:
    """Names, kinds, and what may be left out: "1amount= 3key" is (amount=…, *, key)."""
    return " ".join(
        f"{int(parameter.kind)}{name}{'' if parameter.default is parameter.empty else '='}"
        for name, parameter in signature.parameters.items()
    )


def signature_of(description: str) -> inspect.Signature:
    """The signature that was described; what may be left out is None."""
    parameters = []
    for told in description.split():
        default = None if told.endswith("=") else inspect.Parameter.empty
        kind: Any = int(told[0])
        parameters.append(inspect.Parameter(told[1:].removesuffix("="), kind, default=default))
    return inspect.Signature(parameters)


@lru_cache(maxsize=4096)
def misfit(description: str, count: int, names: tuple[str, ...]) -> str:
    """What is wrong with arguments for the signature that was described; "" when nothing is.

    Args:
        description: What ``described`` returned.
        count: How many positional arguments there are.
        names: The keyword arguments'.
    """
    try:
        signature_of(description).bind(*[None] * count, **dict.fromkeys(names))
    except TypeError as error:
        return str(error)
    return ""


def positional_alone(signature: inspect.Signature) -> tuple[int, float]:
    """How many positional arguments alone are fine: fewest and most. None are where keywords are needed."""
    parameters = signature.parameters.values()
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return 1, 0
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    fewest = sum(p.default is p.empty for p in positional)
    any_number = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    return fewest, float("inf") if any_number else len(positional)


def without_self(signature: inspect.Signature) -> inspect.Signature:
    """The signature of a method as its callers see it."""
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind not in _VARIABLE:
        parameters = parameters[1:]
    return signature.replace(parameters=parameters)
