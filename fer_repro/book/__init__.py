"""The book: its chapters are executed, its pages built and checked."""
