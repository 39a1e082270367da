"""What a job costs in memory, how it is run to fit, and what is done when it does not."""
