"""Files, text, the terminal, this machine and its slots for jobs."""
