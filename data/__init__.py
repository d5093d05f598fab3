"""Text in, problems out: tokenizers, the toy world, problem sets, grading, corpora, benchmarks."""


class UserError(ValueError):
    """What is wrong with the user's input and what to do next, in one line."""
