"""What the reader of an exchange awaits."""

class Arrival:
    """A future to its task, except for when the task goes on: inside the arrival of the bytes."""
