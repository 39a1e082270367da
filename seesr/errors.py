"""The errors that a user can cause and mend. Everything else is a defect and is raised as it is."""


class SeeSRError(Exception):
    """Base of all errors whose message is one sentence for the user: what, the value, the limit, what to do."""


class InputError(SeeSRError):
    """The picture given cannot be used: missing, not a picture, damaged, or beyond a limit."""


class OptionError(SeeSRError):
    """An option has a value that it cannot have."""


class WeightsError(SeeSRError):
    """Model files are missing or are not what they should be."""


class OutputError(SeeSRError):
    """The result cannot be written where it was asked to go."""


class OutOfMemoryError(SeeSRError):
    """Memory ran out on every way there is."""


class TimeLimitError(SeeSRError):
    """The picture took longer than the operator allows."""


class ComputeError(SeeSRError):
    """The models gave numbers that are none, in every precision."""
