"""The book: its chapters are executed, its pages built and checked."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`build_book`, imported by the one who asks for it: a single chapter needs none of what builds a book."""
    if name != "build_book":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from fer_repro.book.build import build_book

    return build_book
