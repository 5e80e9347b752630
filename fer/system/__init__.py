"""The system: files, text, the terminal, this machine, slots for jobs."""
